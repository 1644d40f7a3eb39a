"""Kinds of semantic memory and the router, by themselves."""

import pytest
import torch

from torchcram.pretrained.retrofit.alignment import alignment_of
from torchcram.pretrained.retrofit.evidence import BOUND, Evidence, Standard, feature_count
from torchcram.pretrained.retrofit.parts import Part
from torchcram.pretrained.retrofit.router import HarmRouter
from torchcram.pretrained.retrofit.semantic import CLASSES, LinearRemote, LowRankRemote
from torchcram.types import Route

SIZES = {"width": 12, "heads": 3, "head_size": 4}
CPU = torch.device("cpu")


def evidence(remote=(0, 1, 7, 50), *, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(2, len(remote), *shape, generator=generator)

    return Evidence(
        hidden=draw(12),
        near=Part(value=draw(3, 4), log_mass=draw(3)),
        address=draw(3, 4),
        remote=torch.tensor(remote).expand(2, -1),
        gist_value=draw(3, 4),
        gist_score=draw(3),
    )


def randomised(module):
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 4)
    return module


@pytest.mark.parametrize("kind", sorted(CLASSES))
def test_log_mass_grows_with_the_number_of_remote_tokens_and_vanishes_without(kind):
    memory = randomised(CLASSES[kind](**SIZES))
    if kind != "slots":
        with torch.no_grad():
            # The count is a feature, too: leave it out here.
            (memory.map if kind == "linear" else memory.down).weight[:, -1] = 0
    few, many = (memory(evidence((count,) * 4)) for count in (5, 50))
    torch.testing.assert_close(many.value, few.value)
    ten = torch.tensor(10.0).log().expand(2, 4, 3)
    torch.testing.assert_close(many.log_mass - few.log_mass, ten)
    assert (memory(evidence((0,) * 4)).log_mass == -torch.inf).all()


def test_the_bottleneck_is_the_linear_map_of_its_product():
    low, linear = randomised(LowRankRemote(**SIZES, rank=5)), randomised(LinearRemote(**SIZES))
    with torch.no_grad():
        linear.map.weight.copy_(low.up.weight @ low.down.weight)
        linear.map.bias.copy_(low.up.bias)
    torch.testing.assert_close(low(evidence()).value, linear(evidence()).value, rtol=1e-4, atol=1e-4)
    assert LowRankRemote(**{**SIZES, "width": 64}).down.out_features == 4


def test_slots_are_attention_over_learned_entries():
    memory, seen = randomised(CLASSES["slots"](**SIZES)), evidence()
    part = memory.predict(seen)
    scores = torch.einsum("bthd,hsd->bths", seen.address, memory.key) + memory.mass
    torch.testing.assert_close(part.log_mass, scores.exp().sum(-1).log())
    torch.testing.assert_close(
        part.value, torch.einsum("bths,hsd->bthd", scores.exp() / scores.exp().sum(-1, True), memory.value)
    )


def test_features_are_standard_and_bounded():
    standard = Standard(3)
    standard.set(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2.0, 0.0, 1.0]))
    found = standard(torch.tensor([[3.0, 2.0, 5000.0]]))
    torch.testing.assert_close(found, torch.tensor([[1.0, 0.0, BOUND]]))
    assert evidence().features().shape == (2, 4, feature_count(**SIZES))


def test_a_token_reads_if_the_harm_left_is_worth_the_price():
    router, seen = randomised(HarmRouter(**SIZES)), evidence()
    log_need, logit = router(seen)
    left = (log_need + torch.nn.functional.logsigmoid(-logit)).exp()
    beyond = seen.remote > 0
    price = float(left.detach()[beyond].median())
    decision = router.decide(seen, price=price)
    assert torch.equal(decision.used, beyond & (left > price))
    assert (decision.route[~beyond] == Route.WORKING).all()
    torch.testing.assert_close(decision.familiarity, logit.sigmoid())
    torch.testing.assert_close(decision.probabilities.sum(-1), torch.ones(2, 4))


def test_a_higher_price_reads_no_more():
    router, seen = randomised(HarmRouter(**SIZES)), evidence((9,) * 40)
    reads = [int(router.decide(seen, price=price).used.sum()) for price in (0.0, 1e-3, 0.1, 10.0, 1e9)]
    assert reads == sorted(reads, reverse=True)
    assert reads[0] > reads[2] > reads[-1] == 0


def test_what_needs_nothing_asks_nothing():
    router = HarmRouter(**SIZES)
    with torch.no_grad():
        router.outer.bias.copy_(torch.tensor([-30.0, 0.0]))
    assert (router.decide(evidence((9,) * 4), price=0.0).route == Route.WORKING).all()


def test_padding_is_taken_out_and_put_back():
    mask = torch.tensor([[1, 1, 1, 1], [0, 1, 0, 1]]).bool()
    alignment = alignment_of(mask, batch=2, time=4, device=CPU)
    states = torch.arange(16.0).view(2, 1, 4, 2)
    gathered = alignment.gathered(states)
    assert gathered[1, 0, :2].tolist() == [[10, 11], [14, 15]]
    assert alignment.count.tolist() == [4, 2]
    torch.testing.assert_close(alignment.scattered(gathered), states * mask[:, None, :, None])
    whole = alignment_of(torch.ones(2, 4).bool(), batch=2, time=4, device=CPU)
    assert whole.order is None
    assert whole.gathered(states) is states
