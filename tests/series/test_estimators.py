"""The estimators keep the conventions of scikit-learn, and have an answer to every bad day: a right result,
or an error that names series and column.

The models are tiny and hardly trained: whether they learn is asked of the example.
"""

import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.utils.validation import check_is_fitted

from torchcram import CRAMClassifier, CRAMRegressor
from torchcram.series.fitted import MOST_TOKENS, batches
from torchcram.series.task import EncodedSeries
from torchcram.training.trainer import Trainer
from torchcram.types import Route

NAN = np.nan
TINY = {
    "d_model": 8,
    "layers": 2,
    "mixer_options": {"slots": 8, "state_size": 4, "heads": 2},
    "max_steps": 6,
    "batch_size": 8,
    "members": 1,
    "random_state": 0,
}


def draw(count: int = 24, *, seed: int = 0) -> list[tuple[np.ndarray, np.ndarray]]:
    """Pairs of irregular times and values of three channels; the last one is constant."""
    generator, found = np.random.default_rng(seed), []
    for _ in range(count):
        time = generator.exponential(1.0, generator.integers(2, 9)).cumsum()
        values = generator.normal(size=(3, len(time)))
        values[generator.random(values.shape) < 0.3] = NAN
        values[2] = 0.1
        found.append((time, values))
    return found


SERIES, LABEL = draw(), np.array(["no", "yes", "yes"] * 8)


@pytest.fixture(scope="module", autouse=True)
def _on_cpu():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ACCELERATE_USE_CPU", "true")
        yield


@pytest.fixture(scope="module")
def classifier() -> CRAMClassifier:
    return CRAMClassifier(**TINY, class_weight="balanced").fit(SERIES, LABEL)


@pytest.fixture(scope="module")
def regressor() -> CRAMRegressor:
    return CRAMRegressor(**TINY).fit(SERIES, 1000.0 + np.arange(48.0).reshape(24, 2))


# conventions


def test_predictions_have_the_shapes_and_meanings_of_scikit_learn(classifier, regressor):
    chance = classifier.predict_proba(SERIES)
    assert chance.shape == (24, 2)
    np.testing.assert_allclose(chance.sum(1), 1.0)
    assert classifier.classes_.tolist() == ["no", "yes"]
    np.testing.assert_array_equal(classifier.predict(SERIES), classifier.classes_[chance.argmax(1)])
    assert classifier.score(SERIES, LABEL) == (classifier.predict(SERIES) == LABEL).mean()
    assert regressor.predict(SERIES).shape == (24, 2)
    # Predictions are in the units of the targets.
    assert np.abs(regressor.predict(SERIES) - 1024.0).max() < 200.0
    assert classifier.n_features_in_ == 3
    assert 0.0 <= classifier.read_rate_ <= 1.0
    assert 1 <= classifier.n_iter_ <= 6
    assert is_classifier(classifier)
    assert is_regressor(regressor)


def test_parameters_are_got_set_and_cloned(classifier):
    fresh = clone(classifier)
    assert fresh.get_params() == classifier.get_params()
    assert fresh.set_params(d_model=16).d_model == 16
    check_is_fitted(classifier)
    for ask in (fresh.predict, fresh.predict_proba, fresh.explain):
        with pytest.raises(NotFittedError):
            ask(SERIES)


@pytest.mark.parametrize(("mixer", "history"), [("cram", True), ("cram", False), ("grud", True)])
def test_side_heads_are_taught_and_the_first_alone_is_predicted(mixer, history):
    options = None if mixer == "grud" else TINY["mixer_options"]
    how = {**TINY, "max_steps": 2, "mixer": mixer, "mixer_options": options, "history": history}
    model = CRAMClassifier(**how, forecast=2.0, replicate=0.5).fit(SERIES, LABEL)
    assert [(head.name, head.weight, head.size) for head in model.fitted_[0].model.specs] == [
        ("target", 1.0, 2),
        ("forecast", 2.0, 3),
        ("target_at_each_step", 0.5, 2),
    ]
    chance = model.predict_proba(SERIES)
    assert chance.shape == (24, 2)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(model)).predict_proba(SERIES), chance)


def test_what_sees_the_whole_series_has_nothing_to_forecast():
    with pytest.raises(ValueError, match="sees the whole series"):
        CRAMClassifier(**{**TINY, "mixer": "mtand"}, forecast=1.0).fit(SERIES, LABEL)


def test_a_pickle_holds_weights_as_safetensors_and_predicts_the_same(classifier, regressor):
    for model in (classifier, regressor):
        again = pickle.loads(pickle.dumps(model))
        np.testing.assert_array_equal(again.predict(SERIES), model.predict(SERIES))
    assert isinstance(classifier.fitted_[0].__getstate__()["model"], bytes)
    assert b"torch" not in classifier.fitted_[0].__getstate__()["model"]
    assert clone(pickle.loads(pickle.dumps(CRAMClassifier(d_model=4)))).d_model == 4


def test_the_same_random_state_gives_the_same_model(classifier):
    again = clone(classifier).fit(SERIES, LABEL)
    np.testing.assert_array_equal(again.predict_proba(SERIES), classifier.predict_proba(SERIES))


def test_a_grid_search_runs_over_series():
    search = GridSearchCV(
        CRAMClassifier(**{**TINY, "max_steps": 1, "early_stopping": False}),
        {"learning_rate": [1e-3, 1e-2]},
        cv=2,
        error_score="raise",
    )
    assert search.fit(SERIES, LABEL).best_params_["learning_rate"] in (1e-3, 1e-2)


def test_a_route_map_has_a_route_for_each_step_in_each_layer(classifier):
    maps = classifier.explain(SERIES)
    for (time, values), found in zip(SERIES, maps, strict=True):
        np.testing.assert_array_equal(found.time, time[~np.isnan(values).all(0)])
        assert found.routes.shape == (2, len(found.time))
        np.testing.assert_array_equal(found.read, (found.routes == Route.EPISODIC).any(0))


@pytest.mark.parametrize(("mixer", "history"), [("cram", True), ("grud", True), ("mtand", False)])
def test_series_with_a_history_and_encoders_of_whole_series_are_fitted_pickled_and_explained(mixer, history):
    options = TINY["mixer_options"] if mixer == "cram" else None
    model = CRAMClassifier(
        **{**TINY, "max_steps": 2, "mixer": mixer, "mixer_options": options, "history": history}
    ).fit(SERIES, LABEL)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict_proba(SERIES), model.predict_proba(SERIES))
    assert model.fitted_[0].encoder.statistics.mean.shape == (15 if history else 3,)
    assert 0.0 <= model.read_rate_ <= (mixer == "cram")
    nothing = (np.empty(0), np.empty((3, 0)))
    assert np.isfinite(model.predict_proba([nothing, shuffled(SERIES[0])])).all()
    np.testing.assert_allclose(
        model.predict_proba([shuffled(SERIES[0])]), model.predict_proba(SERIES[:1]), atol=1e-6
    )


# bad days


def shuffled(pair, seed=0):
    order = np.random.default_rng(seed).permutation(len(pair[0]))
    return pair[0][order], pair[1][:, order]


def test_neither_order_of_steps_nor_duplicates_nor_padding_nor_origin_of_time_matter(classifier):
    plain = classifier.predict_proba(SERIES)
    others = {
        "order": [shuffled(pair) for pair in SERIES],
        "duplicates": [(np.tile(time, 2), np.tile(values, 2)) for time, values in SERIES],
        "padding": [
            (np.append(time, [NAN, 1e9]), np.pad(values, [(0, 0), (0, 2)], constant_values=NAN))
            for time, values in SERIES
        ],
        "origin": [(time + 1024.0, values) for time, values in SERIES],
    }
    for name, series in others.items():
        np.testing.assert_allclose(classifier.predict_proba(series), plain, atol=1e-5, err_msg=name)
    alone = np.concatenate([classifier.predict_proba([pair]) for pair in SERIES[:4]])
    np.testing.assert_allclose(alone, plain[:4], atol=1e-5)


def test_one_observation_none_at_all_and_ten_thousand_steps_are_predicted(classifier):
    long = (np.arange(10_000.0), np.random.default_rng(0).normal(size=(3, 10_000)))
    few = [
        (np.array([5.0]), np.array([[1.0], [NAN], [NAN]])),
        (np.empty(0), np.empty((3, 0))),
        (np.arange(3), np.full((3, 3), NAN)),
        long,
    ]
    chance = classifier.predict_proba(few)
    assert np.isfinite(chance).all()
    np.testing.assert_allclose(chance[1], chance[2])
    assert [len(found.time) for found in classifier.explain(few)] == [1, 0, 0, 10_000]


def test_a_channel_that_training_never_observed_is_hidden_and_a_constant_one_does_no_harm(classifier):
    blind = [
        (time, np.vstack([values[:1], np.full((1, len(time)), NAN), values[2:]])) for time, values in SERIES
    ]
    model = clone(classifier).fit(blind, LABEL)
    seen = [
        (time, np.vstack([values[:1], np.where(np.isnan(values[:1]), NAN, 1e6), values[2:]]))
        for time, values in blind
    ]
    np.testing.assert_array_equal(model.predict_proba(seen), model.predict_proba(blind))
    moved = [(time, np.vstack([values[:2], values[2:] + 1e6])) for time, values in SERIES]
    assert np.isfinite(classifier.predict_proba(moved)).all()


def test_batches_hold_every_row_once_and_never_too_many_steps():
    lengths = [20_000, 3, 15_000, 5, 35_000, 4]
    found = batches(
        [EncodedSeries(inputs=torch.zeros(steps, 1), gap=torch.zeros(steps)) for steps in lengths]
    )
    assert sorted(row for rows in found for row in rows) == list(range(6))
    assert all(
        len(rows) == 1 or len(rows) * max(lengths[row] for row in rows) <= MOST_TOKENS for rows in found
    )
    assert found == [[1, 5, 3], [2], [0], [4]]


@pytest.mark.parametrize("factor", [1e-3, 1e3])
def test_another_unit_of_time_is_one_warning(classifier, factor):
    """A thousand, the factor between nanoseconds and microseconds, is enough."""
    with pytest.warns(UserWarning, match=r"the median gap is .* times that of training") as told:
        classifier.predict_proba([(time * factor, values) for time, values in SERIES])
    assert len(told) == 1


def test_a_series_with_an_odd_gap_is_no_other_unit(classifier):
    close = [*SERIES, (np.array([0.0, 1e-9]), np.ones((3, 2)))]
    assert np.isfinite(classifier.predict_proba(close)).all()


def test_channels_and_values_that_cannot_be_right_are_named(classifier):
    with pytest.raises(ValueError, match="series 0 has 2 channels, the training series had 3"):
        classifier.predict([np.ones((2, 4))])
    with pytest.raises(ValueError, match=r"series 0, column 1: step 2 is inf"):
        classifier.predict([np.array([[1.0] * 3, [1.0, 2.0, np.inf], [1.0] * 3])])


def test_a_class_that_training_did_not_have_counts_as_an_error(classifier):
    assert classifier.score(SERIES[:3], ["perhaps"] * 3) == 0.0


@pytest.mark.parametrize(
    ("model", "target", "message"),
    [
        (CRAMClassifier, ["yes"] * 24, "y has one class only, yes: at least two"),
        (CRAMClassifier, ["yes"], "y has 1 entries for 24 series"),
        (CRAMClassifier, np.zeros((24, 2)), r"y has shape \(24, 2\)"),
        (CRAMRegressor, [*range(23), NAN], "series 23, column 'y': is nan; none may be missing"),
    ],
)
def test_targets_that_cannot_be_right_are_refused(model, target, message):
    with pytest.raises(ValueError, match=message):
        model(**TINY).fit(SERIES, target)


def test_too_few_series_to_hold_any_out_are_all_trained_on_with_a_warning():
    with pytest.warns(UserWarning, match="2 series are too few to hold any out: early_stopping is ignored"):
        model = CRAMClassifier(**{**TINY, "max_steps": 2}).fit(SERIES[:2], [0, 1])
    assert model.n_iter_ == 2


def test_a_long_frame_is_fitted_and_predicted(classifier):
    rows = [
        (f"p{s}", time[t], c, values[c, t])
        for s, (time, values) in enumerate(SERIES)
        for c in range(3)
        for t in range(len(time))
    ]
    frame = pd.DataFrame(rows, columns=["series", "time", "variable", "value"])
    label = pd.Series(LABEL, index=[f"p{s}" for s in range(24)]).sort_index(ascending=False)
    model = clone(classifier).fit(frame, label)
    np.testing.assert_allclose(model.predict_proba(frame), classifier.predict_proba(SERIES), atol=1e-5)
    with pytest.raises(ValueError, match="series 'p0' has no entry in y"):
        clone(classifier).fit(frame, label.drop("p0"))
    with pytest.raises(ValueError, match=r"series 'p0', column 7: no training series had this variable"):
        model.predict(frame.assign(variable=7))


@pytest.mark.parametrize(("price", "start"), [(0.3, 0.01), (0.005, 0.005)])
def test_the_price_of_a_read_is_the_bound_to_which_it_climbs(price, start):
    for estimator, target in ((CRAMClassifier, LABEL), (CRAMRegressor, np.arange(24.0))):
        controller = (
            estimator(**{**TINY, "max_steps": 2}, read_price=price)
            .fit(SERIES, target)
            .fitted_[0]
            .config.controller
        )
        assert (controller.price_start, controller.price_most) == (start, price)


def test_a_price_below_nothing_is_refused():
    with pytest.raises(ValueError, match="read_price"):
        CRAMClassifier(**TINY, read_price=-1.0).fit(SERIES, LABEL)


# the fitted state


def test_what_becomes_of_the_arguments_after_a_fit_does_not_matter(classifier):
    chance = classifier.predict_proba(SERIES)
    model = pickle.loads(pickle.dumps(classifier))
    model.set_params(forecast=1.0, mixer="grud", history=False, d_model=64)
    np.testing.assert_array_equal(model.predict_proba(SERIES), chance)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(model)).predict_proba(SERIES), chance)


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt()])
def test_a_refit_that_fails_leaves_the_fitted_model_as_it_was(monkeypatch, error):
    model = CRAMClassifier(**TINY).fit(SERIES, LABEL)
    chance = model.predict_proba(SERIES)

    def fails(*arguments: object, **more: object) -> None:
        raise error

    monkeypatch.setattr(Trainer, "train_step", fails)
    others = [(time, 1e3 * np.nan_to_num(values[:2])) for time, values in SERIES]
    with pytest.raises(type(error)):
        model.fit(others, [str(row % 4) for row in range(24)])
    np.testing.assert_array_equal(model.predict_proba(SERIES), chance)
    assert model.classes_.tolist() == ["no", "yes"]


def test_a_first_fit_that_fails_leaves_nothing_fitted():
    model = CRAMClassifier(**{**TINY, "mixer": "no such"})
    with pytest.raises(ValueError, match="unknown mixer"):
        model.fit(SERIES, LABEL)
    with pytest.raises(NotFittedError):
        model.predict(SERIES)


# what early stopping judges by


def test_groups_are_held_out_whole(monkeypatch):
    seen = _held_when_fitted(monkeypatch, groups=np.repeat(np.arange(8), 3))
    trained, held = seen
    assert 0 < len(held) < 12
    assert {row // 3 for row in trained} & {row // 3 for row in held} == set()


def test_validation_data_are_judged_and_nothing_else_is_held_out(monkeypatch):
    trained, held = _held_when_fitted(monkeypatch, validation_data=(SERIES[:5], LABEL[:5]))
    assert (len(trained), held) == (24, [0, 1, 2, 3, 4])
    with pytest.raises(ValueError, match="no training series had the class 'maybe'"):
        CRAMClassifier(**TINY).fit(SERIES, LABEL, validation_data=(SERIES[:1], ["maybe"]))


@pytest.mark.parametrize(
    ("how", "more", "message"),
    [
        ({}, {"validation_data": (SERIES[:5],)}, "validation_data is no pair"),
        ({}, {"validation_data": SERIES[:3]}, "validation_data is no pair"),
        ({}, {"validation_data": ([(np.empty(0), np.empty((3, 0)))], ["no"])}, "none of the 1 series holds"),
        ({}, {"validation_data": (SERIES[:2], LABEL[:3])}, "y has 3 entries for 2 series"),
        ({"early_stopping": False}, {"validation_data": (SERIES[:5], LABEL[:5])}, "early_stopping=True"),
        ({}, {"validation_data": (SERIES[:5], LABEL[:5]), "groups": np.arange(24)}, "pass one of them"),
        ({}, {"groups": [1, 2]}, "groups has 2 entries for 24 series"),
        ({}, {"groups": [None, *range(23)]}, "series 0, column 'groups': is None; none may be missing"),
    ],
)
def test_what_cannot_be_judged_by_is_refused(how, more, message):
    with pytest.raises(ValueError, match=message):
        CRAMClassifier(**TINY).set_params(**how).fit(SERIES, LABEL, **more)


def test_series_to_judge_by_have_the_unit_of_time_of_training():
    thousandth = [(time / 1e3, values) for time, values in SERIES]
    with pytest.warns(UserWarning, match="the median gap is 0.001 times that of training"):
        CRAMClassifier(**TINY).fit(SERIES, LABEL, validation_data=(thousandth, LABEL))
    dates = [(np.datetime64("2024-01-01") + time.astype("m8[s]"), values) for time, values in SERIES]
    with pytest.raises(ValueError, match="the time stamps are dates, those of training were numbers"):
        CRAMClassifier(**TINY).fit(SERIES, LABEL, validation_data=(dates, LABEL))


def test_numbers_to_judge_by_are_as_many_as_those_of_training():
    with pytest.raises(ValueError, match="validation_data has 2 numbers a series, y has 1"):
        CRAMRegressor(**TINY).fit(SERIES, np.arange(24.0), validation_data=(SERIES, np.ones((24, 2))))


@pytest.mark.parametrize("weight", [{"yes": NAN}, {"no": 0.0, "yes": 0.0}, {"yes": np.inf}])
def test_weights_that_would_make_probabilities_nan_are_refused(weight):
    with pytest.raises(ValueError, match="weights must be finite, at least 0, and not all 0"):
        CRAMClassifier(**TINY, class_weight=weight).fit(SERIES, LABEL)


def _held_when_fitted(monkeypatch, **how) -> tuple[list[int], list[int]]:
    """Return the rows of SERIES that are trained on and held out."""
    place = {len(time) * 1e3 + time[0]: row for row, (time, _) in enumerate(SERIES)}
    rows = []

    def fit_series(arguments, train, held, head, *, seed, number):
        for part in (train, held):
            rows.append([place[len(one.time) * 1e3 + one.time[0]] for one in part.panel.series])
        raise InterruptedError

    whole = [(time, np.nan_to_num(values)) for time, values in SERIES]
    monkeypatch.setattr("torchcram.series.base_estimator.fit_series", fit_series)
    with pytest.raises(InterruptedError):
        CRAMClassifier(**TINY).fit(whole, LABEL, **how)
    return rows[0], rows[1]


def test_weights_of_classes_move_the_decision_and_no_rank():
    plain = CRAMClassifier(**TINY).fit(SERIES, LABEL)
    weighted = CRAMClassifier(**TINY, class_weight={"yes": 1e9}).fit(SERIES, LABEL)
    chance = plain.predict_proba(SERIES)
    odds = weighted.predict_proba(SERIES) / (chance * [1.0, 1e9])
    np.testing.assert_allclose(odds[:, 0], odds[:, 1])
    assert weighted.class_weight_.tolist() == [1.0, 1e9]
    assert set(weighted.predict(SERIES)) == {"yes"}
    with pytest.raises(ValueError, match=r"class_weight gives .*-1"):
        CRAMClassifier(**TINY, class_weight={"yes": -1.0}).fit(SERIES, LABEL)


# frames


def frame_of(series: list) -> pd.DataFrame:
    rows = [
        (f"p{s}", time[t], c, values[c, t])
        for s, (time, values) in enumerate(series)
        for c in range(3)
        for t in range(len(time))
    ]
    return pd.DataFrame(rows, columns=["series", "time", "variable", "value"])


def test_scores_look_targets_up_by_name_as_fits_do(classifier, regressor):
    """Fault 21: shuffled entries scored 0.58 where the same in order scored 1."""
    names = [f"p{s}" for s in range(24)]
    label, numbers = pd.Series(LABEL, index=names), pd.Series(np.arange(24.0), index=names)
    for model, y in ((classifier, label), (clone(regressor).fit(frame_of(SERIES), numbers), numbers)):
        fitted = clone(model).fit(frame_of(SERIES), y)
        score = fitted.score(frame_of(SERIES), y)
        assert fitted.score(frame_of(SERIES), y.sample(frac=1, random_state=0)) == pytest.approx(score)


def test_dates_are_brought_to_one_unit(classifier):
    """Nanoseconds were fitted, microseconds (the default of pandas) are predicted: the same moments."""
    origin = np.datetime64("2024-02-29T12:00:00", "ns")
    fine = [(origin + np.round(time * 1e9).astype("m8[ns]"), values) for time, values in SERIES]
    model = clone(classifier).fit(fine, LABEL)
    chance = model.predict_proba(fine)
    coarse = [(time.astype("M8[us]"), values) for time, values in fine]
    np.testing.assert_allclose(model.predict_proba(coarse), chance, atol=1e-4)
    zoned = [(pd.DatetimeIndex(time).tz_localize("UTC").tz_convert("Asia/Tokyo"), v) for time, v in fine]
    np.testing.assert_allclose(model.predict_proba(zoned), chance, atol=1e-6)
    with pytest.raises(ValueError, match="the time stamps are numbers, those of training were dates"):
        model.predict(SERIES)


@pytest.mark.slow
def test_members_are_models_of_their_own_whose_mean_predicts():
    model = CRAMClassifier(**{**TINY, "members": 3}).fit(SERIES, LABEL)
    assert len(model.fitted_) == 3
    outputs = torch.stack([fitted.outputs(fitted.encoded(model._read(SERIES))) for fitted in model.fitted_])
    assert (outputs[0] != outputs[1]).any()
    np.testing.assert_allclose(model.predict_proba(SERIES), outputs.softmax(-1).mean(0).numpy())
    assert [found.routes.shape[0] for found in model.explain(SERIES[:2])] == [6, 6]
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict_proba(SERIES), model.predict_proba(SERIES))
    regressor = CRAMRegressor(**{**TINY, "members": 2}).fit(SERIES, np.arange(24.0))
    outputs = torch.stack(
        [fitted.outputs(fitted.encoded(regressor._read(SERIES))) for fitted in regressor.fitted_]
    )
    mean = outputs.mean(0).numpy()[:, 0] * regressor.target_std_ + regressor.target_mean_
    np.testing.assert_allclose(regressor.predict(SERIES), mean)


def test_a_prediction_does_not_depend_on_the_other_series(classifier):
    alone = np.concatenate([classifier.predict_proba([one]) for one in SERIES])
    np.testing.assert_allclose(alone, classifier.predict_proba(SERIES), atol=1e-12)
