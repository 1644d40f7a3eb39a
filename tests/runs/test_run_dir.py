"""The folder of a run: what makes it one, what it never overwrites, what a crash leaves."""

import math
from pathlib import Path

import pytest

from torchcram.runs.lock import LOCK
from torchcram.runs.run_dir import CONFIG, ENVIRONMENT, SUMMARY, RunDir
from torchcram.strict import StrictConfig


class Settings(StrictConfig):
    """Any configuration: a run's folder does not know what is in it."""

    name: str = "tiny"
    seed: int = 0


def opened(path: Path, config: Settings, *, resume: bool) -> RunDir:
    """Open a run and leave it at once."""
    with RunDir.open(path, config, resume=resume) as run:
        return run


def test_a_new_folder_holds_configuration_and_environment(tmp_path):
    run = opened(tmp_path / "a" / "b", Settings(), resume=False)
    assert {file.name for file in run.path.iterdir()} == {CONFIG, ENVIRONMENT, LOCK}
    assert run.config(Settings) == Settings()
    assert run.config_tree() == {"name": "tiny", "seed": 0}
    assert not run.finished


@pytest.mark.parametrize(
    "left", [[], [LOCK], [".environment.json.draft"], [ENVIRONMENT], [ENVIRONMENT, ".config.json.draft"]]
)
@pytest.mark.parametrize("resume", [False, True])
def test_what_a_process_killed_at_once_leaves_is_taken_as_new(tmp_path, left, resume):
    for name in left:
        (tmp_path / name).write_text("{}")
    assert opened(tmp_path, Settings(), resume=resume).config(Settings) == Settings()


def test_a_run_is_taken_up_with_resume_only(tmp_path, contents):
    opened(tmp_path, Settings(), resume=False)
    before = contents(tmp_path)
    with pytest.raises(ValueError, match="already holds this run: continue it with --resume"):
        opened(tmp_path, Settings(), resume=False)
    opened(tmp_path, Settings(), resume=True)
    (tmp_path / SUMMARY).write_text("{}")
    with pytest.raises(ValueError, match="already holds this run, finished"):
        opened(tmp_path, Settings(), resume=False)
    assert contents(tmp_path) == {**before, SUMMARY: b"{}"}


@pytest.mark.parametrize("resume", [False, True])
def test_another_runs_folder_is_left_alone(tmp_path, contents, resume):
    opened(tmp_path, Settings(), resume=False)
    before = contents(tmp_path)
    with pytest.raises(
        ValueError, match="holds a run with another configuration: choose another folder with --out"
    ):
        opened(tmp_path, Settings(seed=1), resume=resume)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("resume", [False, True])
def test_a_folder_that_is_no_run_is_left_alone(tmp_path, contents, resume):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match=r"exists and is not a run \(it has no config.json\)"):
        opened(tmp_path, Settings(), resume=resume)
    with pytest.raises(ValueError, match="is not a run"):
        opened(tmp_path / "thesis.txt", Settings(), resume=resume)
    assert contents(tmp_path) == {"thesis.txt": b"years of work"}


def test_a_damaged_or_outdated_configuration_is_named(tmp_path):
    run = opened(tmp_path, Settings(), resume=False)
    (tmp_path / CONFIG).write_text('{"name": "tin')
    with pytest.raises(ValueError, match=r"config\.json is damaged"):
        run.config(Settings)
    (tmp_path / CONFIG).write_text("[1, 2]")
    with pytest.raises(ValueError, match=r"config\.json is damaged .it holds a list"):
        opened(tmp_path, Settings(), resume=True)
    (tmp_path / CONFIG).write_text('{"nmae": "tiny"}')
    with pytest.raises(ValueError, match=r"does not fit this version of torchcram: unknown key 'nmae'"):
        run.config(Settings)


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"there is no run .*nowhere"):
        RunDir(tmp_path / "nowhere").config(Settings)
    with pytest.raises(ValueError, match=r"is no run: it has no config\.json"):
        RunDir(tmp_path).config(Settings)
    run = opened(tmp_path, Settings(), resume=False)
    message = r"is no finished run, summary\.json is missing: finish it with train --resume"
    with pytest.raises(ValueError, match=message):
        run.load_json(SUMMARY)
    assert run.find_json(SUMMARY) is None


def test_metrics_go_back_to_a_mark_here_and_in_an_heir(tmp_path):
    run = RunDir(tmp_path)
    assert (run.metrics(), run.last_step()) == ([], None)
    for step in range(3):
        run.append_metrics({"kind": "train", "step": step, "loss": math.nan})
    assert run.last_step() == 2
    before, there = run.metrics(), run.metrics_mark()
    run.append_metrics({"kind": "train", "step": 3})
    run.restore_metrics(there)
    assert run.metrics() == before
    heir = RunDir(tmp_path / "heir")
    heir.path.mkdir()
    heir.restore_metrics(there, source=run)
    assert heir.metrics() == before
    heir.clear_metrics()
    assert heir.metrics() == []


def test_processes_that_leave_writing_to_the_main_one_write_nothing(tmp_path):
    run = RunDir(tmp_path, writes=False)
    run.write_json("a.json", {})
    run.write_text("a.txt", "")
    run.append_metrics({"kind": "train", "step": 0})
    run.clear_metrics()
    run.restore_metrics(run.metrics_mark())
    assert list(tmp_path.iterdir()) == []


def test_two_processes_never_write_the_same_run(tmp_path, contents):
    with RunDir.open(tmp_path, Settings(), resume=False):
        before = contents(tmp_path)
        for resume in (False, True):
            with pytest.raises(ValueError, match=r"another process is at|already holds this run"):
                opened(tmp_path, Settings(), resume=resume)
        assert contents(tmp_path) == before
    assert opened(tmp_path, Settings(), resume=True).path == tmp_path


def test_a_finished_run_is_looked_at_where_nothing_can_be_written(tmp_path):
    opened(tmp_path, Settings(), resume=False)
    (tmp_path / SUMMARY).write_text("{}")
    (tmp_path / LOCK).unlink()
    assert opened(tmp_path, Settings(), resume=True).finished
    assert not (tmp_path / LOCK).exists()
