"""Arguments that cannot be right are refused by name, whatever holds them."""

import numpy as np
import pytest

from torchcram import CRAMClassifier, CRAMRegressor
from torchcram.series.arguments import SeriesArguments


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("validation_share", -0.2),
        ("validation_share", 1.5),
        ("batch_size", 0),
        ("batch_size", -3),
        ("patience", -1),
        ("members", 0),
        ("max_steps", 0),
        ("max_steps", -1),
        ("max_steps", 10.5),
        ("forecast", -1.0),
        ("replicate", -1.0),
        ("read_price", -0.1),
        ("hide", 1.0),
        ("learning_rate", 0.0),
        ("weight_decay", float("nan")),
        ("early_stopping", "no"),
        ("history", "false"),
        ("verbose", 1),
        ("d_model", "32"),
    ],
)
def test_an_argument_that_cannot_be_right_is_named(name, value):
    """Set as a search does: what the annotations of __init__ forbid is checked in these tests alone."""
    for estimator in (CRAMClassifier, CRAMRegressor):
        with pytest.raises(ValueError, match=f"^{name}: "):
            estimator().set_params(**{name: value}).fit(np.ones((4, 1, 5)), [0, 1, 0, 1])


@pytest.mark.parametrize("estimator", [CRAMClassifier, CRAMRegressor])
def test_the_defaults_and_numbers_of_numpy_are_right(estimator):
    parameters = estimator().get_params()
    SeriesArguments.of(parameters)
    told = SeriesArguments.of(
        {**parameters, "max_steps": np.int64(7), "history": np.bool_(True), "hide": np.float32(0.5)}
    )
    assert (told.max_steps, told.history, told.hide) == (7, True, 0.5)


def test_both_estimators_have_the_same_arguments_and_defaults():
    ours, theirs = CRAMClassifier().get_params(), CRAMRegressor().get_params()
    assert ours.pop("class_weight") is None
    assert ours == theirs
