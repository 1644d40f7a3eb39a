"""Runs on a local Ray of two workers: what a sweep trains there, what it leaves when asked to stop, and
what a lost task looks like."""

import signal
import time

import pytest

from tiny_runs import lasting, tiny_config
from torchcram.reproduce.plan import Job
from torchcram.reproduce.ray_executor import LOST, RayProcess, ray_cluster
from torchcram.reproduce.sweep import sweep
from torchcram.reproduce.sweep_progress import SweepProgress
from torchcram.runs.source import source_hash
from torchcram.training.acquisition import acquisition_of
from torchcram.training.loop import train

pytestmark = pytest.mark.slow

ray = pytest.importorskip("ray", reason="ray is not installed: pip install 'torchcram[ray]'")


@pytest.fixture(scope="module")
def two_workers():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ACCELERATE_USE_CPU", "true")
        # Ray answers SIGTERM for good.
        before = signal.getsignal(signal.SIGTERM)
        # Ray's workers are nice to everybody else: beside other tests they would hardly run.
        busy = {"worker_niceness": 0}
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, _system_config=busy)
        yield
        ray.shutdown()
        signal.signal(signal.SIGTERM, before)


@pytest.mark.filterwarnings("ignore")  # Ray's own
@pytest.mark.usefixtures("two_workers")
def test_a_sweep_on_two_workers_trains_what_one_process_trains(tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    monkeypatch.chdir(tmp_path)
    configs = [tiny_config(controller__price_start=price) for price in (0.01, 0.02)]
    shared = Job(
        config=acquisition_of(configs[0]), runs=tmp_path / "runs", source=source_hash(), acquires=True
    )
    jobs = [
        shared,
        *(
            Job(config=config, runs=tmp_path / "runs", source=source_hash(), start=shared)
            for config in configs
        ),
    ]
    with ray_cluster() as (start, workers), SweepProgress(jobs, titles={}, show=False) as progress:
        assert workers == 2
        sweep(jobs, workers=workers, progress=progress, start=start, pause=0.1)
    assert [job.finished for job in jobs] == [True] * 3, [job.failure for job in jobs]
    train(configs[0], out=tmp_path / "alone", show_progress=False)
    assert lasting(jobs[1].folder) == lasting(tmp_path / "alone")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("two_workers")
def test_a_run_that_is_asked_to_stop_saves_and_ends_and_one_that_fails_says_why(tmp_path):
    long = Job(config=tiny_config(training__steps=100_000), runs=tmp_path, source=source_hash())
    wrong = Job(config=tiny_config(), runs=tmp_path, source="0123456789ab")
    with ray_cluster() as (start, _):
        running, failing = start(long), start(wrong)
        assert failing.wait() == 2
        assert wrong.failure.startswith("the code has changed")
        deadline = time.monotonic() + 240
        while not (long.folder / "checkpoint").exists() and time.monotonic() < deadline:
            time.sleep(0.2)
        assert running.poll() is None
        running.send_signal(signal.SIGINT)
        assert running.wait() == 130
    assert (long.folder / "checkpoint").exists()
    assert not long.finished


@pytest.mark.usefixtures("two_workers")
def test_a_lost_task_has_an_exit_status_of_its_own(tmp_path):
    @ray.remote(max_retries=0)
    def broken():
        raise RuntimeError("gone")

    process = RayProcess(ray, broken.remote(), stop=tmp_path / "stop")
    assert process.wait() == LOST
    assert process.poll() == LOST
