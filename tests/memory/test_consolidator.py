"""Consolidator: what a step may read in each phase, how losses are weighed, what a step takes in.

One test for each rule."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from lived import live
from torchcram.memory.block import CRAMBlock
from torchcram.memory.consolidator import Consolidator, LossWeights, any_read_rate, parameter_groups
from torchcram.memory.phases import ConsolidationRules
from torchcram.types import BlockOutput, Learning, Route, RoutingControl, RoutingDecision, Step

WIDTH, SLOTS = 16, 8
ALL = RoutingControl(reads="all")


class Model(nn.Module):
    """Two blocks of ours inside somebody else's model; ``again`` passes the first one twice."""

    def __init__(self, *, again: bool = False):
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.ModuleList(CRAMBlock(WIDTH, slots=SLOTS, state_size=8) for _ in range(2))
        self.head, self.again = nn.Linear(WIDTH, 3), again

    def forward(self, x: Tensor, control: RoutingControl) -> tuple[Tensor, list[BlockOutput]]:
        outputs: list[BlockOutput] = []
        for block in [*self.blocks, self.blocks[0]] if self.again else self.blocks:
            outputs.append(block(x, Step.regular(x, control)))
            x = outputs[-1].hidden_states
        return self.head(x), outputs


def leading(model: nn.Module | None = None, **rules) -> Consolidator:
    given = {"acquire_steps": 3, "shortest_acquisition": 0, "reference_every": 2, **rules}
    generator = torch.Generator().manual_seed(1)
    return Consolidator(model or Model(), ConsolidationRules(**given), generator=generator)


def routing(model: nn.Module | None = None, **rules) -> Consolidator:
    """A consolidator at its first step of routing."""
    made = leading(model, **rules)
    made.phases.begin_routing(-1)
    return made


def stream(seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(4, 6, WIDTH, generator=generator), torch.randint(3, (4, 6), generator=generator)


def one_step(made: Consolidator, seed: int = 0, **given) -> list[BlockOutput]:
    """One training step, as the docstring of the module has it."""
    x, target = stream(seed)

    def task_loss(control: RoutingControl) -> tuple[Tensor, list[BlockOutput]]:
        answer, outputs = made.model(x, control)
        return nn.functional.cross_entropy(answer.flatten(0, 1), target.flatten()), outputs

    loss, outputs = task_loss(made.control())
    made.loss(loss, outputs).backward()
    made.step(outputs, loss, rerun=lambda control: task_loss(control)[0], **given)
    return outputs


# what a step may read


def test_acquisition_reads_everything_and_explores_and_consolidates_nothing():
    made = leading()
    assert made.evaluation_control() == ALL
    assert made.control() == replace(ALL, learning=Learning(generator=made.generator))
    assert made.price == 0.0


def test_routers_may_pay_or_wait_while_everything_reads():
    assert leading(acquisition_price=0.2).price == 0.2
    waiting = leading(acquisition_routers=False, acquisition_price=0.2)
    assert waiting.price == 0.0
    assert not waiting.control().teaches_routers
    assert leading().control().teaches_routers


def test_routing_explores_and_consolidates_in_training_only():
    made = routing(price_start=0.02, exploration=0.1, caution_start=4.0)
    learning = Learning(exploration=0.1, consolidate=True, generator=made.generator)
    assert made.control() == RoutingControl(threshold_shift=4.0, learning=learning)
    assert made.evaluation_control() == RoutingControl(threshold_shift=4.0)
    assert made.price == 0.02


@pytest.mark.parametrize("steady", [True, False])
def test_the_price_is_steady_in_every_phase_or_in_none(steady):
    assert leading(steady_price=steady).control().steady is steady
    assert routing(steady_price=steady).control().steady is steady


def test_frozen_routers_route_from_the_first_step_without_price_caution_or_exploration():
    made = Consolidator(Model(), generator=None, routers=False)
    assert made.control() == RoutingControl(learning=Learning(consolidate=True))
    assert made.evaluation_control() == RoutingControl()
    for seed in range(3):
        one_step(made, seed)
    assert (made.price, made.phase, made.phases.smooth_loss) == (0.0, "acquire", None)


def test_a_frozen_semantic_memory_takes_in_no_lesson():
    model = Model()
    made = Consolidator(model, generator=None, routers=False, semantic=False)
    assert not made.control().consolidates
    made = Consolidator(model, ConsolidationRules(acquire_steps=1), generator=None, semantic=False)
    made.phases.begin_routing(-1)
    before = [block.semantic.keys.clone() for block in model.blocks]
    one_step(made)
    assert all(
        torch.equal(block.semantic.keys, keys) for block, keys in zip(model.blocks, before, strict=True)
    )


# how losses are weighed


def output(losses: dict[str, float], owner: nn.Module | None = None) -> BlockOutput:
    values = {name: torch.tensor(value) for name, value in losses.items()}
    state = Model().blocks[0].init_state(1)
    return BlockOutput(hidden_states=torch.zeros(1, 1, WIDTH), state=state, losses=values, owner=owner)


def test_the_loss_is_the_task_loss_plus_each_loss_times_its_weight():
    made = routing(price_start=0.05)
    made.weights = LossWeights(consolidation=2.0, familiarity=3.0, surprise=0.5, predictor=7.0)
    losses = {"consolidation": 1.0, "familiarity": 10.0, "surprise": 100.0, "predictor": 1000.0, "price": 1e4}
    total = made.loss(torch.tensor(0.25), [output(losses), output({"price": 2e4})])
    assert float(total) == pytest.approx(0.25 + 2 + 30 + 50 + 7000 + 0.05 * 3e4)


def test_a_pass_that_is_a_share_of_a_step_counts_by_its_share():
    made = routing(price_start=0.1)
    whole = made.loss(torch.tensor(1.0), [output({"price": 3.0})])
    half = made.loss(torch.tensor(0.5), [output({"price": 3.0})], share=0.5)
    assert float(half) == pytest.approx(float(whole) / 2)


def test_a_loss_without_a_weight_is_an_error():
    with pytest.raises(ValueError, match=r"the loss 'prise', which has no weight: did you mean 'price'\?"):
        leading().loss(torch.tensor(1.0), [output({"prise": 1.0})])


# what a step takes in


def test_lessons_are_learned_while_routing_and_not_while_acquiring():
    model = Model()
    made = leading(model)
    one_step(made)
    assert all(block.semantic.reads.sum() == 0 for block in model.blocks)
    made.phases.begin_routing(0)
    one_step(made)
    assert all(block.semantic.reads.sum() > 0 for block in model.blocks)


def test_a_block_that_is_used_twice_learns_from_both_of_its_passes():
    model = Model(again=True)
    outputs = one_step(routing(model))
    once = Model(again=True)
    for said in (outputs[0], outputs[2]):
        once.blocks[0].semantic.learn(said.lesson)
    assert len(outputs) == 3
    for ours, theirs in zip(
        model.blocks[0].semantic.buffers(), once.blocks[0].semantic.buffers(), strict=True
    ):
        torch.testing.assert_close(ours, theirs)


def test_the_reference_is_measured_when_it_is_due_and_not_before_routing():
    made = leading(acquire_steps=3, reference_every=2)
    measured = []
    for step in range(7):
        before = made.phases.dense_loss
        one_step(made, step)
        if made.phases.dense_loss != before:
            measured.append(step)
    assert measured == [4, 6]


@pytest.mark.parametrize(("all_reads", "needed_reads"), [(1.0, 2.0), (2.0, 1.0)])
def test_the_reference_is_the_smaller_loss_of_two_passes(all_reads, needed_reads):
    """A routed model may have forgotten how to use reads that it never makes."""
    made = routing()
    asked: list[RoutingControl] = []

    def rerun(control: RoutingControl) -> float:
        asked.append(control)
        return all_reads if control.reads == "all" else needed_reads

    made.loss(torch.tensor(1.5), [output({})])
    made.step([output({})], 1.5, rerun=rerun, read_rate=0.5)
    assert (made.phases.dense_loss, made.phases.routed_loss) == (1.0, 1.5)
    assert asked[0] == ALL
    assert asked[1].threshold_shift > 100
    assert asked[1].learning is None


def test_the_reference_runs_in_evaluation_without_gradients_and_leaves_every_module_as_it_was():
    model = Model()
    made = routing(model)
    model.head.eval()
    seen = []

    def rerun(control: RoutingControl) -> float:
        del control
        seen.append((model.training, model.blocks[0].training, torch.is_grad_enabled()))
        return 1.0

    made.loss(torch.tensor(1.0), [output({})])
    made.step([output({})], 1.0, rerun=rerun, read_rate=0.5)
    assert seen == [(False, False, False)] * 2
    assert (model.training, model.blocks[0].training, model.head.training) == (True, True, False)


def test_price_and_phases_follow_the_step():
    made = leading(acquire_steps=3, price_start=0.01, price_growth=1.5, loss_tolerance=10.0)
    phases = []
    for step in range(6):
        one_step(made, step)
        phases.append(made.phase)
    assert phases == ["acquire"] * 2 + ["consolidate"] * 4
    # A reference first at step 4: from then on the price climbs.
    assert made.price == pytest.approx(0.01 * 1.5**2)
    assert made.steps == 6


def test_harder_data_and_an_early_end_of_acquisition_begin_at_the_present_step():
    made = leading(acquire_steps=100)
    for step in range(4):
        one_step(made, step)
    made.harder()
    assert (made.phases.smooth_loss, made.phases.best_step) == (None, 4)
    made.begin_routing()
    assert (made.phase, made.phases.acquired_at) == ("consolidate", 4)


def decided(read: list[bool], owner: nn.Module) -> BlockOutput:
    reads = torch.tensor([read])
    nobody, rate = torch.zeros_like(reads), reads.float()
    decision = RoutingDecision(
        route=torch.where(reads, int(Route.EPISODIC), int(Route.WORKING)),
        probabilities=torch.stack([1 - rate, torch.zeros_like(rate), rate], -1),
        familiarity=torch.zeros_like(rate),
        explored=nobody,
        weight=rate,
        asked=nobody,
    )
    return replace(output({}, owner), decision=decision)


def test_the_read_rate_counts_tokens_that_read_in_any_block_pass_by_pass():
    one, two = Model().blocks
    first = [decided([True, False, False, False], one), decided([False, True, False, False], two)]
    second = [decided([False] * 4, one), decided([True] * 4, two)]
    assert any_read_rate(first) == 0.5
    assert any_read_rate([*first, *second]) == pytest.approx(6 / 8)
    other = decided([True, True], two)
    assert any_read_rate([first[0], other]) == pytest.approx(3 / 6)
    assert any_read_rate([]) == 0.0


# bad days


def test_a_module_without_a_block_is_an_error():
    with pytest.raises(ValueError, match="Linear holds no block with a router that learns"):
        Consolidator(nn.Linear(2, 2), generator=None)


def test_a_step_without_a_loss_is_an_error():
    made = leading()
    with pytest.raises(ValueError, match=r"step\(\) without loss\(\)"):
        made.step([output({})], 1.0, rerun=lambda control: 1.0)
    one_step(made)
    with pytest.raises(ValueError, match=r"step\(\) without loss\(\)"):
        made.step([output({})], 1.0, rerun=lambda control: 1.0)


def test_gradient_accumulation_hands_over_the_blocks_of_all_passes():
    made = leading()
    x, _ = stream()
    passes = [made.model(x, made.control())[1] for _ in range(2)]
    for outputs in passes:
        made.loss(torch.tensor(0.5), outputs, share=0.5)
    with pytest.raises(ValueError, match=r"weighed the outputs of 4 calls of blocks, .* was given 2"):
        made.step(passes[0], 1.0, rerun=lambda control: 1.0)
    for outputs in passes:
        made.loss(torch.tensor(0.5), outputs, share=0.5)
    made.step([*passes[0], *passes[1]], 1.0, rerun=lambda control: 1.0)
    assert made.steps == 1


def test_passes_that_teach_nothing_can_be_skipped():
    made = leading()
    made.loss(torch.tensor(1.0), [output({})])
    made.skip()
    one_step(made)
    assert made.steps == 1


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_teaches_nothing_and_is_an_error(loss):
    model = Model()
    made = routing(model)
    x, _ = stream()
    outputs = model(x, made.control())[1]
    made.loss(torch.tensor(1.0), outputs)
    with pytest.raises(FloatingPointError, match=r"the task loss is .* at step 0: nothing was learned"):
        made.step(outputs, loss, rerun=lambda control: 1.0)
    assert made.steps == 0
    assert all(block.semantic.reads.sum() == 0 for block in model.blocks)


def test_the_output_of_another_models_block_is_an_error():
    made, other = leading(), Model()
    outputs = other(stream()[0], ALL)[1]
    made.loss(torch.tensor(1.0), outputs)
    with pytest.raises(ValueError, match="the output of a block that the model does not hold"):
        made.step(outputs, 1.0, rerun=lambda control: 1.0)


def test_a_wrapped_model_is_led_all_the_same():
    """As DistributedDataParallel wraps: the blocks are found below."""
    model = Model()
    wrapped = nn.Sequential(model)
    assert Consolidator(wrapped, generator=None).blocks == tuple(model.blocks)


# its state


def test_its_state_is_plain_numbers_and_goes_on_bit_for_bit():
    def run(made: Consolidator, start: int, stop: int) -> list[float]:
        rates = []
        for step in range(start, stop):
            rates.append(any_read_rate(one_step(made, step)))
        return rates

    ours = leading(live(Model()), acquire_steps=2, exploration=0.4, caution_start=0.0)
    run(ours, 0, 5)
    theirs = leading(live(Model()), acquire_steps=2, exploration=0.4, caution_start=0.0)
    theirs.model.load_state_dict(ours.model.state_dict())
    state = ours.state_dict()
    theirs.load_state_dict(state)
    assert theirs.state_dict() == state
    assert all(isinstance(value, str | int | float | type(None)) for value in state["phases"].values())
    assert run(ours, 5, 9) == run(theirs, 5, 9)
    assert theirs.state_dict() == ours.state_dict()


def test_the_state_of_other_rules_is_an_error_that_names_them():
    state = leading(price_most=0.3).state_dict()
    with pytest.raises(ValueError, match=r"under other rules: price_most 0\.3 \(here 0\.4\)"):
        leading(price_most=0.4).load_state_dict(state)


def test_routing_can_begin_by_other_rules_where_an_acquisition_ended():
    shared = leading(acquire_steps=2)
    for step in range(2):
        one_step(shared, step)
    made = leading(acquire_steps=2, price_start=0.07, caution_start=1.5)
    made.take_over(shared.state_dict())
    assert (made.steps, made.phase, made.price, made.phases.caution) == (2, "consolidate", 0.07, 1.5)


# the optimizer's groups


def test_what_routes_and_consolidates_learns_faster():
    model = Model()
    trunk, fast = parameter_groups(model, 0.01, fast_factor=5.0)
    assert (trunk["lr"], trunk["factor"], fast["lr"], fast["factor"]) == (0.01, 1.0, pytest.approx(0.05), 5.0)
    of_router = {id(parameter) for block in model.blocks for parameter in block.router.parameters()}
    assert of_router == of_router & {id(parameter) for parameter in fast["params"]}
    ids = [id(parameter) for group in (trunk, fast) for parameter in group["params"]]
    assert sorted(ids) == sorted(id(weight) for weight in model.parameters() if weight.requires_grad)
    assert len(parameter_groups(nn.Linear(2, 2), 0.01)) == 1


# noise


def test_blocks_draw_the_noise_of_exploration_from_the_consolidators_generator():
    model = live(Model())
    made = routing(model, exploration=0.5, caution_start=0.0)
    x, _ = stream()
    explored = [said.decision.explored.clone() for said in model(x, made.control())[1]]
    assert any(tokens.any() for tokens in explored)
    made.generator.manual_seed(1)
    again = [said.decision.explored for said in model(x, made.control())[1]]
    assert all(map(torch.equal, explored, again))
    silent = Consolidator(model, made.rules, generator=None)
    silent.phases.begin_routing(-1)
    assert not any(said.decision.explored.any() for said in model(x, silent.control())[1])


def test_nothing_is_drawn_while_everything_reads():
    """The noise of a step does not depend on how long acquisition took."""
    made = leading()
    state = made.generator.get_state()
    one_step(made)
    assert torch.equal(made.generator.get_state(), state)
