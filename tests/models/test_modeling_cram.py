"""The language model's laws: padding and packing are nothing, a cache changes nothing, whatever the mixer;
and what it refuses, it refuses clearly."""

import copy
import shutil
import subprocess
import sys

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache, StaticCache

from lived import live
from tiny_language_models import PAD, VOCABULARY, WIDTH, language_model, left_padded, tiny_config, tokens
from torchcram.memory.consolidator import Consolidator
from torchcram.memory.phases import ConsolidationRules
from torchcram.mixers import MIXERS
from torchcram.models.cache import read_meter
from torchcram.models.modeling_cram import CRAMForCausalLM
from torchcram.types import Learning, Route, RoutingControl

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


def isolated(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)


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


# export


@pytest.mark.parametrize(
    ("mixer", "options"),
    [
        ("cram", {}),
        ("cram", {"window": 3}),
        ("transformer", {}),
        ("cram_paper", {}),
        ("cram_no_consolidation", {}),
    ],
)
def test_dense_routing_computes_the_same(mixer, options, monkeypatch):
    model, (ids, mask) = language_model(mixer, options=options), left_padded(tokens(3), [9, 5, 2])
    sparse = model(ids, attention_mask=mask, output_routing=True)
    monkeypatch.setattr(model.config, "routing", "dense")
    dense = model(ids, attention_mask=mask, output_routing=True)
    torch.testing.assert_close(dense.logits, sparse.logits, **EXACT)
    assert torch.equal(torch.stack(dense.routes), torch.stack(sparse.routes))


@pytest.mark.parametrize(
    "how",
    [
        {"position_ids": torch.tensor([[0, 1, 2, 3, 0, 1, 2, 3, 4]])},
        {"attention_mask": torch.tensor([[0] * 4 + [1] * 5, [1] * 9])},
        {},
    ],
    ids=["packed", "padded", "plain"],
)
def test_a_compiled_model_computes_the_same(how):
    """In a process of its own, as below. What depends on the data stays outside of the graph."""
    result = isolated(COMPILED.replace("HOW", repr(how).replace("tensor", "torch.tensor")))
    assert result.returncode == 0, result.stderr


COMPILED = """
import torch, transformers
from torchcram import CRAMConfig, CRAMForCausalLM
from torchcram.models.cache import read_meter
transformers.logging.set_verbosity_error()
sizes = {"vocab_size": 23, "hidden_size": 16, "num_hidden_layers": 1, "mixer_options": {"slots": 8}}
model = CRAMForCausalLM(CRAMConfig(**sizes, max_position_embeddings=9)).eval()
compiled, ids = torch.compile(model, backend="eager"), torch.randint(23, (2, 9))
with torch.no_grad():
    ours, theirs = model(ids, **HOW), compiled(ids, **HOW)
    torch.testing.assert_close(theirs.logits, ours.logits)
    assert (ours.past_key_values is None) == (theirs.past_key_values is None)
    if theirs.past_key_values is not None:
        held = [read_meter(output.past_key_values).tokens for output in (ours, theirs)]
        assert torch.equal(*held)
    try:
        compiled(torch.randint(23, (2, 10)))
    except ValueError as error:
        assert "a sequence of 10 tokens is longer than max_position_embeddings 9" in str(error)
    else:
        raise AssertionError("too long a sequence was not refused")
"""

# What fixed shapes cannot hold is refused when the graph runs, however it was captured.
REFUSED = """
import torch
from torchcram import CRAMConfig, CRAMForCausalLM
sizes = {"vocab_size": 23, "hidden_size": 16, "num_hidden_layers": 1, "mixer_options": {"slots": 8}}
model = CRAMForCausalLM(CRAMConfig(**sizes, routing="dense", max_position_embeddings=7)).eval()
ids, mask = torch.randint(23, (1, 9)), torch.tensor([[0] * 4 + [1] * 5])
positions = torch.tensor([[0, 0, 0, 0, 0, 1, 2, 3, 4]])
rest = {"attention_mask": mask, "position_ids": positions, "use_cache": False}
bad = {
    "longer than max_position_embeddings 7": {"attention_mask": torch.ones_like(mask)},
    "cannot hold packed sequences": {"position_ids": torch.tensor([[0, 0, 0, 0, 0, 1, 2, 0, 1]])},
    "attention_mask is zero everywhere": {"attention_mask": torch.zeros_like(mask)},
}
with torch.no_grad():
    for run in (
        torch.compile(model, backend="eager", fullgraph=True),
        torch.export.export(model, (ids,), rest).module(),
    ):
        torch.testing.assert_close(run(ids, **rest).logits, model(ids, **rest).logits)
        for message, change in bad.items():
            try:
                run(ids, **(rest | change))
            except RuntimeError as error:
                assert message in str(error), (message, error)
            else:
                raise AssertionError(message)
    try:
        torch.compile(model, backend="eager")(ids, use_cache=False)
    except Exception as error:
        assert "longer than max_position_embeddings 7" in str(error), error
    else:
        raise AssertionError("too long a sequence was not refused")
"""


def test_a_graph_of_fixed_shapes_refuses_what_it_cannot_hold():
    result = isolated(REFUSED)
    assert result.returncode == 0, result.stderr


EXPORT = """
import torch
from torchcram import CRAMConfig, CRAMForCausalLM
sizes = {"vocab_size": 23, "hidden_size": 16, "num_hidden_layers": 1, "mixer_options": {"slots": 8}}
config = CRAMConfig(**sizes, routing="dense")
model, ids = CRAMForCausalLM(config).eval(), torch.randint(23, (2, 4))
mask = torch.tensor([[0, 1, 1, 1], [1, 1, 1, 0]])
with torch.no_grad():
    rest = {"attention_mask": mask, "use_cache": False}
    expected = model(ids, **rest).logits
    compiled = torch.compile(model, backend=BACKEND, fullgraph=True)(ids, **rest).logits
    exported = torch.export.export(model, (ids,), rest).module()(ids, **rest).logits
torch.testing.assert_close(compiled, expected)
torch.testing.assert_close(exported, expected)
"""


@pytest.mark.parametrize(
    "backend",
    [
        "eager",
        pytest.param(
            "inductor", marks=pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
        ),
    ],
)
def test_with_dense_routing_it_compiles_whole_and_exports(backend):
    """In a process of its own: the checks of shapes that run here cannot be traced."""
    result = isolated(EXPORT.replace("BACKEND", repr(backend)))
    assert result.returncode == 0, result.stderr


# bad days


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"input_ids": torch.ones(0, 4, dtype=torch.long)}, r"the batch is empty: it has shape \(0, 4\)"),
        ({"input_ids": tokens(), "attention_mask": torch.zeros(2, 9)}, "attention_mask is zero everywhere"),
        (
            {"input_ids": tokens(), "attention_mask": torch.ones(2, 8)},
            r"attention_mask is \(2, 8\): 2 sequences of 0 \+ 9 tokens need \(2, 9\)",
        ),
        (
            {"input_ids": tokens(), "attention_mask": torch.ones(2, 1, 9, 9)},
            "packed sequences are told by position_ids",
        ),
        (
            {"input_ids": tokens(), "position_ids": torch.arange(4)[None]},
            "position_ids are for 4 tokens, the batch has 9",
        ),
        (
            {"input_ids": tokens(), "position_ids": torch.arange(3).repeat(3)[None], "use_cache": True},
            "packed sequences have no cache",
        ),
        ({}, "either input_ids or inputs_embeds"),
        (
            {"inputs_embeds": torch.zeros(2, 3, WIDTH, dtype=torch.float32)},
            r"inputs_embeds are torch.float32, the model is torch.float64",
        ),
        (
            {
                "input_ids": tokens(),
                "control": RoutingControl(learning=Learning(consolidate=True)),
                "use_cache": True,
            },
            "does not consolidate through a cache",
        ),
        (
            {"input_ids": tokens(), "attention_mask": torch.ones(2, 9, device="meta")},
            r"attention_mask is on meta, the tokens are on cpu: move it with .to\('cpu'\)",
        ),
        ({"input_ids": tokens().to("meta")}, "the tokens are on meta, the model is on cpu"),
    ],
)
def test_batches_that_cannot_be_run_are_refused(cram, arguments, message):
    with pytest.raises(ValueError, match=message):
        cram(**arguments)


def test_a_cache_filled_in_inference_mode_goes_on_without_it(cram):
    ids = tokens()
    with torch.inference_mode():
        cache = cram(ids[:, :6], use_cache=True).past_key_values
    with torch.no_grad():
        torch.testing.assert_close(
            cram(ids[:, 6:], past_key_values=cache).logits, cram(ids).logits[:, 6:], **EXACT
        )


def test_a_row_of_padding_alone_is_harmless(cram):
    ids, mask = left_padded(tokens(), [9, 0])
    torch.testing.assert_close(cram(ids, attention_mask=mask).logits[0], cram(ids[:1]).logits[0], **EXACT)
    with pytest.raises(ValueError, match="row 1 of attention_mask is padding alone: leave it out"):
        cram.generate(ids, attention_mask=mask, **GREEDY)


def test_sequences_beyond_the_position_range_are_refused():
    model = language_model(max_position_embeddings=6)
    cache = DynamicCache(config=model.config)
    model(tokens()[:, :6], past_key_values=cache)
    with pytest.raises(ValueError, match="a sequence of 7 tokens is longer than max_position_embeddings 6"):
        model(tokens()[:, :1], past_key_values=cache)
    ids, mask = left_padded(tokens(), [6, 2], more=5)
    assert model(ids, attention_mask=mask).logits.isfinite().all()


def test_caches_that_do_not_fit_are_refused(cram):
    def filled(model: CRAMForCausalLM) -> DynamicCache:
        return model(tokens(), use_cache=True).past_key_values

    own = filled(cram)
    for cache, ids, options, message in (
        (
            filled(language_model(options={"window": 4})),
            tokens(),
            {},
            "the cache was filled by another configuration",
        ),
        (
            filled(live(CRAMForCausalLM(cram.config)).eval()),
            tokens(),
            {},
            r"the cache is in torch.float32, the model in torch.float64",
        ),
        (own, tokens(3), {}, "the cache holds 2 sequences, the batch 3: use batch_repeat_interleave"),
        (
            own,
            tokens(),
            {"position_ids": torch.arange(9)[None]},
            "position_ids of row 0 go on with 0, but the cache holds 9 tokens of it: pass 9",
        ),
        (own, tokens(), {"attention_mask": torch.ones(2, 11)}, r"need \(2, 18\)"),
        (DynamicCache(), tokens(), {}, r"pass DynamicCache\(config=model.config\)"),
        (
            StaticCache(config=cram.config, max_cache_len=5),
            tokens(),
            {},
            "9 tokens do not fit a static cache of max_cache_len 5",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            cram(ids, past_key_values=cache, **options)
    moved = filled(cram)
    moved.layers[1]._change(lambda tensor: tensor.to("meta"))
    with pytest.raises(ValueError, match="the cache of layer 1 is on meta, the layer on cpu"):
        cram(tokens(), past_key_values=moved)


def test_assisted_decoding_is_refused(cram):
    with pytest.raises(ValueError, match="assisted generation is not supported with stateful models"):
        cram.generate(tokens(1), prompt_lookup_num_tokens=2, **GREEDY)


def test_dense_routing_is_refused_where_tokens_are_left_out():
    with pytest.raises(ValueError, match="routing 'dense' is not for mixer 'seqboat'"):
        CRAMForCausalLM(tiny_config("seqboat", routing="dense"))


def test_the_vocabulary_of_the_tests_is_that_of_the_model(cram):
    assert cram(tokens()).logits.shape == (2, 9, VOCABULARY)
