"""The words everybody uses: routes, decisions, states, outputs, batches, and the protocol that every sequence
mixer obeys.

Legend of shapes: ``batch`` sequences, ``time`` steps, ``d_model`` width, ``heads`` attention heads,
``length`` entries of the key-value memory, ``state`` channels of the recurrent state, ``slots`` semantic
memory slots. Times and gaps are in the task's own unit of time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

Reads = Literal["all", "routed", "none"]


class Route(IntEnum):
    """Which memory answers a token (paper, section 3): the one that is free, the one in parameters, the
    one that costs a read.
    """

    WORKING = 0
    SEMANTIC = 1
    EPISODIC = 2


@dataclass(frozen=True, kw_only=True)
class ReadBudget:
    """How much a trained model may read, at most: exactly one of the three is set.

    Attributes:
        ratio: in every layer, reads so far never exceed this share of the sequence's tokens so far, in [0,
            1].
        tokens: in every layer, at most so many tokens of a sequence read, over prompt and continuation
            together.
        risk_tolerance: expected share of changed predictions, in (0, 1): the thresholds are moved as far as
            calibration allows.
    """

    ratio: float | None = None
    tokens: int | None = None
    risk_tolerance: float | None = None

    def __post_init__(self) -> None:
        given = [name for name in ("ratio", "tokens", "risk_tolerance") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                "a read budget is one of ratio, tokens and risk_tolerance, got "
                f"{' and '.join(given) or 'none of them'}"
            )
        if self.ratio is not None and not 0 <= self.ratio <= 1:
            raise ValueError(
                f"ratio {self.ratio} must lie in [0, 1]; a number of tokens is an integer: "
                f"tokens={max(0, round(self.ratio))}"
            )
        if self.tokens is not None and self.tokens < 0:
            raise ValueError(f"tokens {self.tokens} must be at least 0")
        if self.risk_tolerance is not None and not 0 < self.risk_tolerance < 1:
            raise ValueError(f"risk_tolerance {self.risk_tolerance} must lie strictly between 0 and 1")


# A shift of the familiarity thresholds, in logits, that no predicted familiarity reaches.
NEVER_FAMILIAR = 1e3


@dataclass(frozen=True, kw_only=True)
class Learning:
    """What a training pass may learn.

    Attributes:
        routers: whether routers learn what a read is worth. (SeqBoat's confidence is part of what it
            computes, and learns anyway.)
        steady: whether the price pulls undiminished where a router is sure
            (:func:`torchcram.ops.routing.priced`).
        exploration: least probability with which the retrieval of a token that would not read is computed all
            the same, in [0, 1]; more where the router is undecided.
        consolidate: whether semantic memory and familiarity learn from the reads of this pass.
        generator: where a block draws noise from if a step brings none; None draws nothing.
    """

    routers: bool = True
    steady: bool = False
    exploration: float = 0.0
    consolidate: bool = False
    generator: torch.Generator | None = None


@dataclass(frozen=True, kw_only=True)
class RoutingControl:
    """What a forward pass may read and learn, decided by the training phase or the user, never by the data.

    Attributes:
        reads: ``"all"`` reads for every token (acquisition, reference), ``"routed"`` obeys the router,
            ``"none"`` never reads.
        threshold_shift: scalar added to every familiarity threshold, in logits: lower skips more (the
            conformal lambda).
        budget: bound of the reads (a ratio or a number of tokens), or None; a read beyond it takes the
            likelier of the two other routes.
        learning: what this pass may learn; None for nothing but what the task loss teaches the trunk.
    """

    reads: Reads = "routed"
    threshold_shift: float = 0.0
    budget: ReadBudget | None = None
    learning: Learning | None = None

    @property
    def exploration(self) -> float:
        """The least probability of an exploring read; 0 unless routed and learning."""
        return self.learning.exploration if self.learning is not None and self.reads == "routed" else 0.0

    @property
    def consolidates(self) -> bool:
        """Whether semantic memory and familiarity learn from this pass."""
        return self.learning is not None and self.learning.consolidate

    @property
    def teaches_routers(self) -> bool:
        """Whether routers learn from this pass what a read is worth."""
        return self.learning is not None and self.learning.routers

    @property
    def steady(self) -> bool:
        """Whether the price pulls undiminished where a router is sure."""
        return self.learning is not None and self.learning.steady


@dataclass(frozen=True, kw_only=True)
class Step:
    """What comes with the hidden states of some steps: their times, what they may read, and noise.

    Attributes:
        gap: time since the step before, >= 0, in the task's unit.
        control: what may be read and learned.
        noise: uniform in [0, 1): three numbers for the router, one for exploration. None draws from
            ``control.learning.generator``, or decides by threshold and explores nothing.
        mask: False on padding at the end; None if nothing is padded.
        horizon: time from the step to the moment its target refers to, for mixers that can look ahead.
        token: embedding of each step's own inputs and times, before anything was mixed; None if the hidden
            states are (a first block).
    """

    gap: Float[Tensor, "batch time"]
    control: RoutingControl = RoutingControl()
    noise: Float[Tensor, "batch time 4"] | None = None
    mask: Bool[Tensor, "batch time"] | None = None
    horizon: Float[Tensor, "batch time"] | None = None
    token: Float[Tensor, "batch time d_model"] | None = None

    @classmethod
    def regular(cls, hidden_states: Tensor, control: RoutingControl | None = None) -> Step:
        """Return steps one unit of time apart.

        Args:
            hidden_states: ``[batch, time, d_model]``.
            control: what may be read and learned; None obeys the router and learns nothing.
        """
        gap = hidden_states.new_ones(hidden_states.shape[:2])
        return cls(gap=gap, control=RoutingControl() if control is None else control)

    @property
    def real(self) -> Bool[Tensor, "batch time"]:
        """True on real steps, False on padding."""
        return torch.ones_like(self.gap, dtype=torch.bool) if self.mask is None else self.mask

    def masked(self, chosen: Bool[Tensor, "batch time"]) -> Bool[Tensor, "batch time"]:
        """Return what of a choice of steps is no padding."""
        return chosen if self.mask is None else chosen & self.mask

    def with_noise(self) -> Step:
        """Return the same with the noise that it draws, if it may draw any."""
        learning = self.control.learning
        if self.noise is not None or learning is None or learning.generator is None:
            return self
        if self.control.reads != "routed":
            return self
        drawn = torch.rand(*self.gap.shape, 4, generator=learning.generator, device=learning.generator.device)
        return replace(self, noise=drawn.to(self.gap))


@dataclass(frozen=True, kw_only=True)
class RoutingDecision:
    """What one block decided for each token.

    Attributes:
        route: the :class:`Route` of each token, causal, and free of the read it decides on, unless that is
            ``observed``.
        probabilities: p(WORKING), p(SEMANTIC), p(EPISODIC); they sum to one.
        familiarity: predicted consolidation quality in [0, 1], after the veto of the surprise trace.
        explored: tokens whose retrieval was computed although their route does not use it.
        weight: inverse probability of having been computed: 1 for reads, 0 for tokens whose retrieval was not
            computed.
        asked: tokens about which semantic memory was asked.
        observed: tokens whose retrieval had to be computed to find their route (the paper's quality); None
            for no token.
        written: tokens whose keys and values are in memory; None for all of them.
    """

    route: Int[Tensor, "batch time"]
    probabilities: Float[Tensor, "batch time 3"]
    familiarity: Float[Tensor, "batch time"]
    explored: Bool[Tensor, "batch time"]
    weight: Float[Tensor, "batch time"]
    asked: Bool[Tensor, "batch time"]
    observed: Bool[Tensor, "batch time"] | None = None
    written: Bool[Tensor, "batch time"] | None = None

    @property
    def used(self) -> Bool[Tensor, "batch time"]:
        """Tokens whose output uses a read of the key-value memory."""
        return self.route == int(Route.EPISODIC)

    @property
    def read(self) -> Bool[Tensor, "batch time"]:
        """Tokens that cost a read: their output uses it, or their route could not be found without it."""
        return self.used if self.observed is None else self.used | self.observed

    @property
    def computed(self) -> Bool[Tensor, "batch time"]:
        """Tokens whose retrieval is computed: reads and explored ones."""
        return self.read | self.explored


@dataclass(frozen=True, kw_only=True)
class KeyValueState:
    """The episodic memory after some steps.

    Attributes:
        keys: rotated keys in the order written; the first entry is the learned null key.
        values: what a read returns.
        time: time stamp of the last step, since the sequence began.
        entries: how many entries each sequence has, the null entry among them, where sequences differ (only
            some tokens are written, or there was padding) or there is room to spare; what lies beyond them is
            never read. None if all of them are entries.
    """

    keys: Float[Tensor, "batch heads length d_head"]
    values: Float[Tensor, "batch heads length d_head"]
    time: Float[Tensor, " batch"]
    entries: Int[Tensor, " batch"] | None = None


@dataclass(frozen=True, kw_only=True)
class MemoryState:
    """Everything a block carries from one step to the next. A memory that a block lacks is None.

    ``spent`` counts each sequence's tokens and reads so far, for budgets and meters; None where nobody
    counts.
    """

    working: Tensor | None = None
    episodic: KeyValueState | None = None
    surprise: Float[Tensor, "batch slots"] | None = None
    spent: Int[Tensor, "batch 2"] | None = None


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """What semantic memory should learn, beyond gradients, from one training step: the tokens that asked it.

    Attributes:
        address: where each token looked.
        read: whether its retrieval was computed, too.
        target: the retrieval; zero where not read.
        quality: observed consolidation quality; zero where not read.
    """

    address: Float[Tensor, "tokens d_model"]
    read: Bool[Tensor, " tokens"]
    target: Float[Tensor, "tokens d_model"]
    quality: Float[Tensor, " tokens"]


@dataclass(frozen=True, kw_only=True)
class BlockOutput:
    """What a block returns.

    Attributes:
        hidden_states: the block's output.
        state: what to pass to the next call.
        decision: None for mixers without a router.
        losses: named scalar losses, already normalised, not yet weighted.
        signals: named per-token tensors for reports (``quality``, ``error``, ``surprise``, ``need`` where
            routed): NaN where not observed.
        lesson: what the block's semantic memory should take note of after the training step, or None.
        owner: the block that has something to take in, or None.
    """

    hidden_states: Float[Tensor, "batch time d_model"]
    state: MemoryState
    decision: RoutingDecision | None = None
    losses: dict[str, Float[Tensor, ""]] = field(default_factory=dict)
    signals: dict[str, Float[Tensor, "batch time"]] = field(default_factory=dict)
    lesson: Lesson | None = None
    owner: nn.Module | None = None


@dataclass(frozen=True, kw_only=True)
class MixingCost:
    """What mixing along time costs a layer, projections apart (dense attention needs the same ones).

    Multiply-adds count as two operations.

    Attributes:
        flops_key, bytes_key: for each key that a read scans.
        flops_token, bytes_token: for every token (the router's question of need, the trace's classifier).
        flops_asked, bytes_asked: for each token that asks semantic memory (memory, estimator, veto).
        flops_written, bytes_written: for each binding that the surprise trace follows.
    """

    flops_key: float
    bytes_key: float
    flops_token: float = 0.0
    bytes_token: float = 0.0
    flops_asked: float = 0.0
    bytes_asked: float = 0.0
    flops_written: float = 0.0
    bytes_written: float = 0.0


@runtime_checkable
class SequenceMixer(Protocol):
    """One block of a sequence model: forward over T steps == T calls of one step == two halves with carried
    state.

    Both this and causality may be given up in training mode (``module.train()``), by a mixer that says so.

    Attributes:
        routed: whether it has a router that learns, so that training leads it through the phases and puts a
            price on reads.
    """

    routed: ClassVar[bool]

    def init_state(self, batch_size: int) -> MemoryState:
        """Return the state before the first step."""
        ...

    def forward(
        self,
        hidden_states: Float[Tensor, "batch time d_model"],
        step: Step,
        state: MemoryState | None = None,
    ) -> BlockOutput:
        """Mix along time, from a state (None: the beginning) to the state after the last step."""
        ...

    def fast_parameters(self) -> list[nn.Parameter]:
        """Return the parameters that want a faster learning rate than the trunk."""
        ...

    def after_step(self, output: BlockOutput) -> None:
        """Take in what a training step taught, once its gradients have been computed."""
        ...

    def cost(self) -> MixingCost:
        """Return what mixing along time costs."""
        ...


@dataclass(frozen=True, kw_only=True)
class Head:
    """One output of a model.

    Attributes:
        name: key of the target in ``Batch.targets``.
        kind: ``"classification"`` (cross-entropy, targets int, -100 ignored) or ``"regression"`` (squared
            error, NaN ignored).
        size: number of classes or of regressed values.
        per: ``"step"`` or ``"sequence"`` (reads the last real step).
        weight: factor of this head's loss in the task loss.
        pooled: whether a head per sequence reads mean and greatest of all real steps, too: see
            :mod:`torchcram.models.read_out`.
    """

    name: str
    kind: Literal["classification", "regression"]
    size: int
    per: Literal["step", "sequence"] = "step"
    weight: float = 1.0
    pooled: bool = False


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Sequences for a model.

    Attributes:
        inputs: continuous features, or token ids for symbolic input.
        gap: time since the previous step, >= 0.
        horizon: time from each step to the moment its target refers to, or None.
        targets: by head name: ``[batch, time]`` or ``[batch]`` classes, ``[batch, time, size]`` or ``[batch,
            size]`` values.
        mask: True on real steps, False on padding at the end; None if nothing is padded.
        slices: boolean ``[batch, time]`` groups by which accuracy and routes are reported.
        info: further per-step facts that a report may want (integers or reals).
    """

    inputs: Float[Tensor, "batch time features"] | Int[Tensor, "batch time"]
    gap: Float[Tensor, "batch time"]
    horizon: Float[Tensor, "batch time"] | None = None
    targets: dict[str, Tensor] = field(default_factory=dict)
    mask: Bool[Tensor, "batch time"] | None = None
    slices: dict[str, Bool[Tensor, "batch time"]] = field(default_factory=dict)
    info: dict[str, Tensor] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Number of sequences."""
        return self.gap.shape[0]

    @property
    def real(self) -> Bool[Tensor, "batch time"]:
        """True on real steps, False on padding."""
        return torch.ones_like(self.gap, dtype=torch.bool) if self.mask is None else self.mask

    def group(self, name: str) -> Bool[Tensor, "batch time"]:
        """Return the real steps of a slice."""
        return self.slices[name] & self.real

    def _mapped(self, change: Callable[[Tensor], Tensor]) -> Batch:
        tensors: dict[str, Any] = {
            name: None if (value := getattr(self, name)) is None else change(value)
            for name in ("inputs", "gap", "horizon", "mask")
        }
        groups: dict[str, Any] = {
            name: {key: change(value) for key, value in getattr(self, name).items()}
            for name in ("targets", "slices", "info")
        }
        return replace(self, **{**tensors, **groups})

    def rows(self, start: int, stop: int) -> Batch:
        """Return the sequences ``start`` to ``stop - 1``."""
        return self._mapped(lambda tensor: tensor[start:stop])

    def chosen(self, rows: Int[Tensor, " rows"]) -> Batch:
        """Return the sequences with these indices."""
        return self._mapped(lambda tensor: tensor[rows.to(tensor.device)])

    def to(self, device: torch.device | str) -> Batch:
        """Return the batch on another device."""
        return self._mapped(lambda tensor: tensor.to(device))

    def double(self) -> Batch:
        """Return the batch with its real numbers in float64."""
        return self._mapped(lambda tensor: tensor.double() if tensor.is_floating_point() else tensor)
