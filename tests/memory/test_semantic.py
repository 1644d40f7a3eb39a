"""Semantic memory: slots hold running means of what was read, keep what recurs, and measure distances in a
metric that they learn."""

import pytest
import torch
from torch import Tensor

from torchcram.memory.semantic import SEMANTIC_MEMORIES, LowRankMemory, SlotMemory
from torchcram.types import Lesson

EXACT = {"rtol": 1e-9, "atol": 1e-9}
WIDTH = 16

pytestmark = pytest.mark.usefixtures("float64")


def lesson(
    address: Tensor, target: Tensor | None = None, *, read: bool = True, quality: float = 0.5
) -> Lesson:
    tokens = len(address)
    return Lesson(
        address=address,
        read=torch.full((tokens,), read),
        target=torch.zeros_like(address) if target is None else target,
        quality=torch.full((tokens,), quality),
    )


def ask(slots: SlotMemory, address: Tensor) -> Tensor:
    return slots(torch.zeros_like(address), address).value


@pytest.fixture
def addresses() -> Tensor:
    """Six addresses far from each other and from the slots' first keys."""
    return torch.eye(WIDTH)[:6] * WIDTH


# learning


def test_a_slot_holds_the_mean_of_what_was_read_under_its_address(addresses):
    """Thirty rows at rates 1, 1/2, ... 1/30: their mean, exactly.

    From the 51st on the mean forgets, at the slowest rate of 2%.
    """
    slots, rows = SlotMemory(WIDTH, slots=4), torch.randn(60, WIDTH)
    for n, row in enumerate(rows, start=1):
        slots.learn(lesson(addresses[:1], row[None]))
        if n in (1, 2, 30, 50):
            torch.testing.assert_close(ask(slots, addresses[:1])[0], rows[:n].mean(0), **EXACT)
    later = 0.98 ** torch.arange(9, -1, -1)
    expected = 0.98**10 * rows[:50].mean(0) + 0.02 * (later[:, None] * rows[50:]).sum(0)
    torch.testing.assert_close(ask(slots, addresses[:1])[0], expected, **EXACT)
    assert slots.reads.max() == 60


@pytest.mark.parametrize("batches", [[1, 4], [5], [2, 2, 1], [1, 1, 1, 1, 1]])
def test_a_mean_does_not_depend_on_how_its_rows_come_together(addresses, batches):
    slots, rows = SlotMemory(WIDTH, slots=4), torch.randn(6, WIDTH)
    slots.learn(lesson(addresses[:1], rows[:1]))
    for part in rows[1:].split(batches):
        slots.learn(lesson(addresses[:1].expand(len(part), -1), part))
    torch.testing.assert_close(ask(slots, addresses[:1])[0], rows.mean(0), **EXACT)


def test_one_address_that_comes_twice_in_a_step_takes_one_slot(addresses):
    slots = SlotMemory(WIDTH, slots=8)
    slots.learn(lesson(addresses[[0, 1, 0, 1, 2]], torch.arange(5.0)[:, None].expand(-1, WIDTH)), most=3)
    assert (slots.reads > 0).sum() == 3
    torch.testing.assert_close(
        ask(slots, addresses[:3])[:, 0], torch.tensor([0.0, 1.0, 4.0]), rtol=0, atol=1e-6
    )


def test_each_address_has_its_own_slot(addresses):
    slots, rows = SlotMemory(WIDTH, slots=8), torch.randn(5, 6, WIDTH)
    for row in rows:
        slots.learn(lesson(addresses, row))
    torch.testing.assert_close(ask(slots, addresses), rows.mean(0), rtol=1e-6, atol=1e-6)
    assert slots.reads.sort().values.tolist() == [0, 0, 5, 5, 5, 5, 5, 5]


def test_what_is_asked_but_not_read_moves_keys_and_usage_only(addresses):
    slots = SlotMemory(WIDTH, slots=4)
    slots.learn(lesson(addresses[:2], torch.ones(2, WIDTH)))
    before = {name: tensor.clone() for name, tensor in slots.state_dict().items()}
    slots.learn(lesson(addresses[:1] + 0.1, torch.full((1, WIDTH), 9.0), read=False))
    after = slots.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in ("values", "reads", "quality"))
    moved = (before["keys"] - after["keys"]).abs().amax(-1) > 1e-9
    assert moved.sum() == 1
    torch.testing.assert_close(after["keys"][moved], addresses[:1] + 0.02 * 0.1, **EXACT)
    assert (after["usage"] > before["usage"]).tolist() == moved.tolist()


def test_unused_slots_are_taken_over_first_and_then_the_one_used_least(addresses):
    slots = SlotMemory(WIDTH, slots=3)
    for _ in range(3):
        slots.learn(lesson(addresses[:2], torch.ones(2, WIDTH)))
    assert (slots.reads > 0).sum() == 2
    slots.learn(lesson(addresses[2:3], torch.full((1, WIDTH), 2.0)))
    assert (slots.reads > 0).all()
    slots.learn(lesson(addresses[1:2], torch.ones(1, WIDTH)))
    slots.learn(lesson(addresses[3:4], torch.full((1, WIDTH), 3.0)))
    known = slots(addresses[:4], addresses[:4]).recognition > 0.5
    assert known.tolist() == [True, True, False, True]


@pytest.mark.parametrize(("most", "slots", "taken"), [(2, 8, 2), (16, 3, 3), (16, 8, 6)])
def test_a_step_takes_over_so_many_slots_at_most(addresses, most, slots, taken):
    memory = SlotMemory(WIDTH, slots=slots)
    memory.learn(lesson(addresses), most=most)
    assert (memory.reads > 0).sum() == taken


def test_recurring_addresses_survive_a_stream_of_novel_ones():
    slots, recurring, values = SlotMemory(WIDTH, slots=12), *torch.randn(2, 3, WIDTH)
    for _ in range(150):
        address = torch.cat([recurring + 0.02 * torch.randn(3, WIDTH), torch.randn(3, WIDTH)])
        slots.learn(lesson(address, torch.cat([values, torch.randn(3, WIDTH)])))
    torch.testing.assert_close(ask(slots, recurring), values, rtol=0, atol=0.05)
    assert (slots(recurring, recurring).recognition > 0.9).all()
    novel = torch.randn(200, WIDTH)
    assert (slots(novel, novel).recognition < 0.1).double().mean() > 0.95


def test_nothing_asked_nothing_learned_but_usage_fades(addresses):
    slots = SlotMemory(WIDTH, slots=4)
    slots.learn(lesson(addresses[:2], torch.ones(2, WIDTH)))
    before = {name: tensor.clone() for name, tensor in slots.state_dict().items()}
    slots.learn(lesson(addresses[:0]), memory=0.5)
    torch.testing.assert_close(slots.usage, 0.5 * before.pop("usage"))
    assert all(torch.equal(tensor, slots.state_dict()[name]) for name, tensor in before.items())


def test_quality_is_the_mean_of_what_was_observed_and_starts_at_zero(addresses):
    slots, observed = SlotMemory(WIDTH, slots=4), [0.9, 0.8, 0.1, 0.4]
    for quality in observed:
        slots.learn(lesson(addresses[:1], quality=quality))
    # The read that took the slot over found nothing there to be judged.
    evidence = slots(addresses[:1], addresses[:1]).evidence[0]
    assert evidence[4].item() == pytest.approx((0 + 0.8 + 0.1 + 0.4) / 4)
    assert evidence[5].item() == pytest.approx(torch.log1p(torch.tensor(4.0)).item())


# the metric


def planted(classes: int = 4, each: int = 50) -> tuple[Tensor, Tensor, Tensor]:
    """Classes that differ in the last four directions, under noise that fills the others: the noise is ten
    times as wide."""
    centres = torch.zeros(classes, WIDTH)
    centres[:, -classes:] = torch.eye(classes)
    noise = torch.randn(classes * each, WIDTH) * torch.cat([torch.ones(WIDTH - 4), torch.full((4,), 0.1)])
    label = torch.arange(classes).repeat_interleave(each)
    return centres, centres[label] + noise, label


def test_the_learned_metric_separates_classes_that_the_plain_one_confuses():
    """Slots that know the noise from their classes' centres tell classes by one example each; in the plain
    metric the noise of the examples wins."""
    centres, address, label = planted()
    slots = SlotMemory(WIDTH, slots=4, radius=100.0)
    slots.keys.copy_(centres)
    for _ in range(200):
        slots.learn(lesson(address, read=False))
    slots.keys.copy_(address[::50])
    learned = (slots.distance(address).argmin(-1) == label).double().mean()
    slots.whiten.copy_(torch.eye(WIDTH))
    plain = (slots.distance(address).argmin(-1) == label).double().mean()
    assert plain < 0.6
    assert learned > 0.85


def test_unrelated_addresses_are_about_two_apart_whatever_they_have_in_common():
    """The unit of distance is the mean square of an address about the mean of all: scale and a common part
    cancel."""
    slots = SlotMemory(WIDTH, slots=64, radius=1e-3)
    for _ in range(400):
        slots.learn(lesson(7.0 + 3.0 * torch.randn(32, WIDTH), read=False))
    slots.keys.copy_(7.0 + 3.0 * torch.randn(64, WIDTH))
    distance = slots.distance(7.0 + 3.0 * torch.randn(500, WIDTH))
    assert distance.mean().item() == pytest.approx(2.0, rel=0.1)
    assert slots.distance(slots.keys.data).diagonal().abs().max() < 1e-9


# answers


def test_an_answer_is_a_mean_of_values_weighted_by_nearness(addresses):
    slots = SlotMemory(WIDTH, slots=6, sharpness=2.0)
    slots.keys.copy_(addresses)
    slots.values.copy_(torch.randn(6, WIDTH))
    read = slots(torch.zeros(3, WIDTH), 0.1 * torch.randn(3, WIDTH))
    torch.testing.assert_close(read.weights.sum(-1), torch.ones(3), **EXACT)
    torch.testing.assert_close(read.value, read.weights @ slots.values, **EXACT)
    distance = slots.distance(0.1 * addresses)
    weights = slots(addresses, 0.1 * addresses).weights
    torch.testing.assert_close(weights, torch.softmax(-2.0 * distance, -1), **EXACT)
    assert torch.equal(weights.argmax(-1), torch.arange(6))


def test_a_stored_address_is_recognised_and_a_foreign_one_is_not(addresses):
    slots = SlotMemory(WIDTH, slots=4)
    slots.keys.copy_(addresses[:4])
    near, far = slots(addresses[:4], addresses[:4]), slots(addresses[4:], addresses[4:])
    torch.testing.assert_close(near.recognition, torch.ones(4), **EXACT)
    assert far.recognition.max() < 1e-6
    assert near.evidence.shape == (4, slots.evidence_size)
    assert slots(addresses[:0], addresses[:0]).value.shape == (0, WIDTH)


def test_slots_are_written_not_descended():
    slots = SlotMemory(WIDTH, slots=4)
    assert not any(parameter.requires_grad for parameter in slots.parameters())


# the paper's adapter


@pytest.mark.parametrize(("width", "rank"), [(64, 4), (128, 8), (8, 1)])
def test_the_adapter_has_the_rank_of_the_paper(width, rank):
    memory = LowRankMemory(width)
    assert memory.down.weight.shape == (rank, width)
    assert LowRankMemory(width, rank=2).down.weight.shape == (2, width)


def test_the_adapter_answers_by_the_hidden_state_and_learns_by_gradient_alone():
    memory, h = LowRankMemory(WIDTH, rank=3), torch.randn(5, WIDTH)
    read = memory(h, torch.randn(5, WIDTH))
    torch.testing.assert_close(read.value, memory.up(torch.nn.functional.gelu(memory.down(h))), **EXACT)
    assert (read.evidence.requires_grad, read.weights, read.recognition) == (False, None, None)
    before = [parameter.clone() for parameter in memory.parameters()]
    memory.learn(lesson(h, torch.randn(5, WIDTH)))
    assert all(torch.equal(old, new) for old, new in zip(before, memory.parameters(), strict=True))
    assert all(parameter.requires_grad for parameter in memory.parameters())


def test_the_silent_memory_answers_nothing_and_has_nothing_to_learn():
    memory, address = SEMANTIC_MEMORIES["none"](WIDTH), torch.randn(3, WIDTH)
    read = memory(torch.randn(3, WIDTH), address)
    assert not read.value.any()
    assert read.evidence.shape == (3, 0)
    memory.learn(lesson(address))
    assert memory.state_dict() == {}


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("slots", {"rank": 4}, "rank 4 belongs to semantic='low_rank'; slots have none"),
        ("slots", {"slots": 1}, "slots 1 must be at least 2"),
        ("low_rank", {"rank": 0}, "rank 0 must lie between 1 and d_model = 16"),
        ("low_rank", {"rank": 17}, "rank 17 must lie between 1 and d_model = 16"),
        ("none", {"rank": 4}, "rank 4 belongs to semantic='low_rank'; semantic='none' has none"),
    ],
)
def test_impossible_sizes_are_errors(kind, options, message):
    with pytest.raises(ValueError, match=message):
        SEMANTIC_MEMORIES[kind](WIDTH, **options)


# what is kept between calls


def _fresh(slots: SlotMemory, address: Tensor) -> Tensor:
    """The distances by their definition, from what the memory holds now."""
    apart = (address[:, None] - slots.keys) @ slots.whiten
    return apart.square().mean(-1)


@pytest.mark.parametrize("change", ["learn", "load", "keys", "mean", "whiten", "dtype"])
def test_distances_follow_every_change_of_what_is_stored(addresses, change):
    slots = SlotMemory(WIDTH, slots=4).eval()
    torch.testing.assert_close(slots.distance(addresses), _fresh(slots, addresses), **EXACT)
    other = SlotMemory(WIDTH, slots=4)
    for _ in range(3):
        other.learn(lesson(addresses + 0.1 * torch.randn(6, WIDTH), torch.randn(6, WIDTH)))
    if change == "learn":
        slots.learn(lesson(addresses + 0.1 * torch.randn(6, WIDTH), torch.randn(6, WIDTH)))
    elif change == "load":
        slots.load_state_dict(other.state_dict())
    elif change == "dtype":
        slots = slots.float()
        assert slots.distance(addresses.float()).dtype == torch.float32
        slots = slots.double()
    else:
        with torch.no_grad():
            getattr(slots, change).mul_(2).add_(0.3)
    torch.testing.assert_close(slots.distance(addresses), _fresh(slots, addresses), **EXACT)


def test_keys_are_placed_once_while_nothing_changes(addresses, monkeypatch):
    slots, calls = SlotMemory(WIDTH, slots=4).eval(), []
    whitened = slots._whitened
    monkeypatch.setattr(slots, "_whitened", lambda address: calls.append(len(address)) or whitened(address))
    for _ in range(3):
        slots.distance(addresses)
    assert calls == [6, 4, 6, 6]


def test_under_autocast_nothing_coarser_is_kept(addresses):
    """Nor is what was kept outside of it used inside: keys are placed as precisely as what asks."""
    slots = SlotMemory(WIDTH, slots=4).float().eval()
    exact = SlotMemory.distance(slots.train(), addresses.float())
    with torch.autocast("cpu", torch.bfloat16):
        rounded = SlotMemory.distance(slots, addresses.float())
        assert torch.equal(slots.eval().distance(addresses.float()), rounded)
    assert torch.equal(slots.distance(addresses.float()), exact)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(slots.distance(addresses.float()), rounded)
    assert not torch.equal(rounded, exact)


def test_what_inference_mode_made_or_kept_is_answered_as_everywhere(addresses):
    with torch.inference_mode():
        made = SlotMemory(WIDTH, slots=4).eval()
        torch.testing.assert_close(made.distance(addresses), _fresh(made, addresses), **EXACT)
    kept = SlotMemory(WIDTH, slots=4).eval()
    with torch.inference_mode():
        kept.distance(addresses)
    asked = addresses.clone().requires_grad_()
    kept.distance(asked).sum().backward()
    assert asked.grad is not None


def test_keys_that_take_the_place_of_others_are_not_taken_for_them(addresses):
    """Also where the next tensor gets the address of the last one."""
    slots = SlotMemory(WIDTH, slots=4).eval()
    for seed in range(20):
        keys = torch.randn(4, WIDTH, generator=torch.Generator().manual_seed(seed))
        found = torch.func.functional_call(_Distance(slots), {"slots.keys": keys}, (addresses,))
        torch.testing.assert_close(
            found, ((addresses[:, None] - keys) @ slots.whiten).square().mean(-1), **EXACT
        )


class _Distance(torch.nn.Module):
    def __init__(self, slots):
        super().__init__()
        self.slots = slots

    def forward(self, address):
        return self.slots.distance(address)


def test_nobody_is_answered_nothing_of_the_right_shapes(addresses):
    slots = SlotMemory(WIDTH, slots=4)
    none, some = slots(addresses[:0], addresses[:0]), slots(addresses, addresses)
    for name in ("value", "evidence", "weights", "recognition"):
        assert getattr(none, name).shape == (0, *getattr(some, name).shape[1:])
        assert getattr(none, name).dtype == getattr(some, name).dtype
