"""Trainer and controller: phases are led, slots learn, and a resumed training equals an uninterrupted one."""

import json
from pathlib import Path

import pytest
import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    Trainer,
    TrainerCallback,
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


DATA = [{"input_ids": row, "labels": row} for row in tokens(40, 8)]


def arguments(folder: Path, **changes) -> TrainingArguments:
    """Five steps of two batches each."""
    usual = {
        "max_steps": 5,
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 2,
        "use_cpu": True,
        "dataloader_pin_memory": False,
        "disable_tqdm": True,
        "logging_strategy": "no",
        "save_strategy": "no",
        "lr_scheduler_type": "constant",
        "report_to": "none",
    }
    return TrainingArguments(output_dir=str(folder), **(usual | changes))


def led(model: CRAMForCausalLM, folder: Path, callback: TrainerCallback, *, data=DATA, **changes) -> Trainer:
    """A trainer, not begun."""
    kind = changes.pop("kind", Trainer)
    more = {name: changes.pop(name) for name in ("compute_loss_func", "eval_dataset") if name in changes}
    return kind(
        model=model, args=arguments(folder, **changes), train_dataset=data, callbacks=[callback], **more
    )


def trained(
    folder: Path, *, resume: str | None = None, mixer: str = "cram", restore: bool = True
) -> tuple[CRAMForCausalLM, ConsolidationCallback]:
    """Five steps; a checkpoint after three."""
    torch.manual_seed(0)
    model = CRAMForCausalLM(tiny_config(mixer))
    optimizer = torch.optim.AdamW(model.parameter_groups(learning_rate=1e-3))
    changes = {"save_strategy": "steps", "save_steps": 3, "restore_callback_states_from_checkpoint": restore}
    trainer = Trainer(
        model=model,
        args=arguments(folder, **changes),
        train_dataset=DATA,
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
    assert model._listener is None
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


class Stop(TrainerCallback):
    """Interrupts a training in the middle of its second step."""

    def on_substep_end(self, args, state, control, **kwargs):
        if state.global_step == 1:
            raise KeyboardInterrupt


def test_an_interrupted_training_is_listened_to_no_more(tmp_path, monkeypatch):
    torch.manual_seed(0)
    model, former, later = CRAMForCausalLM(tiny_config()), ConsolidationCallback(RULES), None
    trainer = led(model, tmp_path, former)
    trainer.add_callback(Stop())
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    heard, steps = len(former.passes), former.consolidator.steps
    assert (heard, steps) == (1, 1)
    later = ConsolidationCallback(RULES)
    led(model, tmp_path, later).train()
    assert (len(former.passes), former.consolidator.steps) == (heard, steps)
    assert (later.consolidator.steps, len(later.history)) == (5, 5)
    assert model._leader is None


def test_a_callback_begins_anew_in_a_second_training(tmp_path):
    model, callback = CRAMForCausalLM(tiny_config()), ConsolidationCallback(RULES)
    for _ in range(2):
        led(model, tmp_path, callback).train()
        assert [record["phase"] for record in callback.history][:2] == ["acquire", "acquire"]
        assert len(callback.history) == 5


def test_with_the_best_weights_come_their_reads(tmp_path):
    """The worst loss is called best here, so that the first checkpoint is: it was acquiring."""
    torch.manual_seed(0)
    model = CRAMForCausalLM(tiny_config())
    trainer = led(
        model,
        tmp_path,
        ConsolidationCallback(RULES),
        eval_dataset=DATA[:4],
        learning_rate=1e-2,
        eval_strategy="steps",
        eval_steps=1,
        save_strategy="steps",
        save_steps=1,
        load_best_model_at_end=True,
        greater_is_better=True,
    )
    trainer.train()
    assert trainer.state.best_model_checkpoint.endswith("checkpoint-1")
    assert model.config.reads == "all"
    saved = CRAMForCausalLM.from_pretrained(trainer.state.best_model_checkpoint)
    assert saved.config.reads == "all"
    for name, weight in saved.state_dict().items():
        assert torch.equal(weight, model.state_dict()[name]), name


def test_label_smoothing_is_refused_before_the_first_step(tmp_path):
    with pytest.raises(ValueError, match=r"labels must reach the model.*label_smoothing_factor=0\.1"):
        led(
            CRAMForCausalLM(tiny_config()),
            tmp_path,
            ConsolidationCallback(RULES),
            label_smoothing_factor=0.1,
        ).train()


def test_a_loss_function_that_takes_the_labels_is_refused(tmp_path):
    def own(outputs, labels, num_items_in_batch=None):
        return outputs.logits.square().mean()

    with pytest.raises(ValueError, match=r"labels must reach the model.*compute_loss_func"):
        led(
            CRAMForCausalLM(tiny_config()), tmp_path, ConsolidationCallback(RULES), compute_loss_func=own
        ).train()


class OwnLoss(Trainer):
    """Gives the model its labels, and trains another loss."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        outputs = model(**inputs)
        loss = outputs.logits.square().mean()
        return (loss, outputs) if return_outputs else loss


class FusedLoss(Trainer):
    """Calls the model below the head alone, and makes the loss from its states."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        outputs = model.model(input_ids=inputs["input_ids"])
        return outputs.last_hidden_state.square().mean()


@pytest.mark.parametrize("kind", [OwnLoss, FusedLoss])
def test_a_trainer_that_trains_another_loss_is_refused(tmp_path, kind):
    model = CRAMForCausalLM(tiny_config())
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    with pytest.raises(ValueError, match="no backward pass of this step went through that loss"):
        led(model, tmp_path, ConsolidationCallback(RULES), kind=kind).train()
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())


def test_a_model_that_holds_an_adapter_is_refused(tmp_path):
    model = CRAMForCausalLM(tiny_config())
    model._hf_peft_config_loaded = True
    with pytest.raises(ValueError, match="the slots of semantic memory are not saved"):
        led(model, tmp_path, ConsolidationCallback(RULES)).train()


def test_weights_of_half_precision_are_led(tmp_path):
    torch.manual_seed(0)
    model = CRAMForCausalLM(tiny_config()).bfloat16()
    before = model.model.mixers[0].semantic.whiten.clone()
    callback = ConsolidationCallback(RULES)
    led(model, tmp_path, callback, max_steps=8).train()
    assert [record["phase"] for record in callback.history][-1] == "consolidate"
    assert not torch.equal(model.model.mixers[0].semantic.whiten, before)
    assert all(weight.isfinite().all() for weight in model.state_dict().values())


def test_trainer_logs_the_language_models_loss_and_the_rest_beside_it(tmp_path):
    torch.manual_seed(0)
    callback = ConsolidationCallback(RULES)
    trainer = led(
        CRAMForCausalLM(tiny_config()), tmp_path, callback, logging_strategy="steps", logging_steps=1
    )
    trainer.train()
    logged = [record for record in trainer.state.log_history if "loss" in record]
    assert len(logged) == len(callback.history) == 5
    for record, own in zip(logged, callback.history, strict=True):
        assert record["loss"] == pytest.approx(own["task_loss"], rel=1e-5)
        assert (record["price"], record["read_rate"]) == (own["price"], own["read_rate"])
    assert [record["phase"] for record in logged] == [1, 1, 2, 2, 2]
    assert logged[-1]["consolidation_loss"] > 0


class Tracker(TrainerCallback):
    """Stands for those of ``report_to``: keeps what it is given."""

    def __init__(self):
        self.seen = []

    def on_log(self, args, state, control, logs=None, **kwargs):
        self.seen.append(dict(logs))


@pytest.mark.parametrize("first", [False, True])
def test_trackers_see_the_phases_if_the_callback_comes_before_them(tmp_path, first):
    tracker, callback = Tracker(), ConsolidationCallback(RULES)
    trainer = Trainer(
        model=CRAMForCausalLM(tiny_config()),
        args=arguments(tmp_path, logging_strategy="steps", logging_steps=1),
        train_dataset=DATA,
        callbacks=[tracker, callback],
    )
    if first:
        callback.before_trackers(trainer)
    trainer.train()
    assert sum(kept is callback for kept in trainer.callback_handler.callbacks) == 1
    assert [("price" in seen) for seen in tracker.seen if "loss" in seen] == [first] * 5
