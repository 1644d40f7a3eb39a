"""The folder of a run: what makes it one, what it never overwrites, what a crash or a full disk leaves."""

import errno
import json
import math
from pathlib import Path

import pytest

from torchcram.training.run_dir import CONFIG, ENVIRONMENT, METRICS, SUMMARY, RunDir, environment


def test_a_new_folder_holds_configuration_and_environment(tiny, tmp_path):
    run = RunDir.open(tmp_path / "a" / "b", tiny(), resume=False)
    assert {file.name for file in run.path.iterdir()} == {CONFIG, ENVIRONMENT}
    assert run.config() == tiny()


@pytest.mark.parametrize(
    "left", [[], [".environment.json.draft"], [ENVIRONMENT], [ENVIRONMENT, ".config.json.draft"]]
)
@pytest.mark.parametrize("resume", [False, True])
def test_what_a_process_killed_at_once_leaves_is_taken_as_new(tiny, tmp_path, left, resume):
    for name in left:
        (tmp_path / name).write_text("{}")
    assert RunDir.open(tmp_path, tiny(), resume=resume).config() == tiny()


def test_a_run_is_taken_up_with_resume_only(tiny, tmp_path, contents):
    RunDir.open(tmp_path, tiny(), resume=False)
    before = contents(tmp_path)
    with pytest.raises(ValueError, match="already holds this run: continue it with --resume"):
        RunDir.open(tmp_path, tiny(), resume=False)
    RunDir.open(tmp_path, tiny(), resume=True)
    (tmp_path / SUMMARY).write_text("{}")
    with pytest.raises(ValueError, match="already holds this run, finished"):
        RunDir.open(tmp_path, tiny(), resume=False)
    assert contents(tmp_path) == {**before, SUMMARY: b"{}"}


@pytest.mark.parametrize("resume", [False, True])
def test_another_runs_folder_is_left_alone(tiny, tmp_path, contents, resume):
    RunDir.open(tmp_path, tiny(), resume=False)
    before = contents(tmp_path)
    with pytest.raises(
        ValueError, match="holds a run with another configuration: choose another folder with --out"
    ):
        RunDir.open(tmp_path, tiny(seed=1), resume=resume)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("resume", [False, True])
def test_a_folder_that_is_no_run_is_left_alone(tiny, tmp_path, contents, resume):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match=r"exists and is not a run \(it has no config.json\)"):
        RunDir.open(tmp_path, tiny(), resume=resume)
    with pytest.raises(ValueError, match="is not a run"):
        RunDir.open(tmp_path / "thesis.txt", tiny(), resume=resume)
    assert contents(tmp_path) == {"thesis.txt": b"years of work"}


def test_a_damaged_or_outdated_configuration_is_named(tiny, tmp_path):
    RunDir.open(tmp_path, tiny(), resume=False)
    (tmp_path / CONFIG).write_text('{"name": "tin')
    with pytest.raises(ValueError, match=r"config\.json is damaged"):
        RunDir(tmp_path).config()
    (tmp_path / CONFIG).write_text('{"nmae": "tiny"}')
    with pytest.raises(ValueError, match=r"does not fit this version of torchcram: unknown key 'nmae'"):
        RunDir(tmp_path).config()


def test_what_is_missing_is_named(tmp_path, tiny):
    with pytest.raises(ValueError, match=r"there is no run .*nowhere"):
        RunDir(tmp_path / "nowhere").config()
    with pytest.raises(ValueError, match=r"is no run: it has no config\.json"):
        RunDir(tmp_path).config()
    with pytest.raises(
        ValueError, match=r"is no finished run, summary\.json is missing: finish it with train --resume"
    ):
        RunDir.open(tmp_path, tiny(), resume=False).read_json(SUMMARY)


def full_disk(*arguments: object, **options: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_keeps_the_older_file(tmp_path, monkeypatch, contents):
    run = RunDir(tmp_path)
    run.write_json("a.json", {"old": 1})
    run.append_metrics({"step": 0})
    before = contents(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full_disk)
        with pytest.raises(
            OSError,
            match=r"cannot write .*a\.json: No space left on device\. Free some space, then use --resume",
        ):
            run.write_json("a.json", {"new": 2})
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", full_disk)
        with pytest.raises(OSError, match=r"cannot write .*metrics\.jsonl"):
            run.append_metrics({"step": 1})
    assert contents(tmp_path) == before


def test_metrics_without_the_torn_end_and_without_what_comes_again(tmp_path):
    run = RunDir(tmp_path)
    assert run.metrics() == []
    for step in range(6):
        run.append_metrics({"kind": "train", "step": step})
    with (tmp_path / METRICS).open("a") as handle:
        handle.write('{"kind": "tra')
    assert [record["step"] for record in run.metrics()] == [0, 1, 2, 3, 4, 5]
    run.cut_metrics(4)
    assert (tmp_path / METRICS).read_text().splitlines() == [
        json.dumps({"kind": "train", "step": step}) for step in range(4)
    ]


def test_what_has_no_value_is_null(tmp_path):
    run = RunDir(tmp_path)
    run.write_json("a.json", {"a": math.nan, "b": [math.inf, 1.5, {"c": -math.inf}], "d": (1, "x")})
    assert run.read_json("a.json") == {"a": None, "b": [None, 1.5, {"c": None}], "d": [1, "x"]}
    run.append_metrics({"step": 0, "loss": math.nan})
    assert run.metrics() == [{"step": 0, "loss": None}]


def test_processes_that_leave_writing_to_the_main_one_write_nothing(tmp_path):
    run = RunDir(tmp_path, writes=False)
    run.write_json("a.json", {})
    run.append_metrics({"step": 0})
    run.cut_metrics(0)
    assert list(tmp_path.iterdir()) == []


def test_the_environment_says_what_a_result_depends_on():
    found = environment()
    assert {"python", "packages", "commit", "source", "system", "device", "threads", "started"} == set(found)
    assert {"torch", "torchcram", "accelerate"} <= set(found["packages"])
    assert json.loads(json.dumps(found)) == found
