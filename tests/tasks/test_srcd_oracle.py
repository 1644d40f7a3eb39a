"""Oracles: exact retrieval is always right, the floors are counted right, and the Kalman filter is the
floor of the dynamics."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from torchcram.tasks.srcd import SRCD
from torchcram.tasks.srcd_config import SRCDConfig
from torchcram.tasks.srcd_oracle import (
    any_layer_floor,
    attention_share_floor,
    exact_retrieval,
    kalman_mse,
    statistics,
)
from torchcram.types import Batch

configs = st.builds(
    SRCDConfig,
    length=st.integers(40, 120),
    patterns=st.just(10),
    binding_share=st.just(0.3),
    query_share=st.just(0.2),
    recurrence=st.sampled_from([0.0, 0.5, 1.0]),
    override=st.sampled_from([0.0, 0.5]),
    unanswerable=st.sampled_from([0.0, 0.3]),
    contextual=st.booleans(),
    typeless=st.booleans(),
)


def draw(config: SRCDConfig, size: int = 4, seed: int = 0) -> Batch:
    return SRCD(config).batch(size, generator=torch.Generator().manual_seed(seed))


def planted(novel: list[list[int]]) -> Batch:
    flags = torch.tensor(novel, dtype=torch.bool)
    never = torch.zeros_like(flags)
    return Batch(
        inputs=torch.zeros(*flags.shape, 1),
        gap=torch.zeros(flags.shape),
        slices={"query": ~never, "novel": flags, "overridden": never, "unanswerable": never},
    )


@given(configs, st.integers(0, 50))
def test_exact_retrieval_is_always_right(config, seed):
    batch = draw(config, seed=seed)
    assert torch.equal(exact_retrieval(batch, config=config), batch.targets["answer"])


def test_guessing_is_not():
    """The task cannot be solved by chance: a guesser and one that always says the commonest value stay
    near 1 / 16."""
    batch = draw(SRCDConfig(length=1024), size=64)
    answers = batch.targets["answer"][batch.slices["novel"]]
    error = (1 / 16 * 15 / 16 / len(answers)) ** 0.5
    assert abs((torch.randint(16, answers.shape) == answers).double().mean() - 1 / 16) < 5 * error
    assert torch.bincount(answers).max() / len(answers) < 1 / 16 + 5 * error


def test_exact_retrieval_looks_at_the_inputs_only():
    config = SRCDConfig(length=128, override=0.5)
    batch = draw(config)
    blind = replace(batch, targets={}, slices={}, info={})
    assert torch.equal(exact_retrieval(blind, config=config), batch.targets["answer"])


def test_exact_retrieval_does_not_look_ahead():
    """Without its binding a query has no answer, even if the key is bound later; and a change of the key's
    last bit is another key."""
    config = SRCDConfig(length=4, binding_share=0.5, query_share=0.25, recurrence=0.0, key_size=2, values=3)
    key = torch.tensor([0.6, 0.8])
    inputs = torch.zeros(1, 4, SRCD(config).input_size)
    inputs[0, [0, 1, 3], 4:6] = key
    inputs[0, 1, 6 + 2] = inputs[0, 3, 6 + 1] = 1.0
    batch = Batch(inputs=inputs, gap=torch.zeros(1, 4))
    assert exact_retrieval(batch, config=config).tolist() == [[3, -100, -100, -100]]
    inputs[0, 2, 4:6] = key
    assert exact_retrieval(batch, config=config).tolist() == [[3, -100, 2, -100]]
    inputs[0, 2, 5] = torch.nextafter(key[1], torch.tensor(1.0))
    assert exact_retrieval(batch, config=config).tolist() == [[3, -100, 3, -100]]


def test_a_sequence_without_bindings_has_no_answers():
    config = SRCDConfig(length=4, binding_share=0.5, query_share=0.25, recurrence=0.0, key_size=2, values=3)
    inputs = torch.zeros(1, 4, SRCD(config).input_size)
    inputs[0, 2, 4:6] = 1.0
    assert exact_retrieval(Batch(inputs=inputs, gap=torch.zeros(1, 4)), config=config).tolist() == [
        [-100, -100, 3, -100]
    ]


def test_the_any_layer_floor_counts_steps():
    assert any_layer_floor(planted([[0, 1, 0, 1], [0, 0, 0, 1]]), config=SRCDConfig()) == 3 / 8
    assert any_layer_floor(planted([[0, 0]]), config=SRCDConfig()) == 0.0


def test_the_attention_share_floor_counts_keys():
    """Steps 1 and 3 of one sequence and 3 of the other scan 2 + 4 + 4 keys; dense attention scans 10 in
    each sequence and layer."""
    batch = planted([[0, 1, 0, 1], [0, 0, 0, 1]])
    assert attention_share_floor(batch, config=SRCDConfig(), layers=1) == pytest.approx(10 / 20)
    assert attention_share_floor(batch, config=SRCDConfig(), layers=2) == pytest.approx(10 / 40)


@given(st.integers(1, 12), st.integers(1, 5))
def test_reading_everywhere_in_one_of_all_layers_is_the_share_of_that_layer(time, layers):
    share = attention_share_floor(planted([[1] * time]), config=SRCDConfig(), layers=layers)
    assert share == pytest.approx(1 / layers)


@pytest.mark.parametrize("layers", [0, -1])
def test_no_layer_no_share(layers):
    with pytest.raises(ValueError, match=f"layers {layers} is below 1"):
        attention_share_floor(planted([[1]]), config=SRCDConfig(), layers=layers)


@pytest.mark.parametrize(
    ("length", "size", "steps", "keys"), [(256, 1000, 0.01406, 0.0080), (2048, 60, 0.01494, 0.0076)]
)
def test_floors_of_the_specification(length, size, steps, keys):
    """30% of the queries, which are 12 of 256 or 102 of 2,048 steps; the keys follow from where these
    queries lie."""
    config = SRCDConfig(length=length)
    batch = draw(config, size=size)
    queries = batch.slices["query"].sum().item()
    error = 5 * (0.7 / 0.3 / queries) ** 0.5
    floor = any_layer_floor(batch, config=config)
    assert floor == pytest.approx(steps, rel=error)
    assert attention_share_floor(batch, config=config, layers=2) == pytest.approx(keys, rel=2 * error)
    # Queries follow their bindings, so they lie later than an average step.
    assert attention_share_floor(batch, config=config, layers=1) > floor


def test_overridden_and_unanswerable_queries_raise_the_floor():
    plain, harder = (
        any_layer_floor(draw(config, size=64), config=config)
        for config in (SRCDConfig(length=512), SRCDConfig(length=512, override=0.5, unanswerable=0.2))
    )
    assert harder > 1.3 * plain


def test_the_kalman_floor_lies_below_every_simple_predictor():
    config = SRCDConfig(length=256)
    batch = draw(config, size=64)
    target, seen = batch.targets["next_observation"], batch.inputs[..., :2]
    floor = kalman_mse(batch, config=config)
    assert config.observation_std**2 < floor < 0.5 * (seen - target).square().mean().item()
    assert floor < 0.1 * target.square().mean().item()


@pytest.mark.parametrize("name", ["frequency", "damping", "phase"])
def test_the_kalman_floor_needs_the_parameters_of_each_sequence(name):
    config = SRCDConfig(length=256, damping=(0.01, 0.5))
    batch = draw(config, size=64)
    shuffled = replace(batch, info={**batch.info, name: batch.info[name].roll(1)})
    assert kalman_mse(shuffled, config=config) > kalman_mse(batch, config=config)


def test_the_kalman_floor_of_a_noiseless_oscillator_is_zero():
    config = SRCDConfig(length=64, stationary_std=0.0, observation_std=0.0)
    assert kalman_mse(draw(config), config=config) < 1e-9


# statistics


def table(config: SRCDConfig, size: int = 100) -> dict[str, tuple[float, float]]:
    return {
        what: (measured, specified)
        for what, measured, specified in statistics(draw(config, size), config=config)
    }


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"gap_exponent": 1.0},
        {"gap_exponent": 0.5, "recurrence": 0.4, "unanswerable": 0.25},
        {"gap_max": 0.12},
    ],
)
def test_what_is_drawn_is_what_is_specified(changed):
    rows = table(
        SRCDConfig(
            length=1000, binding_share=0.2, query_share=0.1, gap_min=0.05, **{"gap_max": 2.0, **changed}
        )
    )
    specified = {what: pair for what, pair in rows.items() if not math.isnan(pair[1])}
    assert len(specified) == 7
    for what, (measured, expected) in specified.items():
        assert measured == pytest.approx(expected, rel=0.04), what


def test_specified_figures_of_the_paper():
    """Half of all gaps exceed 0.1 * 2 ** (2 / 3), and the mean gap is 0.1 * (1 + 2 * (1 - 0.1)): exponent
    1.5, cut at 100 times the least."""
    specified = {what: pair[1] for what, pair in table(SRCDConfig(length=256), 2).items()}
    assert specified["mean gap"] == pytest.approx(0.28)
    assert specified["median gap"] == pytest.approx(0.1587, abs=1e-4)
    assert specified["any-layer floor"] == pytest.approx(0.05 * 0.3)
    assert specified["recurring share of the bindings"] == specified["recurring share of the queries"] == 0.7


def test_nothing_is_specified_where_theory_is_silent():
    plain, overriding = table(SRCDConfig(length=256)), table(SRCDConfig(length=256, override=0.3))
    assert math.isnan(plain["attention-share floor, 2 layers"][1])
    assert math.isnan(overriding["any-layer floor"][1])
    assert overriding["any-layer floor"][0] > plain["any-layer floor"][0]
    assert (
        plain["squared error of the Kalman filter"][0]
        < 0.7 * plain["squared error of the last observation"][0]
    )
