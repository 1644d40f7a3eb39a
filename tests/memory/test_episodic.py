"""Episodic memory: strictly causal, relative in time, found by key from the first step on, bounded without
loss."""

import pytest
import torch
from torch import Tensor

from lived import live
from torchcram.memory.episodic import EpisodicMemory
from torchcram.ops.routed_attention.packing import visible_entries
from torchcram.types import KeyValueState

EXACT = {"rtol": 1e-9, "atol": 1e-9}
BATCH, TIME, WIDTH = 2, 12, 32

pytestmark = pytest.mark.usefixtures("float64")


def lived(**options) -> EpisodicMemory:
    return live(EpisodicMemory(WIDTH, marks=True, **options))


def stream() -> tuple[Tensor, Tensor]:
    return torch.randn(BATCH, TIME, WIDTH), torch.rand(BATCH, TIME)


def everyone(steps: int = TIME) -> Tensor:
    return torch.ones(BATCH, steps, dtype=torch.bool)


def read_all(
    memory: EpisodicMemory, h: Tensor, gap: Tensor, state: KeyValueState | None = None, **options
) -> Tensor:
    state, time = memory.write(h, gap, memory.init_state(BATCH) if state is None else state, **options)
    return memory.read(h, time, state, everyone(h.shape[1]))


def test_a_token_reads_what_was_written_strictly_before_it():
    """What steps t and later write, t's own entry among them, makes no difference to t; what was written
    before does."""
    memory, (h, gap), other = lived(), stream(), torch.randn(BATCH, TIME, WIDTH)
    state, time = memory.write(h, gap, memory.init_state(BATCH))
    found = memory.read(h, time, state, everyone())
    for t in range(TIME):
        late, _ = memory.write(
            torch.where(torch.arange(TIME)[:, None] >= t, other, h), gap, memory.init_state(BATCH)
        )
        same = memory.read(h, time, late, everyone())
        torch.testing.assert_close(same[:, : t + 1], found[:, : t + 1], **EXACT)
        assert t == TIME - 1 or (same[:, t + 1 :] - found[:, t + 1 :]).abs().amax(-1).min() > 1e-6


def test_the_first_token_finds_the_null_entry():
    memory, (h, gap) = lived(), stream()
    null = memory.out(memory.null_value.flatten())
    torch.testing.assert_close(read_all(memory, h, gap)[:, 0], null.expand(BATCH, -1), **EXACT)


def test_only_selected_tokens_read():
    memory, (h, gap), selected = lived(), stream(), torch.rand(BATCH, TIME) < 0.4
    state, time = memory.write(h, gap, memory.init_state(BATCH))
    some, all_of = (memory.read(h, time, state, which) for which in (selected, everyone()))
    torch.testing.assert_close(some, torch.where(selected[..., None], all_of, 0.0), **EXACT)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3])
def test_few_readers_are_computed_alone_with_the_gradients_of_all(share):
    memory, (h, gap), selected = lived(), stream(), torch.rand(BATCH, TIME) < share
    h.requires_grad_()
    rows: list[int] = []
    for projection in (memory.query, memory.out):
        projection.register_forward_hook(lambda module, given, output: rows.append(output.shape[:-1].numel()))
    state, time = memory.write(h, gap, memory.init_state(BATCH))
    few = memory.read(h, time, state, selected)
    assert rows == [int(selected.sum())] * 2
    every = memory.read(h, time, state, everyone())
    above = torch.randn(BATCH, TIME, WIDTH)
    torch.testing.assert_close(few, every * selected[..., None], **EXACT)
    wanted = [h, *memory.parameters()]
    mine, theirs = (
        torch.autograd.grad(out, wanted, above * selected[..., None], retain_graph=True, allow_unused=True)
        for out in (few, every)
    )
    for name, one, other in zip(["h", *dict(memory.named_parameters())], mine, theirs, strict=True):
        torch.testing.assert_close(one, other, **EXACT, msg=name)


def test_only_differences_of_time_matter():
    """All time stamps are moved by 1,000 units.

    The null entry has no time stamp: its key lies in the half that does not turn.
    """
    memory, (h, gap) = lived(), stream()
    with torch.no_grad():
        memory.null_key.normal_()
    late = KeyValueState(**{**vars(memory.init_state(BATCH)), "time": torch.full((BATCH,), 1000.0)})
    torch.testing.assert_close(read_all(memory, h, gap, late), read_all(memory, h, gap), **EXACT)
    assert (read_all(memory, h, 3 * gap) - read_all(memory, h, gap)).abs().max() > 1e-3


def test_half_of_each_head_turns_by_time_stamp():
    memory, (h, _) = lived(), stream()
    keys = [
        memory.write(h[:, :1], torch.full((BATCH, 1), gap), memory.init_state(BATCH))[0].keys[:, :, 1]
        for gap in (0.0, 2.0)
    ]
    still, turning = memory.d_head // 2, memory.d_head // 4
    torch.testing.assert_close(keys[0][..., still:], keys[1][..., still:], **EXACT)
    # The fastest pair turns by one radian per unit of time.
    x, y, cos, sin = (
        keys[0][..., 0],
        keys[0][..., turning],
        *(f(torch.tensor(2.0)) for f in (torch.cos, torch.sin)),
    )
    torch.testing.assert_close(
        torch.stack([keys[1][..., 0], keys[1][..., turning]]),
        torch.stack([x * cos - y * sin, x * sin + y * cos]),
        **EXACT,
    )


@pytest.mark.parametrize("window", [1, 3, 50])
@pytest.mark.parametrize("pieces", [[1] * TIME, [5, 7], [1, 2, 9]], ids=["steps", "halves", "uneven"])
def test_forgetting_never_changes_an_output(window, pieces):
    memory, (h, gap) = lived(window=window), stream()
    whole, state, start = read_all(memory, h, gap), memory.init_state(BATCH), 0
    for length in pieces:
        piece = slice(start, start + length)
        torch.testing.assert_close(
            read_all(memory, h[:, piece], gap[:, piece], state), whole[:, piece], **EXACT
        )
        state, start = memory.forget(memory.write(h[:, piece], gap[:, piece], state)[0]), start + length
        assert state.keys.shape[2] == state.values.shape[2] == min(window, start) + 1


def test_a_window_sees_the_last_entries_and_the_null_entry():
    (h, gap), other = stream(), torch.randn(BATCH, WIDTH)
    memory, unbounded = lived(window=3), lived()
    for t, seen in {TIME - 5: False, TIME - 4: True}.items():
        changed = torch.where(torch.arange(TIME)[:, None] == t, other[:, None], h)
        difference = (read_all(memory, changed, gap) - read_all(memory, h, gap))[:, -1].abs().max()
        assert (difference > 1e-6) == seen
        assert (read_all(unbounded, changed, gap) - read_all(unbounded, h, gap))[:, -1].abs().max() > 1e-6


def test_without_a_window_nothing_is_forgotten():
    memory, (h, gap) = lived(), stream()
    state, _ = memory.write(h, gap, memory.init_state(BATCH))
    assert memory.forget(state) is state


def test_what_is_written_under_a_key_is_found_under_it_from_the_first_step_on():
    """An untrained memory: the last token repeats token 4 and finds what it wrote, because queries and
    keys start equal."""
    memory, (h, gap) = EpisodicMemory(WIDTH), stream()
    h[:, -1] = h[:, 4]
    state, time = memory.write(h, 0.1 * gap, memory.init_state(BATCH))
    found = memory.read(h, time, state, everyone())[:, -1]
    expected = memory.written_value(h[:, 4])
    assert torch.cosine_similarity(found, expected).min() > 0.9
    last = torch.arange(TIME) == TIME - 1
    row, step, source = memory.top_entry(h, time, state, last.expand(BATCH, TIME))
    assert (row.tolist(), step.tolist(), source.tolist()) == ([0, 1], [TIME - 1] * 2, [4, 4])
    with torch.no_grad():
        memory.key.weight.copy_(torch.randn(WIDTH, WIDTH))
    apart = read_all(memory, h, 0.1 * gap)[:, -1]
    assert torch.cosine_similarity(apart, expected).max() < 0.9


def test_the_top_entry_lies_within_these_steps_and_has_most_of_the_weight():
    memory, (h, gap), last = EpisodicMemory(WIDTH), stream(), torch.arange(TIME) == TIME - 1
    h[:, -1] = h[:, 4]
    before, _ = memory.write(h[:, :6], 0.1 * gap[:, :6], memory.init_state(BATCH))
    state, time = memory.write(h[:, 6:], 0.1 * gap[:, 6:], before)
    row, _, _ = memory.top_entry(h[:, 6:], time, state, last[6:].expand(BATCH, -1))
    assert row.numel() == 0, "token 4 was written before these steps"
    with torch.no_grad():
        memory.log_sharpness.fill_(-5.0)
    state, time = memory.write(h, 0.1 * gap, memory.init_state(BATCH))
    assert memory.top_entry(h, time, state, last.expand(BATCH, -1))[0].numel() == 0, (
        "an even spread has no top"
    )


@pytest.mark.parametrize("window", [None, 5])
def test_the_top_entries_are_those_of_all_weights_at_once(window):
    """More queries than are looked at together, of sequences of which one reads less; and none at all."""
    memory = lived(window=window)
    h, gap = torch.randn(BATCH, 50, WIDTH), torch.rand(BATCH, 50)
    h[:, 25:] = h[:, :25]
    with torch.no_grad():
        memory.key.weight.copy_(memory.query.weight)
    state, time = memory.write(h, 0.01 * gap, memory.init_state(BATCH))
    reads = torch.rand(BATCH, 50) < torch.tensor([[0.9], [0.4]])
    scores = memory._queries(memory.address(h), time) @ state.keys.mT
    visible = visible_entries(1 + torch.arange(50).expand(BATCH, -1), 51, window)
    weight, entry = scores.masked_fill(~visible[:, None], -torch.inf).softmax(-1).mean(1).max(-1)
    expected = {
        (row, step, int(entry[row, step]) - 1)
        for row, step in (reads & (weight > 0.5) & (entry > 0)).nonzero().tolist()
    }
    assert {
        tuple(found) for found in torch.stack(memory.top_entry(h, time, state, reads), 1).tolist()
    } == expected
    assert window is not None or len(expected) > 10
    assert memory.top_entry(h, time, state, torch.zeros_like(reads))[0].numel() == 0


def test_a_surprise_marks_its_own_key_and_no_other():
    memory, (h, gap) = lived(), stream()
    surprise = torch.zeros(BATCH, TIME)
    surprise[0, 3] = 0.7
    plain, marked = (
        memory.write(h, gap, memory.init_state(BATCH), surprise=given)[0] for given in (None, surprise)
    )
    changed = (plain.keys - marked.keys).abs().amax((1, 3)) > 1e-9
    assert changed.nonzero().tolist() == [[0, 1 + 3]]
    assert torch.equal(plain.values, marked.values)
    torch.testing.assert_close(
        (plain.keys - marked.keys)[0, :, 4].norm(dim=-1), 0.7 * memory.mark.norm(dim=-1), **EXACT
    )
    outputs = read_all(memory, h, gap), read_all(memory, h, gap, surprise=surprise)
    assert ((outputs[0] - outputs[1]).abs().amax(-1) > 1e-9).nonzero().tolist() == [
        [0, t] for t in range(4, TIME)
    ]


def test_the_written_value_is_what_a_reader_of_this_entry_alone_gets():
    memory, (h, gap) = lived(), stream()
    with torch.no_grad():
        memory.null_key.copy_(
            -1e3 * memory.address(h)[0, 1].view(memory.heads, memory.d_head)[:, memory.d_head // 2 :]
        )
    torch.testing.assert_close(read_all(memory, h, 0 * gap)[0, 1], memory.written_value(h[0, 0]), **EXACT)


@pytest.mark.parametrize(
    ("width", "options", "message"),
    [
        (30, {}, "d_model 30 is not a multiple of 4 x heads = 16 .*: use 32"),
        (32, {"heads": 0}, "heads 0 must be above 0"),
        (32, {"window": 0}, "window 0 must be at least 1, or None"),
    ],
)
def test_impossible_sizes_are_errors(width, options, message):
    with pytest.raises(ValueError, match=message):
        EpisodicMemory(width, **options)
