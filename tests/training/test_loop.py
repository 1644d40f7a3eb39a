"""A run from start to end, in Python: its files, its ends, other people's tasks."""

import json
from dataclasses import replace

import pytest
import torch

from tiny_runs import Echo, Sums, Wave
from torchcram.tasks.built_in import TASKS
from torchcram.tasks.srcd import SRCD
from torchcram.tasks.srcd_config import SRCDConfig
from torchcram.training.loop import evaluate_run, load_run, train
from torchcram.training.run_config import RunConfig
from torchcram.types import Batch, RoutingControl


def custom(config: RunConfig, **changes) -> RunConfig:
    tree = config.model_dump(mode="json") | {"task": {"kind": "custom", "name": "toy", "length": 12}}
    config = RunConfig.parse(tree)
    for path, value in (
        {"training.tokens_per_step": 96, "training.steps": 8, "evaluation.queries": 30} | changes
    ).items():
        config = config.updated(path, value)
    return config


def test_a_run_leaves_its_files_and_can_be_loaded(tiny, tmp_path):
    config = tiny(evaluation__risk_tolerance=0.3, evaluation__calibration_sequences=8)
    run = train(config, out=tmp_path / "run", show_progress=False)
    names = {
        ".lock",
        "config.json",
        "environment.json",
        "metrics.jsonl",
        "checkpoint",
        "calibration.json",
        "model.safetensors",
        "route_map.json",
        "summary.json",
    }
    assert {file.name for file in run.path.iterdir()} == names
    again = load_run(tmp_path / "run")
    assert (again.config, again.summary) == (config, run.summary)
    assert not again.model.training
    batch = run.task.batch(2, generator=torch.Generator().manual_seed(0))
    outputs = [model(batch, control=RoutingControl()).outputs["answer"] for model in (run.model, again.model)]
    assert torch.equal(*outputs)


def test_the_metrics_tell_every_step_evaluation_and_exposure(tiny, tmp_path):
    run = train(tiny(), out=tmp_path / "run", show_progress=False)
    lines = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["kind"] == "train"] == list(range(12))
    assert [line["step"] for line in lines if line["kind"] == "eval"] == [5, 11]
    assert [line["step"] for line in lines if line["kind"] == "exposures"] == [5, 11]
    assert {
        "phase",
        "losses",
        "any_layer_read_rate",
        "read_rate_by_layer",
        "attention_share",
        "quality",
        "familiarity",
        "seconds",
    } <= set(lines[0])
    seconds = [line["seconds"] for line in lines if line["kind"] == "train"]
    assert seconds == sorted(seconds)


def test_logging_seldom_still_logs_the_last_step(tiny, tmp_path):
    run = train(
        tiny(training__log_every=5, training__evaluate_every=0), out=tmp_path / "run", show_progress=False
    )
    assert [json.loads(line)["step"] for line in (run.path / "metrics.jsonl").read_text().splitlines()] == [
        0,
        5,
        10,
        11,
    ]


def test_the_default_folder_bears_name_and_seed(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert str(train(tiny(training__steps=1, seed=3), show_progress=False).path) == "runs/tiny-seed3"


def test_a_finished_run_is_returned_by_resume_and_left_alone_without(tiny, tmp_path, contents):
    first = train(tiny(), out=tmp_path / "run", show_progress=False)
    before = contents(tmp_path)
    assert train(tiny(), out=tmp_path / "run", resume=True, show_progress=False).summary == first.summary
    with pytest.raises(ValueError, match="already holds this run, finished"):
        train(tiny(), out=tmp_path / "run", show_progress=False)
    with pytest.raises(ValueError, match="another configuration"):
        train(tiny(seed=1), out=tmp_path / "run", resume=True, show_progress=False)
    assert contents(tmp_path) == before


def test_no_steps_at_all_is_a_run(tiny, tmp_path):
    summary = train(tiny(training__steps=0), out=tmp_path / "run", show_progress=False).summary
    assert (summary["steps"], summary["training_attention_share"], summary["transition_step"]) == (
        0,
        0.0,
        None,
    )


class Breaking(SRCD):
    """SRCD whose data break at one step."""

    def __init__(self, config, **broken):
        super().__init__(config)
        self.at, self.broken = 7, broken

    def batch(self, size, *, generator, step=0, length=None):
        batch = super().batch(size, generator=generator, step=step, length=length)
        return (
            replace(batch, **{name: change(getattr(batch, name)) for name, change in self.broken.items()})
            if step == self.at
            else batch
        )


def breaking(monkeypatch: pytest.MonkeyPatch, **broken) -> None:
    monkeypatch.setitem(TASKS, "srcd", (SRCDConfig, lambda config: Breaking(config, **broken)))


def test_a_loss_that_is_nan_stops_and_keeps_the_last_good_checkpoint(
    tiny, tmp_path, monkeypatch, lasting_summary
):
    train(tiny(), out=tmp_path / "good", show_progress=False)
    with monkeypatch.context() as patch:
        breaking(
            patch, targets=lambda targets: {**targets, "next_observation": targets["next_observation"] * 1e30}
        )
        with pytest.raises(
            FloatingPointError,
            match=(
                r"step 7: the loss is not finite \(next_observation is inf\); the checkpoint after 4 "
                r"steps is kept"
            ),
        ):
            train(tiny(), out=tmp_path / "run", show_progress=False)
    assert not (tmp_path / "run" / "summary.json").exists()
    train(tiny(), out=tmp_path / "run", resume=True, show_progress=False)
    assert lasting_summary(tmp_path / "run") == lasting_summary(tmp_path / "good")


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (
            {"inputs": lambda inputs: inputs.index_fill(1, torch.tensor(3), float("nan"))},
            r"inputs \[0, 3, 0\] is nan: inputs must be finite",
        ),
        (
            {"gap": lambda gap: gap.index_fill(1, torch.tensor(2), -0.5)},
            r"gap \[0, 2\] is -0.5: times must be finite and at least 0",
        ),
    ],
)
def test_broken_data_stop_the_run_in_training(tiny, tmp_path, monkeypatch, broken, message):
    breaking(monkeypatch, **broken)
    with pytest.raises(ValueError, match=message):
        train(tiny(), out=tmp_path / "run", show_progress=False)
    assert (tmp_path / "run" / "checkpoint").exists()


def test_data_that_are_broken_from_the_start_write_nothing(tiny, tmp_path):
    class Nothing(Wave):
        def batch(self, size, *, generator, step=0, length=None):
            return (
                super().batch(size, generator=generator, length=length)._mapped(lambda tensor: tensor[:, :0])
            )

    class Unanswered(Wave):
        def batch(self, size, *, generator, step=0, length=None):
            return replace(super().batch(size, generator=generator, length=length), targets={})

    for task, message in [
        (Nothing(), "the batch is empty: it has 8 sequences of 0 steps"),
        (Unanswered(), "no target 'next' for the head of that name"),
    ]:
        with pytest.raises(ValueError, match=message):
            train(custom(tiny()), out=tmp_path / "run", task=task, show_progress=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model__options": {"slts": 32}}, "unknown option 'slts' of mixer 'cram': did you mean 'slots'"),
        (
            {"model__options": {"slots": "many"}},
            "option 'slots' of mixer 'cram': Input should be a valid integer.* \\(got 'many'\\)",
        ),
        ({"model__options": {"heads": 0}}, "heads 0 must be above 0"),
        ({"model__options": {"state_size": 0}}, "state_size 0 must be above 0"),
        ({"model__options": {"quality_variance": 0}}, "quality_variance 0.0 must be above 0"),
        ({"model__options": {"mlp_ratio": -1}}, "mlp_ratio -1.0 must be above 0"),
        (
            {"model__options": {"semantic": "low_rank", "surprise": False, "rank": 17}},
            "rank 17 must lie between 1 and d_model = 16",
        ),
        (
            {"model__options": {"semantic": "low_rank"}},
            "the surprise trace flags slots, but semantic is 'low_rank'",
        ),
        ({"model__d_model": 18}, "d_model 18 is not a multiple of 4 x heads = 16 .*: use 16"),
        ({"model__mixer": "crm"}, "unknown mixer 'crm': did you mean 'cram'"),
        (
            {"training__head_weights": {"answr": 1.0}},
            "unknown head in training.head_weights 'answr': did you mean 'answer'",
        ),
    ],
)
def test_what_cannot_be_built_writes_nothing(tiny, tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        train(tiny(**changes), out=tmp_path / "run", show_progress=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("task", "first"),
    [(Sums(), "positive"), (Echo(), "before"), (Wave(), None)],
    ids=["per sequence", "symbols", "regression"],
)
@pytest.mark.parametrize("mixer", ["cram", "transformer", "ssm", "mixture_of_depths", "static_router"])
def test_other_peoples_tasks_train_evaluate_and_load(tiny, tmp_path, task, first, mixer):
    config = custom(
        tiny(), **{"model.mixer": mixer, "model.options": {"slots": 32} if mixer == "cram" else {}}
    )
    run = train(config, out=tmp_path / "run", task=task, show_progress=False)
    assert run.summary["evaluated_queries"] >= 30 or isinstance(task, Sums)
    assert (run.summary["retrieval_accuracy"] is None) == (first is None)
    assert run.summary["steps"] == 8
    evaluations = [
        line
        for line in map(json.loads, (run.path / "metrics.jsonl").read_text().splitlines())
        if line["kind"] == "eval"
    ]
    assert len(evaluations) == 1
    loaded = load_run(run.path, task=task)
    record = evaluate_run(loaded, queries=30, seed=5)
    assert record["sequences"] > 0
    with pytest.raises(ValueError, match="pass the task object"):
        load_run(run.path)


def test_scores_of_other_peoples_tasks_are_in_the_summary(tiny, tmp_path):
    summary = train(custom(tiny()), out=tmp_path / "run", task=Sums(), show_progress=False).summary
    assert set(summary["accuracy"]) == {"all"}
    assert summary["accuracy"]["all"] == summary["retrieval_accuracy"]
    assert summary["mean_mse"] > 0


def test_a_custom_task_gets_its_own_length_unless_the_curriculum_says_otherwise(tiny, tmp_path):
    asked = []

    class Listening(Echo):
        def batch(self, size, *, generator, step=0, length=None):
            asked.append((size, length))
            return super().batch(size, generator=generator, step=step, length=length)

    config = custom(tiny(), **{"training.length_curriculum": [[0, 6], [4, 12]], "training.evaluate_every": 0})
    train(config, out=tmp_path / "run", task=Listening(), show_progress=False)
    assert asked[1:9] == [(16, 6)] * 4 + [(8, None)] * 4


@pytest.mark.slow
def test_a_model_learns(tiny, tmp_path):
    """Symbols echoed one step later: chance is 20%."""
    config = custom(
        tiny(),
        **{
            "training.steps": 150,
            "training.learning_rate": 0.01,
            "controller.acquire_steps": 100,
            "evaluation.queries": 400,
        },
    )
    config = config.updated("training.evaluate_every", 0).updated("training.checkpoint_every", 0)
    assert (
        train(config, out=tmp_path / "run", task=Echo(), show_progress=False).summary[
            "dense_retrieval_accuracy"
        ]
        > 0.9
    )


@pytest.mark.parametrize("precision", ["bf16", "fp64"])
def test_every_precision_goes_from_start_to_end(tiny, tmp_path, precision):
    config = tiny(
        training__precision=precision, evaluation__risk_tolerance=0.3, evaluation__calibration_sequences=8
    )
    run = train(config, out=tmp_path / "run", show_progress=False)
    assert run.summary["steps"] == 12
    assert next(run.model.parameters()).dtype == (torch.float64 if precision == "fp64" else torch.float32)
    assert evaluate_run(run, queries=10, seed=3)["evaluated_queries"] >= 10


def test_reads_must_be_one_of_three(tiny, tmp_path):
    run = train(tiny(training__steps=1), out=tmp_path / "run", show_progress=False)
    with pytest.raises(ValueError, match="unknown reads 'al': did you mean 'all'"):
        evaluate_run(run, queries=10, seed=3, reads="al")
    rates = {
        reads: evaluate_run(run, queries=10, seed=3, reads=reads)["any_layer_read_rate"]
        for reads in ("all", "none")
    }
    assert rates == {"all": 1.0, "none": 0.0}


def test_interrupting_before_the_first_step_is_over_leaves_a_run_to_go_on_with(
    tiny, tmp_path, monkeypatch, lasting_summary
):
    train(tiny(), out=tmp_path / "good", show_progress=False)

    def interrupted(self):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("torchcram.training.trainer.Trainer.train_step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(tiny(), out=tmp_path / "run", show_progress=False)
    train(tiny(), out=tmp_path / "run", resume=True, show_progress=False)
    assert lasting_summary(tmp_path / "run") == lasting_summary(tmp_path / "good")


def test_batches_of_tests_are_batches():
    generator = torch.Generator().manual_seed(0)
    assert all(isinstance(task.batch(2, generator=generator), Batch) for task in (Sums(), Echo(), Wave()))
