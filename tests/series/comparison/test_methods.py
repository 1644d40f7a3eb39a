"""Every method of the tables learns both problems, is offered what its peers are, and its result has the
words of the tables."""

import math

import numpy as np
import pytest

from torchcram.series.comparison.boosting import Boosting, informative
from torchcram.series.comparison.methods import METHODS
from torchcram.series.comparison.neural import Neural, run_config
from torchcram.series.comparison.problems import Table
from torchcram.series.comparison.scores import Outcome, scores
from torchcram.types import RoutingControl

NEURAL = [name for name, method in METHODS.items() if method.mixer is not None]
SMALL = {"d_model": 16}


class Middle:
    """A trial that records what is asked of it."""

    def __init__(self):
        self.asked = {}

    def suggest_float(self, name, low, high, *, log=False):
        self.asked[name] = (low, high, log)
        return low

    def suggest_int(self, name, low, high, *, log=False):
        self.asked[name] = (low, high, log)
        return low

    def suggest_categorical(self, name, choices):
        self.asked[name] = list(choices)
        return choices[0]


def test_the_names_are_those_of_the_tables():
    assert list(METHODS) == ["cram", "grud", "transformer", "ssm", "seqboat", "boosting", "mtand"]


@pytest.mark.parametrize("name", METHODS)
def test_the_first_trial_lies_in_the_space_of_the_others(name, physionet, activity):
    for problem in (physionet, activity):
        trial = Middle()
        drawn, first = METHODS[name].drawn(trial, problem), METHODS[name].starting(problem)
        assert set(first) == set(trial.asked) == set(drawn)
        for parameter, value in first.items():
            space = trial.asked[parameter]
            assert value in space if isinstance(space, list) else space[0] <= value <= space[1]
        assert ("hide" in first) == (problem.sparse and name != "boosting")
        assert ("hide" in first) == bool({"forecast", "restore"} & set(first))


def test_neural_methods_are_offered_the_same(physionet):
    def causal(space: dict) -> dict:
        """An encoder that sees the whole series restores where others forecast, with the same weights."""
        return {{"restore": "forecast"}.get(name, name): value for name, value in space.items()}

    def asked(name: str) -> dict:
        trial = Middle()
        METHODS[name].drawn(trial, physionet)
        return causal(trial.asked)

    most, middle = asked("cram"), METHODS["cram"].middle
    assert all(
        asked(name).items() <= most.items() and causal(METHODS[name].middle).items() <= middle.items()
        for name in NEURAL
    )
    assert [name for name in NEURAL if "restore" in METHODS[name].middle] == ["mtand"]
    assert asked("seqboat") == most
    assert set(most) - set(asked("ssm")) == {"price_most"}
    assert set(most) - set(asked("transformer")) == {"price_most", "state_size"}
    assert (
        set(most) - set(asked("grud"))
        == set(most) - set(asked("mtand"))
        == {"price_most", "state_size", "layers"}
    )


@pytest.mark.parametrize("name", NEURAL)
def test_every_neural_method_learns_stays(name, physionet):
    method = METHODS[name]
    fitted = method.fit(physionet, 0, {**method.starting(physionet), **SMALL}, seed=0, limit=100.0)
    outcome = fitted.judge("test")
    np.testing.assert_allclose(outcome.probability.sum(1), 1.0)
    assert len(outcome.truth) == len(physionet.data.split(0).test)
    assert set(scores(outcome)) == {"auroc", "auprc", "brier", "accuracy"}
    assert (outcome.attention_share is None) == (name in ("grud", "mtand"))
    assert (fitted.steps, fitted.parameters > 0) == (4, True)


def test_a_price_is_the_controllers_a_state_the_mixers_and_a_side_head_the_tasks(physionet):
    fitted = Neural(physionet, 0, "cram", {**METHODS["cram"].starting(physionet), **SMALL}, seed=0, limit=0.0)
    assert (fitted.config.controller.price_most, fitted.config.model.options) == (0.1, {"state_size": 8})
    assert [(head.name, head.weight) for head in fitted.model.specs] == [
        ("death", 1.0),
        ("forecast", 1.0),
        ("death_at_each_step", 1.0),
    ]
    whole = Neural(
        physionet, 0, "mtand", {**METHODS["mtand"].starting(physionet), **SMALL}, seed=0, limit=0.0
    )
    assert [head.name for head in whole.model.specs] == ["death", "restore", "death_at_each_step"]


@pytest.mark.parametrize("name", ["cram", "grud", "mtand"])
def test_steps_are_learned_too(name, activity):
    method = METHODS[name]
    outcome = method.fit(activity, 0, {**method.starting(activity), **SMALL}, seed=0, limit=100.0).judge(
        "test"
    )
    assert outcome.probability.shape == (len(outcome.truth), 12)
    assert set(scores(outcome)) == {"accuracy", "macro_f1"}


def test_no_step_is_taken_after_the_limit(physionet):
    assert (
        Neural(physionet, 0, "ssm", {**METHODS["ssm"].starting(physionet), **SMALL}, seed=0, limit=0.0).steps
        == 0
    )


@pytest.mark.parametrize("kind", ["physionet", "activity"])
def test_trees_find_what_summaries_show(kind, request):
    problem = request.getfixturevalue(kind)
    fitted = Boosting(problem, 0, {"max_iter": 30, "min_samples_leaf": 3}, seed=0, limit=100.0)
    outcome = fitted.judge("test")
    assert outcome.attention_share is None
    np.testing.assert_allclose(outcome.probability.sum(1), 1.0)
    assert scores(outcome)["accuracy"] > 0.8


def test_trees_stop_at_the_limit_when_validation_data_want_no_more_and_at_the_most_rounds(physionet):
    def rounds(most: int, limit: float, *, rate: float = 0.02) -> int:
        return Boosting(
            physionet,
            0,
            {"max_iter": most, "min_samples_leaf": 3, "learning_rate": rate},
            seed=0,
            limit=limit,
        ).model.n_iter_

    assert rounds(10, 100.0) == 10
    assert rounds(500, 0.0) == 20
    assert 20 < rounds(500, 100.0) < 500
    # Two more judgements followed, and neither was better: the best trees are kept.
    assert rounds(500, 100.0, rate=1.0) == 20


def test_columns_without_two_values_are_left_out():
    features = np.array([[np.nan, 1.0, 2.0, np.nan], [np.nan, 1.0, 3.0, 4.0]])
    assert informative(Table(features=features, truth=np.array([0, 1]))).tolist() == [2]


class Judge(Neural):
    """What judges outcomes; nothing is trained."""

    def __init__(self, problem):
        self.problem = problem


def test_early_stopping_passes_over_routed_models_that_read_more_than_they_should(activity):
    def outcome(share: float) -> Outcome:
        return Outcome(
            probability=np.full((2, 12), 1 / 12),
            truth=np.array([0, 1]),
            attention_share=share,
            per_second=1.0,
        )

    judge, routed = Judge(activity), RoutingControl()
    assert judge._judgement(outcome(0.11), routed).loss == math.inf
    assert judge._judgement(outcome(0.09), routed).loss == pytest.approx(math.log(12))
    dense = judge._judgement(outcome(1.0), RoutingControl(reads="all"))
    assert (dense.loss, dense.reads) == (pytest.approx(math.log(12)), 1.0)


def test_a_price_comes_from_the_problem_and_reaches_the_controller_with_its_other_rules(physionet, activity):
    for problem in (physionet, activity):
        first = METHODS["cram"].starting(problem)
        rules = run_config(problem, "cram", {**first, "weight_decay": 0.1}, {}, seed=0, longest=16).controller
        assert rules.price_most == first["price_most"] == problem.prices[-2]
        assert {name: getattr(rules, name) for name in problem.controller} == dict(problem.controller)
        assert "price_most" not in METHODS["ssm"].starting(problem)
