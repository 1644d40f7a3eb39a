"""SRCD is what its configuration says, and every answer follows from the inputs.

:class:`Diary` re-derives answers, slices and distances of a sequence in plain Python from nothing but the
inputs and the task's table of patterns; the vectorised generator must agree with it. Statistical checks allow
five standard errors, computed from the number of draws.
"""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor

from srcd_diary import assert_share, config, diaries, draw, parts, tensors
from torchcram.tasks.base import Task
from torchcram.tasks.srcd import SRCD
from torchcram.tasks.srcd_config import SRCDConfig
from torchcram.types import Batch

configs = st.builds(
    config,
    length=st.integers(40, 110),
    recurrence=st.sampled_from([0.0, 0.3, 0.7, 1.0]),
    override=st.sampled_from([0.0, 0.3, 1.0]),
    unanswerable=st.sampled_from([0.0, 0.4]),
    pattern_law=st.sampled_from(["uniform", "zipf"]),
    contextual=st.booleans(),
    typeless=st.booleans(),
    seed=st.integers(0, 3),
)


@given(configs, st.integers(0, 100))
def test_every_answer_follows_from_the_inputs(config, seed):
    batch = draw(config, size=3, seed=seed)
    for row, diary in enumerate(diaries(batch, config)):
        for time, step in enumerate(diary.steps):
            answer = batch.targets["answer"][row, time].item()
            if step is None or step["kind"] == "binding":
                assert answer == -100
            elif step["value"] is None:
                assert answer == config.values
                assert config.unanswerable > 0
            else:
                assert answer == step["value"]


@given(configs, st.integers(0, 100))
def test_slices_and_facts_follow_from_the_inputs(config, seed):
    batch = draw(config, size=3, seed=seed)
    maps = {context: SRCD(config).pattern_values(context=context) for context in (0, 1)}
    for row, diary in enumerate(diaries(batch, config)):
        own = maps[int(batch.info["frequency"][row] < 0)]
        for time, step in enumerate(diary.steps):
            slices = {name for name, flag in batch.slices.items() if flag[row, time]}
            if step is None:
                assert slices == set()
                continue
            pattern = step["pattern"]
            assert batch.info["pattern"][row, time] == pattern
            if step["kind"] == "binding":
                assert slices == {"binding"}
            elif step["value"] is None:
                assert slices == {"query", "unanswerable"}
            elif pattern < 0:
                assert slices == {"query", "novel"}
            else:
                assert slices == (
                    {"query", "recurring"} if step["value"] == own[pattern] else {"query", "overridden"}
                )
            assert batch.info["distance"][row, time] == step.get("distance", 0)


@given(configs, st.integers(0, 100))
def test_a_step_carries_what_its_kind_says(config, seed):
    batch = draw(config, size=3, seed=seed)
    flags, keys, values = parts(batch, config)
    binding, query = batch.slices["binding"], batch.slices["query"]
    bindings, queries = config.events(config.length)
    assert (binding.sum(1) == bindings).all()
    assert (query.sum(1) == queries).all()
    assert not (binding & query).any()
    torch.testing.assert_close(keys.norm(dim=-1), (binding | query).float(), rtol=0, atol=1e-5)
    assert torch.equal(values.sum(-1), binding.float())
    assert torch.equal((values != 0).sum(-1), binding.long())
    assert batch.inputs.shape[-1] == SRCD(config).input_size
    if not config.typeless:
        assert torch.equal(flags, torch.stack([binding, query], -1).float())


@given(configs)
def test_the_same_generator_gives_the_same_batch_and_another_another(config):
    state = torch.random.get_rng_state()
    one, same, other = draw(config, seed=1), draw(config, seed=1), draw(config, seed=2)
    for name, tensor in tensors(one).items():
        assert torch.equal(tensor, tensors(same)[name]), name
    assert not torch.equal(one.inputs, other.inputs)
    assert not torch.equal(one.targets["answer"], other.targets["answer"])
    assert torch.equal(state, torch.random.get_rng_state())


@given(st.integers(0, 5))
def test_one_generator_goes_on(seed):
    generator, task = torch.Generator().manual_seed(seed), SRCD(config())
    assert not torch.equal(
        task.batch(4, generator=generator).inputs, task.batch(4, generator=generator).inputs
    )


def test_it_is_a_task():
    task = SRCD(config())
    assert isinstance(task, Task)
    assert [(head.name, head.kind, head.size) for head in task.heads] == [
        ("answer", "classification", 16),
        ("next_observation", "regression", 2),
    ]
    assert task.input_size == 2 + 2 + 16 + 16


def test_the_target_is_the_next_observation_and_the_horizon_the_next_gap():
    batch = draw(config())
    assert torch.equal(batch.targets["next_observation"][:, :-1], batch.inputs[:, 1:, :2])
    assert torch.equal(batch.horizon[:, :-1], batch.gap[:, 1:])
    assert (batch.gap[:, 0] == 0).all()
    assert (batch.horizon > 0).all()


# recurring and novel keys


def keys_of(batch: Batch, config: SRCDConfig, mask: Tensor) -> set[tuple]:
    return {tuple(key.tolist()) for key in parts(batch, config)[1][mask]}


def test_patterns_recur_with_their_values_in_every_batch_and_novel_keys_never():
    first, second = draw(config(), seed=1, size=32), draw(config(), seed=2, size=32)
    known: dict[tuple, set[int]] = {}
    for batch in (first, second):
        _, keys, values = parts(batch, config())
        recurring = batch.slices["binding"] & (batch.info["pattern"] >= 0)
        for key, value in zip(keys[recurring].tolist(), values[recurring].argmax(-1).tolist(), strict=True):
            known.setdefault(tuple(key), set()).add(value)
    assert len(known) == 12
    assert all(len(values) == 1 for values in known.values())
    novel = [
        keys_of(batch, config(), batch.slices["binding"] & (batch.info["pattern"] < 0))
        for batch in (first, second)
    ]
    assert novel[0].isdisjoint(novel[1])
    assert sum(map(len, novel)) == sum(
        (batch.slices["binding"] & (batch.info["pattern"] < 0)).sum().item() for batch in (first, second)
    )


def test_the_seed_of_the_configuration_fixes_the_patterns():
    one, same, other = (SRCD(config(seed=seed)) for seed in (1, 1, 2))
    assert torch.equal(one.keys, same.keys)
    assert torch.equal(one.pattern_values(), same.pattern_values())
    assert not torch.equal(one.keys, other.keys)
    assert not torch.equal(one.pattern_values(), other.pattern_values())


def test_novel_values_are_unpredictable():
    """Every value is equally likely at novel bindings: chi-square with 15 degrees of freedom stays below
    its 99.999% point."""
    batch = draw(config(recurrence=0.0), size=100)
    counts = parts(batch, config())[2][batch.slices["binding"]].sum(0)
    expected = counts.sum() / 16
    assert ((counts - expected).square() / expected).sum() < 51.6


@pytest.mark.parametrize(
    ("recurrence", "present", "absent"), [(0.0, "novel", "recurring"), (1.0, "recurring", "novel")]
)
def test_recurrence_at_its_ends(recurrence, present, absent):
    batch = draw(config(recurrence=recurrence))
    assert torch.equal(batch.slices[present], batch.slices["query"])
    assert not batch.slices[absent].any()
    assert (
        (batch.info["pattern"] >= 0) == (batch.slices["query"] | batch.slices["binding"]) * recurrence
    ).all()


def test_without_patterns_all_is_novel():
    batch = draw(config(recurrence=0.0, patterns=0))
    assert torch.equal(batch.slices["novel"], batch.slices["query"])


# the specification


@pytest.fixture(scope="module")
def full() -> Batch:
    """The paper's full scale."""
    return draw(SRCDConfig(), size=80, seed=11)


def test_shares_at_full_scale(full):
    assert (full.slices["binding"].sum(1) == 163).all()
    assert (full.slices["query"].sum(1) == 102).all()
    recurring = full.info["pattern"] >= 0
    assert_share(recurring[full.slices["query"]], 0.7)
    # The first two bindings are one recurring and one novel one, so that every query has something to ask
    # for.
    events = [row[flag] for row, flag in zip(recurring, full.slices["binding"], strict=True)]
    assert all(row[0] != row[1] for row in events)
    assert_share(torch.stack([row[2:] for row in events]), 0.7)


def test_events_fall_anywhere(full):
    """Bindings and queries are spread evenly over time, but a query needs a binding before it."""
    event = full.slices["binding"] | full.slices["query"]
    for quarter in event.view(80, 4, 512).unbind(1):
        assert_share(quarter, 265 / 2048)


def test_gaps_obey_the_pareto_law(full):
    gaps = full.horizon
    for bound in (0.15, 0.3, 1.0, 5.0):
        assert_share(gaps > bound, (0.1 / bound) ** 1.5)
    assert gaps.min() >= 0.1 * (1 - 1e-6)
    assert gaps.max() == 10.0
    assert_share(gaps == 10.0, (0.1 / 10.0) ** 1.5)


@pytest.mark.parametrize(
    ("name", "low", "high"), [("frequency", 0.5, 2.0), ("damping", 0.01, 0.05), ("phase", 0.0, 2 * torch.pi)]
)
def test_each_sequence_draws_its_oscillator_uniformly(name, low, high):
    drawn = draw(config(), size=2000).info[name].sort().values
    uniform = (drawn - low) / (high - low)
    assert uniform[0] >= 0
    assert uniform[-1] <= 1
    # Kolmogorov-Smirnov: the 99.999% point is 2.5 / sqrt(n).
    assert (uniform - torch.linspace(0, 1, 2000)).abs().max() < 2.5 / 2000**0.5


def test_what_a_sequence_draws_is_independent():
    info = draw(config(), size=2000).info
    together = torch.corrcoef(
        torch.stack([info["frequency"], info["damping"], info["phase"].cos(), info["phase"].sin()])
    )
    assert (together - torch.eye(4)).abs().max() < 5 / 2000**0.5


@pytest.mark.parametrize(("rest", "error"), [(0.7, 0.3), (0.0, 0.3), (0.7, 0.0)])
def test_observations_are_those_of_the_stated_oscillator(rest, error):
    """At rest, after a long time, an observation has the variance of the process plus that of the error."""
    batch = draw(
        config(gap_min=9.0, damping=(1.0, 1.0), stationary_std=rest, observation_std=error), size=200
    )
    late, variance = batch.inputs[:, 1:, :2], rest**2 + error**2
    assert late.mean().abs() < 5 * (variance / late.numel()) ** 0.5
    assert abs(late.var().item() - variance) < 5 * variance * (2 / late.numel()) ** 0.5


def pattern_counts(config: SRCDConfig, size: int = 300) -> Tensor:
    batch = draw(config, size=size)
    return torch.bincount(
        batch.info["pattern"][batch.slices["binding"] & (batch.info["pattern"] >= 0)],
        minlength=config.patterns,
    )


def test_the_uniform_law_is_uniform():
    counts = pattern_counts(config()).double()
    expected = counts.mean()
    # Chi-square with 11 degrees of freedom: the 99.999% point.
    assert ((counts - expected).square() / expected).sum() < 44.0


@pytest.mark.parametrize("exponent", [0.7, 1.5])
def test_the_zipf_law_has_its_exponent(exponent):
    ranked = (
        pattern_counts(config(pattern_law="zipf", zipf_exponent=exponent, recurrence=1.0), size=600)
        .sort(descending=True)
        .values.double()
    )
    rank = torch.arange(1, 13, dtype=torch.float64).log()
    centred = rank - rank.mean()
    assert (-(centred * ranked.log()).sum() / centred.square().sum()).item() == pytest.approx(
        exponent, abs=0.05
    )


def test_queries_ask_for_any_earlier_binding_alike():
    """Among 20 sequences of novel keys, the place of the queried binding among those before it is uniform:
    mean 1/2, variance 1/12."""
    places = []
    for diary in diaries(draw(config(recurrence=0.0), size=40), config(recurrence=0.0)):
        bindings = [time for time, step in enumerate(diary.steps) if step and step["kind"] == "binding"]
        for time, step in enumerate(diary.steps):
            if step and step["kind"] == "query":
                before = [binding for binding in bindings if binding < time]
                places.append((before.index(time - step["distance"]) + 0.5) / len(before))
    assert abs(sum(places) / len(places) - 0.5) < 5 * (1 / 12 / len(places)) ** 0.5


# lengths and errors


@pytest.mark.parametrize("length", [32, 64, 200])
def test_a_curriculum_may_ask_for_another_length(length):
    batch = draw(config(), length=length)
    assert batch.inputs.shape[:2] == (8, length)
    assert (batch.slices["query"].sum(1) == int(0.25 * length)).all()


@given(
    binding=st.floats(0.005, 0.9), query=st.floats(0.005, 0.9), recurrence=st.sampled_from([0.0, 0.5, 1.0])
)
def test_the_shortest_length_is_the_shortest_that_works(binding, query, recurrence):
    if binding + query > 1:
        return
    settings = SRCDConfig(length=10_000, binding_share=binding, query_share=query, recurrence=recurrence)
    settings.check_length(settings.shortest())
    assert draw(settings, size=1, length=settings.shortest()).slices["query"].any()
    with pytest.raises(ValueError, match=f"use a length of {settings.shortest()} or more"):
        settings.check_length(settings.shortest() - 1)


@given(percent=st.integers(1, 100), hundreds=st.integers(1, 30))
def test_shares_of_whole_numbers_are_whole_numbers(percent, hundreds):
    """29% of 100 steps are 29 steps, although 0.29 * 100 < 29 in floating point."""
    settings = config().model_copy(update={"binding_share": percent / 100, "query_share": percent / 100})
    assert settings.events(100 * hundreds) == (percent * hundreds, percent * hundreds)


def test_a_batch_that_is_too_short_names_the_length_that_would_do():
    with pytest.raises(
        ValueError,
        match=(
            "length 10 gives 0 bindings and 0 queries; at least 2 and 1 are needed: use a length of "
            "25 or more"
        ),
    ):
        draw(SRCDConfig(), length=10)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        pytest.param(
            {"patterns": 0},
            "recurrence 0.7 needs patterns, but patterns is 0",
            id="recurrence without patterns",
        ),
        pytest.param(
            {"length": 3},
            "length 3 gives 0 bindings and 0 queries; .* use a length of 7 or more",
            id="too short",
        ),
        pytest.param(
            {"binding_share": 0.6, "query_share": 0.5},
            "exceed 1 together: use at most 0.4 for queries",
            id="more events than steps",
        ),
        pytest.param(
            {"introduce_at": ((5, 12),)},
            "introduces 12 patterns, at most patterns - 1 = 11",
            id="all patterns late",
        ),
        pytest.param({"introduce_at": ((5, -1),)}, "counts of at least 1", id="negative count"),
        pytest.param({"introduce_at": ((-5, 1),)}, "steps of at least 0", id="negative step"),
        pytest.param({"gap_min": 2.0, "gap_max": 1.0}, "gap_max 1.0 is below gap_min 2.0", id="gaps"),
        pytest.param(
            {"frequency": (2.0, 0.5)},
            r"frequency range \(2.0, 0.5\) runs backwards: use \(0.5, 2.0\)",
            id="frequencies backwards",
        ),
        pytest.param({"damping": (0.2, 0.1)}, r"damping range .* runs backwards", id="dampings backwards"),
        pytest.param({"damping": (-0.1, 0.1)}, "damping -0.1 is negative", id="negative damping"),
        pytest.param(
            {"contextual": True, "frequency": (0.0, 1.0)},
            "does not tell the sense of rotation",
            id="context that cannot be seen",
        ),
        pytest.param(
            {"recurence": 0.5},
            r"unknown key 'recurence' in SRCDConfig: did you mean 'recurrence'\?",
            id="unknown key",
        ),
        pytest.param({"recurrence": 1.5}, "less than or equal to 1", id="more than all"),
        pytest.param({"recurrence": float("nan")}, "finite", id="not a number"),
        pytest.param({"length": "long"}, "valid integer", id="wrong type"),
        pytest.param({"pattern_law": "zipff"}, "'uniform' or 'zipf'", id="unknown law"),
    ],
)
def test_an_impossible_configuration_is_an_error_that_says_why(changed, message):
    with pytest.raises(ValidationError, match=message):
        config(**changed)
