"""Trainer and controller: phases are led, slots learn, and a resumed training equals an uninterrupted one."""

import json
from pathlib import Path

import pytest
import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    Trainer,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from tiny_language_models import VOCABULARY, tiny_config, tokens
from torchcram.memory.phases import ConsolidationRules
from torchcram.models.consolidation_callback import ConsolidationCallback
from torchcram.models.modeling_cram import CRAMForCausalLM

RULES = {
    "acquire_steps": 2,
    "shortest_acquisition": 0,
    "reference_every": 2,
    "caution_start": 0.0,
    "exploration": 0.1,
}


def trained(
    folder: Path, *, resume: str | None = None, mixer: str = "cram", restore: bool = True
) -> tuple[CRAMForCausalLM, ConsolidationCallback]:
    """Five steps of two batches each; a checkpoint after three."""
    torch.manual_seed(0)
    model = CRAMForCausalLM(tiny_config(mixer))
    data = [{"input_ids": row, "labels": row} for row in tokens(40, 8)]
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=5,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
        save_steps=3,
        use_cpu=True,
        dataloader_pin_memory=False,
        disable_tqdm=True,
        logging_strategy="no",
        lr_scheduler_type="constant",
        restore_callback_states_from_checkpoint=restore,
    )
    optimizer = torch.optim.AdamW(model.parameter_groups(learning_rate=1e-3))
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=data,
        callbacks=[ConsolidationCallback(RULES)],
        optimizers=(optimizer, None),
    )
    trainer.train(resume_from_checkpoint=resume)
    (callback,) = (
        callback
        for callback in trainer.callback_handler.callbacks
        if isinstance(callback, ConsolidationCallback)
    )
    return model, callback


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, CRAMForCausalLM, ConsolidationCallback]:
    folder = tmp_path_factory.mktemp("whole")
    return folder, *trained(folder)


def test_the_controller_leads_and_slots_learn(whole):
    _, model, callback = whole
    assert [record["phase"] for record in callback.history] == [
        "acquire",
        "acquire",
        "consolidate",
        "consolidate",
        "consolidate",
    ]
    assert [record["step"] for record in callback.history] == [0, 1, 2, 3, 4]
    assert callback.consolidator.phases.acquired_at == 2
    assert callback.consolidator.phases.dense_loss is not None
    assert (callback.consolidator.price, callback.history[0]["price"]) == (
        pytest.approx(RULES_PRICE, rel=0.1),
        0.0,
    )
    assert model.model.mixers[0].semantic.reads.sum() > 0
    assert all(abs(record["task_loss"] - 3.5) < 1.5 for record in callback.history)
    assert all(
        0 <= rate <= record["read_rate"] <= 1
        for record in callback.history
        for rate in record["layer_read_rates"]
    )
    assert model.config.reads == "routed"


RULES_PRICE = ConsolidationRules.parse(RULES).price_start


def test_the_model_is_left_to_itself_afterwards(whole):
    _, model, _ = whole
    assert model._leader is None
    assert not model._forward_hooks


def test_trainer_evaluates_the_language_models_loss_alone(whole, tmp_path):
    _, model, _ = whole
    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        use_cpu=True,
        dataloader_pin_memory=False,
        disable_tqdm=True,
        per_device_eval_batch_size=4,
    )
    found = Trainer(
        model=model, args=arguments, eval_dataset=[{"input_ids": row, "labels": row} for row in tokens(4, 8)]
    ).evaluate()
    with torch.no_grad():
        expected = model.eval()(tokens(4, 8), labels=tokens(4, 8)).losses["task"]
    assert found["eval_loss"] == pytest.approx(float(expected))


def test_a_resumed_training_equals_an_uninterrupted_one(whole, tmp_path):
    folder, model, callback = whole
    saved = json.loads((folder / "checkpoint-3" / "trainer_state.json").read_text())["stateful_callbacks"][
        "ConsolidationCallback"
    ]
    assert saved["attributes"]["progress"]["phases"]["phase"] == "consolidate"
    again, resumed = trained(tmp_path, resume=str(folder / "checkpoint-3"))
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, again.state_dict()[name]), name
    assert resumed.progress == callback.progress
    assert resumed.history == callback.history[3:]


def test_resuming_without_the_controllers_state_is_refused(whole, tmp_path):
    folder, _, _ = whole
    with pytest.raises(ValueError, match=r"restore_callback_states_from_checkpoint=True"):
        trained(tmp_path, resume=str(folder / "checkpoint-3"), restore=False)


def test_a_model_without_a_router_is_not_led(tmp_path):
    model, callback = trained(tmp_path, mixer="transformer")
    assert {record["read_rate"] for record in callback.history} == {1.0}
    assert callback.consolidator is None
    assert {record["phase"] for record in callback.history} == {"train"}
    assert model.config.reads == "routed"


def test_other_models_are_refused(tmp_path):
    sizes = {
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "intermediate_size": 8,
        "vocab_size": VOCABULARY,
    }
    with pytest.raises(ValueError, match="leads a CRAMForCausalLM, not a LlamaForCausalLM"):
        ConsolidationCallback().on_train_begin(
            TrainingArguments(output_dir=str(tmp_path), use_cpu=True),
            TrainerState(),
            TrainerControl(),
            model=LlamaForCausalLM(LlamaConfig(**sizes)),
        )
