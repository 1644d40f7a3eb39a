"""A run that starts from another one keeps what is frozen, learns the rest, and can be resumed."""

import json
import re

import pytest
from safetensors.torch import load_file

from tiny_runs import tiny_config
from torchcram.runs.run_dir import RunDir
from torchcram.training.build import build_model, build_task
from torchcram.training.frozen import part_of
from torchcram.training.loop import evaluate_run, load_run, train
from torchcram.training.trainer import Trainer

ALL = ["trunk", "semantic", "router"]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A finished run that has routed and consolidated."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ACCELERATE_USE_CPU", "true")
        return train(tiny_config(), out=tmp_path_factory.mktemp("runs") / "source", show_progress=False)


@pytest.fixture
def heads_only(tiny, source):
    return tiny(
        start_from=source.config.digest(),
        training__frozen=ALL,
        task__kind="transfer",
        task__classes=2,
        training__steps=6,
        training__checkpoint_every=2,
    )


def weights(folder):
    return load_file(folder / "model.safetensors")


def test_with_everything_frozen_only_a_new_head_learns(heads_only, source, tmp_path):
    run = train(heads_only, out=tmp_path / "run", start=source.path, show_progress=False)
    before, after = weights(source.path), weights(run.path)
    kept = {name for name in before if not name.startswith("heads.")}
    assert [name for name in kept if not before[name].equal(after[name])] == []
    fresh = build_model(heads_only, build_task(heads_only)).state_dict()
    heads = {name for name in after if name.startswith("heads.")}
    assert [name for name in heads if after[name].equal(fresh[name])] == []
    assert after["heads.answer.weight"].shape[0] == 2
    # Routed from the first step on, by the router as it was: nothing is explored, priced or compared.
    first = RunDir(run.path).metrics()[0]
    assert (first["phase"], first["price"], first["caution"], first["explored_rate"]) == (
        "train",
        0.0,
        0.0,
        0.0,
    )
    assert set(first["losses"]) == {"answer", "next_observation", "price"}


def test_the_first_step_reads_as_the_source_does(heads_only, source, tmp_path):
    """Zero steps of training: rates and routes are those of the source on the same sequences, whatever the
    head says."""
    run = train(
        heads_only.updated("training.steps", 0), out=tmp_path / "run", start=source.path, show_progress=False
    )
    assert run.summary["any_layer_read_rate"] == source.summary["any_layer_read_rate"]
    assert run.summary["evaluated_queries"] == source.summary["evaluated_queries"]


@pytest.mark.parametrize("frozen", [["trunk"], ["semantic"], ["router"], []])
def test_what_is_not_frozen_learns(tiny, source, tmp_path, frozen):
    config = tiny(
        start_from=source.config.digest(),
        training__frozen=frozen,
        training__steps=8,
        controller__acquire_steps=2,
        seed=1,
    )
    run = train(config, out=tmp_path / "run", start=source.path, show_progress=False)
    before, after = weights(source.path), weights(run.path)
    moved = {part_of(name) for name in before if not before[name].equal(after[name])}
    assert moved == {None, *ALL} - set(frozen)


@pytest.mark.parametrize("interrupted", [1, 3, 5])
def test_an_interrupted_one_resumes_without_its_source_bit_for_bit(
    heads_only, source, tmp_path, monkeypatch, lasting_summary, interrupted
):
    train(heads_only, out=tmp_path / "whole", start=source.path, show_progress=False)

    def stop(trainer):
        if trainer.step == interrupted:
            raise KeyboardInterrupt
        return original(trainer)

    original = Trainer.train_step
    monkeypatch.setattr(Trainer, "train_step", stop)
    with pytest.raises(KeyboardInterrupt):
        train(heads_only, out=tmp_path / "halves", start=source.path, show_progress=False)
    monkeypatch.undo()
    # Before the first checkpoint (after two steps) it starts once more.
    again = train(
        heads_only,
        out=tmp_path / "halves",
        start=source.path if interrupted < 2 else None,
        resume=True,
        show_progress=False,
    )
    assert lasting_summary(again.path) == lasting_summary(tmp_path / "whole")
    assert all(value.equal(weights(tmp_path / "whole")[name]) for name, value in weights(again.path).items())
    assert load_run(again.path).summary == again.summary


def test_evaluations_tell_how_many_keys_were_scanned_so_far(heads_only, source, tmp_path):
    run = train(
        heads_only.updated("training.evaluate_every", 2),
        out=tmp_path / "run",
        start=source.path,
        show_progress=False,
    )
    keys = [record["keys_computed"] for record in RunDir(run.path).metrics() if record["kind"] == "eval"]
    assert len(keys) == 3
    assert keys == sorted(keys)
    assert keys[-1] == run.summary["reads_computed"]


def test_another_run_and_no_run_are_errors_before_anything_is_written(
    tiny, heads_only, source, tmp_path, contents
):
    out = tmp_path / "run"
    with pytest.raises(
        ValueError,
        match=re.escape(f"the run starts from another one, {source.config.digest()}: pass its folder"),
    ):
        train(heads_only, out=out, show_progress=False)
    other = heads_only.updated("start_from", "0123456789ab")
    with pytest.raises(
        ValueError, match=f"holds the run {source.config.digest()}, but start_from is '0123456789ab'"
    ):
        train(other, out=out, start=source.path, show_progress=False)
    with pytest.raises(ValueError, match="there is no run"):
        train(heads_only, out=out, start=tmp_path / "nowhere", show_progress=False)
    with pytest.raises(ValueError, match="holds the weights of another model"):
        train(heads_only.updated("model.d_model", 32), out=out, start=source.path, show_progress=False)
    assert not out.exists()


def test_an_unfinished_run_is_no_start(heads_only, source, tmp_path):
    folder = tmp_path / "unfinished"
    folder.mkdir()
    (folder / "config.json").write_text((source.path / "config.json").read_text())
    with pytest.raises(ValueError, match=r"no finished run, summary\.json is missing"):
        train(heads_only, out=tmp_path / "run", start=folder, show_progress=False)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"training__frozen": ["trunk"]},
            "training.frozen trunk would keep random weights: name the run they come from in start_from",
        ),
        ({"start_from": "runs/mini"}, "start_from: String should match pattern"),
        (
            {"training__frozen": ["trnk"]},
            "training.frozen.0: Input should be 'trunk', 'semantic' or 'router'",
        ),
    ],
)
def test_what_cannot_be_frozen_is_an_error(tiny, changes, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        tiny(**changes)


def test_the_configuration_says_where_it_started(heads_only, source, tmp_path):
    run = train(heads_only, out=tmp_path / "run", start=source.path, show_progress=False)
    assert json.loads((run.path / "config.json").read_text())["start_from"] == source.summary["config_hash"]
    assert heads_only.digest() != heads_only.updated("start_from", "0123456789ab").digest()


def test_a_transferred_run_can_be_judged_on_a_changed_task(heads_only, source, tmp_path):
    """The changed task is derived from the configuration, not from what the task made of it: dynamics are
    not made faster twice."""
    dynamics = heads_only.updated("task.unseen", "dynamics").updated("training.steps", 0)
    run = train(dynamics, out=tmp_path / "run", start=source.path, show_progress=False)
    same, other = (
        evaluate_run(run, queries=10, seed=1, task_changes={"override": share}) for share in (0.0, 1.0)
    )
    assert same == evaluate_run(run, queries=10, seed=1)
    assert other["any_layer_floor"] > same["any_layer_floor"]
