"""HAPT in both of its forms, on small files of the same formats; the real ones are looked at where they
are."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from torchcram.series.activity import HAPT, UNSCORED, Activity, ActivityTask, load_activity
from torchcram.series.splits import SPLITS
from torchcram.tasks.base import Task
from torchcram.tasks.published import VARIABLE

USERS, ROWS = 10, 90


def small() -> Activity:
    """Ten users, two recordings each; the first channel counts rows, the second is the user."""
    rows = USERS * 2 * ROWS
    user, generator = np.arange(rows) // (2 * ROWS), np.random.default_rng(0)
    stretch = np.arange(rows) // 15 % 14
    signal = np.stack([np.arange(rows), user, *generator.integers(-9, 9, (4, rows))], 1) * 0.5
    label = np.where(stretch < 12, stretch, UNSCORED)
    return Activity(
        signal=signal.astype(np.float32),
        label=label,
        user=user.astype(np.int16),
        recording=(np.arange(rows) // ROWS).astype(np.int16),
    )


def pack(data: Activity, folder: Path) -> None:
    label = np.where(data.label == UNSCORED, -1, data.label + 1).astype(np.int8)
    signal = (data.signal * 2).astype(np.int16)
    np.savez(
        folder / HAPT.packed,
        signal_int16=signal,
        scale=np.full(6, 0.5, np.float32),
        label=label,
        user=data.user,
        recording=data.recording,
    )


def publish(data: Activity, folder: Path) -> None:
    raw = folder / "RawData"
    raw.mkdir()
    stretches = []
    for name in np.unique(data.recording):
        rows = np.flatnonzero(data.recording == name)
        user = data.user[rows[0]] + 1
        for kind, columns in (("acc", slice(3)), ("gyro", slice(3, 6))):
            np.savetxt(raw / f"{kind}_exp{name + 1:02}_user{user:02}.txt", data.signal[rows, columns])
        stretches += [
            (name + 1, user, data.label[row] + 1, i + 1, i + 1)
            for i, row in enumerate(rows)
            if data.label[row] != UNSCORED
        ]
    np.savetxt(raw / "labels.txt", np.array(stretches), fmt="%d")


@pytest.mark.parametrize("form", [pack, publish])
def test_both_forms_hold_the_same(form, tmp_path):
    form(small(), tmp_path)
    found = load_activity(tmp_path, verify=False)
    for name, column in vars(small()).items():
        np.testing.assert_array_equal(getattr(found, name), column, err_msg=name)


def test_absent_and_damaged_data_tell_what_is_wrong(tmp_path, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    with pytest.raises(
        FileNotFoundError,
        match=r"archive\.ics\.uci\.edu.*CC BY 4\.0.*RawData.*hapt_raw_50hz\.npz.*TORCHCRAM_DATA",
    ):
        load_activity()
    with pytest.raises(FileNotFoundError, match="none of its files"):
        load_activity(tmp_path)
    publish(small(), tmp_path)
    turn = tmp_path / "RawData" / "gyro_exp01_user01.txt"
    turn.write_text("\n".join(turn.read_text().splitlines()[:-1]))
    with pytest.raises(ValueError, match=r"acc_exp01_user01\.txt has 90 rows, gyro_exp01_user01\.txt has 89"):
        load_activity(tmp_path)
    pack(small(), tmp_path)
    with pytest.raises(ValueError, match=r"hapt_raw_50hz\.npz is damaged or another version"):
        load_activity(tmp_path)


@pytest.mark.parametrize("number", range(SPLITS))
def test_no_user_is_in_two_parts_and_no_window_crosses_recordings(number, seeded):
    data = small()
    tasks = data.tasks(number, steps=8, keep=0.4)
    drawn = {name: task.batch(200, generator=seeded(1)).info["row"].numpy() for name, task in tasks.items()}
    users = {name: set(data.user[rows].ravel().tolist()) for name, rows in drawn.items()}
    assert [len(users[name]) for name in ("train", "validation", "test")] == [4, 4, 2]
    assert len(set.union(*users.values())) == USERS
    for rows in drawn.values():
        assert (data.recording[rows] == data.recording[rows[:, :1]]).all()


def test_a_window_is_a_random_subset_in_order_with_the_true_gaps(seeded):
    data = small()
    task = data.tasks(0, steps=8, keep=0.4)["train"]
    assert isinstance(task, Task)
    batch = task.batch(300, generator=seeded(1))
    row = batch.info["row"]
    assert tuple(batch.inputs.shape) == (300, 8, 6)
    assert (row.diff(dim=1) > 0).all()
    assert (row[:, -1] - row[:, 0]).max() < task.span == 20
    torch.testing.assert_close(batch.gap[:, 1:], row.diff(dim=1) * 0.4)
    assert not batch.gap[:, 0].any()
    assert torch.equal(batch.targets["activity"], torch.from_numpy(data.label[row.numpy()]))
    torch.testing.assert_close(
        batch.inputs.double(),
        torch.from_numpy((data.signal[row.numpy()] - task.mean) / task.std).float().double(),
    )
    assert tuple(task.batch(3, generator=seeded(1), length=4).gap.shape) == (3, 4)


def test_labels_decide_nothing_of_what_a_model_sees(seeded):
    data = small()
    other = replace(data, label=np.roll(data.label, 40))
    ours, theirs = (
        one.tasks(2, steps=8, keep=0.4)["test"].batch(50, generator=seeded(2)) for one in (data, other)
    )
    assert torch.equal(ours.inputs, theirs.inputs)
    assert torch.equal(ours.gap, theirs.gap)
    assert not torch.equal(ours.targets["activity"], theirs.targets["activity"])


def test_statistics_come_from_training_users_alone(seeded):
    data = small()
    train = np.isin(np.arange(len(data.user)), data.split(3).train)
    other = replace(data, signal=np.where(train[:, None], data.signal, 1e4).astype(np.float32))
    ours, theirs = (one.tasks(3, steps=8, keep=0.4) for one in (data, other))
    np.testing.assert_array_equal(ours["test"].mean, theirs["test"].mean)
    np.testing.assert_array_equal(ours["test"].std, theirs["test"].std)
    assert torch.equal(*(one["train"].batch(9, generator=seeded(1)).inputs for one in (ours, theirs)))


def test_evaluation_windows_are_fixed_cover_everything_and_score_no_row_twice(seeded):
    data = small()
    task = data.tasks(0, steps=20, keep=1.0)["test"]
    batch = task.windows(generator=seeded(5))
    assert torch.equal(batch.info["row"], task.windows(generator=seeded(5)).info["row"])
    scored = batch.info["row"][batch.targets["activity"] != UNSCORED].numpy()
    wanted = data.split(0).test[data.label[data.split(0).test] != UNSCORED]
    np.testing.assert_array_equal(np.sort(scored), wanted)
    assert torch.equal(
        batch.slices["posture"] | batch.slices["transition"], batch.targets["activity"] != UNSCORED
    )


def test_impossible_windows_are_refused():
    with pytest.raises(ValueError, match="keep 0 must lie above 0"):
        small().tasks(0, keep=0)
    with pytest.raises(ValueError, match="no recording has the 640 rows of a window"):
        small().tasks(0)
    assert isinstance(small().tasks(0, steps=4)["test"], ActivityTask)


def test_the_real_file_holds_what_is_said_of_it():
    folder = os.environ.get(VARIABLE)
    if folder is None or not (Path(folder) / HAPT.packed).is_file():
        pytest.skip(f"{VARIABLE} names no folder with {HAPT.packed}")
    data = load_activity(folder)
    assert (len(data.label), len(np.unique(data.user)), len(np.unique(data.recording))) == (1_122_772, 30, 61)
    assert set(np.unique(data.label)) == {UNSCORED, *range(12)}
    # Standing still, a waist feels one g.
    assert np.linalg.norm(data.signal[data.label == 4, :3], axis=1).mean() == pytest.approx(1.0, abs=0.05)
