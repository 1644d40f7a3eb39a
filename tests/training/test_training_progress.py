"""What a run says while it runs."""

import pytest

from torchcram.training.training_progress import TrainingProgress

TRAIN = {"losses": {"answer": 1.25, "next_observation": 0.5}, "any_layer_read_rate": 0.5}
EVALUATION = {
    **{
        "step": 99,
        "any_layer_read_rate": 0.0213,
        "any_layer_floor": 0.0141,
        "read_rate_by_layer": [0.02, 0.001],
    },
    **{"accuracy": {"query": 0.9, "recurring": 0.95, "novel": 0.8}, "dynamics_mse": 0.0312},
}


def test_phases_and_evaluations_are_printed_once(capsys):
    with TrainingProgress(steps=10) as progress:
        for step, phase in enumerate(["acquire", "acquire", "consolidate"]):
            progress.trained(step, TRAIN, phase)
        progress.evaluated(EVALUATION)
        progress.say("final evaluation")
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("acquire") == 1
    assert "consolidate from step 2" in said.err
    assert (
        "reads 2.13% (floor 1.41%), by layer 2.0% 0.1% | recurring 95.0% novel 80.0% | MSE 0.0312" in said.err
    )
    assert "final evaluation" in said.err


def test_a_task_without_scores_or_floors_is_shown_all_the_same(capsys):
    with TrainingProgress(steps=10) as progress:
        progress.evaluated(
            {"step": 1, "any_layer_read_rate": 1.0, "read_rate_by_layer": [1.0], "accuracy": {}}
        )
    assert "reads 100.00%, by layer 100.0%" in capsys.readouterr().err


def test_silence_is_silence(capsys):
    with TrainingProgress(steps=10, show=False) as progress:
        progress.trained(1, TRAIN, "acquire")
        progress.evaluated(EVALUATION)
    assert capsys.readouterr() == ("", "")


def test_a_terminal_shows_phase_steps_and_losses(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    with TrainingProgress(steps=10, done=4) as progress:
        progress.trained(5, TRAIN, "acquire")
        (task,) = progress.progress.tasks
        assert (task.completed, task.total, task.description) == (5, 10, "acquire")
        assert task.fields["note"] == "reads 50.0% | answer 1.250 next_observation 0.500"
        progress.trained(6, None, "acquire")
        assert progress.progress.tasks[0].completed == 6


def test_an_error_passes_through():
    with pytest.raises(ZeroDivisionError), TrainingProgress(steps=1, show=False):
        raise ZeroDivisionError
