"""Kill a run at any moment, resume it, and its summary is that of a run that nobody disturbed, bit for
bit."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from torchcram.runs.files import read_sealed, write_sealed
from torchcram.training.loop import train

STEPS = 24
# Acquisition ends after 9 steps: checkpoints fall into both phases.
CHANGES = {
    **{
        "task__length": 64,
        "training__steps": STEPS,
        "training__checkpoint_every": 6,
        "training__evaluate_every": 8,
        "training__tokens_per_step": 256,
    },
    **{
        "controller__acquire_steps": 9,
        "evaluation__queries": 60,
        "evaluation__risk_tolerance": 0.3,
        "evaluation__calibration_sequences": 24,
    },
}
# A child trains the run and stops at a named moment, so that it can be killed exactly there.
CHILD = """
import os, signal, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
# As in a terminal: a shell that runs the tests in the background has its children ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
sys.path.insert(0, {here!r})
from tiny_runs import tiny_config
from torchcram.runs import tensor_file
from torchcram.training import checkpoint, loop, summary
from torchcram.training.loop import train
from torchcram.training.trainer import Trainer

out, moment, number = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])

def hold():
    # pause() returns once a handler has run: that of the interruption, or else of the alarm.
    signal.signal(signal.SIGALRM, lambda *_: None)
    signal.alarm(60)
    Path(sys.argv[4]).touch()
    signal.pause()

def at_call(module, name):
    real, calls = getattr(module, name), []
    def wrapped(*arguments, **options):
        calls.append(name)
        if len(calls) == number:
            hold()
        return real(*arguments, **options)
    setattr(module, name, wrapped)

moments = {{
    "step": (Trainer, "train_step"),
    "file": (tensor_file, "save_file"),
    "place": (checkpoint, "_put_in_place"),
    "midway": (loop, "evaluate_midway"),
    "final": (summary, "evaluate_fully"),
    "map": (summary, "route_map"),
}}
at_call(*moments[moment])
try:
    train(tiny_config(**{changes!r}), out=out, show_progress=True, resume=True)
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.fixture(scope="module")
def child(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("child") / "child.py"
    file.write_text(CHILD.format(here=str(Path(__file__).parents[1]), changes=CHANGES))
    return file


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, child: Path) -> Path:
    """A run from start to end, in a process like those that are killed."""
    out = tmp_path_factory.mktemp("runs") / "undisturbed"
    process = start(child, out, "step", 999)
    assert process.wait(600) == 0, said_by(out).read_text()
    return out


def start(child: Path, out: Path, moment: str, number: int) -> subprocess.Popen:
    command = [sys.executable, str(child), str(out), moment, str(number), str(out.with_name("ready"))]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    with said_by(out).open("w") as said:
        return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=said)


def said_by(out: Path) -> Path:
    """Where the child's messages go."""
    return out.with_name("said.txt")


def stop_at(child: Path, out: Path, moment: str, number: int, how: signal.Signals) -> subprocess.Popen:
    """Train until the moment, then send the signal."""
    ready = out.with_name("ready")
    process = start(child, out, moment, number)
    deadline = time.monotonic() + 600
    while not ready.exists():
        assert process.poll() is None, said_by(out).read_text()
        assert time.monotonic() < deadline, "the child never came to its moment"
        time.sleep(0.02)
    ready.unlink()
    process.send_signal(how)
    return process


@pytest.mark.parametrize(
    ("moment", "number", "checkpoint"),
    [
        pytest.param("step", 4, None, id="before the first checkpoint"),
        pytest.param("file", 2, None, id="while the first checkpoint is written"),
        pytest.param("step", 8, 6, id="between checkpoints, while acquiring"),
        pytest.param("place", 2, 6, id="when a checkpoint is complete but not in its place"),
        pytest.param("midway", 2, 12, id="during an evaluation, while consolidating"),
        pytest.param("final", 2, 24, id="during the final evaluation"),
        pytest.param("map", 1, 24, id="before the summary"),
    ],
)
def test_a_killed_run_goes_on_as_if_nothing_had_been(
    child, undisturbed, tiny, lasting_summary, tmp_path, moment, number, checkpoint
):
    out = tmp_path / "run"
    assert stop_at(child, out, moment, number, signal.SIGKILL).wait(600) == -signal.SIGKILL
    assert not (out / "summary.json").exists()
    state = out / "checkpoint" / "state.json"
    assert (json.loads(state.read_text())["step"] if state.exists() else None) == checkpoint
    train(tiny(**CHANGES), out=out, resume=True, show_progress=False)
    assert lasting_summary(out) == lasting_summary(undisturbed)
    assert timeless(out) == timeless(undisturbed)
    assert (out / "model.safetensors").read_bytes() == (undisturbed / "model.safetensors").read_bytes()


def timeless(out: Path) -> list[dict]:
    """The metrics without seconds, and with no step twice."""
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "seconds"} for line in lines]


def test_a_run_killed_twice_goes_on_too(child, undisturbed, tiny, lasting_summary, tmp_path):
    out = tmp_path / "run"
    for moment, number in (("step", 8), ("step", 7)):
        stop_at(child, out, moment, number, signal.SIGKILL).wait(600)
    assert json.loads((out / "checkpoint" / "state.json").read_text())["step"] == 12
    train(tiny(**CHANGES), out=out, resume=True, show_progress=False)
    assert lasting_summary(out) == lasting_summary(undisturbed)


def test_the_seconds_of_all_processes_are_counted(child, tiny, tmp_path):
    out = tmp_path / "run"
    stop_at(child, out, "step", 8, signal.SIGKILL).wait(600)
    state = out / "checkpoint" / "state.json"
    before = read_sealed(state)["seconds"]
    write_sealed(state, {**read_sealed(state), "seconds": before + 1000})
    assert (
        train(tiny(**CHANGES), out=out, resume=True, show_progress=False).summary["seconds"] > before + 1000
    )


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_request_to_end_completes_the_step_saves_and_says_how_to_go_on(
    child, undisturbed, tiny, lasting_summary, tmp_path, how
):
    out = tmp_path / "run"
    process = stop_at(child, out, "step", 11, how)
    assert process.wait(600) == 130
    assert "interrupted after 11 steps; nothing is lost: continue with --resume" in said_by(out).read_text()
    assert json.loads((out / "checkpoint" / "state.json").read_text())["step"] == 11
    train(tiny(**CHANGES), out=out, resume=True, show_progress=False)
    assert lasting_summary(out) == lasting_summary(undisturbed)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_request_in_the_final_evaluation_stops_at_once(
    child, undisturbed, tiny, lasting_summary, tmp_path, how
):
    out = tmp_path / "run"
    process = stop_at(child, out, "final", 1, how)
    assert process.wait(600) == 130
    assert "continue with --resume" in said_by(out).read_text()
    train(tiny(**CHANGES), out=out, resume=True, show_progress=False)
    assert lasting_summary(out) == lasting_summary(undisturbed)
