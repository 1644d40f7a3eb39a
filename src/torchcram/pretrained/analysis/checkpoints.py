"""Analyse the checkpoints of one training, one after the other, on the same text: does redundancy fall
while a model trains?
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torchcram.pretrained.analysis.analyze import analyze
from torchcram.pretrained.analysis.settings import AnalysisConfig
from torchcram.pretrained.loading import load_model
from torchcram.runs.run_dir import RunDir

SERIES = "series.json"


def find_checkpoints(folder: Path, pattern: str) -> list[Path]:
    """Return the folders that match, in the order of the last number in their names.

    Raises:
        ValueError: if there are none.
    """
    checkpoints = [path for path in folder.glob(pattern) if (path / "config.json").is_file()]
    if not checkpoints:
        raise ValueError(f"no folder in {folder} matches {pattern!r} and holds a model (config.json)")
    return sorted(checkpoints, key=lambda path: (step_of(path), path.name))


def step_of(path: Path) -> int:
    """Return the last number in the name of a checkpoint, -1 if it has none."""
    numbers = re.findall(r"\d+", path.name)
    return int(numbers[-1]) if numbers else -1


def analyze_series(
    folder: Path,
    pattern: str,
    texts: Sequence[str],
    *,
    settings: AnalysisConfig,
    out: Path,
    dtype: str = "float32",
    show_progress: bool = False,
) -> list[dict[str, Any]]:
    """Analyse each checkpoint into a folder of its own, and write ``series.json`` after each.

    Args:
        folder: holds the checkpoints.
        pattern: of their names.
        texts: one string per document.
        settings: of each analysis.
        out: folder of the series; finished analyses in it are not computed again.
        dtype: of the weights.
        show_progress: show live progress on stderr.

    Returns:
        One record per checkpoint: its step, and its summary.
    """
    records: list[dict[str, Any]] = []
    for path in find_checkpoints(folder, pattern):
        model, tokenizer = load_model(str(path), dtype=dtype)
        analysis = analyze(
            model,
            tokenizer,
            texts,
            settings=settings,
            out=out / path.name,
            name=path.name,
            show_progress=show_progress,
        )
        records.append({"checkpoint": path.name, "step": step_of(path), "summary": analysis.summary})
        RunDir(out).write_json(SERIES, records)
    return records
