"""HAPT: what is a person doing, moment by moment, told from irregularly thinned motion of a smartphone at the
waist?

30 users, 61 recordings at 50 Hz, accelerometer (g) and gyroscope (rad/s), 6 activities and 6 transitions
between postures; rows between them have no label and are not scored. Source: Reyes-Ortiz et al. 2016,
*Transition-Aware Human Activity Recognition Using Smartphones*, CC BY 4.0.
Thinning: of every stretch of ``steps / keep`` rows a random ``steps`` are kept, so the number of steps tells
nothing, and time is row / 50 in seconds. A window lies within one recording, so it never crosses users.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from torchcram.series.splits import Split, leave_out_split
from torchcram.tasks.published import Published, check_listed
from torchcram.types import Batch, Head

HAPT = Published(
    name="HAPT (Smartphone-Based Recognition of Human Activities and Postural Transitions)",
    page="https://archive.ics.uci.edu/dataset/341",
    licence="CC BY 4.0",
    credit="Reyes-Ortiz et al. 2016, Transition-Aware Human Activity Recognition Using Smartphones",
    packed="hapt_raw_50hz.npz",
    sha256="6db635da6563ec61bd55dc08c0bb648026357e943c9fd4a562dd54e1c0388fd7",
    own="RawData with acc_exp01_user01.txt, gyro_exp01_user01.txt, ... and labels.txt",
)
CLASSES = 12
UNSCORED = -100
HEAD = Head(name="activity", kind="classification", size=CLASSES)


@dataclass(frozen=True, kw_only=True)
class Activity:
    """All rows of all recordings, one after the other.

    Attributes:
        signal: acceleration in g, then angular velocity in rad/s.
        label: 0 to 5 activities, 6 to 11 transitions, -100 where there is none.
        user, recording: of each row; recordings rise, and belong to one user each.
    """

    signal: Float[np.ndarray, "rows 6"]
    label: Int[np.ndarray, " rows"]
    user: Int[np.ndarray, " rows"]
    recording: Int[np.ndarray, " rows"]

    def recordings(self, rows: Int[np.ndarray, " some"]) -> list[tuple[int, int]]:
        """Return first row and end of each recording that the rows belong to."""
        names = np.unique(self.recording[rows])
        return [
            (
                int(np.searchsorted(self.recording, name)),
                int(np.searchsorted(self.recording, name, side="right")),
            )
            for name in names
        ]

    def split(self, number: int) -> Split:
        """Return the rows of one of five splits by user: 6 of the 30 users test, 4 validate.

        Every user is tested exactly once over the five.
        """
        return leave_out_split(self.user, number=number)

    def tasks(self, number: int, *, steps: int = 128, keep: float = 0.2) -> dict[str, ActivityTask]:
        """Return the parts of a split as tasks; mean and deviation of the channels are those of the training
        part.

        Args:
            number: of the split.
            steps: of each window.
            keep: share of the rows that thinning keeps.
        """
        split = self.split(number)
        train = self.signal[split.train].astype(np.float64)
        mean, std = train.mean(0), train.std(0)
        return {
            name: ActivityTask(self, rows, mean=mean, std=std, steps=steps, keep=keep)
            for name, rows in vars(split).items()
        }


class ActivityTask:
    """Thinned windows of some users.

    Args:
        data: all recordings.
        rows: of the users to draw from: whole recordings.
        mean, std: of each channel, over training users.
        steps: of each window.
        keep: share of the rows that thinning keeps, in (0, 1].

    Raises:
        ValueError: if no recording is long enough for a window, or ``keep`` is no such share.
    """

    input_size, heads = 6, (HEAD,)

    def __init__(
        self,
        data: Activity,
        rows: Int[np.ndarray, " some"],
        *,
        mean: Float64[np.ndarray, " 6"],
        std: Float64[np.ndarray, " 6"],
        steps: int = 128,
        keep: float = 0.2,
    ):
        if not 0 < keep <= 1:
            raise ValueError(f"keep {keep} must lie above 0 and be at most 1")
        self.data, self.steps, self.keep, self.span = data, steps, keep, round(steps / keep)
        self.mean, self.std = mean, np.maximum(std, 1e-9)
        self.recordings = [(first, end) for first, end in data.recordings(rows) if end - first >= self.span]
        if not self.recordings:
            raise ValueError(
                f"no recording has the {self.span} rows of a window: choose fewer steps than "
                f"{steps}, or keep more than {keep}"
            )

    def batch(
        self, size: int, *, generator: torch.Generator, step: int = 0, length: int | None = None
    ) -> Batch:
        """Draw windows anywhere in the recordings; ``length`` steps of each, in a stretch as much shorter.

        See :class:`torchcram.tasks.base.Task`.
        """
        del step
        steps = self.steps if length is None else length
        span = max(steps, round(steps / self.keep))
        room = torch.tensor(
            [max(end - first - span + 1, 0) for first, end in self.recordings], dtype=torch.float64
        )
        chosen = torch.multinomial(room, size, replacement=True, generator=generator)
        place = torch.rand(size, generator=generator, dtype=torch.float64)
        starts = [
            self.recordings[row][0] + int(share * room[row])
            for row, share in zip(chosen.tolist(), place, strict=True)
        ]
        return self._thinned(starts, steps, span, generator)

    def windows(self, *, generator: torch.Generator) -> Batch:
        """Return windows side by side over all the recordings, each thinned once: the same for everybody with
        the same generator.

        What is left at the end of a recording is covered by a last window that overlaps; its earlier rows are
        not scored again.
        """
        starts, fresh = [], []
        for first, end in self.recordings:
            ordinary = list(range(first, end - self.span + 1, self.span))
            left = ordinary[-1] + self.span
            starts += ordinary + ([end - self.span] if left < end else [])
            fresh += ordinary + ([left] if left < end else [])
        batch = self._thinned(starts, self.steps, self.span, generator)
        seen = batch.info["row"] < torch.tensor(fresh)[:, None]
        return _unscored(batch, seen)

    def _thinned(self, starts: Sequence[int], steps: int, span: int, generator: torch.Generator) -> Batch:
        kept = torch.stack([torch.randperm(span, generator=generator)[:steps].sort().values for _ in starts])
        row = kept + torch.tensor(starts)[:, None]
        label = torch.from_numpy(self.data.label[row.numpy()].astype(np.int64))
        gap = kept.diff(dim=1, prepend=kept[:, :1]).float() * self.keep
        return Batch(
            inputs=torch.from_numpy((self.data.signal[row.numpy()] - self.mean) / self.std).float(),
            gap=gap,
            targets={HEAD.name: label},
            slices={"posture": (label >= 0) & (label < 6), "transition": label >= 6},
            info={"row": row},
        )


def _unscored(batch: Batch, steps: Tensor) -> Batch:
    label = batch.targets[HEAD.name].masked_fill(steps, UNSCORED)
    return Batch(
        inputs=batch.inputs,
        gap=batch.gap,
        targets={HEAD.name: label},
        slices={name: chosen & ~steps for name, chosen in batch.slices.items()},
        info=batch.info,
    )


def load_activity(folder: Path | str | None = None, *, verify: bool = True) -> Activity:
    """Load the packed file, or the publisher's own: ``RawData/acc_exp01_user01.txt`` and so on, with
    ``RawData/labels.txt``.

    Args:
        folder: what holds them; None for that of the environment variable ``TORCHCRAM_DATA``.
        verify: check the sum of the packed file, or those that a ``SHA256SUMS.txt`` beside the publisher's
            files lists.

    Raises:
        FileNotFoundError: if there are no such files, with the way to get them.
        ValueError: if a file is damaged.
    """
    place = HAPT.folder(folder)
    packed = HAPT.packed_file(place, verify=verify)
    if packed is not None:
        return _unpacked(packed)
    if not (place / "RawData").is_dir():
        raise HAPT.absent(f"the folder {str(place)!r} has none of its files")
    return _published(place, verify=verify)


def _unpacked(file: Path) -> Activity:
    with np.load(file) as data:
        signal = data["signal_int16"] * data["scale"]
        return Activity(
            signal=signal.astype(np.float32),
            label=_classes(data["label"]),
            user=data["user"],
            recording=data["recording"],
        )


def _published(place: Path, *, verify: bool) -> Activity:
    raw = place / "RawData"
    accelerations, labels = sorted(raw.glob("acc_exp*_user*.txt")), raw / "labels.txt"
    if not accelerations or not labels.is_file():
        raise HAPT.absent(f"{raw} lacks {'labels.txt' if accelerations else 'the recordings'}")
    turns = [file.with_name(file.name.replace("acc_", "gyro_")) for file in accelerations]
    if verify:
        check_listed(place, [labels, *accelerations, *turns])
    named = np.loadtxt(labels, dtype=np.int64, ndmin=2)
    parts = [_recording(*files, named) for files in zip(accelerations, turns, strict=True)]
    signal, label, user, recording = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Activity(signal=signal, label=_classes(label), user=user, recording=recording)


def _recording(
    acceleration: Path, turn: Path, named: Int[np.ndarray, "stretches 5"]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Load a recording; ``named`` has experiment, user, activity, first and last row (from 1) of each
    labelled stretch.
    """
    experiment, user = (int("".join(filter(str.isdigit, part))) for part in acceleration.stem.split("_")[1:])
    if not turn.is_file():
        raise HAPT.absent(f"{turn.name} is missing")
    parts = [np.loadtxt(file, dtype=np.float32, ndmin=2) for file in (acceleration, turn)]
    if len(parts[0]) != len(parts[1]):
        raise ValueError(
            f"{acceleration} has {len(parts[0])} rows, {turn.name} has {len(parts[1])}: one of "
            "them is damaged"
        )
    label = np.full(len(parts[0]), -1, dtype=np.int64)
    for _, _, kind, first, last in named[named[:, 0] == experiment]:
        label[first - 1 : last] = kind
    who = np.full(len(label), user - 1, dtype=np.int16)
    return np.concatenate(parts, 1), label, who, np.full(len(label), experiment - 1, dtype=np.int16)


def _classes(label: Int[np.ndarray, " rows"]) -> Int[np.ndarray, " rows"]:
    """Turn the publisher's labels (1 to 12, -1 for none) into classes (0 to 11, -100 for none)."""
    return np.where(label > 0, label.astype(np.int64) - 1, UNSCORED)
