"""A run whose files were lost or damaged is refused by name; it never goes on to figures that look right."""

import json
import shutil
from pathlib import Path

import pytest

from torchcram.training.acquisition import acquisition_of
from torchcram.training.loop import acquire, load_run, train
from torchcram.training.trainer import Trainer


def interrupted(config, out: Path, *, after: int) -> None:
    """Train some steps and stop as by Ctrl-C; the last checkpoint stays."""
    step = Trainer.train_step

    def stopping(self):
        if self.step == after:
            raise KeyboardInterrupt
        return step(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "train_step", stopping)
        with pytest.raises(KeyboardInterrupt):
            train(config, out=out, show_progress=False)


@pytest.fixture
def half(tiny, tmp_path) -> Path:
    """A run that was stopped after 10 steps, with a checkpoint after 8."""
    interrupted(tiny(), tmp_path / "run", after=10)
    return tmp_path / "run"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("missing", r"metrics\.jsonl is missing or damaged"),
        ("empty", r"metrics\.jsonl is missing or damaged"),
        ("first line", r"metrics\.jsonl is missing or damaged"),
        ("middle line", r"metrics\.jsonl is damaged in line 3"),
    ],
)
def test_a_run_without_its_metrics_is_not_resumed(half, tiny, contents, damage, message):
    """The summary's reduction would be measured against the steps that are left."""
    file = half / "metrics.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    changed = {
        "empty": "",
        "first line": "".join(lines[1:]),
        "middle line": "".join([*lines[:2], lines[2][:40] + "\n", *lines[3:]]),
    }
    file.unlink() if damage == "missing" else file.write_text(changed[damage])
    before = contents(half)
    with pytest.raises(ValueError, match=message + ".*: restore it from a copy, or delete the run"):
        train(tiny(), out=half, resume=True, show_progress=False)
    assert contents(half) == before


def test_with_its_metrics_it_is(half, tiny, lasting_summary, tmp_path):
    """What was recorded after the checkpoint is recorded again."""
    train(tiny(), out=half, resume=True, show_progress=False)
    train(tiny(), out=tmp_path / "whole", show_progress=False)
    assert lasting_summary(half) == lasting_summary(tmp_path / "whole")


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "state.json"])
def test_a_damaged_checkpoint_is_not_resumed(half, tiny, name):
    file = half / "checkpoint" / name
    content = bytearray(file.read_bytes())
    content[-len(content) // 3] ^= 1
    file.write_bytes(content)
    with pytest.raises(ValueError, match=rf"checkpoint/{name} is damaged"):
        train(tiny(), out=half, resume=True, show_progress=False)


def test_an_acquisition_that_lost_its_metrics_starts_no_run(tiny, tmp_path):
    shared = acquire(acquisition_of(tiny()), out=tmp_path / "shared", show_progress=False)
    (shared / "metrics.jsonl").unlink()
    with pytest.raises(ValueError, match=r"shared/metrics\.jsonl is missing or damaged"):
        train(tiny(), out=tmp_path / "run", start=shared, show_progress=False)


def test_a_damaged_finished_run_is_named(tiny, tmp_path):
    whole = train(tiny(), out=tmp_path / "whole", show_progress=False).path

    def copy(name: str) -> Path:
        return Path(shutil.copytree(whole, tmp_path / name))

    weights = copy("weights") / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-len(content) // 3] ^= 1
    weights.write_bytes(content)
    with pytest.raises(ValueError, match=r"weights/model\.safetensors is damaged"):
        load_run(weights.parent)
    for name, text in (("list", "[1, 2]"), ("half", '{"seed": '), ("empty", "")):
        folder = copy(name)
        (folder / "summary.json").write_text(text)
        for read in (load_run, lambda folder: train(tiny(), out=folder, resume=True, show_progress=False)):
            with pytest.raises(ValueError, match=rf"{name}/summary\.json is damaged"):
                read(folder)
    assert json.loads((whole / "summary.json").read_text())["seed"] == 0


def test_two_trainings_never_write_the_same_run(tiny, tmp_path, contents):
    """The second starts while the first is at its fifth step."""
    step, out = Trainer.train_step, tmp_path / "run"
    refused = []

    def meanwhile(self):
        if self.step == 5 and not refused:
            before = contents(out)
            with pytest.raises(ValueError, match=r"another process is at .*run: wait until it has ended"):
                train(tiny(), out=out, resume=True, show_progress=False)
            refused.append(contents(out) == before)
        return step(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "train_step", meanwhile)
        train(tiny(), out=out, show_progress=False)
    assert refused == [True]
