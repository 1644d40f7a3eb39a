"""Every claim that ships can be planned at every scale, and names nothing that does not exist."""

from pathlib import Path
from typing import Any

import pytest

from torchcram.models.sequence import SequenceModel
from torchcram.reproduce.claim import Goal, Method, Share
from torchcram.reproduce.claims import CLAIMS, claims_named
from torchcram.reproduce.results import load_rows
from torchcram.reproduce.tuning import CHOSEN, UNPRICED, UNTUNED, chosen, settings_of, trials, tuned
from torchcram.training.build import build_model, build_task
from torchcram.training.presets import PRESETS


@pytest.mark.parametrize(
    ("claim", "scale"), [(claim, scale) for claim in CLAIMS.values() for scale in claim.scales]
)
def test_every_method_is_a_run_of_its_own_at_every_scale(claim, scale):
    digests = [method.config(PRESETS[scale](), seed=0).digest() for method in claim.methods]
    assert len(set(digests)) == len(digests) == len({method.name for method in claim.methods})


@pytest.mark.parametrize("claim", CLAIMS.values(), ids=CLAIMS)
def test_every_model_of_a_claim_can_be_built(claim):
    for method in claim.methods:
        config = method.config(PRESETS["mini"](), seed=0)
        assert isinstance(build_model(config, build_task(config)), SequenceModel)


@pytest.mark.parametrize("claim", CLAIMS.values(), ids=CLAIMS)
def test_goals_and_pictures_speak_of_methods_that_are_trained(claim):
    trained = {method.name for method in claim.methods}
    assert {goal.method for goal in claim.goals} | {name for goal in claim.goals for name in goal.than} | set(
        claim.picture.methods
    ) <= trained
    assert {method.rival for method in claim.methods} - {""} <= trained
    assert {goal.figure for goal in claim.goals} <= set(claim.figures)


@pytest.mark.parametrize(
    ("claim", "scale"), [(claim, scale) for claim in CLAIMS.values() for scale in claim.headline]
)
def test_a_headline_names_methods_of_its_claim_and_leaves_goals_to_judge_it_by(claim, scale):
    assert scale in claim.scales
    assert {method.name for method in claim.methods_at(scale)} == set(claim.headline[scale])
    assert claim.goals_at(scale)
    swept = next(method for method in claim.methods if method.name not in claim.headline[scale])
    assert swept in claim.methods_at(scale, also=(swept.name,))


def test_claims_have_the_names_and_folders_that_they_are_kept_under():
    assert [claim.name for claim in CLAIMS.values()] == list(CLAIMS)
    assert len({claim.folder for claim in CLAIMS.values()}) == len(CLAIMS)
    assert all(claim.folder == claim.name for claim in CLAIMS.values())


def test_all_are_the_claims_of_the_paper_and_their_tuning_goes_by_its_own_name():
    assert [claim.name[:2] for claim in claims_named("all")] == [f"0{number}" for number in range(1, 9)]
    assert claims_named("00_tuning") == [CLAIMS["00_tuning"]]


def test_an_unknown_claim_gets_the_nearest():
    assert claims_named("02_transition") == [CLAIMS["02_transition"]]
    with pytest.raises(ValueError, match="unknown claim '02_transitoin': did you mean '02_transition'"):
        claims_named("02_transitoin")


def test_fields_that_bound_each_other_may_be_changed_in_any_order():
    changes = {"controller.price_most": 0.0, "training.steps": 700, "controller.price_start": 0.0}
    config = Method(name="free", title="free", changes=changes).config(PRESETS["mini"](), seed=0)
    assert (config.controller.price_start, config.controller.price_most, config.training.steps) == (
        0.0,
        0.0,
        700,
    )
    for wrong in (
        {"controller.price_most": 0.0},
        {"controller.price_most": -1.0, "controller.price_start": -1.0},
        {"training.steps": 700, "controller.none": 1},
    ):
        with pytest.raises(ValueError, match="controller"):
            Method(name="wrong", title="wrong", changes=wrong).config(PRESETS["mini"](), seed=0)


def test_a_method_with_a_base_names_the_run_that_it_starts_from():
    method = CLAIMS["04_transfer"].method("readout_frozen")
    for seed in (0, 1):
        config = method.config(PRESETS["mini"](), seed=seed)
        assert (
            config.start_from
            == CLAIMS["04_transfer"].method("cram").config(PRESETS["mini"](), seed=seed).digest()
        )
        assert (config.task.kind, config.task.unseen, config.training.frozen) == (
            "transfer",
            "readout",
            ("trunk", "semantic", "router"),
        )


def test_shares_of_the_steps_follow_the_scale():
    method = Method(
        name="late", title="late", changes={"task.drift_at": Share(0.5), "training.steps": Share(2.0)}
    )
    for scale in ("mini", "demo"):
        preset = PRESETS[scale]()
        config = method.config(preset, seed=3)
        assert (config.task.drift_at, config.training.steps, config.seed) == (
            preset.training.steps // 2,
            2 * preset.training.steps,
            3,
        )
    assert (
        Method(name="same", title="same", changes={}).config(PRESETS["demo"](), seed=0) == PRESETS["demo"]()
    )


@pytest.mark.parametrize(
    ("goal", "words", "met"),
    [
        (Goal(method="a", figure="x", sign=">=", number=0.5), ">= 0.5", True),
        (Goal(method="a", figure="x", sign="<=", number=0.5), "<= 0.5", False),
        (Goal(method="a", figure="x", sign="<=", of="floor", times=2.0), "<= 2 x its floor", True),
        (Goal(method="a", figure="x", sign="<=", of="floor", plus=0.1), "<= its floor + 0.1", False),
        (
            Goal(method="a", figure="x", sign=">=", than=("b", "c"), plus=-0.1),
            ">= the mean of b, c - 0.1",
            True,
        ),
        (Goal(method="a", figure="x", sign=">=", than=("b", "c")), ">= the mean of b, c", False),
        (Goal(method="a", figure="x", sign=">=", than=("b", "d")), ">= the mean of b, d", False),
        (Goal(method="a", figure="y", sign=">=", number=0.0), ">= 0", False),
        (Goal(method="a", figure="x", sign="<=", of="y"), "<= its y", False),
    ],
)
def test_a_goal_compares_with_a_number_a_field_or_other_methods(goal, words, met):
    row = {"x": 0.8, "floor": 0.4, "y": None}
    assert goal.words == words
    assert goal.met(row, {"a": [row], "b": [{"x": 0.8}], "c": [{"x": 0.9}, {"x": None}]}) is met


def test_the_settings_of_every_method_are_what_the_committed_trials_choose():
    rows = load_rows(Path(__file__).parents[2] / "experiments" / "00_tuning" / "results.csv")
    assert chosen(rows) == CHOSEN
    assert set(CHOSEN) == set(UNTUNED)


@pytest.mark.parametrize("scale", ["mini", "demo", "full"])
def test_a_price_is_steady_for_every_method_that_has_one(scale):
    for method in UNTUNED.values():
        for tried in (tuned(method), *trials(method).values()):
            controller = tried.config(PRESETS[scale](), seed=0).controller
            assert controller.steady_price or method.name in UNPRICED


def trial_rows() -> tuple[list[str], list[dict[str, Any]]]:
    """One row for each of CRAM's trials, all alike."""
    names = list(trials(UNTUNED["cram"]))
    return names, [
        {
            "method": name,
            "seed": 100,
            "retrieval_accuracy": 0.99,
            "any_layer_read_rate": 0.5,
            "dynamics_mse": 0.03,
        }
        for name in names
    ]


def test_of_the_trials_about_as_accurate_as_the_best_the_one_with_the_fewest_reads_is_chosen():
    names, rows = trial_rows()
    rows[1] |= {"retrieval_accuracy": 0.984, "any_layer_read_rate": 0.01}
    rows[2] |= {"retrieval_accuracy": 0.986, "any_layer_read_rate": 0.02}
    rows[3] |= {"any_layer_read_rate": 0.02, "dynamics_mse": 0.02}
    assert chosen(rows) == {"cram": settings_of(UNTUNED["cram"], trials(UNTUNED["cram"])[names[3]])}
    assert chosen(rows[:-1]) == {}


def test_a_trial_is_judged_by_the_mean_of_its_seeds():
    names, rows = trial_rows()
    rows[1] |= {"any_layer_read_rate": 0.02}
    rows[2] |= {"any_layer_read_rate": 0.05}
    again = [row | {"seed": 101} for row in rows]
    again[1] |= {"any_layer_read_rate": 0.98}
    assert chosen(rows) == {"cram": settings_of(UNTUNED["cram"], trials(UNTUNED["cram"])[names[1]])}
    assert chosen(rows + again) == {"cram": settings_of(UNTUNED["cram"], trials(UNTUNED["cram"])[names[2]])}
    assert chosen(rows + again[1:]) == {}
