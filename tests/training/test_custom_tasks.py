"""A task of somebody else's, which brings its oracle, its calibrated head and what can be skipped, is
calibrated and reported like SRCD: here it is SRCD itself, under other names."""

import json

import pytest

from tiny_runs import Recall, tiny_config
from torchcram.training.evaluate import evaluation_batch
from torchcram.training.loop import Run, train
from torchcram.training.run_config import RunConfig

CHANGES = {
    "evaluation__risk_tolerance": 0.3,
    "evaluation__calibration_sequences": 12,
    # The sequence of the route map holds a query that needs a read.
    "evaluation__seed": 1,
}
SAME = (
    "retrieval_accuracy",
    "novel_accuracy",
    "silent_retrieval_accuracy",
    "any_layer_read_rate",
    "any_layer_floor",
    "attention_share",
    "attention_share_floor",
    "mixing_flops_share",
    "training_attention_share",
    "transition_step",
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> tuple[Run, Run]:
    folder, config = tmp_path_factory.mktemp("custom"), tiny_config(**CHANGES)
    custom = {"task": {"kind": "custom", "name": "recall", "length": 40}}
    ours = train(config, out=folder / "srcd", show_progress=False)
    theirs = train(
        RunConfig.parse(config.model_dump(mode="json") | custom),
        out=folder / "recall",
        task=Recall(),
        show_progress=False,
    )
    return ours, theirs


def test_it_is_calibrated_alike(runs):
    found = [json.loads((run.path / "calibration.json").read_text()) for run in runs]
    assert found[0] == found[1]
    assert found[0]["sequences"] == 12


def test_it_is_reported_alike(runs):
    ours, theirs = (run.summary for run in runs)
    names = {"novel_accuracy": "new_accuracy"}
    assert {name: ours[name] for name in SAME} == {name: theirs[names.get(name, name)] for name in SAME}
    assert ours["recurring_accuracy"] == theirs["known_accuracy"]
    assert ours["silent_recurring_accuracy"] == theirs["silent_known_accuracy"]
    assert ours["dynamics_mse"] == theirs["seen_mse"]
    assert ours["routes_by_slice"]["needs_read"] == theirs["routes_by_slice"]["needs_read"]
    assert 0 <= ours["retrieval_accuracy"] <= 1
    first = evaluation_batch(Recall(), sequences=theirs["sequences"], seed=2, index=0, step=12)
    assert theirs["last_value_mse"] == pytest.approx(Recall().oracle(first).figures["last_value_mse"])
    assert theirs["any_layer_floor"] == pytest.approx(float(first.slices["new"].double().mean()))


def test_its_exposures_and_routes_are_recorded_alike(runs):
    lines = [
        [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()] for run in runs
    ]
    exposures = [[line for line in part if line["kind"] == "exposures"] for part in lines]
    assert exposures[0] == exposures[1]
    assert sum(map(sum, exposures[0][-1]["queries"])) > 0
    needed = [json.loads((run.path / "route_map.json").read_text())["needs_read"] for run in runs]
    assert needed[0] == needed[1]
    assert any(needed[0])


def test_what_a_task_says_wrongly_is_told_before_anything_is_written(tiny, tmp_path):
    config = RunConfig.parse(
        tiny().model_dump(mode="json") | {"task": {"kind": "custom", "name": "recall", "length": 40}}
    )
    for member, value, message in (
        ("calibrated_head", "sayd", "unknown calibrated_head of Wrong 'sayd': did you mean 'said'"),
        ("skippable", "knwon", "unknown skippable slice of Wrong 'knwon': did you mean 'known'"),
    ):
        wrong = type("Wrong", (Recall,), {member: value})()
        with pytest.raises(ValueError, match=message):
            train(config, out=tmp_path / "run", task=wrong, show_progress=False)
    assert list(tmp_path.iterdir()) == []
