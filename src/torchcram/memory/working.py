"""Working memory (paper, section 3): local dynamics and irregular gaps in linear time, with a state of fixed
size.

Two kinds behind one interface. ``TimeAwareSSM`` is the default: a diagonal linear recurrence with
input-dependent decay and learned frequencies, discretised exactly over the real gap. ``CTODEMemory`` is the
paper's own expert. Legend: ``state`` channels of the recurrence; gaps in the task's unit of time.
"""

from __future__ import annotations

import math
from itertools import repeat

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import softplus

from torchcram.ops.ct_ode import ct_ode_step
from torchcram.ops.init import small_start
from torchcram.ops.rms_norm import rms_norm
from torchcram.ops.scan import scan_planes
from torchcram.ops.silu_gate import silu_gate
from torchcram.strict import require_choice, require_positive

# Numbers in the widest intermediate result on a CPU: larger ones go back to the system after each use, and
# every page of them has to come anew.
AT_ONCE = 2**22


class TimeAwareSSM(nn.Module):
    """``s_t = exp((-rate(x_t) + i frequency) gap_t) s_{t-1} + drive(x_t)``, read out through a gate.

    A continuous-time state can be read at any moment: it is read as it is, and as it will be, undisturbed,
    after the ``horizon``: the time to the moment that the step's target refers to. Beside both stands each
    channel's logarithmic magnitude: which frequencies are present does not depend on their phase. The gate
    sees the magnitudes, too: what is read from a channel may depend on what the others hold, so that the
    frequencies that are present can be picked out. The transition is exact for any gap >= 0: two steps with
    half the gap and no input equal one. In the family of S5 and the LRU (Smith et al. 2023, Orvieto et al.
    2023), with the selectivity of Mamba in the decay rate. Deviation: not in the paper.

    Args:
        d_model: width.
        state_size: complex channels.
        timescales: shortest and longest time constant at initialisation, in the task's unit of time;
            frequencies cover the same range.
    """

    def __init__(self, d_model: int, *, state_size: int = 64, timescales: tuple[float, float] = (0.5, 100.0)):
        super().__init__()
        require_positive(state_size=state_size)
        shortest, longest = timescales
        rates = torch.logspace(math.log10(1 / longest), math.log10(1 / shortest), state_size)
        spread = torch.arange(state_size) * 0.6180339887 % 1.0
        frequencies = (2 * math.pi / longest) * (longest / shortest / 2) ** spread
        self.state_size = state_size
        self.frequency = nn.Parameter(frequencies)
        self.rate = nn.Linear(d_model, state_size)
        self.drive = nn.Linear(d_model, 2 * state_size)
        self.gate = nn.Linear(d_model, 5 * state_size)
        self.spectrum = nn.Linear(state_size, 5 * state_size, bias=False)
        self.out = nn.Linear(5 * state_size, d_model, bias=False)
        small_start(self.out)
        with torch.no_grad():
            self.rate.weight.mul_(0.1)
            self.spectrum.weight.mul_(0.3)
            # The inverse of softplus, safe for large rates.
            self.rate.bias.copy_(rates + torch.log(-torch.expm1(-rates)))

    def init_state(self, batch_size: int) -> Float[Tensor, "batch state 2"]:
        """Return the empty state, real and imaginary parts last."""
        return self.frequency.new_zeros(batch_size, self.state_size, 2)

    def forward(
        self,
        x: Float[Tensor, "batch time d_model"],
        gap: Float[Tensor, "batch time"],
        state: Float[Tensor, "batch state 2"],
        horizon: Float[Tensor, "batch time"] | None = None,
        mask: Bool[Tensor, "batch time"] | None = None,
    ) -> tuple[Float[Tensor, "batch time d_model"], Float[Tensor, "batch state 2"]]:
        """Return the outputs and the state after the last step.

        The recurrence runs in fp32 under autocast; padding leaves the state as it is.
        """
        rows = _rows_at_once(x, self.gate.out_features)
        if rows >= len(x):
            return self._pass(x, gap, state, horizon, mask)
        parts = [repeat(None) if tensor is None else tensor.split(rows) for tensor in (horizon, mask)]
        passes = [
            self._pass(*part)
            for part in zip(x.split(rows), gap.split(rows), state.split(rows), *parts, strict=False)
        ]
        outputs, states = zip(*passes, strict=True)
        return torch.cat(outputs), torch.cat(states)

    def _pass(
        self, x: Tensor, gap: Tensor, state: Tensor, horizon: Tensor | None, mask: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        rate, drive = softplus(self.rate(x)), self.drive(x)
        with torch.autocast(x.device.type, enabled=False):
            rate = rate.to(torch.promote_types(gap.dtype, torch.float32))
            scale = torch.sqrt(-torch.expm1(-2 * rate))
            if mask is not None:
                gap, scale = gap * mask, scale * mask[..., None]
            inputs = tuple(scale * plane for plane in drive.to(rate.dtype).chunk(2, -1))
            real, imaginary = scan_planes(
                self._transition(rate, gap), inputs, state.to(rate.dtype).unbind(-1)
            )
            ahead = (
                (real, imaginary)
                if horizon is None
                else _turned(self._transition(rate, horizon), (real, imaginary))
            )
            magnitude = 0.5 * torch.log(real * real + imaginary * imaginary + 1e-6)
            seen = torch.cat([real, imaginary, *ahead, magnitude], -1).to(x.dtype)
        spectrum = rms_norm(magnitude.to(x.dtype))
        gate = torch.addmm(
            self.gate(x).flatten(0, 1), spectrum.flatten(0, 1), self.spectrum.weight.T
        ).view_as(seen)
        return self.out(silu_gate(seen, gate)), torch.stack([real[:, -1], imaginary[:, -1]], -1)

    def _transition(
        self, rate: Float[Tensor, "batch time state"], span: Float[Tensor, "batch time"]
    ) -> tuple[Tensor, Tensor]:
        """Return by what an undisturbed state is multiplied over a span of time: real and imaginary part."""
        span = span.to(rate.dtype)[..., None]
        size, angle = torch.exp(-rate * span), self.frequency.to(rate.dtype) * span
        return size * angle.cos(), size * angle.sin()


def _rows_at_once(x: Tensor, width: int) -> int:
    """How many sequences to compute at once: all, but on a CPU, where memory is not kept for the next
    time, no more than fit.
    """
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        return len(x)
    return max(1, AT_ONCE // max(1, x.shape[1] * width))


def _turned(turn: tuple[Tensor, Tensor], states: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """The complex product."""
    return turn[0] * states[0] - turn[1] * states[1], turn[0] * states[1] + turn[1] * states[0]


class CTODEMemory(nn.Module):
    """``h(k+1) = h(k) + dt sigmoid(W_tau log(1 + gap)) tanh(W1 h(k) + W2 x)``: the paper's expert, ``steps``
    inner Euler steps a token.

    The paper leaves ``h(0)`` open. ``start="previous"`` carries the last token's state (so that it is a
    memory at all); ``"zero"`` does not.

    Args:
        d_model: width.
        state_size: width of ``h``.
        steps: inner Euler steps K.
        start: ``"previous"`` or ``"zero"``.
    """

    def __init__(self, d_model: int, *, state_size: int = 64, steps: int = 4, start: str = "previous"):
        super().__init__()
        require_positive(state_size=state_size, steps=steps)
        self.state_size, self.steps = state_size, steps
        self.start = require_choice("start", start, ("previous", "zero"))
        self.recurrent = nn.Linear(state_size, state_size, bias=False)
        self.drive = nn.Linear(d_model, state_size)
        self.gate = nn.Linear(1, state_size)
        self.out = nn.Linear(state_size, d_model, bias=False)
        small_start(self.out)

    def init_state(self, batch_size: int) -> Float[Tensor, "batch state 1"]:
        """Return the empty state."""
        return self.recurrent.weight.new_zeros(batch_size, self.state_size, 1)

    def forward(
        self,
        x: Float[Tensor, "batch time d_model"],
        gap: Float[Tensor, "batch time"],
        state: Float[Tensor, "batch state 1"],
        horizon: Float[Tensor, "batch time"] | None = None,
        mask: Bool[Tensor, "batch time"] | None = None,
    ) -> tuple[Float[Tensor, "batch time d_model"], Float[Tensor, "batch state 1"]]:
        """Return the outputs and the state after the last step.

        The integration runs in fp32 under autocast; the paper has no horizon.

        Padding leaves the state as it is.
        """
        del horizon
        drive, gate = self.drive(x), self.gate(torch.log1p(gap)[..., None].to(x.dtype))
        with torch.autocast(x.device.type, enabled=False):
            states = self._integrate(
                drive.to(gap.dtype), gate.to(gap.dtype), state[..., 0].to(gap.dtype), mask
            )
        return self.out(states.to(x.dtype)), states[:, -1:].mT

    def _integrate(self, drive: Tensor, gate: Tensor, state: Tensor, mask: Tensor | None) -> Tensor:
        weight = self.recurrent.weight.to(drive.dtype)
        if self.start == "zero":
            return ct_ode_step(torch.zeros_like(drive), drive, gate, weight, steps=self.steps)
        states = []
        for t in range(drive.shape[1]):
            following = ct_ode_step(state, drive[:, t], gate[:, t], weight, steps=self.steps)
            state = following if mask is None else torch.where(mask[:, t, None], following, state)
            states.append(state)
        return torch.stack(states, 1)


WORKING_MEMORIES: dict[str, type[TimeAwareSSM] | type[CTODEMemory]] = {
    "time_aware_ssm": TimeAwareSSM,
    "ct_ode": CTODEMemory,
}


def build_working_memory(name: str, d_model: int, *, state_size: int) -> TimeAwareSSM | CTODEMemory:
    """Return a working memory by its name.

    Raises:
        ValueError: for an unknown name, with the nearest.
    """
    return WORKING_MEMORIES[require_choice("working memory", name, WORKING_MEMORIES)](
        d_model, state_size=state_size
    )
