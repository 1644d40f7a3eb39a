"""The surprise trace: flags a familiar key bound to another value, clears it when it is bound back, and
sees strictly earlier bindings only."""

import pytest
import torch
from torch import Tensor

from torchcram.memory.semantic import SemanticAnswer, SlotMemory
from torchcram.memory.surprise import SurpriseTrace, Trace

EXACT = {"rtol": 1e-9, "atol": 1e-9}
WIDTH, SLOTS = 16, 6

pytestmark = pytest.mark.usefixtures("float64")


@pytest.fixture
def slots() -> SlotMemory:
    """A memory that knows six addresses, and an answer for each."""
    memory = SlotMemory(WIDTH, slots=SLOTS)
    memory.keys.copy_(torch.eye(WIDTH)[:SLOTS] * WIDTH)
    memory.values.copy_(torch.randn(SLOTS, WIDTH))
    return memory


@pytest.fixture
def trace() -> SurpriseTrace:
    return SurpriseTrace(WIDTH, slots=SLOTS)


def asked(slots: SlotMemory, keys: list[int]) -> SemanticAnswer:
    """What semantic memory says at the addresses of some keys; beyond SLOTS, at addresses that it does not
    know."""
    address = WIDTH * torch.eye(WIDTH)[keys]
    return slots(address, address)


def follow(
    trace: SurpriseTrace, slots: SlotMemory, keys: list[int], values: Tensor, state: Tensor | None = None
) -> Trace:
    """One sequence in which every step binds a key to a value."""
    state = trace.init_state(1) if state is None else state
    return trace.follow(state, torch.ones(1, len(keys), dtype=torch.bool), asked(slots, keys), values)


def veto(result: Trace, slots: SlotMemory, step: int, key: int) -> float:
    steps = torch.zeros(result.index.shape, dtype=torch.bool)
    steps[0, step] = True
    return result.veto(asked(slots, [key]), steps).item()


def test_a_familiar_key_bound_to_another_value_is_flagged_and_bound_back_is_cleared(trace, slots):
    result = follow(
        trace, slots, [1, 2, 1], slots.values[[1, 2, 1]] * torch.tensor([-1.0, 1.0, 1.0])[:, None]
    )
    assert result.before[0, :, 1].tolist() == pytest.approx([0.0, 1.0, 1.0, 0.0], abs=1e-3)
    assert result.surprise[0].tolist() == pytest.approx([1.0, 0.0, 0.0], abs=1e-3)
    others = [slot for slot in range(SLOTS) if slot != 1]
    assert result.before[..., others].max() < 1e-3


def test_a_key_that_semantic_memory_does_not_know_flags_nothing(trace, slots):
    result = follow(trace, slots, [SLOTS, SLOTS + 1], torch.randn(2, WIDTH))
    assert result.state.abs().max() < 1e-6
    assert result.surprise.abs().max() < 1e-6


def test_a_contradiction_grows_with_the_distance_of_the_values(trace, slots):
    values = slots.values[1] * torch.tensor([1.0, 1.1, 1.5, 3.0, -1.0])[:, None]
    surprise = [follow(trace, slots, [1], value[None]).surprise.item() for value in values]
    assert surprise[0] < 1e-6
    assert surprise == sorted(surprise)
    error = 0.5**2 / 1.5**2
    assert surprise[2] == pytest.approx(1 - torch.exp(torch.tensor(-2 * error)).item(), abs=1e-6)


def test_a_veto_sees_strictly_earlier_bindings(trace, slots):
    result = follow(trace, slots, [3, 4], -slots.values[[3, 4]])
    assert veto(result, slots, 0, 3) < 1e-9
    assert veto(result, slots, 1, 3) > 0.99
    assert veto(result, slots, 1, 4) < 1e-9


def test_steps_that_bind_nothing_see_the_flags_of_the_bindings_before_them(trace, slots):
    written = torch.tensor([[False, True, False, False, True, False]])
    result = trace.follow(trace.init_state(1), written, asked(slots, [3, 4]), -slots.values[[3, 4]])
    assert [round(veto(result, slots, step, 3)) for step in range(6)] == [0, 0, 1, 1, 1, 1]
    assert [round(veto(result, slots, step, 4)) for step in range(6)] == [0, 0, 0, 0, 0, 1]
    assert (result.surprise[0] > 0.9).tolist() == written[0].tolist()


def test_whole_is_step_by_step_with_carried_flags(trace, slots):
    slots.sharpness, slots.radius = 1.0, 3.0
    keys, values = torch.randint(SLOTS, (12,)).tolist(), torch.randn(12, WIDTH)
    whole, state = follow(trace, slots, keys, values), trace.init_state(1)
    for t, key in enumerate(keys):
        torch.testing.assert_close(state, whole.before[:, t], **EXACT)
        step = follow(trace, slots, [key], values[t : t + 1], state)
        torch.testing.assert_close(step.surprise[:, 0], whole.surprise[:, t], **EXACT)
        state = step.state
    torch.testing.assert_close(state, whole.state, **EXACT)
    assert 0.1 < state.mean() < 0.9


def test_rows_write_different_numbers_of_bindings(trace, slots):
    """A row's flags are those that it would have alone, and without bindings they stay."""
    written = torch.tensor([[True, True, True], [False, False, False], [False, True, False]])
    start, values = torch.rand(3, SLOTS), torch.randn(4, WIDTH)
    together = trace.follow(start, written, asked(slots, [0, 1, 0, 2]), values)
    torch.testing.assert_close(together.state[1], start[1], **EXACT)
    alone = trace.follow(start[2:], written[2:], asked(slots, [2]), values[3:])
    torch.testing.assert_close(together.state[2:], alone.state, **EXACT)
    torch.testing.assert_close(together.surprise[2:], alone.surprise, **EXACT)
    nothing = trace.follow(start, torch.zeros(3, 2, dtype=torch.bool), asked(slots, []), values[:0])
    torch.testing.assert_close(nothing.state, start, **EXACT)


# learning


def test_at_first_nothing_binds(trace):
    assert not trace.writes(torch.randn(4, 50, WIDTH), None).any()


def test_padding_binds_nothing(trace):
    torch.nn.init.constant_(trace.binds.bias, 1.0)
    mask = torch.arange(5) < torch.tensor([[5], [2]])
    assert torch.equal(trace.writes(torch.randn(2, 5, WIDTH), mask), mask)


def test_it_learns_what_binds_and_where_it_will_be_asked_for():
    """Planted: steps with a positive first feature bind, and are asked for at a linear map of their state."""
    trace = SurpriseTrace(WIDTH, slots=SLOTS, positive_weight=1.0)
    hidden, there = torch.randn(8, 40, WIDTH), torch.randn(WIDTH, WIDTH) / 4
    binds = hidden[..., 0] > 0
    entry = hidden[binds]
    optimizer = torch.optim.Adam(trace.parameters(), lr=0.05)
    for _ in range(150):
        optimizer.zero_grad()
        trace.loss(hidden, binds, entry, entry @ there).backward()
        optimizer.step()
    assert (trace.writes(hidden, None) == binds).double().mean() > 0.95
    assert (trace.align(entry) - entry @ there).square().mean() < 1e-3


def test_its_loss_does_not_touch_the_trunk_and_needs_no_reads(trace):
    hidden = torch.randn(2, 4, WIDTH, requires_grad=True)
    nobody = torch.zeros(2, 4, dtype=torch.bool)
    loss = trace.loss(hidden, nobody, hidden[nobody], hidden[nobody])
    loss.backward()
    assert loss.isfinite()
    assert hidden.grad is None
    assert trace.binds.weight.grad.isfinite().all()
