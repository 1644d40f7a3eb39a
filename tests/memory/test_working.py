"""Working memory: exact over any gap, the same whole or step by step, and in fp32 where it matters."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import softplus

from lived import live
from torchcram.memory.working import WORKING_MEMORIES, CTODEMemory, TimeAwareSSM

EXACT = {"rtol": 1e-9, "atol": 1e-9}
KINDS = [TimeAwareSSM, CTODEMemory, lambda *a, **k: CTODEMemory(*a, **k, start="zero")]


def stream(time: int = 9, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    x, gap, horizon = torch.randn(2, time, 8, dtype=dtype), *torch.rand(2, 2, time, dtype=dtype)
    return x, 2 * gap, horizon


def silent_ssm(width: int = 8) -> TimeAwareSSM:
    """A memory without input: only the transition is left."""
    memory = live(TimeAwareSSM(width, state_size=6))
    torch.nn.init.zeros_(memory.drive.weight)
    torch.nn.init.zeros_(memory.drive.bias)
    return memory


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("kind", KINDS, ids=["ssm", "ct_ode", "ct_ode from zero"])
@pytest.mark.parametrize("pieces", [[1] * 9, [4, 5]], ids=["steps", "pieces"])
def test_forward_is_piece_by_piece(kind, pieces):
    memory, (x, gap, horizon), outputs = live(kind(8, state_size=6)), stream(), []
    state = begin = torch.randn(memory.init_state(2).shape)
    for part in zip(*(tensor.split(pieces, 1) for tensor in (x, gap, horizon)), strict=True):
        output, state = memory(*part[:2], state, part[2])
        outputs.append(output)
    whole, end = memory(x, gap, begin, horizon)
    torch.testing.assert_close(torch.cat(outputs, 1), whole, **EXACT)
    torch.testing.assert_close(state, end, **EXACT)


@pytest.mark.usefixtures("float64")
def test_computed_a_few_sequences_at_once_it_is_the_same(monkeypatch):
    """Values, states and gradients, with and without a horizon and a mask."""
    memory, (x, gap, horizon) = live(TimeAwareSSM(8, state_size=6)), stream()
    x, gap, horizon, mask = (
        x.repeat(3, 1, 1).requires_grad_(),
        gap.repeat(3, 1),
        horizon.repeat(3, 1),
        torch.rand(6, 9) < 0.7,
    )
    for more in ((), (horizon,), (horizon, mask)):
        results = []
        for limit in (2**22, 4 * 9 * 30):
            monkeypatch.setattr("torchcram.memory.working.AT_ONCE", limit)
            output, state = memory(x, gap, memory.init_state(6), *more)
            results.append(
                (
                    output,
                    state,
                    *torch.autograd.grad(output.square().sum() + state.sum(), [x, *memory.parameters()]),
                )
            )
        for whole, few in zip(*results, strict=True):
            torch.testing.assert_close(few, whole, **EXACT)


@pytest.mark.usefixtures("float64")
def test_two_steps_of_half_the_gap_are_one_step():
    memory, state = silent_ssm(), torch.randn(2, 6, 2)
    x, gap = torch.randn(2, 1, 8), 3 * torch.rand(2, 1)
    _, once = memory(x, gap, state)
    _, twice = memory(x.expand(2, 2, 8), (gap / 2).expand(2, 2), state)
    torch.testing.assert_close(twice, once, **EXACT)
    assert (once - state).abs().max() > 0.1


@pytest.mark.usefixtures("float64")
def test_without_input_the_state_turns_and_decays_as_stated():
    memory, state = silent_ssm(), torch.randn(2, 6, 2)
    x, gap = torch.randn(2, 1, 8), 3 * torch.rand(2, 1)
    exponent = torch.complex(-softplus(memory.rate(x[:, 0])), memory.frequency.expand(2, 6)) * gap
    expected = torch.view_as_complex(state) * exponent.exp()
    torch.testing.assert_close(
        torch.view_as_complex(memory(x, gap, state)[1].contiguous()), expected, **EXACT
    )


@pytest.mark.usefixtures("float64")
def test_no_gap_no_decay():
    memory, state = silent_ssm(), torch.randn(2, 6, 2)
    assert torch.equal(memory(torch.randn(2, 5, 8), torch.zeros(2, 5), state)[1], state)


@pytest.mark.usefixtures("float64")
def test_the_horizon_shows_the_state_as_it_will_be():
    """Gate open and nothing projected, a step over a horizon shows what a later step without input finds,
    beside the present."""
    features = TimeAwareSSM(8, state_size=6).out.in_features
    memory, state = silent_ssm(width=features), torch.randn(2, 6, 2)
    with torch.no_grad():
        memory.gate.weight.zero_()
        memory.spectrum.weight.zero_()
        memory.gate.bias.fill_(1.2784645427610738)  # silu of it is 1
        memory.out.weight.copy_(torch.eye(features))
    x, horizon = torch.randn(2, 1, features), 3 * torch.rand(2, 1)
    _, later = memory(x, horizon, state)
    shown = memory(x, torch.zeros(2, 1), state, horizon)[0]
    for expected in (state, later):
        assert (shown - expected.flatten(1)[..., None]).abs().amin(-1).max() < 1e-9
    now, none = (memory(x, horizon, state, given)[0] for given in (torch.zeros(2, 1), None))
    torch.testing.assert_close(now, none, **EXACT)


@pytest.mark.usefixtures("float64")
def test_the_gate_sees_magnitudes_and_no_phases():
    """Turning the whole state changes what is read, but not by which gate: with a readout of magnitudes
    alone, nothing."""
    memory, state = silent_ssm(), 1e3 * torch.randn(2, 6, 2)
    with torch.no_grad():
        memory.out.weight[:, : 4 * 6] = 0
    x, still = torch.randn(2, 1, 8), torch.zeros(2, 1)
    turned = torch.view_as_real(
        torch.view_as_complex(state) * torch.polar(torch.tensor(1.0), torch.tensor(0.7))
    )
    torch.testing.assert_close(memory(x, still, turned)[0], memory(x, still, state)[0], **EXACT)
    other = state * torch.tensor([100.0, 1, 1, 1, 1, 1])[:, None]
    assert (memory(x, still, other)[0] - memory(x, still, state)[0]).abs().max() > 1e-3


@pytest.mark.parametrize("shortest", [0.1, 2.0])
def test_time_constants_cover_their_range_at_the_start(shortest):
    memory = TimeAwareSSM(8, state_size=16, timescales=(shortest, 50.0))
    constants = 1 / softplus(memory.rate.bias)
    torch.testing.assert_close(constants[[0, -1]], torch.tensor([50.0, shortest]), rtol=1e-4, atol=0)
    assert (constants.diff() < 0).all()
    assert memory.frequency.min() >= 2 * torch.pi / 50.0 * (1 - 1e-6)
    assert memory.frequency.max() <= torch.pi / shortest


@pytest.mark.parametrize("kind", WORKING_MEMORIES.values())
def test_no_gap_is_too_long_for_a_gradient(kind):
    """Between 88 and 103 time constants the decay is denormal in single precision."""
    memory = kind(8, state_size=16)
    for gap in [0.0, 30.0, 45.0, 60.0, 90.0, 100.0, 1e4]:
        x = torch.randn(1, 8, 8, requires_grad=True)
        output, _ = memory(x, torch.full((1, 8), gap), memory.init_state(1), torch.full((1, 8), gap))
        output.square().sum().backward()
        assert all(
            tensor.grad.isfinite().all() for tensor in (x, *memory.parameters()) if tensor.grad is not None
        ), gap


def test_the_recurrence_stays_in_fp32_under_autocast():
    """A thousand decays by 0.999: in bf16 each would be rounded to 1 or to 0.996."""
    memory = silent_ssm()
    torch.nn.init.zeros_(memory.rate.weight)
    torch.nn.init.constant_(memory.rate.bias, 0.0)
    state, gap = torch.randn(1, 6, 2), torch.full((1, 1000), 0.001 / 0.6931)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output, end = memory(torch.randn(1, 1000, 8), gap, state)
    assert output.dtype == torch.bfloat16
    assert end.dtype == torch.float32
    # softplus(0) = 0.6931 in bf16 is off by less than 0.4%.
    torch.testing.assert_close(
        end.norm(dim=-1), state.norm(dim=-1) * torch.exp(torch.tensor(-1.0)), rtol=5e-3, atol=0
    )


def test_the_integration_stays_in_fp32_under_autocast():
    memory = live(CTODEMemory(8, state_size=6))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output, end = memory(*stream(dtype=torch.float32)[:2], memory.init_state(2))
    assert output.dtype == torch.bfloat16
    assert end.dtype == torch.float32


@pytest.mark.usefixtures("float64")
def test_the_papers_expert_remembers_only_if_it_starts_from_the_previous_state():
    x, gap, _ = stream()
    other = torch.cat([torch.randn(2, 1, 8), x[:, 1:]], 1)
    for start, remembers in {"previous": True, "zero": False}.items():
        memory = live(CTODEMemory(8, state_size=6, start=start))
        outputs = [memory(inputs, gap, memory.init_state(2))[0][:, -1] for inputs in (x, other)]
        assert torch.equal(*outputs) is not remembers


@pytest.mark.usefixtures("float64")
def test_the_papers_expert_feels_the_gap_through_its_gate():
    memory, (x, gap, _) = live(CTODEMemory(8, state_size=6)), stream()
    outputs = [memory(x, factor * gap, memory.init_state(2))[0] for factor in (1, 5)]
    assert (outputs[0] - outputs[1]).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (CTODEMemory, {"start": "previos"}, r"unknown start 'previos': did you mean 'previous'\?"),
        (CTODEMemory, {"steps": 0}, "steps 0 must be above 0"),
        (CTODEMemory, {"state_size": 0}, "state_size 0 must be above 0"),
        (TimeAwareSSM, {"state_size": 0}, "state_size 0 must be above 0"),
    ],
)
def test_impossible_sizes_are_errors(kind, options, message):
    with pytest.raises(ValueError, match=message):
        kind(8, **options)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("kind", WORKING_MEMORIES.values(), ids=WORKING_MEMORIES)
def test_padding_leaves_the_state_as_it_is(kind):
    memory, x, gap = kind(16, state_size=6), torch.randn(2, 9, 16), torch.rand(2, 9)
    mask = torch.arange(9) < torch.tensor([[5], [9]])
    output, state = memory(x, gap, memory.init_state(2), None, mask)
    for row, steps in enumerate((5, 9)):
        alone, after = memory(x[row : row + 1, :steps], gap[row : row + 1, :steps], memory.init_state(1))
        torch.testing.assert_close(output[row, :steps], alone[0], rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(state[row], after[0], rtol=1e-9, atol=1e-9)
