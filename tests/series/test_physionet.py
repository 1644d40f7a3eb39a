"""PhysioNet 2012 in both of its forms, on small files of the same formats; the real ones are looked at
where they are."""

import hashlib
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from torchcram.series.physionet import PHYSIONET_2012, VARIABLES, PhysioNet, load_physionet
from torchcram.series.task import SeriesStatistics
from torchcram.tasks.published import SUMS, VARIABLE


def small(stays: int = 60) -> PhysioNet:
    """Stays of 0 to 6 observations (every seventh has none), some of them at one moment."""
    generator = np.random.default_rng(0)
    stay = np.repeat(np.arange(stays), np.arange(stays) % 7)
    return PhysioNet(
        stay=stay.astype(np.int32),
        minute=(60 * generator.integers(0, 4, len(stay))).astype(np.int16),
        variable=generator.integers(0, 37, len(stay)).astype(np.int8),
        value=generator.integers(1, 99, len(stay)).astype(np.float32),
        death=(np.arange(stays) % 4 == 0).astype(np.int64),
        record=132_539 + np.arange(stays),
        names=VARIABLES,
    )


def pack(data: PhysioNet, folder: Path) -> None:
    columns = {
        "stay": data.stay,
        "minute": data.minute,
        "var": data.variable,
        "value": data.value,
        "y": data.death,
        "id": data.record,
    }
    np.savez(folder / PHYSIONET_2012.packed, **columns, names=np.array(data.names))


def publish(data: PhysioNet, folder: Path) -> None:
    """Write the publisher's files: the odd stays in set a, the even ones in set b."""
    for name, rows in (("a", range(1, len(data.death), 2)), ("b", range(0, len(data.death), 2))):
        (folder / f"set-{name}").mkdir()
        outcomes = ["RecordID,SAPS-I,SOFA,Length_of_stay,Survival,In-hospital_death"]
        for row in rows:
            lines = [
                "Time,Parameter,Value",
                f"00:00,RecordID,{data.record[row]}",
                "00:00,Age,54",
                "00:00,Gender,0",
                "00:00,Height,-1",
                "00:00,ICUType,4",
            ]
            lines += ["00:00,Weight,-1"]
            for one in np.flatnonzero(data.stay == row):
                minute = int(data.minute[one])
                lines.append(
                    f"{minute // 60:02}:{minute % 60:02},{VARIABLES[data.variable[one]]},{data.value[one]}"
                )
            (folder / f"set-{name}" / f"{data.record[row]}.txt").write_text("\n".join(lines) + "\n")
            outcomes.append(f"{data.record[row]},6,1,5,-1,{data.death[row]}")
        (folder / f"Outcomes-{name}.txt").write_text("\n".join(outcomes) + "\n")


@pytest.mark.parametrize("form", [pack, publish])
def test_both_forms_hold_the_same(form, tmp_path):
    form(small(), tmp_path)
    found = load_physionet(tmp_path, verify=False)
    for name, column in vars(small()).items():
        np.testing.assert_array_equal(getattr(found, name), column, err_msg=name)
    assert found.stay.dtype == np.int32


def test_the_environment_may_name_the_folder(tmp_path, monkeypatch):
    pack(small(), tmp_path)
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    assert len(load_physionet(verify=False).death) == 60


@pytest.mark.parametrize("place", ["nowhere", "missing", "empty"])
def test_absent_data_tell_where_to_get_them(place, tmp_path, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    folder = {"nowhere": None, "missing": tmp_path / "missing", "empty": tmp_path}[place]
    with pytest.raises(
        FileNotFoundError,
        match=(
            r"https://physionet\.org/content/challenge-2012.*ODC-BY "
            r"1\.0.*set-a.*physionet2012_ab\.npz.*TORCHCRAM_DATA"
        ),
    ):
        load_physionet(folder)


def test_a_packed_file_with_another_sum_is_refused(tmp_path):
    pack(small(), tmp_path)
    with pytest.raises(ValueError, match=r"physionet2012_ab\.npz is damaged or another version"):
        load_physionet(tmp_path)


def test_the_publishers_list_of_sums_is_obeyed(tmp_path):
    publish(small(), tmp_path)
    file = tmp_path / "set-a" / "132540.txt"
    (tmp_path / SUMS).write_text(f"{hashlib.sha256(file.read_bytes()).hexdigest()} set-a/132540.txt\n")
    assert len(load_physionet(tmp_path).death) == 60
    file.write_text(file.read_text() + "01:00,HR,70\n")
    with pytest.raises(ValueError, match=r"132540\.txt is damaged"):
        load_physionet(tmp_path)


def test_stays_without_file_or_outcome_and_unknown_variables_are_named(tmp_path):
    publish(small(), tmp_path)
    file = tmp_path / "set-a" / "132540.txt"
    file.write_text(file.read_text() + "01:00,HRR,70\n")
    with pytest.raises(ValueError, match=r"132540\.txt, line \d+: unknown variable 'HRR'"):
        load_physionet(tmp_path)
    file.unlink()
    with pytest.raises(ValueError, match="stay 132540 has no file"):
        load_physionet(tmp_path)


def test_stays_are_those_of_the_file_and_may_be_empty():
    data = small()
    series = data.series()
    assert len(series) == 60
    assert not len(series[7].time)
    for row in (1, 6, 20):
        chosen = data.stay == row
        assert series[row].time.tolist() == sorted(set(data.minute[chosen].tolist()))
        assert (~np.isnan(series[row].values)).sum() == len(
            set(zip(data.minute[chosen], data.variable[chosen], strict=True))
        )


@pytest.mark.parametrize(
    "form", [{}, {"running": True}, {"running": True, "carried": True}], ids=["plain", "running", "carried"]
)
def test_statistics_come_from_the_training_part_alone(form):
    """Values of test and validation stays may be anything: the training task does not change by a bit, nor
    do their gaps' units."""
    data = small()
    split, before = data.split(1), data.tasks(1, **form)
    foreign = np.isin(data.stay, np.concatenate([split.validation, split.test]))
    changed = replace(
        data,
        value=np.where(foreign, 1e6, data.value).astype(np.float32),
        minute=np.where(foreign, data.minute + 7, data.minute).astype(np.int16),
    )
    after = changed.tasks(1, **form)
    for ours, theirs in zip(before["train"].series, after["train"].series, strict=True):
        assert torch.equal(ours.inputs, theirs.inputs)
        assert torch.equal(ours.gap, theirs.gap)
    assert any(
        not torch.equal(ours.inputs, theirs.inputs)
        for ours, theirs in zip(before["test"].series, after["test"].series, strict=True)
    )
    assert SeriesStatistics.fit([data.series()[row] for row in split.train]).mean.shape == (37,)


def test_forms_differ_in_what_a_step_holds():
    """37 variables: values and flags; with four running statistics; carried forward, with flags and
    freshness of the variables alone."""
    sizes = {
        (running, carried): small().tasks(0, running=running, carried=carried)["train"]
        for running in (False, True)
        for carried in (False, True)
    }
    assert {form: task.input_size // 37 for form, task in sizes.items()} == {
        (False, False): 2,
        (False, True): 3,
        (True, False): 10,
        (True, True): 7,
    }
    assert all(
        task.input_size % 37 == 0 and task.flags == (not carried) for (_, carried), task in sizes.items()
    )


def test_inputs_know_nothing_of_outcomes():
    """The same stays with all outcomes turned round: bit for bit the same inputs, gaps and lengths, in the
    same order."""
    data = small()
    turned = replace(data, death=1 - data.death)
    for part, task in data.tasks(0).items():
        # Turned outcomes have the same strata, shuffled in another order: only the split may depend on them.
        rows, statistics = (
            getattr(data.split(0), part),
            SeriesStatistics.fit([data.series()[row] for row in data.split(0).train]),
        )
        ours, theirs = (
            one.rows(range(len(rows))) for one in (task, turned._task(turned.series(), rows, statistics))
        )
        for name in ("inputs", "gap", "mask"):
            assert torch.equal(getattr(ours, name), getattr(theirs, name)), (part, name)
        assert torch.equal(ours.targets["death"], 1 - theirs.targets["death"])


def test_the_order_within_a_part_says_nothing_of_outcomes():
    """Parts keep the order of the records, not that of the strata."""
    data = small()
    for rows in vars(data.split(0)).values():
        assert (np.diff(data.record[rows]) > 0).all()


def test_the_real_file_holds_what_is_said_of_it():
    folder = os.environ.get(VARIABLE)
    if folder is None or not (Path(folder) / PHYSIONET_2012.packed).is_file():
        pytest.skip(f"{VARIABLE} names no folder with {PHYSIONET_2012.packed}")
    data = load_physionet(folder)
    assert (len(data.death), len(data.value), data.names) == (8000, 3_245_708, VARIABLES)
    assert data.death.mean() == pytest.approx(0.140, abs=5e-4)
    assert len(data.death) - len(np.unique(data.stay)) == 10
