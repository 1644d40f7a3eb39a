"""Routers: probabilities that sum to one, routes that follow the thresholds, gradients that move need and
leave familiarity alone."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from torchcram.memory.block import ROUTERS
from torchcram.memory.exploration import exploration_rate
from torchcram.memory.gumbel_router import GumbelRouter
from torchcram.memory.recall import Recollection
from torchcram.memory.router import NeedFamiliarityRouter, Router
from torchcram.types import Learning, ReadBudget, Route, RoutingControl, Step

SHAPE, WIDTH = (4, 50), 8

pytestmark = pytest.mark.usefixtures("float64")


def logit(p: float) -> float:
    return torch.logit(torch.tensor(p)).item()


def step(shape: tuple[int, int], uniform: Tensor | None = None, shift: float = 0.0) -> Step:
    """Steps with three numbers of noise for the router, or one that serves for all of them."""
    if uniform is not None:
        uniform = (
            uniform[..., None].expand(*shape, 4)
            if uniform.dim() == 2
            else torch.cat([uniform, uniform[..., :1]], -1)
        )
    return Step(gap=torch.ones(shape), noise=uniform, control=RoutingControl(threshold_shift=shift))


def choose(
    router: Router,
    h: Tensor,
    need: Tensor,
    familiarity: Tensor,
    uniform: Tensor | None = None,
    shift: float = 0.0,
):
    return router.choose(h, need, familiarity, step(need.shape, uniform, shift))


def need_of(router: Router, h: Tensor, uniform: Tensor | None = None) -> Tensor:
    return router.need(h, step(h.shape[:2], uniform))


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    """Hidden states, needs and familiarities, all over their ranges."""
    return torch.randn(*SHAPE, WIDTH), torch.rand(SHAPE), torch.rand(SHAPE)


@pytest.mark.parametrize("name", ROUTERS)
@pytest.mark.parametrize("noisy", [False, True])
def test_probabilities_sum_to_one(name, noisy):
    router, (h, need, familiarity) = ROUTERS[name](WIDTH), inputs()
    probabilities, route = choose(router, h, need, familiarity, torch.rand(*SHAPE, 3) if noisy else None)
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
        return choose(router, h, need_of(router, h, None), familiarity, None)[0]

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
    _, route = choose(router, h, need, familiarity, None, shift=shift)
    known = familiarity > torch.sigmoid(torch.tensor(logit(0.6) + shift))
    assert torch.equal(route == Route.WORKING, need <= 0.5)
    assert torch.equal(route == Route.SEMANTIC, (need > 0.5) & known)
    assert torch.equal(route == Route.EPISODIC, (need > 0.5) & ~known)


def test_each_threshold_is_where_its_probabilities_are_level():
    """The likelier answer to each of the two questions is the one taken."""
    router, (h, need, familiarity) = NeedFamiliarityRouter(WIDTH, threshold=0.6), inputs()
    probabilities, route = choose(router, h, need, familiarity, None)
    working, semantic, episodic = probabilities.unbind(-1)
    assert torch.equal(route == Route.WORKING, working >= semantic + episodic)
    in_need = route != Route.WORKING
    assert torch.equal((route == Route.SEMANTIC)[in_need], (semantic > episodic)[in_need])


def test_steepness_sharpens_familiarity():
    h, need, familiarity = inputs()
    soft, hard = (
        choose(NeedFamiliarityRouter(WIDTH, steepness=s), h, need, familiarity)[0][..., Route.SEMANTIC] / need
        for s in (1.0, 20.0)
    )
    assert torch.minimum(hard, 1 - hard).mean() < 0.3 * torch.minimum(soft, 1 - soft).mean()


def test_the_price_moves_need_down_and_leaves_familiarity_alone():
    router, (h, _, familiarity) = NeedFamiliarityRouter(WIDTH), inputs()
    familiarity.requires_grad_()
    before = need_of(router, h, None)
    optimizer = torch.optim.SGD(router.parameters(), lr=0.1)
    choose(router, h, before, familiarity, None)[0][..., Route.EPISODIC].mean().backward()
    optimizer.step()
    assert familiarity.grad is None
    assert need_of(router, h, None).mean() < before.mean()


def test_need_is_taught_by_retrievals_alone_and_by_those_that_semantic_memory_replaced_too():
    """A wrong semantic answer must not teach a token not to ask."""
    router, (h, _, familiarity) = NeedFamiliarityRouter(WIDTH), inputs()
    need = torch.rand(SHAPE, requires_grad=True)
    for_retrieval, for_answer = router.credit(choose(router, h, need, familiarity, None)[0])
    torch.testing.assert_close(for_retrieval, need)
    torch.testing.assert_close(torch.autograd.grad(for_retrieval.sum(), need)[0], torch.ones(SHAPE))
    assert not for_answer.requires_grad


def test_every_token_is_in_need_at_the_start():
    assert (need_of(NeedFamiliarityRouter(WIDTH), torch.randn(*SHAPE, WIDTH), None) > 0.5).all()


def test_noise_draws_need_in_proportion_to_its_probability(seeded):
    router, h = NeedFamiliarityRouter(WIDTH, noise_scale=1.0), torch.randn(1, 1, WIDTH)
    plain = need_of(router, h, None)
    noisy = need_of(router, h.expand(1, 20_000, WIDTH), torch.rand(1, 20_000, generator=seeded(5)))
    assert (noisy > 0.5).double().mean().item() == pytest.approx(plain.item(), abs=5 * (0.25 / 20_000) ** 0.5)
    still = NeedFamiliarityRouter(WIDTH)
    assert torch.equal(need_of(still, h, torch.rand(1, 1)), need_of(still, h, None))


# the paper's router


def test_it_tips_at_the_papers_quality():
    """Of a token whose state says nothing, semantic memory answers from quality 0.83 on; working memory
    never at the start."""
    router, familiarity = GumbelRouter(WIDTH), torch.linspace(0, 1, 101)[None]
    h = torch.zeros(1, 101, WIDTH)
    probabilities, route = choose(router, h, need_of(router, h, None), familiarity, None)
    assert torch.equal(route[0, :83], torch.full((83,), int(Route.EPISODIC)))
    assert torch.equal(route[0, 84:], torch.full((17,), int(Route.SEMANTIC)))
    torch.testing.assert_close(probabilities[0, 83, Route.SEMANTIC], probabilities[0, 83, Route.EPISODIC])


def test_each_route_gets_its_own_credit():
    router, (h, need, familiarity) = GumbelRouter(WIDTH), inputs()
    probabilities, _ = choose(router, h, need, familiarity, None)
    for_retrieval, for_answer = router.credit(probabilities)
    assert torch.equal(for_retrieval, probabilities[..., Route.EPISODIC])
    assert torch.equal(for_answer, probabilities[..., Route.SEMANTIC])


def test_its_route_is_the_likeliest():
    router, (h, need, familiarity) = GumbelRouter(WIDTH), inputs()
    for uniform in (None, torch.rand(*SHAPE, 3)):
        probabilities, route = choose(router, h, need, familiarity, uniform)
        assert torch.equal(route, probabilities.argmax(-1))


def test_its_noise_draws_routes_in_proportion_to_their_probabilities(seeded):
    router, h, familiarity = GumbelRouter(WIDTH), torch.randn(1, 1, WIDTH), torch.full((1, 1), 0.7)
    plain, _ = choose(router, h, need_of(router, h, None), familiarity, None)
    many = (
        tensor.expand(1, 20_000, *tensor.shape[2:]) for tensor in (h, need_of(router, h, None), familiarity)
    )
    _, route = choose(router, *many, torch.rand(1, 20_000, 3, generator=seeded(6)))
    shares = torch.bincount(route.flatten(), minlength=3) / 20_000
    assert (shares - plain.flatten()).abs().max() < 5 * (0.25 / 20_000) ** 0.5


def test_a_higher_threshold_is_more_cautious():
    router, (h, need, familiarity) = GumbelRouter(WIDTH, threshold=0.5), inputs()
    semantic = [
        choose(router, h, need, familiarity, None, shift=shift)[0][..., Route.SEMANTIC]
        for shift in (-1.0, 0.0, 1.0)
    ]
    assert (semantic[0] > semantic[1]).all()
    assert (semantic[1] > semantic[2]).all()


def test_it_asks_semantic_memory_about_every_token():
    router = GumbelRouter(WIDTH)
    assert torch.equal(need_of(router, torch.randn(*SHAPE, WIDTH), None), torch.ones(SHAPE))


def test_its_price_does_not_reach_familiarity_either():
    router, (h, need, familiarity) = GumbelRouter(WIDTH), inputs()
    familiarity.requires_grad_()
    choose(router, h, need, familiarity, None)[0][..., Route.EPISODIC].mean().backward()
    assert familiarity.grad is None
    assert router.net.bias.grad[Route.EPISODIC] > 0


# what every router does with its choice


def known(asked: Tensor, familiarity: Tensor, observed: Tensor | None = None) -> Recollection:
    return Recollection(
        asked=asked, familiarity=familiarity, value=torch.zeros(*asked.shape, WIDTH), observed=observed
    )


def decide(control: RoutingControl, *, noise: Tensor | None = None, mask: Tensor | None = None, **given):
    """Everybody is in need, and nobody is familiar, unless told otherwise."""
    everybody = torch.ones(SHAPE, dtype=torch.bool)
    need, familiarity = (
        given.get("need", torch.full(SHAPE, 0.9)),
        given.get("familiarity", torch.zeros(SHAPE)),
    )
    steps = Step(gap=torch.ones(SHAPE), control=control, noise=noise, mask=mask)
    about = known(given.get("asked", everybody), familiarity, given.get("observed"))
    return NeedFamiliarityRouter(WIDTH).decide(torch.zeros(*SHAPE, WIDTH), need, about, steps)


def test_what_may_be_read_bounds_the_route():
    assert (decide(RoutingControl()).route == Route.EPISODIC).all()
    assert (decide(RoutingControl(reads="none")).route == Route.WORKING).all()
    nobody = torch.zeros(SHAPE)
    assert (decide(RoutingControl(reads="all"), need=nobody).route == Route.EPISODIC).all()


def test_padding_takes_no_route():
    mask = torch.arange(SHAPE[1]).expand(SHAPE) < 7
    for reads in ("all", "routed"):
        assert torch.equal(decide(RoutingControl(reads=reads), mask=mask).read, mask)


def test_a_token_that_was_not_asked_about_gets_no_semantic_answer():
    """However low the threshold is: there is no answer to give."""
    asked = torch.rand(SHAPE) < 0.5
    decision = decide(RoutingControl(threshold_shift=-1e3), asked=asked)
    assert torch.equal(decision.route == Route.SEMANTIC, asked)
    assert torch.equal(decision.route == Route.EPISODIC, ~asked)


def test_what_had_to_be_read_to_be_known_counts_as_read():
    observed = torch.rand(SHAPE) < 0.5
    decision = decide(RoutingControl(), familiarity=torch.ones(SHAPE), observed=observed)
    assert not decision.used.any()
    assert torch.equal(decision.read, observed)
    assert torch.equal(decision.weight > 0, observed)


def test_what_is_explored_weighs_its_inverse_probability_and_reads_weigh_one():
    noise = torch.rand(*SHAPE, 4)
    need = torch.where(torch.rand(SHAPE) < 0.5, 0.9, 0.1)
    decision = decide(RoutingControl(learning=Learning(exploration=0.2)), noise=noise, need=need)
    rate = exploration_rate(need, least=0.2)
    assert torch.equal(decision.explored, (noise[..., 3] < rate) & (need < 0.5))
    expected = decision.read.double() + decision.explored / rate
    torch.testing.assert_close(decision.weight, expected)


def test_a_read_that_a_budget_denies_teaches_nothing_and_goes_the_likelier_way():
    """With weight, the router would learn from a retrieval that was not computed."""
    familiarity = torch.rand(SHAPE)
    control = RoutingControl(budget=ReadBudget(tokens=3), threshold_shift=1e3)
    decision = decide(control, familiarity=familiarity)
    denied = ~decision.read
    assert (decision.read.sum(1) == 3).all()
    assert (decision.weight[denied] == 0).all()
    assert (decision.weight[decision.read] == 1).all()
    likelier = decision.probabilities[..., Route.SEMANTIC] > decision.probabilities[..., Route.WORKING]
    assert torch.equal(decision.route[denied] == Route.SEMANTIC, likelier[denied])
