"""The contract: what every sequence mixer promises, asked of every one in the table and of CRAM in all its
variants.

Everything in float64, in blocks that have lived (see ``lived.py``), so that a tolerance of 1e-9 means
something and no path is idle.
"""

from copy import deepcopy
from functools import cache
from inspect import isclass

import pytest
import torch
from torch import Tensor, nn

from lived import assert_same, live, run, state_tensors, tensors
from torchcram.baselines import mixture_of_depths, seqboat, ssm, static_hybrid, static_router, transformer
from torchcram.memory import block as cram
from torchcram.memory import observed
from torchcram.mixers import MIXERS, build_mixer
from torchcram.types import Learning, MemoryState, RoutingControl, SequenceMixer

WIDTH, BATCH, TIME = 32, 3, 10
CASES = {
    **{name: (name, {}) for name in MIXERS},
    "transformer, window": ("transformer", {"window": 3}),
    "ssm, ct_ode": ("ssm", {"working": "ct_ode"}),
    "static_hybrid, attention": ("static_hybrid", {"attention_every": 1}),
    "seqboat, window": ("seqboat", {"window": 2}),
    "mixture_of_depths, window": ("mixture_of_depths", {"window": 2}),
    "cram, ct_ode": ("cram", {"working": "ct_ode"}),
    "cram, low_rank": ("cram", {"semantic": "low_rank", "surprise": False}),
    "cram, gumbel3": ("cram", {"router": "gumbel3"}),
    "cram, observed quality": ("cram_observed", {}),
    "cram, window": ("cram", {"window": 3}),
    "cram, router noise": ("cram", {"router_noise": 1.0}),
}
CONTROLS = {
    "dense": RoutingControl(reads="all"),
    "routed": RoutingControl(),
    "training": RoutingControl(learning=Learning(exploration=0.3, consolidate=True)),
    "no reads": RoutingControl(reads="none"),
}
TRAINING = CONTROLS["training"]
# Their training looks ahead, by their own definition: the laws are those of evaluation.
LOOK_AHEAD = (mixture_of_depths.MixtureOfDepthsBlock,)

pytestmark = pytest.mark.usefixtures("float64")


@cache
def lived(case: str) -> nn.Module:
    name, options = CASES[case]
    return live(build_mixer(name, WIDTH, options))


@pytest.fixture(params=CASES)
def mixer(request: pytest.FixtureRequest, float64: None) -> nn.Module:
    block = deepcopy(lived(request.param))
    return block.train(not isinstance(block, LOOK_AHEAD))


Stream = dict[str, Tensor]


def stream(seed: int = 1) -> Stream:
    """What a few sequences feed a mixer; gaps of zero among them."""
    generator = torch.Generator().manual_seed(seed)
    gap, horizon = (3 * torch.rand(2, BATCH, TIME, generator=generator) - 0.5).clamp_min(0)
    x, noise = (
        torch.randn(BATCH, TIME, WIDTH, generator=generator),
        torch.rand(BATCH, TIME, 4, generator=generator),
    )
    return {"hidden_states": x, "gap": gap, "horizon": horizon, "noise": noise}


def cut(
    given: dict[str, Tensor], *, rows: slice = slice(None), steps: slice = slice(None)
) -> dict[str, Tensor]:
    return {name: tensor[rows, steps] for name, tensor in given.items()}


def padding() -> Tensor:
    return torch.arange(TIME) < torch.tensor([TIME, 4, 1])[:, None]


def in_pieces(
    mixer: nn.Module, pieces: list[int], control: RoutingControl
) -> tuple[dict[str, Tensor], MemoryState | None]:
    """Run over the stream piece by piece, with carried state; what the pieces say is joined along time."""
    state, said, start = None, [], 0
    for length in pieces:
        output = run(mixer, **cut(stream(), steps=slice(start, start + length)), state=state, control=control)
        state, start = output.state, start + length
        said.append(tensors(output))
    return {name: torch.cat([one[name] for one in said], 1) for name in said[0]}, state


@pytest.mark.parametrize("pieces", [[1] * TIME, [TIME // 2] * 2], ids=["steps", "halves"])
@pytest.mark.parametrize("control", CONTROLS)
def test_forward_is_step_by_step_is_two_halves(mixer, control, pieces):
    whole, end = in_pieces(mixer, [TIME], CONTROLS[control])
    parts, last = in_pieces(mixer, pieces, CONTROLS[control])
    assert_same(parts, whole)
    assert_same(state_tensors(last), state_tensors(end))


@pytest.mark.parametrize("noisy", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("t", [0, 4, TIME - 1])
def test_no_step_changes_anything_before_it(mixer, noisy, t):
    control = CONTROLS["training" if noisy else "routed"]
    ours = stream() if noisy else {**stream(), "noise": None}
    theirs = {
        name: None if tensor is None else torch.cat([tensor[:, :t], stream(seed=2)[name][:, t:]], 1)
        for name, tensor in ours.items()
    }
    before, after = (
        tensors(run(mixer, **ours, control=control)),
        tensors(run(mixer, **theirs, control=control)),
    )
    assert_same(cut(after, steps=slice(t)), cut(before, steps=slice(t)))
    assert (before["hidden_states"][:, t] - after["hidden_states"][:, t]).abs().amax(-1).min() > 1e-3


def test_rows_of_a_batch_do_not_meet(mixer):
    together = tensors(run(mixer, **stream(), control=TRAINING))
    for row in range(BATCH):
        alone = run(mixer, **cut(stream(), rows=slice(row, row + 1)), control=TRAINING)
        assert_same(tensors(alone), cut(together, rows=slice(row, row + 1)))


@pytest.mark.parametrize("control", CONTROLS)
def test_padding_changes_nothing_on_real_steps_and_never_reads_or_asks(mixer, control):
    mask = padding()
    padded = tensors(run(mixer, **stream(), mask=mask, control=CONTROLS[control]))
    for row, length in enumerate(mask.sum(1).tolist()):
        real = {"rows": slice(row, row + 1), "steps": slice(length)}
        assert_same(
            tensors(run(mixer, **cut(stream(), **real), control=CONTROLS[control])), cut(padded, **real)
        )
    for name in ("route", "explored", "asked", "weight", "familiarity", "signal surprise"):
        assert (padded.get(name, torch.zeros(BATCH, TIME))[~mask] == 0).all(), name


def test_losses_do_not_see_padding(mixer):
    mask, ours = padding(), stream()
    theirs = {
        name: torch.where(mask.view(*mask.shape, *[1] * (tensor.dim() - 2)), tensor, 0.01)
        for name, tensor in ours.items()
    }
    assert_same(
        run(mixer, **ours, mask=mask, control=TRAINING).losses,
        run(mixer, **theirs, mask=mask, control=TRAINING).losses,
    )


def test_without_a_state_it_starts_anew(mixer):
    assert_same(
        *(
            tensors(run(mixer, **stream(), state=state, control=TRAINING))
            for state in (None, mixer.init_state(BATCH))
        )
    )


@pytest.mark.parametrize("control", CONTROLS)
def test_decisions_agree_with_themselves(mixer, control):
    decision = run(mixer, **stream(), control=CONTROLS[control]).decision
    torch.testing.assert_close(decision.probabilities.sum(-1), torch.ones(BATCH, TIME))
    assert decision.probabilities.min() >= 0
    assert torch.equal(decision.weight > 0, decision.computed)
    assert not (decision.explored & decision.read).any()


def test_what_may_be_read_is_obeyed(mixer):
    assert not run(mixer, **stream(), control=CONTROLS["no reads"]).decision.computed.any()
    # A mixer without attention cannot read.
    assert run(mixer, **stream(), control=CONTROLS["dense"]).decision.read.all() == (
        mixer.init_state(1).episodic is not None
    )


def test_every_parameter_that_wants_a_gradient_gets_one(mixer):
    output = run(mixer, **stream(), control=TRAINING)
    (
        (output.hidden_states * torch.randn(output.hidden_states.shape)).sum() + sum(output.losses.values())
    ).backward()
    gradients = {
        name: parameter.grad for name, parameter in mixer.named_parameters() if parameter.requires_grad
    }
    assert [name for name, gradient in gradients.items() if gradient is None or not gradient.any()] == []
    assert all(gradient.isfinite().all() for gradient in gradients.values())


def test_fast_parameters_are_its_own(mixer):
    own = {id(parameter) for parameter in mixer.parameters()}
    fast = [id(parameter) for parameter in mixer.fast_parameters()]
    assert set(fast) <= own
    assert len(set(fast)) == len(fast)
    assert bool(fast) == mixer.routed


@pytest.mark.parametrize(
    "name", [name for name, (kind, _) in CASES.items() if kind in ("cram", "cram_paper")]
)
def test_in_the_lived_blocks_something_happens(name):
    """The laws above are asked of blocks that take all routes, explore, are surprised, and flag."""
    kind, options = CASES[name]
    output = run(live(build_mixer(kind, WIDTH, options)), **stream(), control=TRAINING)
    assert output.decision.route.unique().tolist() == [0, 1, 2]
    # Whoever reads before the decision explores nothing more, where everybody asks.
    assert output.decision.explored.any() == (kind != "cram_paper")
    if "surprise" not in options and kind == "cram":
        assert 0.1 < (output.signals["surprise"] > 0.01).double().mean() < 0.9
        assert output.state.surprise.max() > 0.1


@pytest.mark.parametrize("name", ["seqboat", "mixture_of_depths", "static_router", "cram_no_consolidation"])
def test_the_lived_routers_without_consolidation_decide_both_ways(name):
    used = run(
        live(build_mixer(name, WIDTH, {})).eval(), **stream(), control=CONTROLS["routed"]
    ).decision.used
    assert 0.1 < used.double().mean() < 0.9


# the table


def test_every_mixer_obeys_the_protocol_and_stands_in_the_table():
    modules = (cram, observed, mixture_of_depths, seqboat, ssm, static_hybrid, static_router, transformer)
    written = {
        kind
        for module in modules
        for kind in vars(module).values()
        if isclass(kind) and kind.__module__ == module.__name__
    }
    mixers = {kind for kind in written if issubclass(kind, nn.Module) and hasattr(kind, "routed")}
    assert {kind for kind, _ in MIXERS.values()} == mixers
    assert all(isinstance(build_mixer(name, WIDTH, {}), SequenceMixer) for name in MIXERS)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("transfomer", {}, r"unknown mixer 'transfomer': did you mean 'transformer'\?"),
        ("cram", {"slot": 3}, r"unknown option 'slot' of mixer 'cram': did you mean 'slots'\?"),
        ("ssm", {"d_model": 3}, r"unknown option 'd_model' of mixer 'ssm'"),
        ("cram", {"working": "ctode"}, r"unknown working memory 'ctode': did you mean 'ct_ode'\?"),
        ("cram", {"semantic": "slot"}, r"unknown semantic memory 'slot': did you mean 'slots'\?"),
        ("cram", {"router": "gumbel"}, r"unknown router 'gumbel': did you mean 'gumbel3'\?"),
        (
            "cram",
            {"semantic": "low_rank"},
            "the surprise trace flags slots, but semantic is 'low_rank': set surprise to false",
        ),
        (
            "cram",
            {"semantic": "none", "surprise": False, "router": "gumbel3"},
            "router 'gumbel3' chooses between three memories, but semantic is 'none'",
        ),
        ("cram_no_consolidation", {"rank": 3}, "rank 3 belongs to semantic='low_rank'"),
        ("static_hybrid", {"layer": 1}, "unknown option 'layer' of mixer 'static_hybrid'"),
        ("static_hybrid", {"attention_every": 0}, "attention_every 0 must be above 0"),
        ("static_router", {"slots": 3}, "unknown option 'slots' of mixer 'static_router'"),
        ("mixture_of_depths", {"capacity": 1.5}, "capacity 1.5 must lie above 0 and be at most 1"),
        ("sliding_window", {"window": 0}, "window 0 must be at least 1"),
    ],
)
def test_unknown_names_and_impossible_combinations_name_the_way_out(name, options, message):
    with pytest.raises(ValueError, match=message):
        build_mixer(name, WIDTH, options)


def test_options_and_the_presets_of_a_name_reach_the_block(monkeypatch):
    monkeypatch.setitem(MIXERS, "cram-small", (cram.CRAMBlock, {"slots": 5, "window": 3}))
    block = build_mixer("cram-small", WIDTH, {"window": 7})
    assert (block.semantic.slots, block.episodic.window) == (5, 7)
