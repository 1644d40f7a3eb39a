"""PhysioNet/CinC Challenge 2012: does a patient die in hospital, after 48 hours of irregular measurements in
intensive care?

8,000 stays (sets a and b), 37 variables, 3.2 million observations, about 72 distinct moments a stay, 14%
deaths. Ten stays have no observation at all.
Source: Silva et al., *Predicting In-Hospital Mortality of ICU Patients: The PhysioNet/Computing in Cardiology
Challenge 2012*, ODC-BY 1.0. Data of a stay: ``time`` in minutes since admission. Age, gender, height and the
kind of ward are left out, in both forms of the files.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int

from torchcram.series.history import encode_carried, with_running_statistics
from torchcram.series.splits import Split, stratified_split
from torchcram.series.task import Series, SeriesStatistics, SeriesTask
from torchcram.tasks.published import Published, check_listed
from torchcram.types import Head

PHYSIONET_2012 = Published(
    name="PhysioNet/CinC Challenge 2012",
    page="https://physionet.org/content/challenge-2012/1.0.0/",
    licence="ODC-BY 1.0",
    credit=(
        "Silva et al., Predicting In-Hospital Mortality of ICU Patients: The PhysioNet/Computing in "
        "Cardiology Challenge 2012"
    ),
    packed="physionet2012_ab.npz",
    sha256="7e4caa29f298a7a97ef37a924d93b363a6add4208bede7d8ca4dad399cfff415",
    own="set-a, set-b, Outcomes-a.txt and Outcomes-b.txt",
)
HEAD = Head(name="death", kind="classification", size=2, per="sequence")
# fmt: off
VARIABLES = (
    "GCS", "HR", "NIDiasABP", "NIMAP", "NISysABP", "RespRate", "Temp", "Urine",
    "HCT", "BUN", "Creatinine", "Glucose", "HCO3", "Mg", "Platelets",
    "K", "Na", "WBC", "pH", "PaCO2", "PaO2", "DiasABP", "FiO2", "MAP", "MechVent",
    "SysABP", "SaO2", "Weight", "Albumin", "ALP", "ALT", "AST", "Bilirubin", "Lactate",
    "Cholesterol", "TroponinI", "TroponinT",
)
# fmt: on
NO_VARIABLES = ("RecordID", "Age", "Gender", "Height", "ICUType", "")


@dataclass(frozen=True, kw_only=True)
class PhysioNet:
    """The stays, as observations.

    Attributes:
        stay: row of ``death`` that each observation belongs to, rising.
        minute, variable, value: of each observation; variables count in ``names``.
        death: of each stay, 1 or 0.
        record: the publisher's number of each stay.
        names: of the variables.
    """

    stay: Int[np.ndarray, " observations"]
    minute: Int[np.ndarray, " observations"]
    variable: Int[np.ndarray, " observations"]
    value: Float[np.ndarray, " observations"]
    death: Int[np.ndarray, " stays"]
    record: Int[np.ndarray, " stays"]
    names: tuple[str, ...]

    def series(self) -> list[Series]:
        """Return every stay as masked vectors."""
        bounds = np.searchsorted(self.stay, np.arange(len(self.death) + 1))
        return [self._one(slice(first, last)) for first, last in pairwise(bounds.tolist())]

    def _one(self, rows: slice) -> Series:
        minute, value = self.minute[rows].astype(np.float64), self.value[rows].astype(np.float64)
        return Series.of_observations(minute, self.variable[rows], value, variables=len(self.names))

    def split(self, number: int) -> Split:
        """Return one of five splits by patient, stratified by outcome: 64% train, 16% validate, 20% test."""
        return stratified_split(self.death, number=number)

    def tasks(self, number: int, *, running: bool = False, carried: bool = False) -> dict[str, SeriesTask]:
        """Return the parts of a split as tasks, ``"train"``, ``"validation"`` and ``"test"``; statistics are
        those of the training part.

        Args:
            number: of the split.
            running: add running statistics of each variable, see :mod:`torchcram.series.history`.
            carried: carry values forward, see there.
        """
        split, series = self.split(number), self.series()
        series = [with_running_statistics(one) for one in series] if running else series
        statistics = SeriesStatistics.fit([series[row] for row in split.train])
        return {
            name: self._task(series, rows, statistics, carried=carried) for name, rows in vars(split).items()
        }

    def _task(
        self,
        series: list[Series],
        rows: Int[np.ndarray, " rows"],
        statistics: SeriesStatistics,
        *,
        carried: bool = False,
    ) -> SeriesTask:
        variables = len(self.names)
        encode = partial(encode_carried, statistics, variables=variables) if carried else statistics.encode
        encoded = [encode(series[row], start=0.0) for row in rows]
        death = torch.from_numpy(self.death[rows].astype(np.int64))
        return SeriesTask(encoded, {HEAD.name: death}, (HEAD,), variables=variables, flags=not carried)


def load_physionet(folder: Path | str | None = None, *, verify: bool = True) -> PhysioNet:
    """Load the packed file, or the publisher's own: ``set-a/132539.txt`` and so on beside ``Outcomes-a.txt``.

    Args:
        folder: what holds them; None for that of the environment variable ``TORCHCRAM_DATA``.
        verify: check the sum of the packed file, or those of the publisher's ``SHA256SUMS.txt`` if it lies
            there, too.

    Raises:
        FileNotFoundError: if there are no such files, with the way to get them.
        ValueError: if a file is damaged.
    """
    place = PHYSIONET_2012.folder(folder)
    packed = PHYSIONET_2012.packed_file(place, verify=verify)
    if packed is not None:
        return _unpacked(packed)
    sets = [name for name in "ab" if (place / f"set-{name}").is_dir()]
    if not sets:
        raise PHYSIONET_2012.absent(f"the folder {str(place)!r} has none of its files")
    return _published(place, sets, verify=verify)


def _unpacked(file: Path) -> PhysioNet:
    with np.load(file) as data:
        return PhysioNet(
            stay=data["stay"],
            minute=data["minute"],
            variable=data["var"],
            value=data["value"],
            death=data["y"],
            record=data["id"],
            names=tuple(str(name) for name in data["names"]),
        )


def _published(place: Path, sets: list[str], *, verify: bool) -> PhysioNet:
    outcomes = {row: died for name in sets for row, died in _outcomes(place / f"Outcomes-{name}.txt").items()}
    files = {int(file.stem): file for name in sets for file in sorted((place / f"set-{name}").glob("*.txt"))}
    unknown = sorted(set(files) ^ set(outcomes))
    if unknown:
        raise ValueError(
            f"{place}: stay {unknown[0]} has {'no outcome' if unknown[0] in files else 'no file'} "
            f"({len(unknown)} such stays)"
        )
    if verify:
        check_listed(place, [*files.values(), *(place / f"Outcomes-{name}.txt" for name in sets)])
    record = sorted(files)
    rows = [(stay, *row) for stay, number in enumerate(record) for row in _measurements(files[number])]
    stay, minute, variable, value = zip(*rows, strict=True) if rows else ((), (), (), ())
    return PhysioNet(
        stay=np.array(stay, dtype=np.int32),
        minute=np.array(minute, dtype=np.int16),
        variable=np.array(variable, dtype=np.int8),
        value=np.array(value, dtype=np.float32),
        death=np.array([outcomes[number] for number in record], dtype=np.int64),
        record=np.array(record, dtype=np.int64),
        names=VARIABLES,
    )


def _outcomes(file: Path) -> dict[int, int]:
    if not file.is_file():
        raise PHYSIONET_2012.absent(f"{file.name} is missing")
    with file.open(newline="") as lines:
        return {int(row["RecordID"]): int(row["In-hospital_death"]) for row in csv.DictReader(lines)}


def _measurements(file: Path) -> list[tuple[int, int, float]]:
    """Return minute, variable and value of each line; what describes the patient is left out, and so is
    -1, which stands for unknown.
    """
    measurements = []
    for number, line in enumerate(file.read_text().splitlines()[1:], start=2):
        time, name, value = line.split(",")
        if name in NO_VARIABLES or float(value) == -1:
            continue
        if name not in VARIABLES:
            raise ValueError(f"{file}, line {number}: unknown variable {name!r}")
        hours, minutes = time.split(":")
        measurements.append((60 * int(hours) + int(minutes), VARIABLES.index(name), float(value)))
    return measurements
