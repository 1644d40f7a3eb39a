"""The block learns from reads alone: gradients of skipped reads are right on average, and a lesson shapes
nothing but its memory."""

import pytest
import torch
from torch import Tensor

from lived import run
from small_blocks import BATCH, DENSE, ROUTED, TIME, TRAINING, WIDTH, block, stream
from torchcram.memory.block import CRAMBlock
from torchcram.memory.exploration import exploration_rate
from torchcram.types import Learning, Route, RoutingControl

pytestmark = pytest.mark.usefixtures("float64")


# exploration


def test_exploration_draws_its_share_of_all_tokens_and_counts_each_with_its_inverse():
    mixer = block()
    noise = torch.rand(BATCH, 200, 4)
    output = run(
        mixer,
        torch.randn(BATCH, 200, WIDTH),
        torch.rand(BATCH, 200),
        noise=noise,
        control=RoutingControl(learning=Learning(exploration=0.25, consolidate=True)),
    )
    decision = output.decision
    rate = exploration_rate(1 - decision.probabilities[..., Route.WORKING], least=0.25)
    assert rate.min() >= 0.25
    assert torch.equal(decision.explored, (noise[..., 3] < rate) & ~decision.read)
    torch.testing.assert_close(decision.weight[decision.explored], 1 / rate[decision.explored])
    assert (decision.weight[decision.read] == 1.0).all()
    assert {int(route) for route in decision.route[decision.explored]} == {Route.WORKING, Route.SEMANTIC}


@pytest.mark.parametrize(
    "control",
    [
        DENSE,
        RoutingControl(reads="none", learning=Learning(exploration=0.5)),
        RoutingControl(learning=Learning()),
    ],
)
def test_nothing_is_explored_where_nothing_is_routed(control):
    assert not run(block(), **stream(), control=control).decision.explored.any()


def test_without_noise_nothing_is_explored():
    assert not run(block(), **{**stream(), "noise": None}, control=TRAINING).decision.explored.any()


def test_exploration_leaves_the_routers_gradient_unbiased():
    """Mean over many draws of what is explored == the gradient with everything explored, to 5 standard
    errors."""
    mixer, given, above = block(surprise=False), stream(), torch.randn(BATCH, TIME, WIDTH)

    def gradient(noise: Tensor, rate: float) -> Tensor:
        output = run(
            mixer, **{**given, "noise": noise}, control=RoutingControl(learning=Learning(exploration=rate))
        )
        return torch.autograd.grad((output.hidden_states * above).sum(), mixer.router.net[2].weight)[
            0
        ].flatten()

    mixer.mlp.forward = lambda x: torch.zeros_like(x)
    dense = gradient(torch.zeros(BATCH, TIME, 4), 1.0)
    draws = torch.stack([gradient(torch.rand(BATCH, TIME, 4), 0.4) for _ in range(150)])
    error = draws.std(0) / 150**0.5
    assert ((draws.mean(0) - dense).abs() <= 5 * error).all()
    assert (dense.abs() > 5 * error).any(), (
        "the test would see it if the gradient of explored tokens were lost"
    )


# learning


def test_the_consolidation_losses_shape_neither_the_trunk_nor_the_retrieval():
    mixer = block(semantic="low_rank", surprise=False)
    losses = run(mixer, **stream(), control=TRAINING).losses
    (losses["consolidation"] + losses["familiarity"]).backward()
    touched = {
        name.split(".")[0]
        for name, parameter in mixer.named_parameters()
        if parameter.grad is not None and parameter.grad.any()
    }
    assert touched == {"semantic", "familiarity"}


def test_undetached_the_consolidation_loss_shapes_the_trunk():
    mixer = block(semantic="low_rank", surprise=False, detach=False)
    run(mixer, **stream(), control=TRAINING).losses["consolidation"].backward()
    assert mixer.memory_norm.weight.grad.any()
    assert not any(part.weight.grad is not None for part in (mixer.episodic.value, mixer.episodic.out))


def test_the_surprise_loss_shapes_the_trace_alone():
    mixer = block()
    run(mixer, **stream(), control=TRAINING).losses["surprise"].backward()
    touched = {
        name.split(".")[0]
        for name, parameter in mixer.named_parameters()
        if parameter.grad is not None and parameter.grad.any()
    }
    assert touched == {"surprise"}


def test_the_trace_learns_where_those_look_who_read_a_binding_most(monkeypatch):
    mixer, given, seen = block(), stream(), {}
    names = ("h", "asked_for", "entry", "address", "mask")
    monkeypatch.setattr(
        mixer.surprise, "loss", lambda *given: seen.update(zip(names, given, strict=True)) or torch.zeros(())
    )
    with torch.no_grad():
        mixer.episodic.log_sharpness.fill_(6.0)
    output = run(mixer, **given, control=TRAINING)
    memory, time = mixer.episodic.write(
        seen["h"], given["gap"], mixer.init_state(BATCH).episodic, surprise=output.signals["surprise"]
    )
    row, step, source = mixer.episodic.top_entry(seen["h"], time, memory, output.decision.read)
    assert (step != source).any()
    assert set(zip(row.tolist(), source.tolist(), strict=True)) == {
        tuple(pair) for pair in seen["asked_for"].nonzero().tolist()
    }
    torch.testing.assert_close(seen["entry"], seen["h"][row, source])
    torch.testing.assert_close(seen["address"], mixer.episodic.address(seen["h"])[row, step])


def test_error_and_quality_are_observed_where_asked_and_read():
    output = run(block(), **stream(), control=TRAINING)
    observed = output.decision.asked & output.decision.computed
    for name in ("error", "quality"):
        assert torch.equal(~output.signals[name].isnan(), observed)
    torch.testing.assert_close(
        output.signals["quality"][observed], torch.exp(-output.signals["error"][observed] / 0.5)
    )
    error, weight = (
        output.signals["error"][observed],
        output.decision.weight[observed] * (1 - output.decision.probabilities[..., Route.WORKING])[observed],
    )
    torch.testing.assert_close(output.losses["consolidation"], (weight * error).sum() / weight.sum())


def test_the_lesson_is_what_was_asked_and_read():
    mixer = block()
    output = run(mixer, **stream(), control=TRAINING)
    lesson, decision = output.lesson, output.decision
    assert torch.equal(lesson.read, decision.computed[decision.asked])
    torch.testing.assert_close(
        lesson.quality[lesson.read], output.signals["quality"][decision.asked & decision.computed]
    )
    assert (lesson.target[~lesson.read] == 0).all()
    assert (lesson.target[lesson.read] != 0).any(-1).all()
    before = mixer.semantic.reads.clone()
    mixer.after_step(output)
    assert mixer.semantic.reads.sum() != before.sum()


def test_without_consolidation_nothing_is_learned():
    mixer = block()
    output = run(mixer, **stream(), control=ROUTED)
    assert (output.lesson, set(output.losses)) == (None, {"price"})
    before = {name: tensor.clone() for name, tensor in mixer.state_dict().items()}
    mixer.after_step(output)
    assert all(torch.equal(tensor, mixer.state_dict()[name]) for name, tensor in before.items())


def test_the_price_is_the_mean_probability_of_a_read():
    output = run(block(), **stream(), control=ROUTED)
    torch.testing.assert_close(
        output.losses["price"], output.decision.probabilities[..., Route.EPISODIC].mean()
    )


def test_slots_learn_to_stand_in_for_reads():
    """The same sequences again and again, all read: after some lessons the quality of what was new is that
    of what is known."""
    mixer = CRAMBlock(WIDTH, slots=128, surprise=False)
    control = RoutingControl(reads="all", learning=Learning(consolidate=True))
    quality = []
    for _ in range(20):
        output = run(mixer, **stream(), control=control)
        mixer.after_step(output)
        quality.append(output.signals["quality"].mean().item())
    assert quality[0] < 0.3
    assert quality[-1] > 0.8
