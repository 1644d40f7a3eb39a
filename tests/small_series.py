"""Small data of the two published kinds, in which there is something to learn."""

import numpy as np

from torchcram.series.activity import Activity
from torchcram.series.physionet import VARIABLES, PhysioNet

STAYS, ROWS, USERS = 60, 120, 10


def small_physionet() -> PhysioNet:
    """Stays of 0 to 8 observations each; who dies has higher values."""
    generator, death = np.random.default_rng(0), (np.arange(STAYS) % 3 == 0).astype(np.int64)
    stay = np.repeat(np.arange(STAYS), np.arange(STAYS) % 9)
    return PhysioNet(
        stay=stay.astype(np.int32),
        minute=(60 * generator.integers(0, 40, len(stay))).astype(np.int16),
        variable=generator.integers(0, 4, len(stay)).astype(np.int8),
        value=(generator.normal(size=len(stay)) + 5 * death[stay]).astype(np.float32),
        death=death,
        record=132_539 + np.arange(STAYS),
        names=VARIABLES,
    )


def small_activity() -> Activity:
    """One recording a user; the class changes every 20 rows and shows in the first channel."""
    label = np.tile(np.repeat(np.arange(6), 20), USERS).astype(np.int64)
    signal = np.random.default_rng(0).normal(size=(len(label), 6))
    signal[:, 0] += 5 * label
    who = np.repeat(np.arange(USERS), ROWS).astype(np.int16)
    return Activity(
        signal=signal.astype(np.float32),
        label=np.where(np.arange(len(label)) % 20 == 0, -100, label),
        user=who,
        recording=who,
    )
