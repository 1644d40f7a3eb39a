"""The summary holds what the tables need, and its figures follow from the metrics and the evaluations."""

import json
import math

import pytest

from tiny_runs import tiny_config
from torchcram.accounting import transition_step
from torchcram.training.loop import Run, train

PROMISED = {
    *(
        "retrieval_accuracy",
        "recurring_accuracy",
        "novel_accuracy",
        "any_layer_read_rate",
        "any_layer_floor",
        "read_rate_by_layer",
    ),
    *(
        "attention_share",
        "attention_share_floor",
        "reduction_any_layer",
        "reduction_need",
        "reduction_consolidation",
    ),
    *(
        "reduction_attention_share",
        "mixing_flops_share",
        "bytes_share",
        "training_attention_share",
        "reads_computed",
        "transition_step",
    ),
    *(
        "dynamics_mse",
        "kalman_mse",
        "routes_by_slice",
        "evaluated_queries",
        "parameters",
        "steps",
        "seconds",
        "tokens_per_second",
        "seed",
    ),
    *("config_hash",),
}
SHARES = (
    "retrieval_accuracy",
    "recurring_accuracy",
    "novel_accuracy",
    "any_layer_read_rate",
    "any_layer_floor",
    "attention_share",
    "attention_share_floor",
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(
        tiny_config(seed=2, training__steps=16),
        out=tmp_path_factory.mktemp("summary") / "run",
        show_progress=False,
    )


@pytest.fixture
def records(run) -> list[dict]:
    lines = (json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines())
    return [line for line in lines if line["kind"] == "train"]


def test_everything_promised_is_there(run):
    assert set(run.summary) >= PROMISED
    assert all(0 <= run.summary[name] <= 1 for name in SHARES)


def test_it_says_which_run_it_is_of(run):
    assert (run.summary["steps"], run.summary["seed"], run.summary["config_hash"]) == (
        16,
        2,
        run.config.digest(),
    )
    assert run.summary["parameters"] == sum(parameter.numel() for parameter in run.model.parameters())
    assert run.summary["run_dir"] == str(run.path)


def test_reductions_are_peak_over_final_and_multiply(run, records):
    summary = run.summary
    assert summary["any_layer_read_rate"] > 0
    assert summary["reduction_any_layer"] == pytest.approx(
        max(record["any_layer_read_rate"] for record in records) / summary["any_layer_read_rate"]
    )
    assert summary["reduction_attention_share"] == pytest.approx(
        max(record["attention_share"] for record in records) / summary["attention_share"]
    )
    assert summary["reduction_any_layer"] == pytest.approx(
        summary["reduction_need"] * summary["reduction_consolidation"]
    )


def test_the_transition_is_that_of_the_recorded_rates(run, records):
    rates, final = [record["any_layer_read_rate"] for record in records], run.summary["any_layer_read_rate"]
    assert run.summary["transition_step"] == transition_step(
        [record["step"] for record in records], rates, final=final
    )
    assert run.summary["acquired_at"] == 5


def test_training_costs_count_exploration_and_reference_passes(run):
    """All reads of 16 steps would be a share of 1; every third routed step a reference pass reads all once
    more."""
    dense = 2 * 8 * (40 * 41 // 2)
    references = len([step for step in range(5, 16) if step % 3 == 0])
    assert run.summary["reads_computed"] >= run.summary["reads_counted"] >= dense * (5 + references)
    assert run.summary["training_attention_share"] == pytest.approx(
        run.summary["reads_computed"] / (16 * dense)
    )
    assert run.summary["tokens_per_second"] == pytest.approx(16 * 320 / run.summary["seconds"])


def test_the_calibrated_threshold_is_the_one_that_is_evaluated_and_saved(tiny, tmp_path):
    config = tiny(evaluation__risk_tolerance=0.3, evaluation__calibration_sequences=12)
    run = train(config, out=tmp_path / "run", show_progress=False)
    calibration = json.loads((run.path / "calibration.json").read_text())
    assert calibration["sequences"] == 12
    blank = -0.4054651
    for block in run.model.blocks:
        assert float(block.router.threshold_logit) == pytest.approx(
            blank + calibration["threshold_shift"], abs=1e-6
        )


@pytest.mark.parametrize("mixer", ["cram_no_consolidation", "cram_paper", "seqboat"])
def test_without_a_predicted_familiarity_nothing_is_calibrated(tiny, tmp_path, mixer):
    config = tiny(
        model__mixer=mixer,
        model__options={},
        evaluation__risk_tolerance=0.3,
        evaluation__calibration_sequences=12,
    )
    run = train(config, out=tmp_path / "run", show_progress=False)
    assert not (tmp_path / "run" / "calibration.json").exists()
    assert 0 <= run.summary["any_layer_used_rate"] <= run.summary["any_layer_read_rate"] <= 1
    if mixer == "cram_paper":
        assert run.summary["any_layer_read_rate"] == 1.0, "every token reads to find its route"
        assert [float(block.router.threshold_logit) for block in run.model.blocks] == pytest.approx(
            [math.log(0.83 / 0.17)] * 2
        )


def test_models_without_a_router_have_no_transition(tiny, tmp_path):
    summary = train(
        tiny(model__mixer="ssm", model__options={}), out=tmp_path / "run", show_progress=False
    ).summary
    assert (summary["any_layer_read_rate"], summary["transition_step"], summary["reads_computed"]) == (
        0.0,
        None,
        0.0,
    )
    assert not (tmp_path / "run" / "calibration.json").exists()
    summary = train(
        tiny(model__mixer="transformer", model__options={}), out=tmp_path / "dense", show_progress=False
    ).summary
    assert (summary["any_layer_read_rate"], summary["training_attention_share"]) == (1.0, 1.0)
