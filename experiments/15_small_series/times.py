"""How long a default fit takes, reckoned from timed steps: ``python times.py cram 2000``, ``... grud 256``.

Trains one member on drawn series for a few steps of each kind, judges it once under each control, and
multiplies by what a whole fit has of each. Seconds are those of the process, so of all its threads.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median

import numpy as np
import torch

from torchcram import CRAMClassifier
from torchcram.series.arguments import SeriesArguments
from torchcram.series.encoding import PanelEncoder
from torchcram.series.fitted import TARGET, FittedSeries, held_out
from torchcram.series.learning import JUDGEMENTS, run_config
from torchcram.series.panel import read_panel
from torchcram.series.reading import NO_READS, ReadingTrainer
from torchcram.series.side_heads import NO_LESSONS
from torchcram.series.task import SeriesTask
from torchcram.training.distributed import make_accelerator
from torchcram.types import Head, RoutingControl

CHANNELS, CLASSES = 6, 4


def drawn_task(arguments: SeriesArguments, *, series: int, length: int) -> SeriesTask:
    generator = np.random.default_rng(0)
    panel = read_panel(generator.normal(size=(series, CHANNELS, length)))
    encoder = PanelEncoder.fit(panel.series, history=True, carried=arguments.mixer == "cram")
    head = Head(name=TARGET, kind="classification", size=CLASSES, per="sequence", pooled=True)
    fitted = FittedSeries(encoder=encoder, head=head, lessons=NO_LESSONS)
    return fitted.task(fitted.encoded(panel), torch.arange(series) % CLASSES, hide=arguments.hide)


def seconds_of(action: Callable[[], object]) -> float:
    begin = time.process_time()
    action()
    return time.process_time() - begin


def steps_of(trainer: ReadingTrainer, kind: str, count: int) -> float:
    """Return the median seconds of so many steps that may read what ``kind`` says."""
    taken = []
    while len(taken) < count:
        reads = trainer.control().reads
        seconds = seconds_of(trainer.train_step)
        taken += [seconds] if reads == kind and trainer.step > 1 else []
    return median(taken)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("mixer", choices=("cram", "grud"))
    parser.add_argument("length", type=int)
    parser.add_argument("--series", type=int, default=140)
    parser.add_argument("--steps", type=int, default=3, help="of each kind")
    told = parser.parse_args()
    torch.set_num_threads(1)
    arguments = SeriesArguments.of(CRAMClassifier(mixer=told.mixer).get_params())
    task = drawn_task(arguments, series=told.series, length=told.length)
    held = drawn_task(arguments, series=round(0.15 * told.series), length=told.length)
    trainer = ReadingTrainer(run_config(arguments, task, seed=0), task, make_accelerator())
    read = steps_of(trainer, "all", told.steps)
    judged = seconds_of(lambda: held_out(trainer.plain, held, RoutingControl(reads="all")))
    print(f"step with all reads {read:.3f}, its judgement {judged:.3f}")
    half, judgements = arguments.max_steps // 2 * arguments.members, JUDGEMENTS // 2 * arguments.members
    if told.mixer == "grud":
        print(f"a whole fit: {2 * (half * read + judgements * judged):.0f} seconds at most")
        return
    none = steps_of(trainer, "none", told.steps)
    judged_none = seconds_of(lambda: held_out(trainer.plain, held, NO_READS))
    trainer.route(reads=True)
    routed = steps_of(trainer, "routed", told.steps)
    print(f"without reads {none:.3f}, its judgement {judged_none:.3f}; routed {routed:.3f}")
    turns = trainer.turns
    acquired = half * (read + (turns - 1) * none) / turns + judgements * (judged + judged_none)
    print(f"a whole fit without reads later: {acquired + half * none + judgements * judged_none:.0f} seconds")
    print(f"a whole fit with reads: {acquired + half * routed + judgements * judged:.0f} seconds, at most")


if __name__ == "__main__":
    main()
