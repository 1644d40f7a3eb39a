"""Weights that no checkpoint has set are those of a fresh model, and no gradient is lost by checkpointing."""

import pytest
import torch
from torch import nn
from transformers import Trainer, TrainingArguments
from transformers.modeling_layers import GenericForSequenceClassification

from tiny_language_models import tiny_config, tokens
from torchcram.models.modeling_cram import CRAMForCausalLM
from torchcram.models.pretrained_model import CRAMPreTrainedModel


class Classifier(GenericForSequenceClassification, CRAMPreTrainedModel):
    """A head of somebody else's on our model."""


def rubbish(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let memory that nobody has written to hold NaN."""
    empty_like = torch.empty_like
    monkeypatch.setattr(
        torch, "empty_like", lambda *args, **how: empty_like(*args, **how).fill_(float("nan"))
    )


def assert_fresh(weight: torch.Tensor, fresh: torch.Tensor, name: str) -> None:
    """As large as in a fresh model; equal where that does not draw."""
    assert weight.isfinite().all(), name
    same = fresh.float().std(unbiased=False) == 0
    if same:
        assert torch.equal(weight, fresh), name
    elif fresh.numel() >= 64:
        assert 0.6 < weight.float().std() / fresh.float().std() < 1.6, name


@pytest.mark.parametrize(
    ("changes", "missing"),
    [
        ({"num_hidden_layers": 3}, "layers.2"),
        ({"tie_word_embeddings": False}, "lm_head"),
        ({"mixer_options": {"slots": 16}}, "semantic"),
        ({"hidden_size": 32}, ""),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_missing_weights_are_those_of_a_fresh_model(tmp_path, monkeypatch, changes, missing):
    CRAMForCausalLM(tiny_config()).save_pretrained(tmp_path)
    rubbish(monkeypatch)
    loaded = CRAMForCausalLM.from_pretrained(tmp_path, ignore_mismatched_sizes=True, **changes)
    monkeypatch.undo()
    fresh = CRAMForCausalLM(loaded.config).state_dict()
    for name, weight in loaded.state_dict().items():
        if missing in name:
            assert_fresh(weight, fresh[name], name)
    assert loaded(tokens(), labels=tokens()).loss.isfinite()


def test_what_a_checkpoint_has_is_left_alone(tmp_path):
    saved = CRAMForCausalLM(tiny_config())
    saved.save_pretrained(tmp_path)
    loaded = CRAMForCausalLM.from_pretrained(tmp_path, num_hidden_layers=3).state_dict()
    for name, weight in saved.state_dict().items():
        assert torch.equal(weight, loaded[name]), name


def test_a_model_without_memory_is_filled_by_init_weights():
    with torch.device("meta"):
        model = CRAMForCausalLM(tiny_config())
    model.to_empty(device="cpu")
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.fill_(99)
    model.init_weights()
    fresh = CRAMForCausalLM(tiny_config()).state_dict()
    for name, weight in model.state_dict().items():
        assert_fresh(weight, fresh[name], name)


def test_a_head_of_somebody_else_is_initialised_too(tmp_path, monkeypatch):
    CRAMForCausalLM(tiny_config()).save_pretrained(tmp_path)
    rubbish(monkeypatch)
    loaded = Classifier.from_pretrained(tmp_path, num_labels=40)
    assert isinstance(loaded.score, nn.Linear)
    assert 0.15 < loaded.score.weight.std() < 0.35


def test_a_layer_is_drawn_as_a_whole(monkeypatch):
    """Nothing is drawn for the parts of a layer before the layer itself is."""
    asked = []
    initialise = CRAMPreTrainedModel._init_weights
    monkeypatch.setattr(
        CRAMPreTrainedModel,
        "_init_weights",
        lambda model, module: asked.append(type(module).__name__) or initialise(model, module),
    )
    CRAMForCausalLM(tiny_config())
    assert asked.count("CRAMDecoderLayer") == 2
    assert set(asked) == {
        *("CRAMDecoderLayer", "Embedding", "ModuleList", "RMSNorm", "CRAMModel", "Linear", "CRAMForCausalLM")
    }


# checkpointing


def gradients(model: CRAMForCausalLM) -> set[str]:
    model.train()(tokens(), labels=tokens()).loss.backward()
    return {name for name, weight in model.named_parameters() if weight.grad is not None}


@pytest.mark.parametrize("settings", [{"use_reentrant": True}, {"preserve_rng_state": False}], ids=str)
def test_reentrant_checkpointing_is_refused(settings, tmp_path):
    """Also where PyTorch's default would make it reentrant."""
    model = CRAMForCausalLM(tiny_config())
    with pytest.raises(ValueError, match=r"would lose the gradients .* pass {'use_reentrant': False}"):
        model.activation_checkpointing_enable(settings)
    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        use_cpu=True,
        activation_checkpointing=True,
        activation_checkpointing_kwargs=settings,
    )
    data = [{"input_ids": row, "labels": row} for row in tokens(2, 4)]
    trainer = Trainer(model=model, args=arguments, train_dataset=data)
    with pytest.raises(ValueError, match="'use_reentrant': False"):
        trainer.train()


@pytest.mark.parametrize(
    "how", [{}, {"activation_checkpointing_kwargs": {"use_reentrant": False}}, {"every_n_layers": 2}], ids=str
)
def test_all_gradients_survive_checkpointing(how):
    plain, checkpointed = CRAMForCausalLM(tiny_config()), CRAMForCausalLM(tiny_config())
    checkpointed.activation_checkpointing_enable(**how)
    assert checkpointed.is_activation_checkpointing
    assert gradients(checkpointed) == gradients(plain)
    checkpointed.activation_checkpointing_disable()
    assert not checkpointed.is_activation_checkpointing
