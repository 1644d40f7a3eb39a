"""The consolidator: leads any model with CRAM blocks through acquire, consolidate and mature.

    control = consolidator.control()                               what this step may read
    loss = consolidator.loss(task_loss, blocks)                    task + weights * losses of the blocks
    loss.backward()
    consolidator.step(blocks, task_loss, rerun=task_loss_under)    lessons, reference, phases
    optimizer.step()

The habit is that of ``torch.amp.GradScaler``. ``step`` comes before the optimizer's: the reference is
measured with the weights that gave the loss. Its state is plain numbers; save it with every checkpoint.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, cast

import torch
import torch.distributed as dist
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from torchcram.accounting import any_layer
from torchcram.memory.phases import ConsolidationRules, Phase, Phases
from torchcram.memory.residual import ResidualBlock
from torchcram.ops.collective import world_sum
from torchcram.strict import StrictConfig, nearest_hint
from torchcram.types import NEVER_FAMILIAR, BlockOutput, Learning, RoutingControl, RoutingDecision

# The smaller loss of the two is the reference: every token reads, and every token in need reads. A routed
# model may have forgotten how to use reads that it never makes, so the first alone would excuse too much.
REFERENCES = (RoutingControl(reads="all"), RoutingControl(threshold_shift=NEVER_FAMILIAR))


class LossWeights(StrictConfig):
    """Factors of the blocks' losses; the price of a read is the consolidator's own.

    Attributes:
        consolidation: distance of semantic answers to what was read.
        familiarity: cross-entropy of predicted to observed quality.
        surprise: what binds, and where it will be asked for.
        predictor: which tokens a Mixture-of-Depths router lets pass.
    """

    consolidation: float = Field(1.0, ge=0.0)
    familiarity: float = Field(1.0, ge=0.0)
    surprise: float = Field(0.1, ge=0.0)
    predictor: float = Field(1.0, ge=0.0)


class Consolidator:
    """Decides what each training step may read, weighs the losses, gives the lessons, moves the phases.

    Args:
        model: any module that holds CRAM blocks, ours or not; wrapped for distributed training or not.
        rules: how the phases go; None for the defaults.
        generator: where the blocks draw noise from, for exploration; None if every step brings its noise.
        weights: factors of the blocks' losses; None for the defaults.
        routers: whether routers learn. Frozen ones route from the first step on, without price, caution or
            exploration, and there are no phases.
        semantic: whether semantic memory takes in lessons.

    Raises:
        ValueError: if the model holds no block with a router that learns.
    """

    def __init__(
        self,
        model: nn.Module,
        rules: ConsolidationRules | None = None,
        *,
        generator: torch.Generator | None,
        weights: LossWeights | None = None,
        routers: bool = True,
        semantic: bool = True,
    ):
        self.blocks = routed_blocks(model)
        if not self.blocks:
            raise ValueError(
                f"{type(model).__name__} holds no block with a router that learns: there is nothing to "
                "consolidate. Pass the module that holds your CRAMBlock"
            )
        self.model, self.generator = model, generator
        self.weights = LossWeights() if weights is None else weights
        self.phases = Phases(ConsolidationRules() if rules is None else rules)
        self.routers, self.semantic = routers, semantic
        self.steps, self._weighed = 0, 0

    @property
    def rules(self) -> ConsolidationRules:
        """How the phases go."""
        return self.phases.rules

    @property
    def phase(self) -> Phase:
        """Where the model stands."""
        return self.phases.phase

    @property
    def price(self) -> float:
        """What a read costs at this step, in units of the task loss."""
        if not self.routers:
            return 0.0
        if self.phase == "acquire":
            return self.rules.acquisition_price if self.rules.acquisition_routers else 0.0
        return self.phases.price

    def control(self) -> RoutingControl:
        """Return what the next training step may read and learn."""
        rules = self.rules
        learning = Learning(steady=rules.steady_price, generator=self.generator)
        if not self.routers:
            learning = Learning(consolidate=self.semantic, generator=self.generator)
        elif self.phase == "acquire":
            learning = replace(learning, routers=rules.acquisition_routers)
        else:
            learning = replace(learning, exploration=rules.exploration, consolidate=True)
        return replace(self.evaluation_control(), learning=learning)

    def evaluation_control(self) -> RoutingControl:
        """Return what an evaluation at this point of training may read: no exploration, nothing learned."""
        if not self.routers:
            return RoutingControl()
        if self.phase == "acquire":
            return RoutingControl(reads="all")
        return RoutingControl(threshold_shift=self.phases.caution)

    def loss(
        self, task_loss: Float[Tensor, ""], blocks: Sequence[BlockOutput], *, share: float | Tensor = 1.0
    ) -> Float[Tensor, ""]:
        """Return the task loss plus the weighed losses of the blocks: the only place that weighs them.

        Args:
            task_loss: of one pass.
            blocks: what the blocks returned in that pass.
            share: of the step that this pass stands for, where gradients are accumulated over several; the
                task loss is expected to hold it already.

        Raises:
            ValueError: for a loss that has no weight.
        """
        self._weighed += len(blocks)
        return task_loss + share * weighed(blocks, self.weights, price=self.price)

    def skip(self) -> None:
        """Take note that nothing is to be learned from the passes since the last step."""
        self._weighed = 0

    def step(
        self,
        blocks: Sequence[BlockOutput],
        task_loss: float | Tensor,
        *,
        rerun: Callable[[RoutingControl], float | Tensor],
        read_rate: float | None = None,
    ) -> None:
        """Take in one training step. Call it after ``backward()`` and before the optimizer's step.

        Args:
            blocks: what the blocks returned, of all passes of the step.
            task_loss: mean over the passes; averaged over the processes here.
            rerun: from a control to the task loss of the model on the same data. Called without gradients, in
                evaluation mode, when the reference is due.
            read_rate: share of the tokens that read in any layer; None to count it from the blocks (padding
                counts as tokens then).

        Raises:
            ValueError: if ``loss`` has not weighed these blocks, or they are another model's.
            FloatingPointError: if the loss is not finite; nothing has been learned then.
        """
        self._check(blocks)
        mean_loss = _mean(task_loss)
        if not math.isfinite(mean_loss):
            raise FloatingPointError(
                f"the task loss is {mean_loss} at step {self.steps}: nothing was learned from this step"
            )
        if self.phases.wants_reference(self.steps):
            self.phases.observe_reference(self._reference(rerun), routed=mean_loss)
        if self.semantic:
            for output in blocks:
                if output.owner is not None:
                    cast(ResidualBlock, output.owner).after_step(output)
        if self.routers:
            rate = any_read_rate(blocks) if read_rate is None else read_rate
            self.phases.observe(self.steps, loss=mean_loss, read_rate=rate)
        self.steps += 1

    def _check(self, blocks: Sequence[BlockOutput]) -> None:
        """Raise ValueError unless ``loss`` has weighed these outputs, and all are of blocks that are led."""
        weighed, self._weighed = self._weighed, 0
        if not weighed:
            raise ValueError(
                "step() without loss(): the routers have learned nothing of the price. Call "
                "loss = consolidator.loss(task_loss, blocks) and its backward() first"
            )
        if weighed != len(blocks):
            raise ValueError(
                f"loss() weighed the outputs of {weighed} calls of blocks, step() was given {len(blocks)}: "
                "pass those of all passes of the step, in one list"
            )
        led = {id(block) for block in self.blocks}
        if any(output.owner is not None and id(output.owner) not in led for output in blocks):
            raise ValueError(
                "step() was given the output of a block that the model does not hold: pass the model that "
                "made it to Consolidator"
            )

    @torch.no_grad()
    def _reference(self, rerun: Callable[[RoutingControl], float | Tensor]) -> float:
        """Return the smaller task loss of the two references, on the same data and with the same weights."""
        modes = [(module, module.training) for module in self.model.modules()]
        self.model.eval()
        try:
            return min([_mean(rerun(control)) for control in REFERENCES])
        finally:
            for module, training in modes:
                module.training = training

    def parameter_groups(self, learning_rate: float, *, fast_factor: float = 5.0) -> list[dict[str, Any]]:
        """Return the optimizer's groups: what routes and consolidates learns ``fast_factor`` times faster."""
        return parameter_groups(self.model, learning_rate, fast_factor=fast_factor)

    def begin_routing(self) -> None:
        """End acquisition now: from the next step on the router decides."""
        self.phases.begin_routing(self.steps - 1)

    def harder(self) -> None:
        """Forget the losses so far: from now on the data are harder, and their loss begins higher."""
        self.phases.harder_from(self.steps)

    def state_dict(self) -> dict[str, Any]:
        """Return everything that training changes, and the rules, as plain numbers."""
        drawn = None if self.generator is None else self.generator.get_state().tolist()
        return {
            "rules": self.rules.model_dump(mode="json"),
            "steps": self.steps,
            "phases": self.phases.state_dict(),
            "generator": drawn,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what :meth:`state_dict` returned.

        Raises:
            ValueError: if it is the state of other rules, or of another version.
        """
        ours, theirs = self.rules.model_dump(mode="json"), state["rules"]
        other = sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))
        if other:
            told = ", ".join(f"{name} {theirs.get(name)!r} (here {ours.get(name)!r})" for name in other)
            raise ValueError(f"the state was saved under other rules: {told}. Use the same rules to go on")
        self.phases.load_state_dict(state["phases"])
        self._resume(state)

    def take_over(self, state: dict[str, Any]) -> None:
        """Begin routing by these rules where an acquisition under others has just ended."""
        self.phases.take_over(state["phases"])
        self._resume(state)

    def _resume(self, state: dict[str, Any]) -> None:
        self.steps, self._weighed = state["steps"], 0
        if self.generator is not None and state["generator"] is not None:
            self.generator.set_state(torch.tensor(state["generator"], dtype=torch.uint8))


def routed_blocks(model: nn.Module) -> tuple[ResidualBlock, ...]:
    """Return the blocks of a model whose routers learn, each once."""
    return tuple(module for module in model.modules() if isinstance(module, ResidualBlock) and module.routed)


def parameter_groups(
    model: nn.Module, learning_rate: float, *, fast_factor: float = 5.0
) -> list[dict[str, Any]]:
    """Return optimizer groups of a model: the trunk, and what routes and consolidates, if there is any.

    Each has ``lr`` and ``factor``, its learning rate relative to the trunk's. What takes no gradient is in
    none: slots are written, not descended.
    """
    decides = {id(weight) for block in routed_blocks(model) for weight in block.fast_parameters()}
    learned = [weight for weight in model.parameters() if weight.requires_grad]
    trunk = [weight for weight in learned if id(weight) not in decides]
    fast = [weight for weight in learned if id(weight) in decides]
    groups = [{"params": trunk, "lr": learning_rate, "factor": 1.0}]
    if fast:
        groups.append({"params": fast, "lr": fast_factor * learning_rate, "factor": fast_factor})
    return groups


def weighed(blocks: Iterable[BlockOutput], weights: LossWeights, *, price: float) -> Float[Tensor, ""]:
    """Return the sum of the losses of some blocks, each times its weight.

    Raises:
        ValueError: for a loss that has no weight.
    """
    factors = weights.model_dump() | {"price": price}
    total = torch.zeros(())
    for output in blocks:
        for name, value in output.losses.items():
            if name not in factors:
                hint = nearest_hint(name, factors)
                raise ValueError(f"a block returned the loss {name!r}, which has no weight: {hint}")
            total = total.to(value.device) + factors[name] * value
    return total


def named_losses(blocks: Iterable[BlockOutput]) -> dict[str, Float[Tensor, ""]]:
    """Return the losses of the blocks by name, not weighed, summed over the blocks."""
    losses: dict[str, Tensor] = {}
    for output in blocks:
        for name, value in output.losses.items():
            # Blocks may be on several devices.
            losses[name] = losses[name].to(value.device) + value if name in losses else value
    return losses


def any_read_rate(blocks: Sequence[BlockOutput]) -> float:
    """Return the share of the tokens that read in at least one block, over all processes.

    A block that comes again, or one that sees other tokens, begins another count.
    """
    counts = [
        torch.stack([read.sum(), read.new_tensor(read.numel(), dtype=torch.long)])
        for read in map(any_layer, _passes(blocks))
    ]
    if not counts:
        return 0.0
    some, tokens = world_sum(torch.stack(counts).sum(0).double()).tolist()
    return some / tokens


def _passes(blocks: Sequence[BlockOutput]) -> list[list[RoutingDecision]]:
    """Return the decisions of the blocks, pass by pass."""
    passes: list[list[RoutingDecision]] = []
    seen: set[int] = set()
    for output in blocks:
        if output.decision is None:
            continue
        shape = output.decision.route.shape
        if not passes or id(output.owner) in seen or passes[-1][0].route.shape != shape:
            passes.append([])
            seen = set()
        passes[-1].append(output.decision)
        seen.add(id(output.owner))
    return passes


def _mean(value: float | Tensor) -> float:
    """Return the average of a number over the processes."""
    number = value.detach() if isinstance(value, Tensor) else torch.tensor(value, dtype=torch.float64)
    if not (dist.is_available() and dist.is_initialized()):
        return float(number)
    return float(world_sum(number.double())) / dist.get_world_size()
