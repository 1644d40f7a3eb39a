"""The whole configuration of a run, as one frozen tree: what is learned, by which model, how, and how it
is judged.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from torchcram.calibration.rule import Bound, Rule
from torchcram.memory.consolidator import LossWeights
from torchcram.memory.phases import ConsolidationRules
from torchcram.strict import LATER, StrictConfig
from torchcram.tasks.base import TaskConfig
from torchcram.tasks.built_in import DEFAULT_TASK, BuiltInTaskConfig


class CustomTaskConfig(TaskConfig):
    """A task that the caller passes as an object: only its name is known here.

    Attributes:
        name: what the user calls the task.
        length: steps of its longest sequences; ``training.tokens_per_step`` over this is the number of
            sequences in a step.
    """

    kind: Literal["custom"] = "custom"
    name: str = "custom"


AnyTaskConfig = Annotated[BuiltInTaskConfig | CustomTaskConfig, Field(discriminator="kind")]


class ModelConfig(StrictConfig):
    """Width, depth and mixer. ``options`` are the mixer's keyword arguments (see its class).

    Attributes:
        d_model: width.
        layers: number of blocks.
        mixer: name in the table of mixers.
        options: keyword arguments of the mixer.
    """

    d_model: int = Field(64, ge=4)
    layers: int = Field(2, ge=1)
    mixer: str = "cram"
    options: dict[str, Any] = Field(default_factory=dict)


class TrainingConfig(StrictConfig):
    """How a model is trained.

    Attributes:
        steps: optimizer steps.
        tokens_per_step: sequence length times batch size, over all processes.
        length_curriculum: ``((step, length), ...)``: sequence length from that step on; before the first
            entry the task's own.
        learning_rate: peak of the trunk's learning rate (AdamW).
        fast_factor: learning rate of router, familiarity and semantic memory, relative to the trunk's.
        warmup_steps: linear warm-up.
        decay_share: share of the steps, at the end, over which the learning rate falls to ``final_share`` of
            its peak (half a cosine).
        weight_decay, clip: AdamW's decay; largest norm of the gradient.
        head_weights: factor of each head's loss, by name; 1 if absent.
        losses: factors of the other losses.
        frozen: parts that keep what the run named in ``start_from`` has taught them: ``"trunk"``,
            ``"semantic"``, ``"router"`` (see :mod:`torchcram.training.frozen`). A frozen router routes from
            the first step, without price, caution or exploration.
        precision: ``"fp32"``; ``"bf16"`` autocast, where recurrence, router and statistics stay in fp32;
            ``"fp64"`` for exact comparisons.
        checkpoint_every: steps between checkpoints; 0 writes the last one only.
        log_every, evaluate_every: steps between lines of the metrics, and between evaluations (0 for none).
    """

    steps: int = Field(2000, ge=0)
    tokens_per_step: int = Field(4096, ge=1)
    length_curriculum: tuple[tuple[NonNegativeInt, PositiveInt], ...] = ()
    learning_rate: float = Field(2e-3, gt=0.0)
    fast_factor: float = Field(5.0, gt=0.0)
    warmup_steps: int = Field(50, ge=0)
    decay_share: float = Field(0.4, ge=0.0, le=1.0)
    final_share: float = Field(0.02, ge=0.0, le=1.0)
    weight_decay: float = Field(0.0, ge=0.0)
    clip: float = Field(1.0, gt=0.0)
    head_weights: dict[str, float] = Field(default_factory=dict)
    losses: LossWeights = LossWeights()
    frozen: tuple[Literal["trunk", "semantic", "router"], ...] = Field((), json_schema_extra=LATER)
    precision: Literal["fp32", "bf16", "fp64"] = "fp32"
    checkpoint_every: int = Field(500, ge=0)
    log_every: int = Field(10, ge=1)
    evaluate_every: int = Field(100, ge=0)

    def length_at(self, step: int, default: int) -> int:
        """Return the sequence length of a training step."""
        length = default
        for start, value in sorted(self.length_curriculum):
            length = value if step >= start else length
        return length


class EvaluationConfig(StrictConfig):
    """How a model is judged: on fresh sequences, exploration off.

    Attributes:
        queries: least number of scored queries in the final evaluation.
        sequences_midway: sequences of each evaluation during training.
        calibration_sequences: sequences on which the familiarity threshold is set at the end (disjoint from
            training and evaluation); 0 keeps the router's own threshold.
        risk_tolerance: bound on the share of answers that skipping changes.
        risk_reference: what answers are compared with: ``"cautious"``, the same model with a read for every
            token in need, or ``"labels"``.
        risk_bound: ``"mean"`` bounds the risk in expectation, ``"betting"`` with ``risk_confidence``: see
            :mod:`torchcram.calibration.rule`.
        risk_confidence: probability with which ``"betting"`` holds.
        seed: seed of the evaluation sequences, apart from training's.
    """

    queries: int = Field(20_000, ge=1)
    sequences_midway: int = Field(32, ge=1)
    calibration_sequences: int = Field(400, ge=0)
    risk_tolerance: float = Field(0.005, gt=0.0, lt=1.0)
    risk_reference: Literal["cautious", "labels"] = Field("cautious", json_schema_extra=LATER)
    risk_bound: Bound = Field("mean", json_schema_extra=LATER)
    risk_confidence: float = Field(0.9, gt=0.0, lt=1.0, json_schema_extra=LATER)
    seed: int = Field(10_007, ge=0)

    @property
    def rule(self) -> Rule:
        """What calibration is to certify."""
        return Rule(
            risk_tolerance=self.risk_tolerance, bound=self.risk_bound, confidence=self.risk_confidence
        )

    @model_validator(mode="after")
    def _certifiable(self) -> EvaluationConfig:
        if self.calibration_sequences:
            self.rule.check_units(self.calibration_sequences)
        return self


class RunConfig(StrictConfig):
    """One run.

    Attributes:
        name: used for the default folder.
        seed: fixes initial weights, training data and noise.
        start_from: digest of the finished run (``config_hash`` of its summary) whose weights this one starts
            from, heads apart; its folder is passed when training starts. None to start from the seed.
        task, model, controller, training, evaluation: see their classes.
    """

    name: str = Field("run", pattern=r"^[\w.-]+$")
    seed: int = Field(0, ge=0, lt=2**32)
    start_from: str | None = Field(None, pattern=r"^[0-9a-f]{12}$", json_schema_extra=LATER)
    task: AnyTaskConfig = DEFAULT_TASK
    model: ModelConfig = ModelConfig()
    controller: ConsolidationRules = ConsolidationRules()
    training: TrainingConfig = TrainingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()

    @model_validator(mode="after")
    def _frozen_parts_know_something(self) -> RunConfig:
        if self.training.frozen and self.start_from is None:
            raise ValueError(
                f"training.frozen {', '.join(self.training.frozen)} would keep random weights: "
                "name the run they come from in start_from"
            )
        return self

    @model_validator(mode="after")
    def _lengths_fit(self) -> RunConfig:
        for _, length in self.training.length_curriculum:
            self.task.check_length(length)
        longest = max([length for _, length in self.training.length_curriculum] + [self.task.length])
        if self.training.tokens_per_step < longest:
            raise ValueError(
                f"training.tokens_per_step {self.training.tokens_per_step} holds no sequence of "
                f"{longest} steps"
            )
        return self
