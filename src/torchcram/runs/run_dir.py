"""A run's folder: configuration and environment first, metrics while it runs, checkpoints, the summary last.

This is the only reader and writer of such folders. What is in a configuration is the caller's affair.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from torchcram.runs.environment import environment
from torchcram.runs.files import draft_of, load_json, write_json, write_text
from torchcram.runs.lock import LOCK, alone
from torchcram.runs.metrics import Record, append_line, last_step, load_lines, mark, text_until
from torchcram.strict import ConfigT, StrictConfig

CONFIG, ENVIRONMENT, METRICS, SUMMARY = "config.json", "environment.json", "metrics.jsonl", "summary.json"
CHECKPOINT, MODEL = "checkpoint", "model.safetensors"
ROUTE_MAP, CALIBRATION = "route_map.json", "calibration.json"
# What an acquisition that other runs start from ends with, in place of a summary.
ACQUISITION = "acquisition.json"


class RunDir:
    """Paths, reading and writing of one run.

    Args:
        path: the folder.
        writes: False for the processes of a distributed run that leave writing to the main one: their writes
            do nothing.
    """

    def __init__(self, path: Path, *, writes: bool = True):
        self.path, self.writes = path, writes

    @classmethod
    @contextmanager
    def open(cls, path: Path, config: StrictConfig, *, resume: bool) -> Iterator[RunDir]:
        """Make the folder, or take up an existing one, and keep other processes out of it meanwhile.

        Raises:
            ValueError: if the folder holds another configuration, or the same one without ``resume``, or
                another process is at it; nothing is overwritten.
        """
        run = cls(path)
        run._require_place_for(config, resume=resume)
        # What is finished is only read, maybe where nothing can be written.
        with nullcontext() if run.finished else alone(path):
            run._require_place_for(config, resume=resume)
            if run._is_blank():
                # The configuration is what makes the folder a run, so it comes last.
                run.write_json(ENVIRONMENT, environment())
                run.write_json(CONFIG, config.model_dump(mode="json"))
            yield run

    def _require_place_for(self, config: StrictConfig, *, resume: bool) -> None:
        if self._is_blank():
            return
        if not (self.path / CONFIG).exists():
            raise ValueError(
                f"{self.path} exists and is not a run (it has no {CONFIG}): choose another folder with --out"
            )
        if self.config(type(config)) != config:
            raise ValueError(
                f"{self.path} holds a run with another configuration: choose another folder with --out, or "
                "delete it"
            )
        if not resume:
            done = (
                "this run, finished: look at it with report"
                if self.finished
                else "this run: continue it with --resume"
            )
            raise ValueError(f"{self.path} already holds {done}, or choose another folder with --out")

    def _is_blank(self) -> bool:
        """Whether the folder is new, or holds nothing but what a process killed at once leaves behind."""
        started = {LOCK, ENVIRONMENT, *(draft_of(Path(name)).name for name in (ENVIRONMENT, CONFIG))}
        return not self.path.exists() or (
            self.path.is_dir() and {entry.name for entry in self.path.iterdir()} <= started
        )

    @property
    def finished(self) -> bool:
        """Whether the run has its summary, which is written last."""
        return (self.path / SUMMARY).exists()

    def config(self, kind: type[ConfigT]) -> ConfigT:
        """Return the run's configuration.

        Raises:
            ValueError: if the folder is no run, or its configuration is damaged or no longer fits ``kind``.
        """
        tree = self.config_tree()
        try:
            return kind.parse(tree)
        except ValueError as error:
            raise ValueError(
                f"{self.path / CONFIG} does not fit this version of torchcram: {error}"
            ) from None

    def config_tree(self) -> Record:
        """Return the run's configuration as it was written, for those that show it.

        Raises:
            ValueError: if the folder is no run, or its configuration is damaged.
        """
        if not self.path.is_dir():
            raise ValueError(f"there is no run {self.path}")
        tree = self.find_json(CONFIG)
        if tree is None:
            raise ValueError(f"{self.path} is no run: it has no {CONFIG}")
        return tree

    def load_json(self, name: str) -> Record:
        """Return the object in a JSON file of the run.

        Raises:
            ValueError: if it is missing or damaged.
        """
        content = self.find_json(name)
        if content is None:
            raise ValueError(
                f"{self.path} is no finished run, {name} is missing: finish it with train --resume"
            )
        return content

    def find_json(self, name: str) -> Record | None:
        """Return the object in a JSON file of the run, None if there is no such file.

        Raises:
            ValueError: if it is damaged.
        """
        try:
            return load_json(self.path / name)
        except FileNotFoundError:
            return None

    def write_json(self, name: str, content: Any) -> None:
        """Write a JSON file, see :func:`torchcram.runs.files.write_json`."""
        if self.writes:
            write_json(self.path / name, content)

    def write_text(self, name: str, text: str) -> None:
        """Write a text file, see :func:`torchcram.runs.files.write_text`."""
        if self.writes:
            write_text(self.path / name, text)

    def append_metrics(self, record: Record) -> None:
        """Append one line to the metrics, see :func:`torchcram.runs.metrics.append_line`."""
        if self.writes:
            append_line(self.path / METRICS, record)

    def metrics(self) -> list[Record]:
        """Return the metrics so far, see :func:`torchcram.runs.metrics.load_lines`."""
        return load_lines(self.path / METRICS)[0]

    def last_step(self) -> int | None:
        """Return the last step with metrics, see :func:`torchcram.runs.metrics.last_step`."""
        return last_step(self.path / METRICS)

    def metrics_mark(self) -> Record:
        """Return what tells the metrics so far from any others, for a checkpoint."""
        return mark(self.path / METRICS)

    def restore_metrics(self, mark: Record, *, source: RunDir | None = None) -> None:
        """Go back to the metrics at a mark, those of this run or of the one that it starts from.

        Raises:
            ValueError: if they are missing or damaged, see :func:`torchcram.runs.metrics.text_until`.
        """
        text = text_until((source or self).path / METRICS, mark)
        if self.metrics_mark() != mark:
            self.write_text(METRICS, text)

    def clear_metrics(self) -> None:
        """Drop all metrics: the run begins anew."""
        self.write_text(METRICS, "")
