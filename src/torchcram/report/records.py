"""A run as a report shows it, made from the files of its folder, never from a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from torchcram.runs.metrics import Record, load_lines
from torchcram.runs.run_dir import CALIBRATION, ENVIRONMENT, METRICS, ROUTE_MAP, SUMMARY, RunDir

Points = Float[np.ndarray, " points"]


@dataclass(frozen=True, kw_only=True)
class Phase:
    """A stretch of training steps in one phase; ``stop`` is where the next one starts, or the last step."""

    name: str
    start: int
    stop: int


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """Everything a report may show of one run.

    Attributes:
        directory: where the run lies.
        config, environment: as written before the first step; an empty dict where there is no environment.
        train, evaluations: the lines of their kind, by step; of a step repeated after a resume the last one
            counts.
        exposures, route_map, calibration, summary: None where the run has none (yet).
        torn: whether the last line of the metrics was cut off, as in a killed run.
    """

    directory: Path
    config: Record
    environment: Record
    train: list[Record]
    evaluations: list[Record]
    exposures: Record | None
    route_map: Record | None
    calibration: Record | None
    summary: Record | None
    torn: bool

    @property
    def last_step(self) -> int:
        """The last training step that was recorded."""
        return max(int(line["step"]) for line in (*self.train, *self.evaluations))

    @property
    def phases(self) -> list[Phase]:
        """The phases in the order in which they happened; empty for models without a controller."""
        named = [(str(line["phase"]), int(line["step"])) for line in self.train if line.get("phase")]
        starts = [
            entry for entry, before in zip(named, [("", -1), *named], strict=False) if entry[0] != before[0]
        ]
        stops = [*(step for _, step in starts[1:]), self.last_step][: len(starts)]
        return [
            Phase(name=name, start=start, stop=stop)
            for (name, start), stop in zip(starts, stops, strict=True)
        ]

    def floor(self, name: str) -> float | None:
        """Return a floor of the task (``any_layer_floor``, ``attention_share_floor``): the summary's, else
        the last evaluation's.
        """
        values = [
            line[name] for line in (*self.evaluations, self.summary or {}) if line.get(name) is not None
        ]
        return values[-1] if values else None

    def final(self, name: str, *path: str | int) -> float | None:
        """Return a figure of the summary, else that of the last evaluation, where ``path`` leads to it
        (default: the same name).
        """
        if self.summary is not None and self.summary.get(name) is not None:
            return float(self.summary[name])
        values = series(self.evaluations, *(path or (name,)))[1]
        return float(values[-1]) if len(values) else None


def series(lines: Sequence[Record], *path: str | int) -> tuple[Points, Points]:
    """Return steps and values of one field, e.g. ``series(record.evaluations, "accuracy", "novel")``,
    without the lines that lack it.
    """
    pairs = [(line["step"], value) for line in lines if (value := _lookup(line, path)) is not None]
    steps, values = zip(*pairs, strict=True) if pairs else ((), ())
    return np.array(steps, dtype=float), np.array(values, dtype=float)


def load_record(directory: Path) -> RunRecord:
    """Load the files of a run.

    Raises:
        ValueError: if the directory is no run, has recorded nothing yet, or one of its files is damaged; the
            message names the file.
    """
    run = RunDir(Path(directory))
    config, (lines, torn) = run.config_tree(), load_lines(run.path / METRICS)
    by_kind = {
        kind: {line["step"]: line for line in lines if line["kind"] == kind} for kind in ("train", "eval")
    }
    if not any(by_kind.values()):
        raise ValueError(
            f"{run.path} has recorded nothing yet: {METRICS} is missing or holds no complete line"
        )
    exposures = [line for line in lines if line["kind"] == "exposures"]
    return RunRecord(
        directory=run.path,
        config=config,
        environment=run.find_json(ENVIRONMENT) or {},
        train=[line for _, line in sorted(by_kind["train"].items())],
        evaluations=[line for _, line in sorted(by_kind["eval"].items())],
        exposures=exposures[-1] if exposures else None,
        route_map=run.find_json(ROUTE_MAP),
        calibration=run.find_json(CALIBRATION),
        summary=run.find_json(SUMMARY),
        torn=torn,
    )


def _lookup(line: Any, path: Sequence[str | int]) -> Any:
    for key in path:
        if isinstance(key, int):
            line = line[key] if isinstance(line, list) and key < len(line) else None
        else:
            line = line.get(key) if isinstance(line, dict) else None
    return line
