"""SRCD is what its configuration says, and every answer follows from the inputs.

:class:`Diary` re-derives answers, slices and distances of a sequence in plain Python from nothing but the inputs and the task's table of patterns;
the vectorised generator must agree with it. Statistical checks allow five standard errors, computed from the number of draws.
"""

from dataclasses import dataclass, field
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor

from torchcram.tasks.base import Task
from torchcram.tasks.srcd import SRCD, SRCDConfig
from torchcram.types import Batch

SHORT = 96


def config(**changed) -> SRCDConfig:
    return SRCDConfig(**{"length": SHORT, "patterns": 12, "binding_share": 0.3, "query_share": 0.25, **changed})


def draw(config: SRCDConfig, size: int = 8, seed: int = 0, **arguments) -> Batch:
    return SRCD(config).batch(size, generator=torch.Generator().manual_seed(seed), **arguments)


def tensors(batch: Batch) -> dict[str, Tensor]:
    named = {"inputs": batch.inputs, "gap": batch.gap, "horizon": batch.horizon}
    return {**named, **batch.targets, **{f"slice {k}": v for k, v in batch.slices.items()}, **{f"info {k}": v for k, v in batch.info.items()}}


def parts(batch: Batch, config: SRCDConfig) -> tuple[Tensor, Tensor, Tensor]:
    """Split inputs into flags (none if typeless), keys and values."""
    _, flags, keys, values = batch.inputs.split([2, 0 if config.typeless else 2, config.key_size, config.values], dim=-1)
    return flags, keys, values


@dataclass
class Diary:
    """What one sequence says, step by step."""

    task: SRCD
    patterns: dict
    inputs: Tensor
    bound: dict = field(default_factory=dict)
    history: dict = field(default_factory=dict)
    steps: list = field(default_factory=list)

    def __post_init__(self):
        config = self.task.config
        for time, features in enumerate(self.inputs[:, -config.key_size - config.values :].tolist()):
            key, value = tuple(features[: config.key_size]), features[config.key_size :]
            self.steps.append(self._bind(key, value.index(1.0), time) if any(value) else self._ask(key, time) if any(key) else None)

    def _bind(self, key: tuple, value: int, time: int) -> dict:
        self.bound[key] = (value, time)
        self.history.setdefault(key, []).append(value)
        return {"kind": "binding", "pattern": self.patterns.get(key, -1), "value": value}

    def _ask(self, key: tuple, time: int) -> dict:
        value, since = self.bound.get(key, (None, time))
        return {"kind": "query", "pattern": self.patterns.get(key, -1), "value": value, "distance": time - since, "first": self.history.get(key, [None])[0]}


def diaries(batch: Batch, config: SRCDConfig) -> list[Diary]:
    task = SRCD(config)
    patterns = {tuple(key): index for index, key in enumerate(task.keys.tolist())}
    return [Diary(task, patterns, row) for row in batch.inputs]


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
                assert slices == {"query", "unanswerable", "needs_read"}
            elif pattern < 0:
                assert slices == {"query", "novel", "needs_read"}
            else:
                assert slices == ({"query", "recurring"} if step["value"] == own[pattern] else {"query", "overridden", "needs_read"})
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
    assert not torch.equal(task.batch(4, generator=generator).inputs, task.batch(4, generator=generator).inputs)


def test_it_is_a_task():
    task = SRCD(config())
    assert isinstance(task, Task)
    assert [(head.name, head.kind, head.size) for head in task.heads] == [("answer", "classification", 16), ("next_observation", "regression", 2)]
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
    novel = [keys_of(batch, config(), batch.slices["binding"] & (batch.info["pattern"] < 0)) for batch in (first, second)]
    assert novel[0].isdisjoint(novel[1])
    assert sum(map(len, novel)) == sum((batch.slices["binding"] & (batch.info["pattern"] < 0)).sum().item() for batch in (first, second))


def test_the_seed_of_the_configuration_fixes_the_patterns():
    one, same, other = (SRCD(config(seed=seed)) for seed in (1, 1, 2))
    assert torch.equal(one.keys, same.keys)
    assert torch.equal(one.pattern_values(), same.pattern_values())
    assert not torch.equal(one.keys, other.keys)
    assert not torch.equal(one.pattern_values(), other.pattern_values())


def test_novel_values_are_unpredictable():
    """Every value is equally likely at novel bindings: chi-square with 15 degrees of freedom stays below its 99.999% point."""
    batch = draw(config(recurrence=0.0), size=100)
    counts = parts(batch, config())[2][batch.slices["binding"]].sum(0)
    expected = counts.sum() / 16
    assert ((counts - expected).square() / expected).sum() < 51.6


@pytest.mark.parametrize(("recurrence", "present", "absent"), [(0.0, "novel", "recurring"), (1.0, "recurring", "novel")])
def test_recurrence_at_its_ends(recurrence, present, absent):
    batch = draw(config(recurrence=recurrence))
    assert torch.equal(batch.slices[present], batch.slices["query"])
    assert not batch.slices[absent].any()
    assert ((batch.info["pattern"] >= 0) == (batch.slices["query"] | batch.slices["binding"]) * recurrence).all()


def test_without_patterns_all_is_novel():
    batch = draw(config(recurrence=0.0, patterns=0))
    assert torch.equal(batch.slices["novel"], batch.slices["query"])


# the specification


@pytest.fixture(scope="module")
def full() -> Batch:
    """The paper's full scale."""
    return draw(SRCDConfig(), size=80, seed=11)


def assert_share(flags: Tensor, expected: float) -> None:
    error = (expected * (1 - expected) / flags.numel()) ** 0.5
    assert abs(flags.double().mean().item() - expected) < 5 * error


def test_shares_at_full_scale(full):
    assert (full.slices["binding"].sum(1) == 163).all()
    assert (full.slices["query"].sum(1) == 102).all()
    recurring = full.info["pattern"] >= 0
    assert_share(recurring[full.slices["query"]], 0.7)
    # The first two bindings are one recurring and one novel one, so that every query has something to ask for.
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


@pytest.mark.parametrize(("name", "low", "high"), [("frequency", 0.5, 2.0), ("damping", 0.01, 0.05), ("phase", 0.0, 2 * torch.pi)])
def test_each_sequence_draws_its_oscillator_uniformly(name, low, high):
    drawn = draw(config(), size=2000).info[name].sort().values
    uniform = (drawn - low) / (high - low)
    assert uniform[0] >= 0
    assert uniform[-1] <= 1
    # Kolmogorov-Smirnov: the 99.999% point is 2.5 / sqrt(n).
    assert (uniform - torch.linspace(0, 1, 2000)).abs().max() < 2.5 / 2000**0.5


def test_what_a_sequence_draws_is_independent():
    info = draw(config(), size=2000).info
    together = torch.corrcoef(torch.stack([info["frequency"], info["damping"], info["phase"].cos(), info["phase"].sin()]))
    assert (together - torch.eye(4)).abs().max() < 5 / 2000**0.5


@pytest.mark.parametrize(("rest", "error"), [(0.7, 0.3), (0.0, 0.3), (0.7, 0.0)])
def test_observations_are_those_of_the_stated_oscillator(rest, error):
    """At rest, after a long time, an observation has the variance of the process plus that of the error."""
    batch = draw(config(gap_min=9.0, damping=(1.0, 1.0), stationary_std=rest, observation_std=error), size=200)
    late, variance = batch.inputs[:, 1:, :2], rest**2 + error**2
    assert late.mean().abs() < 5 * (variance / late.numel()) ** 0.5
    assert abs(late.var().item() - variance) < 5 * variance * (2 / late.numel()) ** 0.5


def pattern_counts(config: SRCDConfig, size: int = 300) -> Tensor:
    batch = draw(config, size=size)
    return torch.bincount(batch.info["pattern"][batch.slices["binding"] & (batch.info["pattern"] >= 0)], minlength=config.patterns)


def test_the_uniform_law_is_uniform():
    counts = pattern_counts(config()).double()
    expected = counts.mean()
    # Chi-square with 11 degrees of freedom: the 99.999% point.
    assert ((counts - expected).square() / expected).sum() < 44.0


@pytest.mark.parametrize("exponent", [0.7, 1.5])
def test_the_zipf_law_has_its_exponent(exponent):
    ranked = pattern_counts(config(pattern_law="zipf", zipf_exponent=exponent, recurrence=1.0), size=600).sort(descending=True).values.double()
    rank = torch.arange(1, 13, dtype=torch.float64).log()
    centred = rank - rank.mean()
    assert (-(centred * ranked.log()).sum() / centred.square().sum()).item() == pytest.approx(exponent, abs=0.05)


def test_queries_ask_for_any_earlier_binding_alike():
    """Among 20 sequences of novel keys, the place of the queried binding among those before it is uniform: mean 1/2, variance 1/12."""
    places = []
    for diary in diaries(draw(config(recurrence=0.0), size=40), config(recurrence=0.0)):
        bindings = [time for time, step in enumerate(diary.steps) if step and step["kind"] == "binding"]
        for time, step in enumerate(diary.steps):
            if step and step["kind"] == "query":
                before = [binding for binding in bindings if binding < time]
                places.append((before.index(time - step["distance"]) + 0.5) / len(before))
    assert abs(sum(places) / len(places) - 0.5) < 5 * (1 / 12 / len(places)) ** 0.5


# variants


def test_without_override_nothing_is_overridden():
    batch = draw(config())
    assert not batch.slices["overridden"].any()
    assert torch.equal(batch.slices["needs_read"], batch.slices["novel"])


def test_a_key_is_overridden_once_and_keeps_its_new_value():
    changes = 0
    for diary in diaries(draw(config(override=0.5), size=32), config()):
        own = diary.task.pattern_values()
        for key, values in diary.history.items():
            if key in diary.patterns:
                assert values[0] == own[diary.patterns[key]]
            turns = [after for before, after in pairwise(values) if before != after]
            assert len(turns) <= (key in diary.patterns)
            changes += len(turns)
    assert changes > 100


@pytest.mark.parametrize("override", [0.2, 0.5])
def test_the_stated_share_of_recurring_keys_is_overridden(override):
    """Many patterns, so that hardly one repeats by itself; a sequence with an odd number of recurring bindings cannot pair the last one."""
    settings = config(override=override, patterns=5000, length=256)
    changed = [len(set(values)) > 1 for diary in diaries(draw(settings, size=100), settings) for key, values in diary.history.items() if key in diary.patterns]
    assert sum(changed) / len(changed) == pytest.approx(override, rel=0.08)


def test_overriding_changes_values_only_at_and_after_the_second_binding():
    """The first binding of every key is the one that a batch without override has, too: overriding happens to a sequence, not to the patterns."""
    settings = config(override=1.0)
    batch = draw(settings, size=32)
    assert batch.slices["overridden"].any()
    assert batch.slices["recurring"].any()
    for diary in diaries(batch, settings):
        for step in diary.steps:
            if step and step["kind"] == "query" and step["pattern"] >= 0:
                assert step["first"] == diary.task.pattern_values()[step["pattern"]]


def test_every_other_value_replaces_an_overridden_one():
    settings = config(override=1.0, patterns=1, values=4, recurrence=1.0)
    own = SRCD(settings).pattern_values().item()
    batch = draw(settings, size=200)
    assert set(batch.targets["answer"][batch.slices["overridden"]].tolist()) == set(range(4)) - {own}


def test_drift_changes_every_pattern_at_its_step_and_nothing_before():
    drifting, still = config(drift_at=10), config()
    for name, tensor in tensors(draw(drifting, step=9)).items():
        assert torch.equal(tensor, tensors(draw(still, step=9))[name]), name
    task = SRCD(drifting)
    assert torch.equal(task.pattern_values(step=9), task.pattern_values(step=0))
    assert torch.equal(task.pattern_values(step=10), task.pattern_values(step=99))
    assert (task.pattern_values(step=9) != task.pattern_values(step=10)).all()
    batch = draw(drifting, step=10)
    recurring = batch.slices["recurring"]
    assert torch.equal(batch.targets["answer"][recurring], task.pattern_values(step=10)[batch.info["pattern"][recurring]])
    assert not batch.slices["overridden"].any()


def test_drift_changes_every_pattern_in_each_context():
    task = SRCD(config(drift_at=1, contextual=True, patterns=200))
    for context in (0, 1):
        assert (task.pattern_values(step=0, context=context) != task.pattern_values(step=1, context=context)).all()


def test_late_patterns_stay_away_until_they_are_introduced():
    settings = config(introduce_at=((10, 3), (20, 2)))
    task = SRCD(settings)
    assert task.introduced.tolist() == [0] * 7 + [10] * 3 + [20] * 2
    for step, patterns in {0: 7, 9: 7, 10: 10, 19: 10, 20: 12}.items():
        seen = draw(settings, size=40, step=step).info["pattern"]
        assert set(seen.unique().tolist()) == set(range(-1, patterns))


def test_a_redrawn_map_keeps_the_keys_and_draws_every_value_anew():
    task = SRCD(config(redrawn_map=True, recurrence=1.0, patterns=3))
    batch = draw(task.config, size=2000)
    answer, pattern, query = batch.targets["answer"], batch.info["pattern"], batch.slices["query"]
    assert set(pattern[query].tolist()) == {0, 1, 2}
    assert torch.equal(batch.slices["needs_read"], query)
    # One value a key within a sequence; over sequences all are equally likely, whatever the key.
    firsts = []
    for row in range(batch.size):
        for key in range(3):
            values = set(answer[row][query[row] & (pattern[row] == key)].tolist())
            assert len(values) <= 1
            firsts += [(key, value) for value in values]
    counts = torch.zeros(3, 16)
    for key, value in firsts:
        counts[key, value] += 1
    expected = counts.sum(1, keepdim=True) / 16
    assert ((counts - expected).abs() < 5 * expected.sqrt()).all()


def test_not_redrawing_draws_nothing():
    plain, redrawn = (draw(config(redrawn_map=flag)) for flag in (False, True))
    torch.testing.assert_close(plain.gap, redrawn.gap)
    assert not torch.equal(plain.targets["answer"], redrawn.targets["answer"])


def test_contextual_values_depend_on_the_sense_of_rotation():
    settings = config(contextual=True, patterns=40)
    task, batch = SRCD(settings), draw(settings, size=64)
    maps = torch.stack([task.pattern_values(context=context) for context in (0, 1)])
    assert (maps[0] != maps[1]).float().mean() > 0.7
    clockwise = (batch.info["frequency"] < 0).long()
    assert_share(clockwise, 0.5)
    assert (batch.info["frequency"].abs() >= 0.5).all()
    rows, times = batch.slices["recurring"].nonzero(as_tuple=True)
    assert torch.equal(batch.targets["answer"][rows, times], maps[clockwise[rows], batch.info["pattern"][rows, times]])
    plain = SRCD(config())
    assert torch.equal(plain.pattern_values(context=0), plain.pattern_values(context=1))


def test_the_context_can_be_seen_in_the_observations():
    """Without noise and with short gaps, successive observations turn to the left in one context and to the right in the other."""
    batch = draw(config(contextual=True, stationary_std=0.0, observation_std=0.0, gap_max=0.5), size=64)
    here, there = batch.inputs[:, :-1, :2], batch.inputs[:, 1:, :2]
    turn = here[..., 0] * there[..., 1] - here[..., 1] * there[..., 0]
    assert torch.equal(turn.sum(1).sign(), batch.info["frequency"].sign())


def test_typeless_leaves_out_the_flags_and_nothing_else():
    typed, bare = draw(config()), draw(config(typeless=True))
    assert torch.equal(torch.cat([typed.inputs[..., :2], typed.inputs[..., 4:]], -1), bare.inputs)
    assert torch.equal(typed.targets["answer"], bare.targets["answer"])
    assert SRCD(config(typeless=True)).input_size == SRCD(config()).input_size - 2


def test_unanswerable_queries_have_a_class_of_their_own():
    settings = config(unanswerable=0.25)
    batch = draw(settings, size=100)
    assert SRCD(settings).heads[0].size == 17
    assert_share(batch.slices["unanswerable"][batch.slices["query"]], 0.25)
    assert torch.equal(batch.targets["answer"] == 16, batch.slices["unanswerable"])
    assert (batch.info["distance"][batch.slices["unanswerable"]] == 0).all()


# lengths and errors


@pytest.mark.parametrize("length", [32, 64, 200])
def test_a_curriculum_may_ask_for_another_length(length):
    batch = draw(config(), length=length)
    assert batch.inputs.shape[:2] == (8, length)
    assert (batch.slices["query"].sum(1) == int(0.25 * length)).all()


@given(binding=st.floats(0.005, 0.9), query=st.floats(0.005, 0.9), recurrence=st.sampled_from([0.0, 0.5, 1.0]))
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
    with pytest.raises(ValueError, match="length 10 gives 0 bindings and 0 queries; at least 2 and 1 are needed: use a length of 25 or more"):
        draw(SRCDConfig(), length=10)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        pytest.param({"patterns": 0}, "recurrence 0.7 needs patterns, but patterns is 0", id="recurrence without patterns"),
        pytest.param({"length": 3}, "length 3 gives 0 bindings and 0 queries; .* use a length of 7 or more", id="too short"),
        pytest.param({"binding_share": 0.6, "query_share": 0.5}, "exceed 1 together: use at most 0.4 for queries", id="more events than steps"),
        pytest.param({"introduce_at": ((5, 12),)}, "introduces 12 patterns, at most patterns - 1 = 11", id="all patterns late"),
        pytest.param({"introduce_at": ((5, -1),)}, "counts of at least 1", id="negative count"),
        pytest.param({"introduce_at": ((-5, 1),)}, "steps of at least 0", id="negative step"),
        pytest.param({"gap_min": 2.0, "gap_max": 1.0}, "gap_max 1.0 is below gap_min 2.0", id="gaps"),
        pytest.param({"frequency": (2.0, 0.5)}, r"frequency range \(2.0, 0.5\) runs backwards: use \(0.5, 2.0\)", id="frequencies backwards"),
        pytest.param({"damping": (0.2, 0.1)}, r"damping range .* runs backwards", id="dampings backwards"),
        pytest.param({"damping": (-0.1, 0.1)}, "damping -0.1 is negative", id="negative damping"),
        pytest.param({"contextual": True, "frequency": (0.0, 1.0)}, "does not tell the sense of rotation", id="context that cannot be seen"),
        pytest.param({"recurence": 0.5}, r"unknown key 'recurence' in SRCDConfig: did you mean 'recurrence'\?", id="unknown key"),
        pytest.param({"recurrence": 1.5}, "less than or equal to 1", id="more than all"),
        pytest.param({"recurrence": float("nan")}, "finite", id="not a number"),
        pytest.param({"length": "long"}, "valid integer", id="wrong type"),
        pytest.param({"pattern_law": "zipff"}, "'uniform' or 'zipf'", id="unknown law"),
    ],
)
def test_an_impossible_configuration_is_an_error_that_says_why(changed, message):
    with pytest.raises(ValidationError, match=message):
        config(**changed)
