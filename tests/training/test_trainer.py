"""One step: what it may read, what it learns from, where it stops."""

import inspect
import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from torchcram.tasks.srcd import SRCD
from torchcram.training.build import build_model, build_task
from torchcram.training.distributed import local_batch, make_accelerator, sequences_at
from torchcram.training.run_config import CustomTaskConfig
from torchcram.training.trainer import Trainer, learning_rate_factor
from torchcram.types import RoutingControl


@pytest.fixture
def trainer(tiny) -> Trainer:
    return make(tiny())


def make(config) -> Trainer:
    return Trainer(config, build_task(config), make_accelerator())


def test_a_run_reads_everything_first_and_is_routed_then(trainer):
    records = [trainer.train_step() for _ in range(8)]
    # The phase of a record is the one in which the step leaves the model.
    assert [record["phase"] for record in records] == ["acquire"] * 4 + ["consolidate"] * 4
    assert all(record["any_layer_read_rate"] == 1.0 and record["price"] == 0.0 for record in records[:5])
    assert all(record["price"] > 0 and "consolidation" in record["losses"] for record in records[5:])
    assert "consolidation" not in records[0]["losses"]


@pytest.mark.parametrize(("price", "learns"), [(0.1, False), (0.0, True), (0.1, True)])
def test_a_router_may_stay_as_it_is_until_reads_are_routed(tiny, price, learns):
    """Where routers wait nothing moves them; once reads are routed they learn in any case."""
    trainer = make(tiny(controller__acquisition_price=price, controller__acquisition_routers=learns))
    weight = trainer.plain.blocks[0].router.net[0].bias
    start = weight.detach().clone()
    records = [trainer.train_step() for _ in range(5)]
    assert bool((weight != start).any()) is learns
    records += [trainer.train_step() for _ in range(3)]
    assert (weight != start).any()
    assert [record["price"] for record in records[:5]] == [price if learns else 0.0] * 5


def test_a_step_changes_weights_and_its_lesson_fills_slots(trainer):
    before = {name: value.clone() for name, value in trainer.plain.state_dict().items()}
    for _ in range(7):
        trainer.train_step()
    after = trainer.plain.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert {
        "embed.weight",
        "blocks.0.semantic.values",
        "blocks.0.semantic.usage",
        "heads.answer.weight",
    } <= changed
    assert not any("threshold" in name for name in changed)


def test_the_task_loss_weighs_the_heads(tiny):
    plain, weighted = (
        make(tiny()).train_step(),
        make(tiny(training__head_weights={"next_observation": 3.0})).train_step(),
    )
    assert plain["task_loss"] == pytest.approx(
        plain["losses"]["answer"] + plain["losses"]["next_observation"]
    )
    assert weighted["task_loss"] == pytest.approx(
        plain["losses"]["answer"] + 3 * plain["losses"]["next_observation"]
    )


def test_the_learning_rate_warms_up_holds_and_falls(tiny):
    config = tiny(
        training__steps=100, training__warmup_steps=10, training__decay_share=0.5, training__final_share=0.1
    )
    factors = [learning_rate_factor(config, step) for step in range(101)]
    assert factors[:10] == pytest.approx([0.1 * step for step in range(1, 11)])
    assert factors[10:51] == [1.0] * 41
    assert factors[75] == pytest.approx(0.1 + 0.9 * 0.5)
    assert factors[100] == pytest.approx(0.1)
    assert all(later < sooner for sooner, later in pairwise(factors[51:]))


def test_fast_parts_learn_faster(tiny):
    trainer = make(tiny(training__fast_factor=4.0))
    trainer.train_step()
    slow, fast = (group["lr"] for group in trainer.optimizer.param_groups)
    assert fast == pytest.approx(4 * slow)
    ids = {id(parameter) for parameter in trainer.optimizer.param_groups[1]["params"]}
    assert id(trainer.plain.blocks[0].router.net[0].weight) in ids
    assert id(trainer.plain.embed.weight) not in ids


def test_the_gradient_is_clipped(tiny):
    trainer = make(tiny(training__clip=1e-3))
    trainer.train_step()
    norms = [parameter.grad.norm() for parameter in trainer.plain.parameters() if parameter.grad is not None]
    assert torch.stack(norms).norm() == pytest.approx(1e-3, rel=1e-3)


def test_weights_and_data_depend_on_the_seed_alone(tiny):
    torch.manual_seed(1)
    one = build_model(tiny(), SRCD(tiny().task)).state_dict()
    torch.manual_seed(2)
    two = build_model(tiny(), SRCD(tiny().task)).state_dict()
    other = build_model(tiny(seed=1), SRCD(tiny().task)).state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["embed.weight"], other["embed.weight"])
    accelerator = make_accelerator()
    inputs = [
        local_batch(tiny(seed=seed), SRCD(tiny().task), accelerator, step, exploring=True)[0].inputs
        for seed, step in [(0, 3), (0, 3), (0, 4), (1, 3)]
    ]
    assert torch.equal(inputs[0], inputs[1])
    assert not torch.equal(inputs[0], inputs[2])
    assert not torch.equal(inputs[0], inputs[3])


def test_building_a_model_leaves_the_global_generator_alone(tiny):
    state = torch.get_rng_state()
    build_model(tiny(), SRCD(tiny().task))
    assert torch.equal(torch.get_rng_state(), state)


def test_lengths_follow_the_curriculum(tiny):
    trainer = make(tiny(training__length_curriculum=[[0, 32], [2, 64], [3, 40]], task__length=64))
    records = [trainer.train_step() for _ in range(4)]
    assert [record["length"] for record in records] == [32, 32, 64, 40]
    assert trainer.ledger.counts["tokens"] == 320 + 320 + 320 + 320


def test_a_batch_that_processes_cannot_share_says_what_would_fit(tiny):
    assert sequences_at(tiny(), 0, processes=2) == 8
    with pytest.raises(
        ValueError,
        match=(
            r"8 sequences of 40 steps cannot be shared by 3 processes: set training\.tokens_per_step "
            r"to 360"
        ),
    ):
        sequences_at(tiny(), 0, processes=3)
    assert sequences_at(tiny(training__tokens_per_step=360), 0, processes=3) == 9


class Spoilt(SRCD):
    """SRCD whose regression targets break at one step."""

    def __init__(self, config, *, at: int, value: float):
        super().__init__(config)
        self.at, self.value = at, value

    def batch(self, size, *, generator, step=0, length=None):
        batch = super().batch(size, generator=generator, step=step, length=length)
        return (
            replace(
                batch,
                targets={**batch.targets, "next_observation": batch.targets["next_observation"] * self.value},
            )
            if step == self.at
            else batch
        )


@pytest.mark.parametrize(("value", "reason"), [(1e30, "next_observation is inf"), (1e19, "loss|gradient")])
def test_a_loss_that_explodes_stops_before_the_weights_are_touched(tiny, value, reason):
    config = tiny()
    trainer = Trainer(config, Spoilt(config.task, at=2, value=value), make_accelerator())
    for _ in range(2):
        trainer.train_step()
    before = {name: tensor.clone() for name, tensor in trainer.plain.state_dict().items()}
    with pytest.raises(
        FloatingPointError, match=rf"training stopped at step 2: .*({reason}).*; there is no checkpoint yet"
    ):
        trainer.train_step()
    assert all(torch.equal(tensor, before[name]) for name, tensor in trainer.plain.state_dict().items())
    assert trainer.step == 2


def test_a_gradient_that_explodes_stops_before_the_weights_are_touched(trainer):
    before = {name: tensor.clone() for name, tensor in trainer.plain.state_dict().items()}
    trainer.plain.embed.weight.register_hook(lambda gradient: gradient * math.nan)
    with pytest.raises(FloatingPointError, match="step 0: the gradient of the loss is not finite"):
        trainer.train_step()
    assert all(torch.equal(tensor, before[name]) for name, tensor in trainer.plain.state_dict().items())


def test_bf16_keeps_recurrence_router_and_statistics_in_fp32(tiny):
    trainer = make(tiny(training__precision="bf16"))
    seen = {}
    trainer.plain.blocks[0].working.register_forward_hook(
        lambda module, inputs, output: seen.update(state=output[1].dtype)
    )
    trainer.plain.blocks[0].router.net.register_forward_hook(
        lambda module, inputs, output: seen.update(router=output.dtype)
    )
    trainer.plain.blocks[0].mlp.inner.register_forward_hook(
        lambda module, inputs, output: seen.update(mlp=output.dtype)
    )
    for _ in range(7):
        record = trainer.train_step()
    assert seen == {"state": torch.float32, "router": torch.float32, "mlp": torch.bfloat16}
    assert {value.dtype for value in trainer.plain.state_dict().values()} == {torch.float32}
    assert math.isfinite(record["task_loss"])
    batch, noise = local_batch(trainer.config, trainer.task, trainer.accelerator, 7, exploring=True)
    with trainer.autocast():
        output = trainer.plain(batch, control=trainer.control(), noise=noise)
        losses = trainer.plain.task_losses(output.outputs, batch)
    assert {block.decision.probabilities.dtype for block in output.blocks} == {torch.float32}
    assert {value.dtype for value in losses.values()} == {torch.float32}
    # Not autocast: an evaluation is in the precision of the weights.
    assert trainer.plain(batch, control=RoutingControl()).outputs["answer"].dtype == torch.float32


def test_bf16_learns_about_the_same(tiny):
    full, half = make(tiny()), make(tiny(training__precision="bf16"))
    for _ in range(4):
        one, other = full.train_step(), half.train_step()
    assert one["task_loss"] != other["task_loss"]
    assert one["task_loss"] == pytest.approx(other["task_loss"], rel=0.03)


def test_two_precisions_in_one_process_do_not_mix(tiny):
    make(tiny(training__precision="bf16")).train_step()
    assert make(tiny()).train_step() == make(tiny()).train_step()


@pytest.mark.parametrize(
    ("mixer", "rate"), [("transformer", 1.0), ("sliding_window", 1.0), ("static_hybrid", 1.0), ("ssm", 0.0)]
)
def test_mixers_without_a_router_train_without_phases(tiny, mixer, rate):
    trainer = make(tiny(model__mixer=mixer, model__options={}))
    record = [trainer.train_step() for _ in range(7)][-1]
    assert record["phase"] == "train"
    assert record["any_layer_read_rate"] == rate


ROUTED = {
    "cram_paper": {},
    "cram_no_consolidation": {},
    "static_router": {},
    "seqboat": {},
    "mixture_of_depths": {"capacity": 0.25},
}


@pytest.mark.parametrize("mixer", ROUTED)
def test_every_router_that_learns_is_led_through_the_phases_and_priced(tiny, mixer):
    trainer = make(tiny(model__mixer=mixer, model__options=ROUTED[mixer], training__fast_factor=2.0))
    records = [trainer.train_step() for _ in range(8)]
    assert [record["phase"] for record in records] == ["acquire"] * 4 + ["consolidate"] * 4
    assert all(record["any_layer_read_rate"] == record["attention_share"] == 1.0 for record in records[:5])
    assert all(record["price"] > 0 and record["losses"]["price"] > 0 for record in records[5:])
    assert trainer.consolidator.phases.dense_loss is not None
    assert len(trainer.optimizer.param_groups) == 2


def test_mixture_of_depths_passes_its_capacity_in_training_and_counts_no_other_keys(tiny):
    trainer = make(tiny(model__mixer="mixture_of_depths", model__options={"capacity": 0.25}))
    record = [trainer.train_step() for _ in range(6)][-1]
    assert record["read_rate_by_layer"] == [0.25, 0.25]
    # Ten of forty pass: they scan 1 + 2 + ... + 10 keys, dense attention 1 + 2 + ... + 40.
    assert record["attention_share"] == pytest.approx(55 / 820)
    assert record["losses"]["predictor"] > 0


def test_a_head_weight_without_its_head_is_an_error(tiny):
    with pytest.raises(ValueError, match=r"head in training\.head_weights 'answr': did you mean 'answer'"):
        make(tiny(training__head_weights={"answr": 2.0}))


def test_the_task_object_must_belong_to_the_configuration(tiny):
    custom = tiny().model_copy(update={"task": CustomTaskConfig(name="mine", length=40)})
    with pytest.raises(
        ValueError, match=r"custom task 'mine': pass the task object, train\(config, task=...\)"
    ):
        build_task(custom)
    with pytest.raises(ValueError, match="dict is no task: it lacks input_size, heads, batch"):
        inspect.unwrap(build_task)(custom, {})
    with pytest.raises(ValueError, match=r"built-in task 'srcd': set task\.kind to 'custom'"):
        build_task(tiny(), SRCD(tiny().task))
