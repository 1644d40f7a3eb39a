"""The language model's laws: padding and packing are nothing, a cache changes nothing, whatever the mixer;
and what it refuses, it refuses clearly."""

import copy

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache

from tiny_language_models import PAD, WIDTH, language_model, left_padded, tiny_config, tokens
from torchcram.memory.consolidator import Consolidator
from torchcram.memory.phases import ConsolidationRules
from torchcram.mixers import MIXERS
from torchcram.models.cache import read_meter
from torchcram.models.modeling_cram import CRAMForCausalLM
from torchcram.types import Route, RoutingControl

CASES = {
    **{name: (name, {}) for name in MIXERS},
    "cram, window": ("cram", {"window": 3}),
    "transformer, window": ("transformer", {"window": 2}),
}
EXACT = {"rtol": 1e-9, "atol": 1e-9}
GREEDY = {"max_new_tokens": 4, "do_sample": False, "pad_token_id": PAD}


@pytest.fixture(scope="module", params=CASES)
def model(request: pytest.FixtureRequest) -> CRAMForCausalLM:
    mixer, options = CASES[request.param]
    return language_model(mixer, options=options)


@pytest.fixture(scope="module")
def cram() -> CRAMForCausalLM:
    return language_model()


# padding and packing


def leader_of(model: CRAMForCausalLM) -> Consolidator:
    """A consolidator whose routing has begun, at a price of 0.1."""
    rules = ConsolidationRules(acquire_steps=1, exploration=0.3, price_start=0.1, caution_start=0.0)
    generator = torch.Generator().manual_seed(2)
    leader = Consolidator(model, rules, generator=generator, weights=model.config.loss_weights())
    leader.phases.begin_routing(0)
    return leader


def test_padding_on_either_side_changes_nothing(model):
    real, lengths = tokens(3), [9, 4, 1]
    alone = [model(real[row : row + 1, :length]).logits[0] for row, length in enumerate(lengths)]
    _, mask = left_padded(real, lengths, more=2)
    for side in (mask, mask.flip(1)):
        rubbish = torch.full(side.shape, 5)
        ids = rubbish.masked_scatter(
            side.bool(), torch.cat([real[row, :length] for row, length in enumerate(lengths)])
        )
        logits = model(ids, attention_mask=side).logits
        for row, expected in enumerate(alone):
            torch.testing.assert_close(logits[row][side[row].bool()], expected, **EXACT)
        assert logits.isfinite().all()


def test_packed_sequences_do_not_see_each_other(model):
    real = tokens(1, 9)
    parts = [real[:, :4], real[:, 4:5], real[:, 5:]]
    positions = torch.cat([torch.arange(part.shape[1]) for part in parts])[None]
    packed = model(real, position_ids=positions, output_routing=True)
    assert packed.past_key_values is None
    torch.testing.assert_close(packed.logits, torch.cat([model(part).logits for part in parts], 1), **EXACT)
    assert packed.routes[0].shape == (1, 9)


# caches


@pytest.mark.parametrize("pieces", [[1] * 9, [4, 5], [1, 6, 2]], ids=["tokens", "halves", "uneven"])
def test_cached_equals_uncached(model, pieces):
    """With left padding of different lengths, piece by piece; the last piece of some rows holds a token
    more than padding."""
    ids, mask = left_padded(tokens(3), [9, 6, 2])
    cache, found, start = DynamicCache(config=model.config), [], 0
    for length in pieces:
        stop = start + length
        found.append(model(ids[:, start:stop], attention_mask=mask[:, :stop], past_key_values=cache).logits)
        start = stop
    whole = model(ids, attention_mask=mask, use_cache=False)
    torch.testing.assert_close(torch.cat(found, 1)[mask.bool()], whole.logits[mask.bool()], **EXACT)
    meter = read_meter(cache)
    assert meter.tokens.tolist() == [9, 6, 2]
    blocks = model.model(ids, attention_mask=mask, use_cache=False, control=RoutingControl()).blocks
    assert meter.reads.T.tolist() == [block.decision.read.sum(1).tolist() for block in blocks]
    assert (cache.get_seq_length(), cache.layers[0].batch_size) == (9, 3)


def test_generation_is_the_same_however_it_is_cached(model):
    """Greedy and by beams; without a cache, with one that grows, and with one of fixed size; padded and
    not."""
    ids, mask = left_padded(tokens(2, 6), [6, 3])
    for beams in (1, 3):
        plain = model.generate(ids, attention_mask=mask, num_beams=beams, use_cache=False, **GREEDY)
        for cache in ({}, {"cache_implementation": "static"}):
            assert torch.equal(
                model.generate(ids, attention_mask=mask, num_beams=beams, **cache, **GREEDY), plain
            )
    short = model.generate(tokens(2, 6)[1:, :3], **GREEDY)
    assert torch.equal(model.generate(ids, attention_mask=mask, **GREEDY)[1:, 3:], short)


def test_resumed_generation_equals_an_uninterrupted_one(cram):
    ids = tokens()
    once = cram.generate(ids, **{**GREEDY, "max_new_tokens": 7})
    cache = DynamicCache(config=cram.config)
    first = cram.generate(ids, past_key_values=cache, **GREEDY)
    kept = copy.deepcopy(cache)
    for held in (cache, kept):
        assert torch.equal(
            cram.generate(first, past_key_values=held, **{**GREEDY, "max_new_tokens": 3}), once
        )


def test_sampling_can_be_repeated(cram):
    drawn = []
    for _ in range(2):
        torch.manual_seed(3)
        drawn.append(cram.generate(tokens(), max_new_tokens=6, do_sample=True, temperature=1.5, top_k=0))
    assert torch.equal(*drawn)


# what is read


def test_routes_and_read_rates_are_outputs(cram):
    ids, mask = left_padded(tokens(3), [9, 5, 2])
    output = cram(ids, attention_mask=mask, output_routing=True, output_hidden_states=True)
    assert cram(ids, attention_mask=mask).routes is None
    routes = torch.stack(output.routes)
    assert routes.shape == (2, *ids.shape)
    assert set(routes[:, mask.bool()].unique().tolist()) == {0, 1, 2}
    assert (routes[:, ~mask.bool()] == Route.WORKING).all()
    torch.testing.assert_close(output.read_rates, (routes == Route.EPISODIC).sum((1, 2)) / mask.sum())
    assert [state.shape for state in output.hidden_states] == [(*ids.shape, WIDTH)] * 3


def test_decoding_reads_only_the_rows_whose_token_is_routed_there(cram, monkeypatch):
    """A row without a read touches no key; one with a read takes a view, not a copy."""
    from torchcram.ops.routed_attention import rows

    seen = []
    attend = rows.scaled_dot_product_attention
    monkeypatch.setattr(
        rows, "scaled_dot_product_attention", lambda q, k, v, **how: seen.append(k) or attend(q, k, v, **how)
    )
    cache = DynamicCache(config=cram.config)
    cram(tokens(6), past_key_values=cache)
    output = cram(tokens(6, 1, seed=5), past_key_values=cache, output_routing=True)
    reads = int(sum((routes == Route.EPISODIC).sum() for routes in output.routes))
    assert 0 < reads < 12
    assert len(seen) == reads
    buffers = {layer.state.episodic.keys.untyped_storage().data_ptr() for layer in cache.layers}
    assert {keys.untyped_storage().data_ptr() for keys in seen} <= buffers


def test_what_the_configuration_lets_it_read(cram, monkeypatch):
    ids = tokens()
    monkeypatch.setattr(cram.config, "reads", "none")
    assert cram(ids, output_routing=True).read_rates.tolist() == [0, 0]
    monkeypatch.setattr(cram.config, "reads", "all")
    assert cram(ids, output_routing=True).read_rates.tolist() == [1, 1]
    assert cram(ids, control=RoutingControl(reads="none"), output_routing=True).read_rates.tolist() == [0, 0]


# training


def test_a_checkpointed_pass_takes_the_same_routes_again():
    """Exploration draws its noise once, outside of the layers: the recomputation explores the same tokens,
    and gradients agree."""
    found = []
    for checkpointed in (False, True):
        model = language_model().train().requires_grad_()
        for mixer in model.model.mixers:
            mixer.semantic.requires_grad_(False)
        if checkpointed:
            model.activation_checkpointing_enable()
        model.lead(leader_of(model))
        output = model(tokens(3), labels=tokens(3))
        output.loss.backward()
        assert output.blocks[0].decision.explored.any()
        gradients = {
            name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None
        }
        found.append((output, gradients))
    (plain, ours), (again, theirs) = found
    assert all(
        torch.equal(one.decision.computed, other.decision.computed)
        for one, other in zip(plain.blocks, again.blocks, strict=True)
    )
    assert set(ours) == set(theirs)
    for name, gradient in ours.items():
        torch.testing.assert_close(gradient, theirs[name], **EXACT)


def test_the_losss_value_is_the_tasks_and_its_gradient_that_of_all_parts():
    """What a trainer logs is the language model's loss; what it descends is the weighed sum."""
    weights = {"task": 1.0, "consolidation": 0.5, "familiarity": 1.0, "surprise": 0.1, "price": 0.1}
    gradients = []
    for summed in (False, True):
        model = language_model(consolidation_weight=0.5).train().requires_grad_()
        model.lead(leader_of(model))
        output = model(tokens(3), labels=tokens(3))
        assert set(output.losses) == set(weights)
        assert torch.equal(output.loss, output.losses["task"])
        total = sum(weights[name] * value for name, value in output.losses.items())
        (total if summed else output.loss).backward()
        gradients.append({name: weight.grad for name, weight in model.named_parameters()})
    ours, expected = gradients
    assert any(ours[name] is not None and ours[name].any() for name in ours if "router" in name)
    for name, gradient in expected.items():
        assert (gradient is None) == (ours[name] is None), name
        if gradient is not None:
            torch.testing.assert_close(ours[name], gradient, **EXACT)


def test_generating_while_led_is_no_training():
    """In train mode, too: it reads what an evaluation may read, and draws no noise from training."""
    model = language_model().train()
    leader = leader_of(model)
    model.lead(leader)
    drawn = leader.generator.get_state()
    allowed = leader.evaluation_control()
    with torch.no_grad():
        expected = [model(tokens(2), control=allowed, use_cache=False).logits[:, -1].argmax(-1)]
    ours = model.generate(tokens(2), max_new_tokens=1, do_sample=False)[:, -1:]
    assert torch.equal(ours, torch.stack(expected, 1))
    assert torch.equal(leader.generator.get_state(), drawn)


def test_the_model_below_the_head_reads_everything_in_training():
    """A loss that is fused with the head calls it without any control."""
    model = language_model().model
    assert model(tokens(), output_routing=True).read_rates.mean() < 1
    assert model.train()(tokens(), output_routing=True).read_rates.tolist() == [1, 1]


def test_two_halves_of_a_batch_add_up_to_the_whole():
    """With ``num_items_in_batch``, as Trainer accumulates gradients: losses of equal halves sum to the
    loss of the whole."""
    model, ids = language_model("transformer").train(), tokens(4)
    whole = model(ids, labels=ids, num_items_in_batch=torch.tensor(32)).loss
    halves = sum(model(part, labels=part, num_items_in_batch=torch.tensor(32)).loss for part in ids.chunk(2))
    torch.testing.assert_close(halves, whole, **EXACT)


@pytest.mark.parametrize("items", [None, 0, torch.tensor(0)], ids=["none", "number", "tensor"])
def test_a_step_without_labels_leaves_the_weights_finite(items):
    """As in every model of Transformers the loss is no number then, and there is no gradient."""
    model = CRAMForCausalLM(tiny_config()).train()
    optimizer = torch.optim.AdamW(model.parameters())
    labels = torch.full((1, 9), -100)
    model(tokens(1), labels=labels, num_items_in_batch=items).loss.backward()
    optimizer.step()
    assert all(weight.isfinite().all() for weight in model.parameters())


def test_training_without_a_leader_reads_everything():
    model = language_model().train()
    assert model(tokens(), labels=tokens(), output_routing=True).read_rates.tolist() == [1, 1]
    with pytest.raises(ValueError, match="make the Consolidator with a generator"):
        model.lead(Consolidator(model, generator=None))


def test_the_fast_parameters_are_a_group_of_their_own():
    model = CRAMForCausalLM(tiny_config())
    trunk, fast = model.parameter_groups(learning_rate=1e-3)
    assert (trunk["lr"], fast["lr"]) == (1e-3, 5e-3)
    assert len(trunk["params"]) + len(fast["params"]) == sum(
        weight.requires_grad for weight in model.parameters()
    )
    assert len(CRAMForCausalLM(tiny_config("transformer")).parameter_groups(learning_rate=1e-3)) == 1


# saving, loading, starting


def test_what_is_saved_is_loaded(tmp_path):
    model = CRAMForCausalLM(tiny_config()).eval()
    with torch.no_grad():
        model.model.mixers[0].semantic.reads.fill_(3.0)
    model.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").exists()
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert isinstance(loaded, CRAMForCausalLM)
    assert AutoConfig.from_pretrained(tmp_path).mixer_options == {"slots": 8}
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, loaded.state_dict()[name]), name
    assert torch.equal(model(tokens()).logits, loaded(tokens()).logits)


def test_a_fresh_model_starts_as_its_mixers_start():
    """Queries equal keys, small projections into the stream, an open router: Transformers' own
    initialisation would undo all of it."""
    mixer = CRAMForCausalLM(tiny_config()).model.mixers[1]
    assert torch.equal(mixer.episodic.query.weight, mixer.episodic.key.weight)
    assert (mixer.router.net[2].bias == 2.0).all()
    assert mixer.mlp.out.weight.abs().max() < 0.2 * mixer.mlp.out.in_features**-0.5 + 1e-6


def test_it_runs_in_half_precision():
    model = CRAMForCausalLM(tiny_config()).eval().to(torch.bfloat16)
    ids, mask = left_padded(tokens(), [9, 4])
    whole = model(ids, attention_mask=mask, use_cache=False).logits
    cache = DynamicCache(config=model.config)
    found = [
        model(ids[:, :5], attention_mask=mask[:, :5], past_key_values=cache).logits,
        model(ids[:, 5:], attention_mask=mask, past_key_values=cache).logits,
    ]
    assert whole.dtype == torch.bfloat16
    torch.testing.assert_close(torch.cat(found, 1)[mask.bool()], whole[mask.bool()], rtol=0.1, atol=0.1)
