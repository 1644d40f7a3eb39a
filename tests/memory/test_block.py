"""The block: no decision needs the read it skips, and each route adds what it says.

What every mixer promises (causality, carried state, padding) is asked in ``test_mixers.py``.
"""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from lived import assert_same, run, tensors
from small_blocks import (
    BATCH,
    DENSE,
    ROUTED,
    TIME,
    TRAINING,
    block,
    decisions,
    observed_block,
    stream,
)
from torchcram.memory.exploration import exploration_rate
from torchcram.types import KeyValueState, Learning, Route, RoutingControl

pytestmark = pytest.mark.usefixtures("float64")


# no decision needs the read it skips


@pytest.mark.parametrize("router", ["need_familiarity", "gumbel3"])
@pytest.mark.parametrize("surprise", [True, False])
@pytest.mark.parametrize("control", [ROUTED, TRAINING], ids=["evaluation", "training"])
def test_decisions_do_not_look_into_the_key_value_memory(router, surprise, control):
    """Everything written before is replaced by NaN: not one decision, flag or state of the working memory
    notices."""
    mixer = block(router=router, surprise=surprise)
    state = run(mixer, **stream(2), control=ROUTED).state
    keys, values = (
        torch.full_like(tensor, torch.nan) for tensor in (state.episodic.keys, state.episodic.values)
    )
    blind = replace(state, episodic=KeyValueState(keys=keys, values=values, time=state.episodic.time))
    ours, theirs = (run(mixer, **stream(), state=given, control=control) for given in (state, blind))
    assert_same(decisions(ours), decisions(theirs))
    assert torch.equal(ours.state.working, theirs.state.working)
    assert not surprise or torch.equal(ours.state.surprise, theirs.state.surprise)
    assert theirs.hidden_states[ours.decision.read].isnan().all(), "the reads, in contrast, do notice"


def test_decisions_do_not_know_what_a_read_would_return():
    """Without a trace (which compares the token's *own* value), other values and another output map leave
    every decision as it is."""
    mixer = block(surprise=False)
    before = run(mixer, **stream(), control=ROUTED)
    with torch.no_grad():
        for part in (
            mixer.episodic.value.weight,
            mixer.episodic.out.weight,
            mixer.episodic.null_value,
            mixer.episodic.log_sharpness,
        ):
            part.add_(torch.randn_like(part))
    after = run(mixer, **stream(), control=ROUTED)
    assert_same(decisions(before), decisions(after))
    assert (before.hidden_states - after.hidden_states)[before.decision.read].abs().amax(-1).min() > 1e-3


def test_what_is_not_read_is_not_computed(monkeypatch):
    """The attention is asked for reads and explored tokens only, and semantic memory for those in need and
    explored ones."""
    mixer, asked_for = block(), []
    read, recall = mixer.episodic.read, mixer.semantic.forward
    monkeypatch.setattr(
        mixer.episodic,
        "read",
        lambda a, t, m, selected, **how: asked_for.append(selected) or read(a, t, m, selected, **how),
    )
    monkeypatch.setattr(
        mixer.semantic, "forward", lambda h, address: asked_for.append(len(address)) or recall(h, address)
    )
    decision = run(mixer, **stream(), control=TRAINING).decision
    assert torch.equal(asked_for[-1], decision.computed)
    assert asked_for[-2] == decision.asked.sum()
    rate = exploration_rate(1 - decision.probabilities[..., Route.WORKING], least=0.3)
    assert torch.equal(decision.asked, (decision.route > 0) | (stream()["noise"][..., 3] < rate))


# what a route adds


@pytest.mark.parametrize("quality", ["predicted", "observed"])
def test_each_route_adds_what_it_says(quality):
    """Below the feed-forward network the residual stream gains nothing, the semantic answer, or the
    retrieval."""
    mixer, given = (block if quality == "predicted" else observed_block)(surprise=False), stream()
    mixer.mlp.forward = lambda x: torch.zeros_like(x)
    output = run(mixer, **given, control=ROUTED)
    x = (
        given["hidden_states"]
        + mixer.working(
            mixer.working_norm(given["hidden_states"]), given["gap"], mixer.init_state(BATCH).working
        )[0]
    )
    h, gained = mixer.memory_norm(x), output.hidden_states - x
    address = mixer.episodic.address(h)
    memory, time = mixer.episodic.write(h, given["gap"], mixer.init_state(BATCH).episodic)
    retrieval = mixer.episodic.read(h, time, memory, torch.ones(BATCH, TIME, dtype=torch.bool))
    known = mixer.semantic(h.flatten(0, 1), address.flatten(0, 1)).value.view_as(h)
    for route, expected in {
        Route.WORKING: torch.zeros_like(h),
        Route.SEMANTIC: known,
        Route.EPISODIC: retrieval,
    }.items():
        chosen = output.decision.route == route
        assert chosen.any()
        torch.testing.assert_close(gained[chosen], expected[chosen], rtol=1e-9, atol=1e-9)


def test_a_flagged_slot_takes_familiarity_away():
    mixer = block()
    with torch.no_grad():
        mixer.surprise.binds.bias.fill_(-1e3)
    state = mixer.init_state(BATCH)
    plain, flagged = (
        run(mixer, **stream(), state=replace(state, surprise=flags), control=ROUTED)
        for flags in (state.surprise, torch.ones_like(state.surprise))
    )
    assert (plain.decision.route == Route.SEMANTIC).any()
    assert not (flagged.decision.route == Route.SEMANTIC).any()
    assert flagged.decision.familiarity.max() < 1e-9
    halfway = run(
        mixer,
        **stream(),
        state=replace(state, surprise=0.5 * torch.ones_like(state.surprise)),
        control=ROUTED,
    )
    torch.testing.assert_close(halfway.decision.familiarity, 0.5 * plain.decision.familiarity)


def test_a_higher_threshold_reads_more():
    mixer = block()
    reads = [
        run(mixer, **stream(), control=RoutingControl(threshold_shift=shift)).decision.read
        for shift in (-50.0, -0.5, 0.0, 0.5, 50.0)
    ]
    assert all(bool((fewer <= more).all()) for fewer, more in pairwise(reads))
    needed = run(mixer, **stream(), control=ROUTED).decision.route > 0
    assert not reads[0].any()
    assert torch.equal(reads[-1], needed)


# precision and cost


def test_under_autocast_decisions_and_state_stay_in_fp32():
    mixer, given = block().float(), {name: tensor.float() for name, tensor in stream().items()}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = run(mixer, **given, control=TRAINING)
    decision, state = output.decision, output.state
    for tensor in (
        decision.probabilities,
        decision.familiarity,
        decision.weight,
        state.working,
        state.surprise,
        state.episodic.time,
        *output.signals.values(),
    ):
        assert tensor.dtype == torch.float32
    assert all(loss.dtype == torch.float32 and loss.isfinite() for loss in output.losses.values())
    output.hidden_states.float().sum().backward()


def test_the_cost_counts_what_each_part_multiplies():
    """By hand, for d = 32: 24 slots of a key and a value; the trace classifies every token and aligns
    every binding."""
    mixer = block()
    cost, parameters = (
        mixer.cost(),
        {name: sum(p.numel() for p in part.parameters()) for name, part in mixer.named_children()},
    )
    assert parameters["semantic"] == 24 * 2 * 32
    assert cost.flops_key == 4 * 32
    assert cost.flops_token == 2 * (parameters["router"] + 32)
    assert cost.flops_asked == 2 * (parameters["semantic"] + parameters["familiarity"] + 24)
    assert cost.flops_written == 2 * (parameters["semantic"] + 2 * 32**2 + 2 * 24)
    bare = block(surprise=False).cost()
    assert bare.flops_token == 2 * parameters["router"]
    assert bare.flops_asked == 2 * (parameters["semantic"] + parameters["familiarity"])


# what can be chosen instead


def needed(decision) -> Tensor:
    return 1 - decision.probabilities[..., Route.WORKING] > 0.5


def test_an_observed_quality_is_read_by_every_token_in_need_and_by_no_other():
    mixer = observed_block(surprise=False)
    decision = run(mixer, **{**stream(), "noise": None}, control=ROUTED).decision
    assert {int(route) for route in decision.route.unique()} == {0, 1, 2}
    assert torch.equal(decision.observed, needed(decision))
    assert torch.equal(decision.read, decision.observed)
    assert torch.equal(decision.used, decision.route == Route.EPISODIC)
    assert (decision.read & ~decision.used).any(), "read, and answered by semantic memory all the same"


def test_an_observed_quality_decides():
    """A token in need is answered by semantic memory exactly where its answer is as close to its own
    retrieval as the threshold asks."""
    mixer = observed_block(surprise=False)
    output = run(mixer, **{**stream(), "noise": None}, control=TRAINING)
    quality, needs = output.signals["quality"], needed(output.decision)
    assert torch.equal(~quality.isnan(), needs)
    # Familiarities are kept a millionth away from 0 and 1.
    torch.testing.assert_close(output.decision.familiarity[needs], quality[needs], rtol=0, atol=1.001e-6)
    threshold = torch.sigmoid(mixer.router.threshold_logit)
    assert torch.equal(output.decision.route[needs] == Route.SEMANTIC, quality[needs] > threshold)
    assert set(output.losses) == {"consolidation", "price"}


def test_an_observed_quality_looks_into_the_key_value_memory():
    mixer = observed_block(surprise=False)
    before = run(mixer, **stream(), control=ROUTED).decision
    with torch.no_grad():
        mixer.episodic.out.weight.neg_()
    assert not torch.equal(before.route, run(mixer, **stream(), control=ROUTED).decision.route)


@pytest.mark.parametrize("noisy", [True, False])
@pytest.mark.parametrize("router", ["need_familiarity", "gumbel3"])
@pytest.mark.parametrize(
    "control",
    [
        ROUTED,
        TRAINING,
        DENSE,
        RoutingControl(reads="all", learning=Learning(consolidate=True)),
        RoutingControl(reads="none"),
    ],
)
def test_an_observed_quality_reads_once_and_exactly_what_is_counted(monkeypatch, noisy, router, control):
    mixer, asked_for = observed_block(surprise=False, router=router), []
    read = mixer.episodic.read
    monkeypatch.setattr(
        mixer.episodic,
        "read",
        lambda a, t, m, selected, **how: asked_for.append(selected) or read(a, t, m, selected, **how),
    )
    output = run(mixer, **stream() if noisy else {**stream(), "noise": None}, control=control)
    assert len(asked_for) == 1
    assert torch.equal(asked_for[0], output.decision.computed)
    explored = output.decision.explored
    assert explored.any() == (noisy and control is TRAINING and router == "need_familiarity")
    assert not (explored & needed(output.decision)).any()


def test_where_nothing_may_be_read_no_quality_is_observed():
    decision = run(observed_block(surprise=False), **stream(), control=RoutingControl(reads="none")).decision
    assert (decision.familiarity == 0).all()
    assert (decision.route == Route.WORKING).all()


def test_without_consolidation_it_is_a_cram_to_which_nothing_is_ever_familiar():
    """The same weights, the threshold out of reach: routes, outputs, exploration and the gradients of what
    both have are the same."""
    silent, cram = block(semantic="none", surprise=False), block(surprise=False)
    cram.load_state_dict({**cram.state_dict(), **silent.state_dict()})
    never = replace(TRAINING, threshold_shift=1e3)
    ours, theirs = run(silent, **stream(), control=TRAINING), run(cram, **stream(), control=never)
    assert_same(
        {
            name: value
            for name, value in tensors(ours).items()
            if not name.startswith("signal") and name not in ("familiarity", "asked")
        },
        {
            name: value
            for name, value in tensors(theirs).items()
            if not name.startswith("signal") and name not in ("familiarity", "asked")
        },
    )
    for output in (ours, theirs):
        (output.hidden_states.square().sum() + output.losses["price"]).backward()
    for name, parameter in silent.named_parameters():
        torch.testing.assert_close(
            parameter.grad, dict(cram.named_parameters())[name].grad, rtol=1e-9, atol=1e-9
        )


def test_without_consolidation_nothing_is_asked_learned_or_moved_by_the_threshold():
    mixer = block(semantic="none", surprise=False)
    output = run(mixer, **stream(), control=TRAINING)
    assert (set(output.losses), output.lesson, set(output.signals)) == ({"price"}, None, {"need"})
    assert not output.decision.asked.any()
    for shift in (-1e3, 1e3):
        assert torch.equal(
            run(mixer, **stream(), control=RoutingControl(threshold_shift=shift)).decision.read,
            needed(output.decision),
        )
    assert mixer.cost().flops_asked == 0


def test_only_who_predicts_pays_for_an_estimator():
    predicted, observed = block(surprise=False), observed_block(surprise=False)
    estimator = sum(parameter.numel() for parameter in predicted.familiarity.parameters())
    assert predicted.cost().flops_asked - observed.cost().flops_asked == 2 * estimator
    assert observed.familiarity is None


@pytest.mark.parametrize(
    ("control", "learns"),
    [
        (DENSE, False),
        (replace(DENSE, learning=Learning(routers=False)), False),
        (replace(DENSE, learning=Learning()), True),
        (TRAINING, True),
    ],
    ids=["nothing learns", "routers wait", "while acquiring", "routed"],
)
def test_the_router_learns_only_where_it_is_told_to(control, learns):
    """Not even while every token reads; the memories learn in any case."""
    mixer = block()
    run(mixer, **stream(), control=control).hidden_states.square().sum().backward()
    gradients = [parameter.grad for parameter in mixer.router.parameters()]
    assert any(gradient is not None and gradient.any() for gradient in gradients) is learns
    assert mixer.episodic.query.weight.grad.any()


def test_a_steady_price_pulls_a_sure_router_and_a_plain_one_hardly():
    mixer, pulls = block(semantic="none", surprise=False), {}
    with torch.no_grad():
        mixer.router.offset.fill_(9.0)
    for steady in (True, False):
        charged = run(
            mixer, **stream(), control=RoutingControl(learning=Learning(exploration=0.3, steady=steady))
        ).losses["price"]
        pulls[steady] = torch.autograd.grad(charged, mixer.router.offset)[0].item()
    assert pulls[True] > 100 * pulls[False] > 0
