"""Training from start to summary: the one screen to read first.

``config.json`` and the environment are written before the first step, metrics and checkpoints on the way,
``summary.json`` last.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, get_args

from accelerate import Accelerator

from torchcram.calibration.splits import SplitStudy
from torchcram.models.sequence import SequenceModel
from torchcram.runs.clock import Clock
from torchcram.runs.interruption import Interruption, interruptible
from torchcram.runs.run_dir import ACQUISITION, CHECKPOINT, MODEL, SUMMARY, RunDir
from torchcram.runs.trackers import TRACKERS, require_trackers, track, tracked
from torchcram.strict import require_choice
from torchcram.tasks.base import Task
from torchcram.tasks.built_in import TASKS, built_in_task
from torchcram.training.acquisition import acquisition_of
from torchcram.training.build import build_model, build_task
from torchcram.training.checkpoint import find_checkpoint, load_weights
from torchcram.training.distributed import make_accelerator
from torchcram.training.evaluate import enough_scored, evaluate
from torchcram.training.run_config import RunConfig
from torchcram.training.summary import evaluate_midway, finish
from torchcram.training.thresholds import study_guarantee
from torchcram.training.trainer import Trainer
from torchcram.training.training_progress import TrainingProgress
from torchcram.types import Reads, RoutingControl


@dataclass(frozen=True, kw_only=True)
class Run:
    """A finished run: folder, configuration, task, trained model (in evaluation mode) and summary."""

    path: Path
    config: RunConfig
    task: Task
    model: SequenceModel
    summary: dict[str, Any]


def train(
    config: RunConfig,
    *,
    out: Path | str | None = None,
    task: Task | None = None,
    resume: bool = False,
    start: Path | str | None = None,
    trackers: Sequence[str] = (),
    show_progress: bool = True,
) -> Run:
    """Train, evaluate and summarise.

    Args:
        config: the whole run.
        out: its folder; ``runs/NAME-seedS`` if None.
        task: a task object, for configurations with ``task.kind = "custom"``.
        resume: continue what the folder holds, from its last checkpoint (from the start if there is none
            yet).
        start: folder of an acquisition that the run shares, see :func:`acquire`; the run equals one without
            it bit for bit. For a configuration with ``start_from``: folder of the finished run that it names.
        trackers: names of accelerate's trackers, which are told the metrics, e.g. ``"tensorboard"``.
        show_progress: live progress on the terminal.

    Raises:
        ValueError: for impossible configurations and folders, and where another process is at the folder,
            before anything is written; for a damaged checkpoint or metrics.
        ImportError: for a tracker that is not installed.
        FloatingPointError: if the loss is not finite; the last checkpoint is kept.
        KeyboardInterrupt: after Ctrl-C, SIGTERM or SIGHUP, once the step is complete and saved.
    """
    path = Path(out) if out is not None else Path("runs") / f"{config.name}-seed{config.seed}"
    require_trackers(trackers)
    clock, accelerator = Clock(), make_accelerator(trackers=trackers, folder=path / TRACKERS)
    trainer = Trainer(config, build_task(config, task), accelerator)
    if (
        config.start_from is not None
        and find_checkpoint(path / CHECKPOINT) is None
        and not RunDir(path).finished
    ):
        _start_from_run(trainer, start)
    with interruptible(), _opened(path, config, accelerator, resume=resume) as run:
        if not run.finished:
            acquisition = Path(start) if start is not None and config.start_from is None else None
            _complete(trainer, run, clock, acquisition=acquisition, show_progress=show_progress)
            accelerator.wait_for_everyone()
    return load_run(path, task=task)


def acquire(config: RunConfig, *, out: Path | str, resume: bool = False, show_progress: bool = True) -> Path:
    """Train until acquisition has ended, for runs to start from; return the folder.

    Its last file is ``acquisition.json``.

    Args:
        config: from :func:`torchcram.training.acquisition.acquisition_of`.
        out: the folder.
        resume: continue what the folder holds.
        show_progress: live progress on the terminal.

    Raises:
        ValueError, FloatingPointError, KeyboardInterrupt: as :func:`train`; also for what is no acquisition.
    """
    if acquisition_of(config) != config:
        raise ValueError(f"{config.name!r} does not configure an acquisition: use acquisition_of(config)")
    clock, accelerator = Clock(), make_accelerator()
    trainer = Trainer(config, build_task(config), accelerator)
    with interruptible(), _opened(Path(out), config, accelerator, resume=resume) as run:
        _take_up(trainer, run, clock)
        with TrainingProgress(
            steps=config.training.steps, done=trainer.step, show=show_progress and run.writes
        ) as progress:
            _acquire(trainer, run, clock, progress)
        run.write_json(ACQUISITION, {"acquired_at": trainer.acquired_at, "steps": trainer.step})
    return run.path


def _start_from_run(trainer: Trainer, start: Path | str | None) -> None:
    """Take over the weights of the finished run that the configuration names."""
    if start is None:
        raise ValueError(
            f"the run starts from another one, {trainer.config.start_from}: pass its folder "
            "(train --start FOLDER)"
        )
    trainer.start_from_run(Path(start))


def _take_up(trainer: Trainer, run: RunDir, clock: Clock) -> bool:
    """Go on from the checkpoint of the run; return whether there is one."""
    if find_checkpoint(run.path / CHECKPOINT) is None:
        run.clear_metrics()
        return False
    clock.seconds_before = trainer.load(run)
    return True


def _complete(
    trainer: Trainer, run: RunDir, clock: Clock, *, acquisition: Path | None, show_progress: bool
) -> None:
    """Train from where the run stands to its summary; a fresh one begins where the acquisition ended, if it
    shares one.
    """
    fresh = not _take_up(trainer, run, clock)
    if fresh and acquisition is not None:
        clock.seconds_before = trainer.start_from(acquisition, run)
    with (
        tracked(trainer.accelerator, run, trainer.config, step=trainer.step),
        TrainingProgress(
            steps=trainer.config.training.steps, done=trainer.step, show=show_progress and run.writes
        ) as progress,
    ):
        try:
            if fresh and acquisition is not None:
                _pause(trainer, run, clock, progress)
            _learn(trainer, run, clock, progress)
            finish(trainer, run, clock, progress)
            if run.writes:
                track(trainer.accelerator, {"kind": "final", "step": trainer.step, **run.load_json(SUMMARY)})
        except KeyboardInterrupt:
            progress.say(f"interrupted after {trainer.step} steps; nothing is lost: continue with --resume")
            raise


def _acquire(trainer: Trainer, run: RunDir, clock: Clock, progress: TrainingProgress) -> None:
    """Stop right after the step that ends acquisition: what a run evaluates there already depends on its
    own rules.
    """
    with Interruption() as interruption:
        while trainer.phase == "acquire" and trainer.step < trainer.config.training.steps:
            _step(trainer, run, clock, progress)
            if trainer.phase == "acquire":
                _pause(trainer, run, clock, progress)
            if interruption.anywhere(trainer.accelerator.device):
                trainer.save(run, seconds=clock.seconds())
                raise KeyboardInterrupt
    trainer.save(run, seconds=clock.seconds())


@contextmanager
def _opened(path: Path, config: RunConfig, accelerator: Accelerator, *, resume: bool) -> Iterator[RunDir]:
    """Hold the folder of a run; of several processes the main one does."""
    main = accelerator.is_main_process
    with RunDir.open(path, config, resume=resume) if main else nullcontext():
        accelerator.wait_for_everyone()
        yield RunDir(path, writes=main)


def _learn(trainer: Trainer, run: RunDir, clock: Clock, progress: TrainingProgress) -> None:
    with Interruption() as interruption:
        while trainer.step < trainer.config.training.steps:
            _step(trainer, run, clock, progress)
            _pause(trainer, run, clock, progress)
            if interruption.anywhere(trainer.accelerator.device):
                trainer.save(run, seconds=clock.seconds())
                raise KeyboardInterrupt


def _step(trainer: Trainer, run: RunDir, clock: Clock, progress: TrainingProgress) -> None:
    """Take one step; log it when it is time."""
    rules, step = trainer.config.training, trainer.step
    record = trainer.train_step()
    last = trainer.step == rules.steps
    logged = step % rules.log_every == 0 or last
    if logged:
        line = {"kind": "train", "step": step, **record, "seconds": clock.seconds()}
        run.append_metrics(line)
        track(trainer.accelerator, line)
    progress.trained(trainer.step, record if logged else None, record["phase"])


def _pause(trainer: Trainer, run: RunDir, clock: Clock, progress: TrainingProgress) -> None:
    """After a step: evaluate and save when it is time."""
    rules, step = trainer.config.training, trainer.step - 1
    if rules.evaluate_every and trainer.step % rules.evaluate_every == 0:
        midway = {"kind": "eval", "step": step, **evaluate_midway(trainer)}
        run.append_metrics(midway)
        track(trainer.accelerator, midway)
        progress.evaluated(midway)
    if rules.evaluate_every and (trainer.step % rules.evaluate_every == 0 or trainer.step == rules.steps):
        run.append_metrics({"kind": "exposures", "step": step, **trainer.exposures.record()})
    if trainer.step == rules.steps or (rules.checkpoint_every and trainer.step % rules.checkpoint_every == 0):
        trainer.save(run, seconds=clock.seconds())


def load_run(path: Path | str, *, task: Task | None = None) -> Run:
    """Load a finished run.

    Args:
        path: its folder.
        task: the task object of a run with a custom task.

    Raises:
        ValueError: if the folder is no finished run, or its files are damaged or foreign.
    """
    run = RunDir(Path(path))
    config, summary = run.config(RunConfig), run.load_json(SUMMARY)
    learned = build_task(config, task)
    model = build_model(config, learned)
    load_weights(run.path / MODEL, model)
    return Run(path=run.path, config=config, task=learned, model=model.eval(), summary=summary)


def evaluate_run(
    run: Run,
    *,
    queries: int,
    seed: int,
    reads: str = "routed",
    shift: float = 0.0,
    task_changes: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Judge a finished run on fresh sequences; see :func:`torchcram.training.evaluate.evaluate`.

    Args:
        run: from :func:`train` or :func:`load_run`.
        queries: least number of scored targets of the task's first head.
        seed: of the fresh sequences.
        reads: ``"routed"``, ``"all"`` or ``"none"``.
        shift: logits added to the familiarity thresholds.
        task_changes: fields of a built-in task to change, to judge a model on what it was not trained for.

    Raises:
        ValueError: for unknown reads or fields, and for changes to a custom task.
    """
    require_choice("reads", reads, get_args(Reads))
    task, rules = run.task, run.config.task
    for field, value in (task_changes or {}).items():
        if rules.kind not in TASKS:
            raise ValueError(
                f"the task of {run.path} is a custom one: its field {field!r} cannot be changed here"
            )
        rules = rules.updated(field, value)
        task = built_in_task(rules)
    control = RoutingControl(reads=cast(Reads, reads), threshold_shift=shift)
    return evaluate(
        run.model,
        task,
        control=control,
        seed=seed,
        step=run.config.training.steps,
        enough=enough_scored(queries),
    )


def study_run(
    run: Run,
    *,
    tolerances: Sequence[float] = (),
    sequences: int | None = None,
    test_sequences: int = 400,
    splits: int = 200,
    reference: str | None = None,
    bound: str | None = None,
    confidence: float | None = None,
    seed: int = 1,
) -> list[SplitStudy]:
    """Test the guarantee of a finished run's calibration over random splits of fresh sequences.

    Args:
        run: from :func:`train` or :func:`load_run`.
        tolerances: of the risk; the run's own if none is given.
        sequences: to calibrate on; None for as many as the run did, or 200 where it did on none.
        test_sequences: to test on.
        splits: how often.
        reference: what answers are compared with; None for the run's own, like the next two.
        bound: ``"mean"`` or ``"betting"``.
        confidence: of the bound ``"betting"``.
        seed: of the sequences and of the splits.

    Raises:
        ValueError: before any work, for impossible tolerances and too few sequences; for a model without a
            threshold.
    """
    changes = {"risk_reference": reference, "risk_bound": bound, "risk_confidence": confidence}
    own = run.config.evaluation.model_copy(update={"calibration_sequences": 0})
    for field, value in changes.items():
        own = own if value is None else own.updated(field, value)
    rules = [own.updated("risk_tolerance", value).rule for value in tolerances or [own.risk_tolerance]]
    return study_guarantee(
        run.model,
        run.task,
        rules,
        sequences=sequences or run.config.evaluation.calibration_sequences or 200,
        test_sequences=test_sequences,
        splits=splits,
        seed=seed,
        step=run.config.training.steps,
        reference=own.risk_reference,
        batch_size=max(1, 8192 // run.config.task.length),
    )
