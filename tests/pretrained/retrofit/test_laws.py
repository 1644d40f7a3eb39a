"""What must hold in every family, whatever its memories have learned."""

import pytest
import torch

from retrofitted import SINKS, SUPPORTED, WINDOW, make_retrofitted
from tiny_models import tiny_model
from torchcram.pretrained.retrofit.install import memories, reading, remove
from torchcram.pretrained.retrofit.parts import Part
from torchcram.pretrained.retrofit.reference import near_reference, whole_reference
from torchcram.types import Route

CLOSE = {"rtol": 1e-5, "atol": 2e-5}


def routes(model, ids):
    seen = []
    handles = [
        memory.register_forward_hook(lambda module, args, answered: seen.append(answered.decision.route))
        for memory in memories(model).values()
    ]
    with torch.no_grad():
        model(ids)
    for handle in handles:
        handle.remove()
    return torch.stack(seen)


@pytest.fixture(params=SUPPORTED)
def family(request):
    return request.param


@torch.no_grad()
def test_all_reads_are_the_untouched_model(family, ids):
    model = make_retrofitted(family)
    assert len(memories(model)) == 2
    with reading(model, "all"):
        torch.testing.assert_close(model(ids).logits, tiny_model(family)(ids).logits, **CLOSE)


@torch.no_grad()
def test_what_has_nothing_remote_is_exact(family, ids):
    short = ids[:, : SINKS + WINDOW]
    model, untouched = make_retrofitted(family), tiny_model(family)
    with reading(model, "none"):
        torch.testing.assert_close(model(short).logits, untouched(short).logits, **CLOSE)
        longer = model(ids).logits - untouched(ids).logits
    assert longer[:, SINKS + WINDOW :].abs().max() > 0.1


@torch.no_grad()
def test_some_tokens_read_and_some_do_not(family, ids):
    route = routes(make_retrofitted(family), ids)
    assert (route == Route.EPISODIC).any()
    assert (route == Route.SEMANTIC).any()
    assert (route[:, :, : SINKS + WINDOW] == Route.WORKING).all()


@torch.no_grad()
def test_no_token_depends_on_later_ones(family, ids):
    model = make_retrofitted(family)
    changed = ids.clone()
    changed[:, 25] = (changed[:, 25] + 1) % 60
    before, after = model(ids).logits, model(changed).logits
    torch.testing.assert_close(before[:, :25], after[:, :25], **CLOSE)
    assert (before[:, 25:] - after[:, 25:]).abs().max() > 0.1


@torch.no_grad()
def test_cached_steps_are_one_pass(family, ids):
    model = make_retrofitted(family)
    whole = model(ids).logits
    first = model(ids[:, :17])
    parts, cache = [first.logits], first.past_key_values
    for piece in (ids[:, 17:18], ids[:, 18:29], *ids[:, 29:].split(1, 1)):
        parts.append(model(piece, past_key_values=cache).logits)
    torch.testing.assert_close(torch.cat(parts, 1), whole, **CLOSE)


@torch.no_grad()
def test_a_padded_sequence_gets_what_it_gets_alone(family, ids):
    model = make_retrofitted(family)
    mask = torch.ones_like(ids)
    mask[1, :9] = 0
    places = (mask.cumsum(1) - 1).clamp(min=0)
    given = (
        {"attention_mask": mask[:, :30], "position_ids": places[:, :30]}
        if family != "opt"
        else {"attention_mask": mask[:, :30]}
    )
    padded = model(ids[:, :30], **given)
    alone = model(ids[1:, 9:]).logits[0]
    torch.testing.assert_close(padded.logits[1, 9:], alone[:21], **CLOSE)
    torch.testing.assert_close(padded.logits[0], model(ids[:1, :30]).logits[0], **CLOSE)
    for end in range(31, 41):
        step = {"attention_mask": mask[:, :end]}
        if family != "opt":
            step["position_ids"] = places[:, end - 1 : end]
        padded = model(ids[:, end - 1 : end], past_key_values=padded.past_key_values, **step)
        torch.testing.assert_close(padded.logits[1, 0], alone[end - 10], **CLOSE)


@torch.no_grad()
def test_what_is_taken_out_leaves_no_trace(family, ids):
    untouched = tiny_model(family)
    model = make_retrofitted(family)
    classes = [type(module) for module in untouched.modules()]
    assert [type(module) for module in remove(model).modules()] == classes
    assert not model.get_decoder()._forward_pre_hooks
    assert not model.get_decoder()._forward_pre_hooks_with_kwargs
    assert torch.equal(model(ids).logits, untouched(ids).logits)
    state = untouched.state_dict()
    assert state.keys() == model.state_dict().keys()
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_gradients_reach_the_memories_and_checkpointing_changes_nothing(ids):
    def gradients(checkpointing):
        model = make_retrofitted()
        if checkpointing:
            model.train()
            model.activation_checkpointing_enable()
        mask = torch.ones_like(ids)
        mask[0, 35:] = 0
        model(ids, attention_mask=mask, use_cache=False).logits[mask.bool()].square().mean().backward()
        return {
            name: parameter.grad for name, parameter in model.named_parameters() if "cram.semantic" in name
        }

    plain, checkpointed = gradients(False), gradients(True)
    assert all(value is not None and value.abs().sum() > 0 for value in plain.values())
    for name, value in plain.items():
        torch.testing.assert_close(checkpointed[name], value)


@torch.no_grad()
def test_each_route_answers_with_its_own_memory(ids):
    """Near alone, near and what semantic memory says, or everything: against the definitions."""
    model = make_retrofitted()
    told = []

    def hear(memory):
        return lambda module, args, answered: told.append((memory, args[0], answered))

    handles = [memory.register_forward_hook(hear(memory)) for memory in memories(model).values()]
    model(ids)
    for handle in handles:
        handle.remove()
    for memory, asked, answered in told:
        near = near_reference(asked.query, asked.entries, memory.reach)
        whole = whole_reference(asked.query, asked.entries, memory.reach).value
        evidence, _ = memory.evidence(asked)
        said = memory.semantic(evidence)
        far = Part(value=said.value.transpose(1, 2), log_mass=said.log_mass.transpose(1, 2))
        weights = torch.stack((near.log_mass, far.log_mass), -1).softmax(-1)[..., None, :]
        both = (torch.stack((near.value, far.value), -1) * weights).sum(-1)
        by_route = {Route.WORKING: near.value, Route.SEMANTIC: both, Route.EPISODIC: whole}
        for route, heads in by_route.items():
            chosen = answered.decision.route == int(route)
            assert chosen.any()
            torch.testing.assert_close(
                answered.heads.transpose(1, 2)[chosen], heads.transpose(1, 2)[chosen], rtol=1e-4, atol=1e-5
            )


def test_to_predict_for_all_is_to_predict_for_some(ids, monkeypatch):
    """Outputs and gradients, whether semantic memory is asked about all tokens or only where it must."""
    results = []
    for share in (2.0, -1.0):
        monkeypatch.setattr("torchcram.pretrained.retrofit.memory.NEARLY_ALL", share)
        model = make_retrofitted().double()
        logits = model(ids).logits
        weights = [weight for name, weight in model.named_parameters() if "semantic" in name]
        told = torch.randn(logits.shape, generator=torch.Generator().manual_seed(1)).double()
        results.append((logits, *torch.autograd.grad((logits * told).sum(), weights)))
    for some, every in zip(*results, strict=True):
        assert every.isfinite().all()
        torch.testing.assert_close(some, every, rtol=1e-9, atol=1e-9)
