"""Plans and sweeps, with processes that are none: what is skipped, shared, resumed, given up, and how many
run at once."""

import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from fake_runs import SOURCE, TOY, Ended, fake_run, finish_at_once
from torchcram.reproduce.claim import Method
from torchcram.reproduce.claims import CLAIMS
from torchcram.reproduce.effort import steps_done, steps_of
from torchcram.reproduce.plan import Job, jobs_to_do, plan
from torchcram.reproduce.sweep import sweep
from torchcram.reproduce.sweep_progress import SweepProgress


def planned(folder: Path, *, seeds: int = 1, source: str = SOURCE):
    return plan([TOY], scale="mini", seeds=seeds, runs=folder, source=source)


def worked(jobs: list[Job], *, start=finish_at_once, workers: int = 2) -> list[Job]:
    """Sweep; return the jobs in the order of their start."""
    started = []

    def remember(job):
        started.append(job)
        return start(job)

    with SweepProgress(jobs, titles={}, show=False) as progress:
        sweep(jobs, workers=workers, progress=progress, start=remember, pause=0.0)
    return started


def fail(job: Job) -> Ended:
    job.log.parent.mkdir(parents=True, exist_ok=True)
    job.log.write_text("step 1\nerror: training stopped at step 7: the loss is not finite\n")
    return Ended(2)


def test_what_others_start_from_must_still_have_its_weights(tmp_path):
    runs = plan([CLAIMS["08_drift_override"]], scale="mini", seeds=1, runs=tmp_path, source=SOURCE)[:1]
    drift = runs[0].job
    assert drift.start in jobs_to_do(runs, refresh=False)
    fake_run(drift.start.folder, drift.start)
    with pytest.raises(
        ValueError,
        match=(
            r"is finished, but its model.safetensors is gone, and other runs start from it: delete "
            r"the folder"
        ),
    ):
        jobs_to_do(runs, refresh=False)
    (drift.start.folder / "model.safetensors").touch()
    assert jobs_to_do(runs, refresh=False) == [drift]


def test_runs_that_differ_only_later_share_one_acquisition_which_comes_first(tmp_path):
    jobs = jobs_to_do(planned(tmp_path, seeds=2), refresh=False)
    acquisitions = [job for job in jobs if job.acquires]
    assert [job.config.seed for job in acquisitions] == [0, 1]
    assert len(jobs) == 2 * len(TOY.methods) + 2
    for job in jobs:
        assert job.start is None or jobs.index(job.start) < jobs.index(job)
    by_mixer = {(job.config.model.mixer, job.start is not None) for job in jobs if not job.acquires}
    assert by_mixer == {("cram", True), ("transformer", False)}


def test_every_run_is_started_once_and_finished_ones_never_again(tmp_path):
    runs = planned(tmp_path)
    started = worked(jobs_to_do(runs, refresh=False))
    assert len(started) == len({job.name for job in started}) == 4
    assert {run.job.state for run in runs} == {"finished"}
    assert jobs_to_do(planned(tmp_path), refresh=True) == []
    more = jobs_to_do(planned(tmp_path, seeds=2), refresh=False)
    assert {job.config.seed for job in more} == {1}


def test_what_was_interrupted_goes_on_and_nothing_else_is_trained(tmp_path):
    first, *others = [run.job for run in planned(tmp_path)]
    for job in others:
        fake_run(job.folder, job)
    first.folder.mkdir()
    (first.folder / "config.json").write_text("{}")
    assert first.state == "started"
    assert [job.name for job in jobs_to_do(planned(tmp_path), refresh=False)] == [
        first.start.name,
        first.name,
    ]


def test_a_failed_run_leaves_its_reason_and_the_others_go_on(tmp_path):
    runs = planned(tmp_path)
    worked(
        jobs_to_do(runs, refresh=False),
        start=lambda job: fail(job) if job.config.model.mixer == "transformer" else finish_at_once(job),
    )
    assert [run.job.state for run in runs] == ["finished", "finished", "failed"]
    assert runs[2].job.failure == "training stopped at step 7: the loss is not finite"
    assert [job.name for job in jobs_to_do(runs, refresh=False)] == [runs[2].job.name]


def test_runs_whose_acquisition_failed_are_given_up_with_its_reason(tmp_path):
    runs = planned(tmp_path)
    started = worked(
        jobs_to_do(runs, refresh=False), start=lambda job: fail(job) if job.acquires else finish_at_once(job)
    )
    assert [job.config.model.mixer for job in started if not job.acquires] == ["transformer"]
    assert runs[0].job.failure.startswith(
        "the acquisition that it starts from failed: training stopped at step 7"
    )


def test_a_process_that_was_killed_leaves_a_reason_too(tmp_path):
    runs = planned(tmp_path)

    def die(job):
        job.log.parent.mkdir(parents=True, exist_ok=True)
        job.log.write_text("step 1")
        return Ended(-9)

    worked([runs[2].job], start=die)
    assert runs[2].job.failure.startswith("the process ended with exit status -9, see ")


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_never_more_processes_run_than_asked_for_and_no_run_before_its_acquisition(tmp_path, workers):
    under_way, most = set(), []

    class Slow(Ended):
        def __init__(self, job):
            self.job, self.looks = job, 0
            assert job.start is None or job.start.finished
            under_way.add(job.name)
            most.append(len(under_way))

        def poll(self):
            self.looks += 1
            if self.looks < 3:
                return None
            if self.job.name in under_way:
                under_way.remove(self.job.name)
                finish_at_once(self.job)
            return 0

    worked(jobs_to_do(planned(tmp_path, seeds=2), refresh=False), start=Slow, workers=workers)
    assert max(most) == min(workers, 4)


@pytest.mark.parametrize(
    ("number", "earlier"),
    [(signal.SIGINT, signal.SIG_IGN), (signal.SIGTERM, signal.SIG_DFL), (signal.SIGHUP, signal.SIG_DFL)],
)
def test_an_interruption_asks_each_process_once_to_save_and_waits_for_it(tmp_path, number, earlier):
    """Also where Ctrl-C was ignored, as in a job that a shell started in the background."""
    said = []

    class Running(Ended):
        def poll(self):
            return None

        def send_signal(self, sig):
            said.append(sig)

        def wait(self):
            said.append("waited")
            return 130

    class Interrupted(SweepProgress):
        def look(self, active):
            os.kill(os.getpid(), number)

    jobs = jobs_to_do(planned(tmp_path), refresh=False)
    before = signal.signal(number, earlier)
    try:
        with pytest.raises(KeyboardInterrupt):
            sweep(
                jobs,
                workers=2,
                progress=Interrupted(jobs, titles={}, show=False),
                start=lambda job: Running(),
                pause=5.0,
            )
        assert signal.getsignal(number) == earlier
    finally:
        signal.signal(number, before)
    assert said == [signal.SIGINT, signal.SIGINT, "waited", "waited"]


HEIR = Method(name="heir", title="heir", changes={"training.frozen": ["trunk"]}, base=TOY.methods[1])


def test_a_run_that_starts_from_another_comes_after_it_and_says_so_in_its_command(tmp_path):
    runs = plan([replace(TOY, methods=(HEIR,))], scale="mini", seeds=1, runs=tmp_path, source=SOURCE)
    jobs = jobs_to_do(runs, refresh=False)
    heir = runs[0].job
    assert [job.config.digest() for job in jobs] == [heir.config.start_from, heir.config.digest()]
    assert steps_of(heir) == heir.config.training.steps
    assert [job.name for job in worked(jobs)] == [job.name for job in jobs]
    assert jobs_to_do(runs, refresh=False) == []


def test_a_base_shares_its_acquisition_with_the_others_and_a_failed_one_takes_its_heirs_along(tmp_path):
    runs = plan(
        [replace(TOY, methods=(TOY.methods[0], HEIR))], scale="mini", seeds=1, runs=tmp_path, source=SOURCE
    )
    jobs = jobs_to_do(runs, refresh=False)
    assert [job.acquires for job in jobs] == [True, False, False, False]
    assert [before.name for before in runs[1].job.before] == [jobs[0].name, runs[1].job.start.name]
    worked(jobs, start=lambda job: fail(job) if job is runs[1].job.start else finish_at_once(job))
    assert runs[0].job.finished
    assert runs[1].job.failure.startswith("the run that it starts from failed: training stopped at step 7")


def test_results_of_other_code_are_stale_and_trained_again_only_when_asked(tmp_path):
    worked(jobs_to_do(planned(tmp_path, source="otherothero1"), refresh=False))
    runs = planned(tmp_path)
    assert {run.job.state for run in runs} == {"stale"}
    assert jobs_to_do(runs, refresh=False) == []
    again = jobs_to_do(runs, refresh=True)
    assert len(again) == 4
    worked(again)
    assert {run.job.state for run in runs} == {"finished"}
    assert len(runs[0].job.stale_folders) == 1


def test_an_unfinished_run_of_other_code_is_not_continued(tmp_path):
    old = planned(tmp_path, source="otherothero1")[0].job
    old.folder.mkdir(parents=True)
    (old.folder / "config.json").write_text("{}")
    assert planned(tmp_path)[0].job.state == "missing"


def test_progress_counts_the_steps_that_are_left(tmp_path):
    job = planned(tmp_path)[0].job
    assert (steps_of(job.start), steps_of(job)) == (400, 400)
    assert steps_done(job) == 0
    job.folder.mkdir(parents=True)
    (job.folder / "metrics.jsonl").write_text(
        json.dumps({"kind": "train", "step": 449}) + '\n{"kind": "train", "step": 4'
    )
    assert steps_done(job) == 50
    (job.folder / "metrics.jsonl").write_text(json.dumps({"kind": "train", "step": 99}) + "\n")
    assert steps_done(job) == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scale": "minni"}, "unknown scale 'minni': did you mean 'mini'"),
        ({"seeds": 0}, "seeds 0 must be at least 1"),
    ],
)
def test_impossible_plans_are_errors(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        plan([TOY], **{"scale": "mini", "seeds": 1, "runs": tmp_path, "source": SOURCE, **changes})


def test_a_sweep_needs_a_worker(tmp_path):
    with pytest.raises(ValueError, match="jobs 0 must be above 0"):
        worked([], workers=0)
