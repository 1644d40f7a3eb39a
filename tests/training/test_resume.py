"""Kill a run at any moment, resume it, and its summary is that of a run that nobody disturbed, bit for
bit."""

import json
import signal
from pathlib import Path

import pytest

from torchcram.runs.files import load_sealed, write_sealed
from torchcram.training.loop import train
from training_child import exit_code, said_by, start, stop_at

pytestmark = pytest.mark.slow

STEPS = 16
# Acquisition ends after 6 steps: checkpoints fall into both phases.
CHANGES = {
    **{
        "task__length": 64,
        "training__steps": STEPS,
        "training__checkpoint_every": 4,
        "training__evaluate_every": 5,
        "training__tokens_per_step": 256,
    },
    **{
        "controller__acquire_steps": 6,
        "evaluation__queries": 60,
        "evaluation__risk_tolerance": 0.5,
        "evaluation__calibration_sequences": 2,
    },
}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run from start to end, in a process like those that are killed."""
    out = tmp_path_factory.mktemp("runs") / "undisturbed"
    assert exit_code(start(CHANGES, out, "step", 999)) == 0, said_by(out).read_text()
    return out


@pytest.mark.parametrize(
    ("moment", "number", "checkpoint"),
    [
        pytest.param("step", 3, None, id="before the first checkpoint"),
        pytest.param("file", 2, None, id="while the first checkpoint is written"),
        pytest.param("step", 6, 4, id="between checkpoints, while acquiring"),
        pytest.param("place", 2, 4, id="when a checkpoint is complete but not in its place"),
        pytest.param("midway", 2, 8, id="during an evaluation, while consolidating"),
        pytest.param("final", 2, 16, id="during the final evaluation"),
        pytest.param("map", 1, 16, id="before the summary"),
    ],
)
def test_a_killed_run_goes_on_as_if_nothing_had_been(
    undisturbed, tiny, lasting_summary, tmp_path, moment, number, checkpoint
):
    out = tmp_path / "run"
    assert exit_code(stop_at(CHANGES, out, moment, number, signal.SIGKILL)) == -signal.SIGKILL
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


def test_a_run_killed_twice_goes_on_too(undisturbed, tiny, lasting_summary, tmp_path):
    out = tmp_path / "run"
    for moment, number in (("step", 6), ("step", 6)):
        exit_code(stop_at(CHANGES, out, moment, number, signal.SIGKILL))
    assert json.loads((out / "checkpoint" / "state.json").read_text())["step"] == 8
    train(tiny(**CHANGES), out=out, resume=True, show_progress=False)
    assert lasting_summary(out) == lasting_summary(undisturbed)


def test_the_seconds_of_all_processes_are_counted(tiny, tmp_path):
    out = tmp_path / "run"
    exit_code(stop_at(CHANGES, out, "step", 6, signal.SIGKILL))
    state = out / "checkpoint" / "state.json"
    before = load_sealed(state)["seconds"]
    write_sealed(state, {**load_sealed(state), "seconds": before + 1000})
    assert (
        train(tiny(**CHANGES), out=out, resume=True, show_progress=False).summary["seconds"] > before + 1000
    )


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_request_to_end_completes_the_step_saves_and_says_how_to_go_on(
    undisturbed, tiny, lasting_summary, tmp_path, how
):
    out = tmp_path / "run"
    process = stop_at(CHANGES, out, "step", 11, how)
    assert exit_code(process) == 130
    assert "interrupted after 11 steps; nothing is lost: continue with --resume" in said_by(out).read_text()
    assert json.loads((out / "checkpoint" / "state.json").read_text())["step"] == 11
    train(tiny(**CHANGES), out=out, resume=True, show_progress=False)
    assert lasting_summary(out) == lasting_summary(undisturbed)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_request_in_the_final_evaluation_stops_at_once(undisturbed, tiny, lasting_summary, tmp_path, how):
    out = tmp_path / "run"
    process = stop_at(CHANGES, out, "final", 1, how)
    assert exit_code(process) == 130
    assert "continue with --resume" in said_by(out).read_text()
    train(tiny(**CHANGES), out=out, resume=True, show_progress=False)
    assert lasting_summary(out) == lasting_summary(undisturbed)
