"""A run's folder: configuration and environment first, metrics while it runs, checkpoints, the summary last.

Every file is written beside itself and then renamed, so that a crash or a full disk leaves the old one;
metrics are appended line by line, and a line cut short by a crash is dropped when the run is resumed.
"""

from __future__ import annotations

import json
import math
import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from torchcram.runs.source import source_hash
from torchcram.training.run_config import RunConfig

CONFIG, ENVIRONMENT, METRICS, SUMMARY = "config.json", "environment.json", "metrics.jsonl", "summary.json"
CHECKPOINT, MODEL, ROUTE_MAP, CALIBRATION = (
    "checkpoint",
    "model.safetensors",
    "route_map.json",
    "calibration.json",
)
# What an acquisition that other runs start from ends with, in place of a summary.
ACQUISITION = "acquisition.json"


class RunDir:
    """Paths and atomic writes of one run.

    Args:
        path: the folder.
        writes: False for the processes of a distributed run that leave writing to the main one: their writes
            do nothing.
    """

    def __init__(self, path: Path, *, writes: bool = True):
        self.path, self.writes = path, writes

    @classmethod
    def open(cls, path: Path, config: RunConfig, *, resume: bool) -> RunDir:
        """Make the folder, or take up an existing one.

        Raises:
            ValueError: if the folder holds another configuration, or the same one without ``resume``; nothing
                is overwritten.
        """
        run = cls(path)
        if run._is_blank():
            path.mkdir(parents=True, exist_ok=True)
            # The configuration is what makes the folder a run, so it comes last.
            run.write_json(ENVIRONMENT, environment())
            run.write_json(CONFIG, config.model_dump(mode="json"))
            return run
        if not (path / CONFIG).exists():
            raise ValueError(
                f"{path} exists and is not a run (it has no {CONFIG}): choose another folder with --out"
            )
        if run.config() != config:
            raise ValueError(
                f"{path} holds a run with another configuration: choose another folder with "
                "--out, or delete it"
            )
        if not resume:
            done = (
                "this run, finished: look at it with report"
                if (path / SUMMARY).exists()
                else "this run: continue it with --resume"
            )
            raise ValueError(f"{path} already holds {done}, or choose another folder with --out")
        return run

    def _is_blank(self) -> bool:
        """Whether the folder is new, or holds nothing but what a process killed at once leaves behind."""
        started = {ENVIRONMENT, f".{ENVIRONMENT}.draft", f".{CONFIG}.draft"}
        return not self.path.exists() or (
            self.path.is_dir() and {entry.name for entry in self.path.iterdir()} <= started
        )

    def config(self) -> RunConfig:
        """Return the run's configuration.

        Raises:
            ValueError: if the folder is no run, or its configuration is damaged.
        """
        if not (self.path / CONFIG).is_file():
            raise ValueError(
                f"{self.path} is no run: it has no {CONFIG}"
                if self.path.exists()
                else f"there is no run {self.path}"
            )
        try:
            return RunConfig.parse(self.read_json(CONFIG))
        except ValueError as error:
            raise ValueError(
                f"{self.path / CONFIG} does not fit this version of torchcram: {error}"
            ) from None

    def read_json(self, name: str) -> Any:
        """Return the content of a JSON file of the run.

        Raises:
            ValueError: if it is missing or damaged.
        """
        file = self.path / name
        try:
            return json.loads(file.read_text())
        except FileNotFoundError:
            raise ValueError(
                f"{self.path} is no finished run, {name} is missing: finish it with train --resume"
            ) from None
        except ValueError as error:
            raise ValueError(
                f"{file} is damaged ({error}): restore it from a copy, or delete the run"
            ) from None

    def write_json(self, name: str, content: Any) -> None:
        """Write a JSON file, all of it or nothing."""
        self.write_text(name, json.dumps(_plain(content), indent=1, allow_nan=False) + "\n")

    def write_text(self, name: str, text: str) -> None:
        """Write a text file, all of it or nothing.

        Raises:
            OSError: if it cannot be written; an older file is kept.
        """
        if not self.writes:
            return
        file, draft = self.path / name, self.path / f".{name}.draft"
        try:
            with draft.open("w") as handle:
                handle.write(text)
                handle.flush()
                os.fsync(handle.fileno())
            draft.replace(file)
        except OSError as error:
            draft.unlink(missing_ok=True)
            raise _unwritten(file, error) from error

    def append_metrics(self, record: dict[str, Any]) -> None:
        """Append one line to the metrics.

        Raises:
            OSError: if it cannot be written; the lines before are kept.
        """
        if not self.writes:
            return
        try:
            with (self.path / METRICS).open("a") as handle:
                handle.write(json.dumps(_plain(record), allow_nan=False) + "\n")
        except OSError as error:
            raise _unwritten(self.path / METRICS, error) from error

    def metrics(self) -> list[dict[str, Any]]:
        """Return the metrics so far; an incomplete last line is dropped."""
        file = self.path / METRICS
        lines = file.read_text().split("\n") if file.exists() else []
        return [json.loads(line) for line in lines[:-1] if line]

    def cut_metrics(self, step: int) -> None:
        """Drop what was recorded at or after ``step``: it will be computed again."""
        kept = [record for record in self.metrics() if record["step"] < step]
        self.write_text(METRICS, "".join(json.dumps(record) + "\n" for record in kept))


def _unwritten(file: Path, error: OSError) -> OSError:
    return OSError(f"cannot write {file}: {error.strerror or error}. Free some space, then use --resume")


def _plain(content: Any) -> Any:
    """JSON knows neither NaN nor infinity: what has no value is null."""
    if isinstance(content, dict):
        return {key: _plain(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_plain(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def environment() -> dict[str, Any]:
    """Return what a result depends on: versions, commit, hash of the code, processor, threads, time."""
    packages = {}
    for name in ("torchcram", "torch", "accelerate", "numpy", "safetensors"):
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            packages[name] = "not installed"
    return {
        "python": platform.python_version(),
        "packages": packages,
        "commit": _commit(),
        "source": source_hash(),
        "system": f"{platform.system()} {platform.machine()}",
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "threads": torch.get_num_threads(),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _commit() -> str | None:
    """The commit of the checkout that this package runs from, marked if files differ; None for an
    installed package.
    """
    here = Path(__file__).parent
    try:
        describe = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--exclude=*"],
            cwd=here,
            capture_output=True,
            text=True,
            check=False,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return describe.stdout.strip() or None
