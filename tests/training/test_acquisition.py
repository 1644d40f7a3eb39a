"""Runs that differ only after acquisition share it, and cannot tell."""

import os
import re
import signal

import pytest

from torchcram.runs.run_dir import RunDir
from torchcram.training.acquisition import acquisition_of
from torchcram.training.loop import acquire, load_run, train
from torchcram.training.trainer import Trainer

LATER = {
    "controller__price_start": 0.03,
    "controller__caution_start": 0.0,
    "controller__exploration": 0.5,
    "controller__reference_every": 2,
    "training__losses__consolidation": 2.0,
    "model__options__detach": False,
    "task__drift_at": 8,
    "name": "other",
}
SOONER = {
    "seed": 1,
    "controller__acquire_steps": 4,
    "controller__acquisition_price": 0.2,
    "training__learning_rate": 1e-3,
    "training__steps": 13,
    "task__recurrence": 0.5,
    "task__drift_at": 3,
    "model__options__slots": 16,
    "training__losses__predictor": 2.0,
}


def untimed(folder):
    return [
        {name: value for name, value in record.items() if name != "seconds"}
        for record in RunDir(folder).metrics()
    ]


@pytest.mark.parametrize("field", LATER)
def test_what_comes_after_acquisition_does_not_keep_runs_apart(tiny, field):
    assert acquisition_of(tiny(**{field: LATER[field]})).digest() == acquisition_of(tiny()).digest()


@pytest.mark.parametrize("field", SOONER)
def test_what_may_matter_before_keeps_them_apart(tiny, field):
    assert acquisition_of(tiny(**{field: SOONER[field]})).digest() != acquisition_of(tiny()).digest()


def test_read_shares_of_a_static_router_share_their_acquisition(tiny):
    runs = [
        tiny(model__mixer="static_router", model__options={"state_size": 8} | options)
        for options in ({}, {"read_share": 0.1}, {"read_share": 0.2})
    ]
    assert len({acquisition_of(run).digest() for run in runs}) == 1


def test_the_acquisition_of_an_acquisition_is_itself(tiny):
    shared = acquisition_of(tiny(controller__price_start=0.02))
    assert acquisition_of(shared) == shared


def test_a_mixer_without_a_router_has_none(tiny):
    assert acquisition_of(tiny(model__mixer="transformer", model__options={})) is None


# Evaluations fall on the step that ends acquisition (5), and not on it (4).
@pytest.mark.slow
@pytest.mark.parametrize("every", [4, 5])
def test_a_run_from_a_shared_acquisition_equals_one_without_bit_for_bit(
    tiny, tmp_path, lasting_summary, every
):
    changes = {name: value for name, value in LATER.items() if name != "name"}
    config = tiny(**changes, training__evaluate_every=every, training__checkpoint_every=2)
    start = acquire(acquisition_of(config), out=tmp_path / "acquired", show_progress=False)
    train(config, out=tmp_path / "shared", start=start, show_progress=False)
    train(config, out=tmp_path / "alone", show_progress=False)
    assert lasting_summary(tmp_path / "shared") == lasting_summary(tmp_path / "alone")
    assert untimed(tmp_path / "shared") == untimed(tmp_path / "alone")
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("shared", "alone")]
    assert weights[0] == weights[1]


def test_an_interrupted_acquisition_goes_on_where_it_stopped(tiny, tmp_path, monkeypatch):
    shared = acquisition_of(tiny(training__checkpoint_every=2))
    whole = acquire(shared, out=tmp_path / "whole", show_progress=False)

    def stop(trainer):
        if trainer.step == 3:
            raise KeyboardInterrupt
        return original(trainer)

    original = Trainer.train_step
    monkeypatch.setattr(Trainer, "train_step", stop)
    with pytest.raises(KeyboardInterrupt):
        acquire(shared, out=tmp_path / "halves", show_progress=False)
    monkeypatch.undo()
    halves = acquire(shared, out=tmp_path / "halves", resume=True, show_progress=False)
    assert untimed(halves) == untimed(whole)
    assert (halves / "checkpoint/model.safetensors").read_bytes() == (
        whole / "checkpoint/model.safetensors"
    ).read_bytes()


def test_a_run_does_not_start_from_an_acquisition_that_it_does_not_share(tiny, tmp_path):
    start = acquire(acquisition_of(tiny()), out=tmp_path / "acquired", show_progress=False)
    with pytest.raises(
        ValueError, match=r"acquired/checkpoint is the checkpoint of another run: its config_hash"
    ):
        train(tiny(task__recurrence=0.5), out=tmp_path / "run", start=start, show_progress=False)
    with pytest.raises(
        ValueError, match=re.escape("'tiny' does not configure an acquisition: use acquisition_of(config)")
    ):
        acquire(tiny(), out=tmp_path / "no", show_progress=False)
    assert not (tmp_path / "no").exists()


def test_the_acquisition_is_no_finished_run(tiny, tmp_path):
    start = acquire(acquisition_of(tiny()), out=tmp_path / "acquired", show_progress=False)
    with pytest.raises(ValueError, match=r"summary\.json is missing"):
        load_run(start)


@pytest.mark.parametrize("step", [1, 2, 4])
def test_an_acquisition_that_is_stopped_in_any_step_goes_on_to_the_same_metrics(
    tiny, tmp_path, monkeypatch, step
):
    """Also in the step after which it is evaluated (the second and the fourth), and in the last one."""
    config = acquisition_of(tiny(training__evaluate_every=2))
    whole = acquire(config, out=tmp_path / "whole", show_progress=False)
    train_step = Trainer.train_step

    def stopping(self):
        record = train_step(self)
        if self.step == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return record

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train_step", stopping)
        with pytest.raises(KeyboardInterrupt):
            acquire(config, out=tmp_path / "run", show_progress=False)
    resumed = acquire(config, out=tmp_path / "run", resume=True, show_progress=False)
    assert untimed(resumed) == untimed(whole)
    assert (resumed / "acquisition.json").read_text() == (whole / "acquisition.json").read_text()
