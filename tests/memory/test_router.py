"""Routers: probabilities that sum to one, routes that follow the thresholds, gradients that move need and
leave familiarity alone."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from torchcram.memory.router import ROUTERS, GumbelRouter, NeedFamiliarityRouter, exploration_rate
from torchcram.types import Route

SHAPE, WIDTH = (4, 50), 8

pytestmark = pytest.mark.usefixtures("float64")


def logit(p: float) -> float:
    return torch.logit(torch.tensor(p)).item()


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    """Hidden states, needs and familiarities, all over their ranges."""
    return torch.randn(*SHAPE, WIDTH), torch.rand(SHAPE), torch.rand(SHAPE)


@pytest.mark.parametrize("name", ROUTERS)
@pytest.mark.parametrize("noisy", [False, True])
def test_probabilities_sum_to_one(name, noisy):
    router, (h, need, familiarity) = ROUTERS[name](WIDTH), inputs()
    probabilities, route = router.decide(h, need, familiarity, torch.rand(*SHAPE, 3) if noisy else None)
    torch.testing.assert_close(probabilities.sum(-1), torch.ones(SHAPE))
    assert probabilities.min() >= 0
    assert route.min() >= 0
    assert route.max() <= 2


@pytest.mark.parametrize("name", ROUTERS)
@pytest.mark.parametrize("threshold", [0.0, 1.0])
def test_a_threshold_that_is_no_probability_is_an_error(name, threshold):
    with pytest.raises(ValueError, match=f"threshold {threshold} must lie strictly between 0 and 1"):
        ROUTERS[name](WIDTH, threshold=threshold)


@pytest.mark.parametrize("name", ROUTERS)
def test_logits_come_in_full_precision_under_autocast(name):
    """The router's own layers, too: a logit rounded to bf16 would not agree to six digits."""
    router, h = ROUTERS[name](WIDTH).float(), torch.randn(2, 3, WIDTH, dtype=torch.float32)
    familiarity = torch.rand(2, 3, dtype=torch.float32)

    def decide() -> Tensor:
        return router.decide(h, router.need(h, None), familiarity, None)[0]

    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = decide()
    assert rounded.dtype == torch.float32
    torch.testing.assert_close(rounded, decide(), rtol=0, atol=1e-6)


# exploration


@given(st.floats(0.0, 1.0), st.floats(0.001, 1.0))
def test_what_is_undecided_is_explored_most(need, least):
    rate = [exploration_rate(torch.tensor([[p]]), least=least).item() for p in (need, 0.5, 0.0, 1.0)]
    assert least - 1e-12 <= rate[0] <= rate[1] == pytest.approx(max(0.5, least))
    assert rate[2] == rate[3] == pytest.approx(least)


# need x familiarity


@pytest.mark.parametrize("shift", [0.0, 1.5, -1.5])
def test_the_route_follows_two_thresholds(shift):
    router, (h, need, familiarity) = NeedFamiliarityRouter(WIDTH, threshold=0.6), inputs()
    _, route = router.decide(h, need, familiarity, None, shift=shift)
    known = familiarity > torch.sigmoid(torch.tensor(logit(0.6) + shift))
    assert torch.equal(route == Route.WORKING, need <= 0.5)
    assert torch.equal(route == Route.SEMANTIC, (need > 0.5) & known)
    assert torch.equal(route == Route.EPISODIC, (need > 0.5) & ~known)


def test_each_threshold_is_where_its_probabilities_are_level():
    """The likelier answer to each of the two questions is the one taken."""
    router, (h, need, familiarity) = NeedFamiliarityRouter(WIDTH, threshold=0.6), inputs()
    probabilities, route = router.decide(h, need, familiarity, None)
    working, semantic, episodic = probabilities.unbind(-1)
    assert torch.equal(route == Route.WORKING, working >= semantic + episodic)
    in_need = route != Route.WORKING
    assert torch.equal((route == Route.SEMANTIC)[in_need], (semantic > episodic)[in_need])


def test_steepness_sharpens_familiarity():
    h, need, familiarity = inputs()
    soft, hard = (
        NeedFamiliarityRouter(WIDTH, steepness=s).decide(h, need, familiarity, None)[0][..., Route.SEMANTIC]
        / need
        for s in (1.0, 20.0)
    )
    assert torch.minimum(hard, 1 - hard).mean() < 0.3 * torch.minimum(soft, 1 - soft).mean()


def test_the_price_moves_need_down_and_leaves_familiarity_alone():
    router, (h, _, familiarity) = NeedFamiliarityRouter(WIDTH), inputs()
    familiarity.requires_grad_()
    before = router.need(h, None)
    optimizer = torch.optim.SGD(router.parameters(), lr=0.1)
    router.decide(h, before, familiarity, None)[0][..., Route.EPISODIC].mean().backward()
    optimizer.step()
    assert familiarity.grad is None
    assert router.need(h, None).mean() < before.mean()


def test_need_is_taught_by_retrievals_alone_and_by_those_that_semantic_memory_replaced_too():
    """A wrong semantic answer must not teach a token not to ask."""
    router, (h, _, familiarity) = NeedFamiliarityRouter(WIDTH), inputs()
    need = torch.rand(SHAPE, requires_grad=True)
    for_retrieval, for_answer = router.credit(router.decide(h, need, familiarity, None)[0])
    torch.testing.assert_close(for_retrieval, need)
    torch.testing.assert_close(torch.autograd.grad(for_retrieval.sum(), need)[0], torch.ones(SHAPE))
    assert not for_answer.requires_grad


def test_every_token_is_in_need_at_the_start():
    assert (NeedFamiliarityRouter(WIDTH).need(torch.randn(*SHAPE, WIDTH), None) > 0.5).all()


def test_noise_draws_need_in_proportion_to_its_probability(seeded):
    router, h = NeedFamiliarityRouter(WIDTH, noise_scale=1.0), torch.randn(1, 1, WIDTH)
    plain = router.need(h, None)
    noisy = router.need(h.expand(1, 20_000, WIDTH), torch.rand(1, 20_000, generator=seeded(5)))
    assert (noisy > 0.5).double().mean().item() == pytest.approx(plain.item(), abs=5 * (0.25 / 20_000) ** 0.5)
    still = NeedFamiliarityRouter(WIDTH)
    assert torch.equal(still.need(h, torch.rand(1, 1)), still.need(h, None))


# the paper's router


def test_it_tips_at_the_papers_quality():
    """Of a token whose state says nothing, semantic memory answers from quality 0.83 on; working memory
    never at the start."""
    router, familiarity = GumbelRouter(WIDTH), torch.linspace(0, 1, 101)[None]
    h = torch.zeros(1, 101, WIDTH)
    probabilities, route = router.decide(h, router.need(h, None), familiarity, None)
    assert torch.equal(route[0, :83], torch.full((83,), int(Route.EPISODIC)))
    assert torch.equal(route[0, 84:], torch.full((17,), int(Route.SEMANTIC)))
    torch.testing.assert_close(probabilities[0, 83, Route.SEMANTIC], probabilities[0, 83, Route.EPISODIC])


def test_each_route_gets_its_own_credit():
    router, (h, need, familiarity) = GumbelRouter(WIDTH), inputs()
    probabilities, _ = router.decide(h, need, familiarity, None)
    for_retrieval, for_answer = router.credit(probabilities)
    assert torch.equal(for_retrieval, probabilities[..., Route.EPISODIC])
    assert torch.equal(for_answer, probabilities[..., Route.SEMANTIC])


def test_its_route_is_the_likeliest():
    router, (h, need, familiarity) = GumbelRouter(WIDTH), inputs()
    for uniform in (None, torch.rand(*SHAPE, 3)):
        probabilities, route = router.decide(h, need, familiarity, uniform)
        assert torch.equal(route, probabilities.argmax(-1))


def test_its_noise_draws_routes_in_proportion_to_their_probabilities(seeded):
    router, h, familiarity = GumbelRouter(WIDTH), torch.randn(1, 1, WIDTH), torch.full((1, 1), 0.7)
    plain, _ = router.decide(h, router.need(h, None), familiarity, None)
    many = (tensor.expand(1, 20_000, *tensor.shape[2:]) for tensor in (h, router.need(h, None), familiarity))
    _, route = router.decide(*many, torch.rand(1, 20_000, 3, generator=seeded(6)))
    shares = torch.bincount(route.flatten(), minlength=3) / 20_000
    assert (shares - plain.flatten()).abs().max() < 5 * (0.25 / 20_000) ** 0.5


def test_a_higher_threshold_is_more_cautious():
    router, (h, need, familiarity) = GumbelRouter(WIDTH, threshold=0.5), inputs()
    semantic = [
        router.decide(h, need, familiarity, None, shift=shift)[0][..., Route.SEMANTIC]
        for shift in (-1.0, 0.0, 1.0)
    ]
    assert (semantic[0] > semantic[1]).all()
    assert (semantic[1] > semantic[2]).all()


def test_it_asks_semantic_memory_about_every_token():
    router = GumbelRouter(WIDTH)
    assert torch.equal(router.need(torch.randn(*SHAPE, WIDTH), None), torch.ones(SHAPE))


def test_its_price_does_not_reach_familiarity_either():
    router, (h, need, familiarity) = GumbelRouter(WIDTH), inputs()
    familiarity.requires_grad_()
    router.decide(h, need, familiarity, None)[0][..., Route.EPISODIC].mean().backward()
    assert familiarity.grad is None
    assert router.net.bias.grad[Route.EPISODIC] > 0
