"""What a run may be, and what the errors say when it may not."""

import re

import pytest
from pydantic import ValidationError

from torchcram.training.run_config import CustomTaskConfig, RunConfig, TrainingConfig


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("trainig.steps", 5, "unknown key 'trainig' in 'trainig.steps': did you mean 'training'?"),
        ("training.step", 5, "unknown key 'step' in TrainingConfig: did you mean 'steps'?"),
        ("training.steps.more", 5, "'training.steps.more' does not name a field: 'steps' holds the value 12"),
        ("training.steps", "many", "training.steps: Input should be a valid integer"),
        ("training.steps", -1, "training.steps: Input should be greater than or equal to 0 (got -1)"),
        (
            "training.precision",
            "fp8",
            "training.precision: Input should be 'fp32', 'bf16' or 'fp64' (got 'fp8')",
        ),
        ("training.learning_rate", float("nan"), "training.learning_rate: Input should be"),
        ("training.tokens_per_step", 39, "training.tokens_per_step 39 holds no sequence of 40 steps"),
        (
            "training.length_curriculum",
            [[0, 640]],
            "training.tokens_per_step 320 holds no sequence of 640 steps",
        ),
        ("training.length_curriculum", [[0, 9]], "length 9 gives 0 bindings and 0 queries"),
        ("training.length_curriculum", [[0, 0]], "Input should be greater than 0 (got 0)"),
        ("training.length_curriculum", [[-1, 40]], "Input should be greater than or equal to 0 (got -1)"),
        (
            "task.patterns",
            0,
            "recurrence 0.7 needs patterns, but patterns is 0: set recurrence to 0 or patterns to at least 1",
        ),
        ("task.length", 19, "use a length of 25 or more, or larger shares"),
        (
            "task.kind",
            "srdc",
            (
                "Input tag 'srdc' found using 'kind' does not match any of the expected tags: 'srcd', "
                "'transfer', 'custom'"
            ),
        ),
        ("controller.exploration", 1.5, "controller.exploration: Input should be less than or equal to 1"),
        (
            "evaluation.calibration_sequences",
            100,
            "100 calibration sequences cannot certify a risk of 0.005: at least 199 are needed",
        ),
        ("name", "a/b", "name: String should match pattern"),
        ("seed", -1, "seed: Input should be greater than or equal to 0"),
        ("seed", 2**32, "seed: Input should be less than 4294967296"),
    ],
)
def test_an_impossible_value_is_named_with_the_way_out(tiny, path, value, message):
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        tiny().updated(path, value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_possible_value_goes_through_the_same_path(tiny):
    changed = (
        tiny()
        .updated("training.steps", "7")
        .updated("evaluation.calibration_sequences", 199)
        .updated("model.options.slots", 64)
    )
    assert (
        changed.training.steps,
        changed.evaluation.calibration_sequences,
        changed.model.options["slots"],
    ) == (7, 199, 64)
    assert changed.task == tiny().task


def test_a_configuration_is_frozen(tiny):
    with pytest.raises(ValidationError, match="frozen"):
        tiny().seed = 3


def test_a_configuration_survives_json(tiny):
    config = tiny(training__length_curriculum=[[0, 32], [4, 40]])
    assert RunConfig.parse(config.model_dump(mode="json")) == config
    assert RunConfig.parse(config.model_dump(mode="json")).digest() == config.digest()
    assert config.digest() != tiny().digest()


def test_the_length_at_a_step_is_the_latest_entry():
    rules = TrainingConfig(length_curriculum=((10, 64), (4, 32)))
    assert [rules.length_at(step, 128) for step in (0, 3, 4, 9, 10, 999)] == [128, 128, 32, 32, 64, 64]


def test_a_custom_task_says_how_long_its_sequences_are():
    with pytest.raises(ValueError, match=r"task.custom.length: Field required"):
        RunConfig.parse({"task": {"kind": "custom", "name": "mine"}})
    assert RunConfig.parse(
        {"task": {"kind": "custom", "name": "mine", "length": 9}}
    ).task == CustomTaskConfig(name="mine", length=9)
