"""The process of a run: it trains, goes on, starts from a shared acquisition, and says in one line what
went wrong."""

import os
import signal
import subprocess
import sys
import time

import pytest

from tiny_runs import lasting, tiny_config
from torchcram.reproduce.plan import Job
from torchcram.reproduce.sweep import launch
from torchcram.reproduce.worker import work
from torchcram.runs.lock import alone
from torchcram.runs.source import source_hash
from torchcram.training.acquisition import acquisition_of
from torchcram.training.loop import train


@pytest.fixture(autouse=True)
def _on_cpu(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")


@pytest.mark.slow
def test_a_run_from_an_acquisition_in_its_own_process_equals_one_alone(tmp_path):
    config = tiny_config(controller__price_start=0.02)
    shared = Job(config=acquisition_of(config), runs=tmp_path, source=source_hash(), acquires=True)
    job = Job(config=config, runs=tmp_path, source=source_hash(), start=shared)
    file = tmp_path / "acquisition.json"
    file.write_text(shared.config.model_dump_json())
    work([str(file), str(shared.folder), shared.source, "--acquire"])
    assert shared.finished
    assert launch(job).wait() == 0
    assert job.finished, job.log.read_text()
    train(config, out=tmp_path / "alone", show_progress=False)
    assert lasting(job.folder) == lasting(tmp_path / "alone")


@pytest.mark.slow
def test_a_run_started_where_ctrl_c_is_blocked_can_be_stopped_and_saves(tmp_path):
    """As by Ray, whose workers block it."""
    job = Job(config=tiny_config(training__steps=100_000), runs=tmp_path, source=source_hash())
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        process = launch(job)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    try:
        deadline = time.monotonic() + 240
        while (
            not (job.folder / "checkpoint").exists()
            and process.poll() is None
            and time.monotonic() < deadline
        ):
            time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130, job.log.read_text()
    finally:
        process.kill()
    assert (job.folder / "checkpoint").exists()


def test_code_that_has_changed_since_the_plan_is_not_mixed_in(tmp_path):
    job = Job(config=tiny_config(), runs=tmp_path, source="0123456789ab")
    with pytest.raises(
        ValueError,
        match=(
            r"the code has changed since this run was planned \(it is [0-9a-f]{12}, planned was "
            r"0123456789ab\)"
        ),
    ):
        work([str(tmp_path / "config.json"), str(job.folder), job.source])
    assert not job.folder.exists()


def test_two_processes_never_write_the_same_run(tmp_path):
    file, folder = tmp_path / "config.json", tmp_path / "runs/one"
    file.write_text(tiny_config().model_dump_json())
    with alone(folder), pytest.raises(ValueError, match="another process is at"):
        work([str(file), str(folder), source_hash()])
    assert [entry.name for entry in folder.iterdir()] == [".lock"]


@pytest.mark.slow
def test_what_went_wrong_is_the_last_line(tmp_path):
    command = [
        sys.executable,
        "-m",
        "torchcram.reproduce.worker",
        str(tmp_path / "no.json"),
        str(tmp_path / "run"),
        source_hash(),
    ]
    done = subprocess.run(command, env=os.environ, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: ")
