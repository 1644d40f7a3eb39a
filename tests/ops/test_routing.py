"""Straight-through mixing is hard forwards and soft backwards, and skipping values leaves its gradient
right on average."""

import pytest
import torch
from torch import Tensor

from torchcram.ops.routing import (
    gumbel_noise,
    logistic_noise,
    priced,
    straight_through_mix,
    straight_through_mix_reference,
)

SHAPE = (3, 5)


def problem(seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Values, which are chosen, probabilities, and the gradient that comes from above."""
    generator = torch.Generator().manual_seed(seed)
    value, above = torch.randn(2, *SHAPE, 4, generator=generator, dtype=torch.float64)
    probability = torch.rand(SHAPE, generator=generator, dtype=torch.float64)
    return value.requires_grad_(), probability > 0.5, probability.requires_grad_(), above


def test_forwards_it_is_the_choice():
    value, chosen, probability, _ = problem()
    mixed = straight_through_mix(value, chosen, probability, torch.full(SHAPE, 3.0, dtype=torch.float64))
    assert torch.equal(mixed, torch.where(chosen[..., None], value, 0.0))


def test_backwards_a_chosen_value_gets_the_gradient_and_another_none():
    value, chosen, probability, above = problem()
    mixed = straight_through_mix(value, chosen, probability, torch.ones(SHAPE, dtype=torch.float64))
    (gradient,) = torch.autograd.grad(mixed, value, above)
    assert torch.equal(gradient, torch.where(chosen[..., None], above, 0.0))


def test_backwards_a_probability_gets_the_weighted_product_of_gradient_and_value():
    value, chosen, probability, above = problem()
    weight = torch.linspace(0, 2, 15, dtype=torch.float64).view(SHAPE)
    (gradient,) = torch.autograd.grad(
        straight_through_mix(value, chosen, probability, weight), probability, above
    )
    torch.testing.assert_close(gradient, (above * value).sum(-1) * weight, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("weighs", [True, False], ids=["all weigh", "none weighs"])
def test_values_and_gradients_are_those_of_the_reference(weighs):
    value, chosen, probability, above = problem()
    weight = torch.linspace(0, 2, 15, dtype=torch.float64).view(SHAPE) * weighs
    both = (
        _mixed(mix, value, chosen, probability, weight, above)
        for mix in (straight_through_mix, straight_through_mix_reference)
    )
    for mine, theirs in zip(*both, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)


def _mixed(
    mix, value: Tensor, chosen: Tensor, probability: Tensor, weight: Tensor, above: Tensor
) -> list[Tensor]:
    mixed = mix(value, chosen, probability, weight)
    return [mixed, *torch.autograd.grad(mixed, (value, probability), above)]


def test_second_derivatives_are_those_of_the_reference():
    value, chosen, probability, above = problem()
    weight = torch.linspace(0, 2, 15, dtype=torch.float64).view(SHAPE)

    def twice(mix) -> list[Tensor]:
        first = torch.autograd.grad(
            (mix(value, chosen, probability, weight) * above).square().sum(),
            (value, probability),
            create_graph=True,
        )
        return list(torch.autograd.grad(sum(part.square().sum() for part in first), value))

    for mine, theirs in zip(twice(straight_through_mix), twice(straight_through_mix_reference), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)


def test_it_can_be_transformed_like_any_function():
    value, chosen, probability, _ = (tensor.detach() for tensor in problem())

    def loss(mix):
        return lambda value, chosen, probability: (
            mix(value[None], chosen[None], probability[None], probability[None].detach()).pow(3).sum()
        )

    both = [
        torch.func.vmap(torch.func.grad(loss(mix), argnums=(0, 2)))(value, chosen, probability)
        for mix in (straight_through_mix, straight_through_mix_reference)
    ]
    for mine, theirs in zip(*both, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)


def test_a_probability_that_learns_nothing_costs_nothing_and_one_of_lower_precision_keeps_it():
    value, chosen, probability, above = problem()
    weight = torch.ones(SHAPE, dtype=torch.float64)
    straight_through_mix(value, chosen, probability.detach(), weight).backward(above)
    assert torch.equal(value.grad, above * chosen[..., None])
    coarse = probability.detach().bfloat16().requires_grad_()
    straight_through_mix(value, chosen, coarse, weight).backward(above)
    torch.testing.assert_close(coarse.grad, (above * value).sum(-1).bfloat16())


@pytest.mark.parametrize("rate", [0.02, 0.2])
def test_exploration_leaves_the_expected_gradient_as_if_everything_had_been_read(rate):
    """Values of skipped tokens are seen at the exploration rate and counted with its inverse: unbiased, to
    5 standard errors."""
    value, chosen, probability, above = problem()
    dense = (above * value).sum(-1).detach()
    generator, total, squares, draws = (
        torch.Generator().manual_seed(1),
        torch.zeros_like(dense),
        torch.zeros_like(dense),
        1500,
    )
    for _ in range(draws):
        explored = ~chosen & (torch.rand(SHAPE, generator=generator) < rate)
        weight = chosen + explored.double() / rate
        computed = torch.where((chosen | explored)[..., None], value, 0.0)
        (gradient,) = torch.autograd.grad(
            straight_through_mix(computed, chosen, probability, weight), probability, above
        )
        total, squares = total + gradient, squares + gradient.square()
    mean = total / draws
    error = ((squares / draws - mean.square()).clamp_min(0) / draws).sqrt()
    assert ((mean - dense).abs() <= 5 * error + 1e-12).all()
    assert (error[~chosen] > 0).all()
    torch.testing.assert_close(mean[chosen], dense[chosen], rtol=1e-9, atol=1e-9)


def test_a_steady_price_is_charged_on_the_probability_and_pulls_a_logit_with_it():
    logit = torch.linspace(-12, 12, 25, dtype=torch.float64, requires_grad=True)
    charged = priced(torch.sigmoid(logit), steady=True)
    torch.testing.assert_close(charged, torch.sigmoid(logit), rtol=1e-12, atol=0)
    (pull,) = torch.autograd.grad(charged.sum(), logit)
    torch.testing.assert_close(pull, torch.sigmoid(logit), rtol=1e-9, atol=0)


def test_a_steady_price_moves_a_router_that_is_sure():
    """From wherever it starts, in single precision, and to the balance: the pull of a gain ``g`` on a read,
    ``g p (1 - p)``, equals that of the price at ``p = 1 - price / g``."""
    logit = torch.linspace(-12, 12, 49, requires_grad=True)
    optimizer = torch.optim.Adam([logit], lr=0.1)
    for _ in range(400):
        probability = torch.sigmoid(logit)
        (0.2 * priced(probability, steady=True) - 0.5 * probability).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    torch.testing.assert_close(torch.sigmoid(logit), torch.full((49,), 0.6), rtol=0, atol=0.02)


def test_a_plain_price_is_charged_on_the_probability_itself():
    probability = torch.rand(3)
    assert priced(probability, steady=False) is probability


def test_a_router_that_cannot_be_surer_is_left_alone():
    probability = torch.ones(3, requires_grad=True)
    charged = priced(probability, steady=True)
    assert charged.tolist() == [1.0] * 3
    charged.sum().backward()
    assert probability.grad is not None
    assert probability.grad.isfinite().all()


@pytest.fixture
def uniform(seeded) -> Tensor:
    return torch.rand(40_000, generator=seeded(3), dtype=torch.float64)


def test_logistic_noise_follows_the_logistic_law(uniform):
    noise = logistic_noise(uniform)
    for bound in (-2.0, 0.0, 1.0):
        expected = torch.sigmoid(torch.tensor(bound)).item()
        assert (noise < bound).double().mean().item() == pytest.approx(
            expected, abs=5 * (0.25 / 40_000) ** 0.5
        )


def test_gumbel_noise_chooses_in_proportion_to_the_softmax(seeded):
    logits = torch.tensor([0.5, -1.0, 2.0])
    noise = gumbel_noise(torch.rand(40_000, 3, generator=seeded(4)))
    shares = torch.bincount((logits + noise).argmax(-1), minlength=3) / 40_000
    assert (shares - logits.softmax(-1)).abs().max() < 5 * (0.25 / 40_000) ** 0.5


@pytest.mark.parametrize("noise", [logistic_noise, gumbel_noise])
def test_the_ends_of_the_unit_interval_are_finite(noise):
    assert noise(torch.tensor([0.0, 1.0 - 2**-24, 1.0])).isfinite().all()
