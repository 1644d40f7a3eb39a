"""Semantic memory (paper, section 3): parameters that answer what attention used to retrieve.

Kinds behind one interface, all asked for single tokens (``tokens`` = those that need an answer, of any
sequence). ``SlotMemory`` is the default: a table of addresses and answers in the address space of episodic
memory. ``LowRankMemory`` is the paper's adapter. Deviation: slots are ours; the paper has the adapter only.
``SilentMemory`` stands where there shall be none.
Legend: ``slots`` entries; ``address`` = ``d_model``, the space of normalised queries.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import gelu, pad

from torchcram.ops.collective import world_concat, world_sum
from torchcram.types import Lesson


@dataclass(frozen=True, kw_only=True)
class SemanticAnswer:
    """What semantic memory answers.

    Attributes:
        value: the answer, in place of the retrieval.
        evidence: how well the token matched what is stored, for the familiarity estimator.
        weights: share of each slot in the answer; None for memories without slots.
        recognition: in [0, 1], one where the address equals a stored one; None without slots.
    """

    value: Float[Tensor, "tokens d_model"]
    evidence: Float[Tensor, "tokens evidence"]
    weights: Float[Tensor, "tokens slots"] | None = None
    recognition: Float[Tensor, " tokens"] | None = None


class SlotMemory(nn.Module):
    """``f_sem(a) = sum_m softmax_m(-sharpness |W (a - key_m)|^2) value_m``; slots are written, not descended.

    Each slot holds the running mean of what reads under one address retrieved.

    The nearest slots answer: ``weights = softmax(-sharpness * distance)``. The distance is a squared
    difference, in which what all queries have in common (being queries) cancels, under the metric of Fisher's
    discriminant: directions in which addresses of one slot vary (the noise of the context) count little. Its
    unit: the mean square of an address about its mean, so unrelated addresses are about 2 apart. The running
    mean of the retrievals is the exact minimiser of the consolidation loss for a slot, and needs no learning
    rate. An address far from every slot takes over the slot used least, so what does not recur is forgotten
    and what recurs stays. Keys follow every token that asks, read or not.

    Args:
        d_model: width of values and of addresses.
        slots: number of slots M.
        rank: belongs to ``low_rank``; must be None.
        sharpness: of the softmax over distances.
        radius: distance beyond which an address is new.
        shrinkage: share of the isotropic metric mixed into the within-slot scatter.
        slowest: least rate at which a slot's mean follows new reads; the rate is 1 / reads until then.
    """

    evidence_size = 6

    def __init__(
        self,
        d_model: int,
        *,
        slots: int = 256,
        rank: int | None = None,
        sharpness: float = 20.0,
        radius: float = 0.25,
        shrinkage: float = 0.1,
        slowest: float = 0.02,
    ):
        super().__init__()
        if rank is not None:
            raise ValueError(f"rank {rank} belongs to semantic='low_rank'; slots have none")
        if slots < 2:
            raise ValueError(f"slots {slots} must be at least 2")
        self.sharpness, self.radius, self.shrinkage, self.slowest = sharpness, radius, shrinkage, slowest
        self.keys = nn.Parameter(torch.randn(slots, d_model), requires_grad=False)
        self.values = nn.Parameter(torch.zeros(slots, d_model), requires_grad=False)
        for name in ("usage", "reads", "quality"):
            self.register_buffer(name, torch.zeros(slots))
        self.register_buffer("mean", torch.zeros(d_model))
        self.register_buffer("within", 0.1 * torch.eye(d_model))
        self.register_buffer("total", torch.eye(d_model))
        self.register_buffer("whiten", torch.eye(d_model))
        self.usage: Tensor
        self.mean: Tensor
        self.within: Tensor
        self.total: Tensor
        self.whiten: Tensor
        self.reads: Tensor
        self.quality: Tensor
        self._kept: tuple[object, Tensor, object] | None = None

    @property
    def slots(self) -> int:
        """Number of slots."""
        return self.keys.shape[0]

    def forward(
        self, hidden_states: Float[Tensor, "tokens d_model"], address: Float[Tensor, "tokens address"]
    ) -> SemanticAnswer:
        """Answer tokens by their address; ``hidden_states`` is for memories that ignore addresses."""
        del hidden_states
        if len(address) == 0:
            return self._silence(address)
        distance = self.distance(address)
        weights = torch.softmax(-self.sharpness * distance, -1)
        near, slot = distance.topk(2, dim=-1, largest=False)
        recognition = torch.exp(-((near[:, 0] / self.radius) ** 2))
        first = slot[:, 0]
        evidence = torch.stack(
            [
                near[:, 0],
                near[:, 1] - near[:, 0],
                recognition,
                weights.amax(-1),
                self.quality[first],
                torch.log1p(self.reads[first]),
            ],
            -1,
        )
        return SemanticAnswer(
            value=weights @ self.values, evidence=evidence, weights=weights, recognition=recognition
        )

    def distance(self, address: Float[Tensor, "tokens address"]) -> Float[Tensor, "tokens slots"]:
        """Return the squared distance of each address to each slot's key, in the learned metric."""
        return self._apart(self._whitened(address), self._whitened_keys())

    def _silence(self, address: Float[Tensor, "0 address"]) -> SemanticAnswer:
        """The answer to nobody."""
        dtype = torch.promote_types(address.dtype, self.keys.dtype)
        blank = address.new_zeros((0, self.keys.shape[1] + self.evidence_size + self.slots), dtype=dtype)
        value, evidence, weights = blank.split([self.keys.shape[1], self.evidence_size, self.slots], -1)
        return SemanticAnswer(value=value, evidence=evidence, weights=weights, recognition=evidence[:, 0])

    def _whitened(self, address: Float[Tensor, "some address"]) -> Float[Tensor, "some address"]:
        """Place addresses where the learned metric is Euclid's."""
        return (address - self.mean) @ self.whiten

    def _whitened_keys(self) -> Float[Tensor, "slots address"]:
        """The slots' keys, in evaluation placed once for as long as nothing of them changes: decoding asks
        for a token at a time.
        """
        stored = (self.keys, self.mean, self.whiten)
        if (
            self.training
            or torch.compiler.is_compiling()
            or self.keys.requires_grad
            or any(tensor.is_inference() for tensor in stored)
        ):
            return self._whitened(self.keys)
        kind = self.keys.device.type
        rounding = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
        now = (
            rounding,
            *((tensor._version, tensor.data_ptr(), tensor.dtype, tensor.device) for tensor in stored),
        )
        if self._kept is None or self._kept[0] != now:
            with torch.inference_mode(False), torch.no_grad():
                # What is kept holds on to what it was made of, so that no other tensor can take its address.
                self._kept = (now, self._whitened(self.keys), tuple(tensor.detach() for tensor in stored))
        return self._kept[1]

    @staticmethod
    def _apart(
        ours: Float[Tensor, "one address"], theirs: Float[Tensor, "other address"]
    ) -> Float[Tensor, "one other"]:
        """Return the squared distances of two sets of whitened addresses."""
        squares = ours.square().sum(-1, keepdim=True) + theirs.square().sum(-1)
        return (squares - 2 * ours @ theirs.T).clamp_min(0) / ours.shape[-1]

    @torch.no_grad()
    def learn(self, lesson: Lesson, *, most: int = 16, memory: float = 0.98) -> None:
        """Follow what was asked and read in one training step; the same on every process of a distributed
        run.

        Args:
            lesson: addresses asked, and which of them were read with what result.
            most: slots that may be taken over in one step.
            memory: factor by which a slot's usage falls each step.
        """
        near, slot = self.distance(lesson.address).min(-1)
        known = near < self.radius
        self._learn_metric(lesson.address, lesson.address[known] - self.keys[slot[known]])
        self._follow_addresses(lesson, slot, known, memory)
        self._follow_retrievals(lesson, slot, known & lesson.read)
        self._take_over(lesson, lesson.read & ~known, min(most, self.slots))

    def _follow_addresses(self, lesson: Lesson, slot: Tensor, known: Tensor, memory: float) -> None:
        """Every known token that asked keeps its slot in use and draws the slot's key towards its address."""
        asked = self._summed(slot[known], pad(lesson.address[known], (0, 1), value=1.0))
        self.usage.mul_(memory).add_(asked[:, -1])
        self._follow(self.keys, asked[:, :-1], asked[:, -1], 1 - (1 - self.slowest) ** asked[:, -1])

    def _follow_retrievals(self, lesson: Lesson, slot: Tensor, read: Tensor) -> None:
        """Every known read goes into the running means of its slot's answer and quality."""
        rows = torch.cat([lesson.target, lesson.quality[:, None]], -1)[read]
        sums = self._summed(slot[read], pad(rows, (0, 1), value=1.0))
        self.reads.add_(sums[:, -1])
        step = torch.maximum(sums[:, -1] / self.reads.clamp_min(1), 1 - (1 - self.slowest) ** sums[:, -1])
        self._follow(self.values, sums[:, :-2], sums[:, -1], step)
        self._follow(self.quality[:, None], sums[:, -2:-1], sums[:, -1], step)

    def _take_over(self, lesson: Lesson, new: Tensor, most: int) -> None:
        """Reads at new addresses take over the slots used least."""
        fresh = world_concat(torch.cat([lesson.address, lesson.target], -1)[new], 4 * most)[: 4 * most]
        fresh = fresh[self._first_of_its_kind(fresh[:, : self.keys.shape[1]])][:most]
        taken = self.usage.argsort(stable=True)[: len(fresh)]
        self.keys[taken], self.values[taken] = fresh.to(self.keys.dtype).chunk(2, -1)
        self.usage[taken], self.reads[taken], self.quality[taken] = 1.0, 1.0, 0.0

    def _first_of_its_kind(self, address: Float[Tensor, "fresh address"]) -> Bool[Tensor, " fresh"]:
        """Which addresses have no other one within the radius before them."""
        own = self._whitened(address)
        near = self._apart(own, own) < self.radius
        return ~near.tril(-1).any(-1)

    def _learn_metric(self, address: Tensor, residual: Tensor, *, rate: float = 0.02) -> None:
        """Follow the scatter of addresses about their mean and within slots; the metric is the inverse of
        the latter.
        """
        count, total = float(world_sum(address.new_tensor(float(len(address))))), world_sum(address.sum(0))
        if count == 0:
            return
        self.mean += rate * (total / count - self.mean)
        centred = address - self.mean
        self.total += rate * (world_sum(centred.T @ centred) / count - self.total)
        near = float(world_sum(address.new_tensor(float(len(residual)))))
        if near > 0:
            self.within += rate * (world_sum(residual.T @ residual) / near - self.within)
        # No library inverts half precision.
        dtype = torch.promote_types(self.within.dtype, torch.float32)
        within, total, size = self.within.to(dtype), self.total.to(dtype), len(self.mean)
        eye = torch.eye(size, dtype=dtype, device=within.device)
        metric = torch.linalg.inv(within / within.trace().clamp_min(1e-9) * size + self.shrinkage * eye)
        metric = metric * size / (metric @ total).trace().clamp_min(1e-9)
        self.whiten.copy_(torch.linalg.cholesky(metric))

    def _summed(self, slot: Tensor, rows: Tensor) -> Tensor:
        total = self.keys.new_zeros(self.slots, rows.shape[-1]).index_add_(0, slot, rows.to(self.keys.dtype))
        return world_sum(total)

    @staticmethod
    def _follow(mean: Tensor, total: Tensor, count: Tensor, step: Tensor) -> None:
        """Move running means by the share ``step`` of the way to the means of ``count`` new rows."""
        mean += step[:, None] * (total / count.clamp_min(1)[:, None] - mean) * (count > 0)[:, None]


class LowRankMemory(nn.Module):
    """``f_sem(h) = up(gelu(down(h)))``: the paper's adapter, with a bottleneck of ``rank`` units.

    Args:
        d_model: width.
        slots: unused; accepted so that both kinds are built alike.
        rank: units of the bottleneck; None for the paper's ``d_model / 16``.
    """

    evidence_size = 1

    def __init__(self, d_model: int, *, slots: int = 256, rank: int | None = None):
        super().__init__()
        del slots
        rank = max(1, d_model // 16) if rank is None else rank
        if not 1 <= rank <= d_model:
            raise ValueError(f"rank {rank} must lie between 1 and d_model = {d_model}")
        self.down = nn.Linear(d_model, rank)
        self.up = nn.Linear(rank, d_model)

    def forward(
        self, hidden_states: Float[Tensor, "tokens d_model"], address: Float[Tensor, "tokens address"]
    ) -> SemanticAnswer:
        """Answer tokens by their hidden state."""
        del address
        value = self.up(gelu(self.down(hidden_states)))
        return SemanticAnswer(value=value, evidence=value.detach().square().mean(-1, keepdim=True))

    def learn(self, lesson: Lesson) -> None:
        """Nothing to do: the adapter learns by gradient alone."""
        del lesson


class SilentMemory(nn.Module):
    """``f_sem = 0``: no semantic memory; nothing is consolidated, and nobody asks.

    Args:
        d_model, slots: unused; accepted so that all kinds are built alike.
        rank: belongs to ``low_rank``; must be None.
    """

    evidence_size = 0

    def __init__(self, d_model: int, *, slots: int = 256, rank: int | None = None):
        super().__init__()
        del d_model, slots
        if rank is not None:
            raise ValueError(f"rank {rank} belongs to semantic='low_rank'; semantic='none' has none")

    def forward(
        self, hidden_states: Float[Tensor, "tokens d_model"], address: Float[Tensor, "tokens address"]
    ) -> SemanticAnswer:
        """Answer nothing."""
        del address
        return SemanticAnswer(
            value=torch.zeros_like(hidden_states), evidence=hidden_states.new_zeros(len(hidden_states), 0)
        )

    def learn(self, lesson: Lesson) -> None:
        """Nothing to do."""
        del lesson


SemanticMemory = SlotMemory | LowRankMemory | SilentMemory

SEMANTIC_MEMORIES: dict[str, type[SemanticMemory]] = {
    "slots": SlotMemory,
    "low_rank": LowRankMemory,
    "none": SilentMemory,
}
