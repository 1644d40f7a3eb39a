"""``train(..., trackers=...)``: the curves are those of the metrics, also after an interruption."""

import pytest

from torchcram.runs.run_dir import RunDir
from torchcram.strict import MissingExtraError
from torchcram.training.loop import train
from torchcram.training.trainer import Trainer


def curves(folder) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard shows of a run: step and value of each point of each curve."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    shown = EventAccumulator(str(folder / "trackers" / "tiny"))
    shown.Reload()
    return {
        name: [(event.step, event.value) for event in shown.Scalars(name)] for name in shown.Tags()["scalars"]
    }


@pytest.mark.slow
def test_an_interrupted_run_has_the_curves_of_its_metrics_in_tensorboard(
    tiny, tmp_path, monkeypatch, lasting_summary
):
    step, out = Trainer.train_step, tmp_path / "run"

    def stopping(self):
        if self.step == 7:
            raise KeyboardInterrupt
        return step(self)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train_step", stopping)
        with pytest.raises(KeyboardInterrupt):
            train(tiny(), out=out, trackers=["tensorboard"], show_progress=False)
    run = train(tiny(), out=out, trackers=["tensorboard"], resume=True, show_progress=False)
    told, lines = curves(out), RunDir(out).metrics()
    for kind, field in (("train", "task_loss"), ("train", "any_layer_read_rate"), ("eval", "need_rate")):
        steps, values = zip(*told[f"{kind}/{field}"], strict=True)
        expected = [line for line in lines if line["kind"] == kind]
        assert list(steps) == [line["step"] for line in expected]
        assert values == pytest.approx([line[field] for line in expected])
    assert told["final/retrieval_accuracy"] == [(12, pytest.approx(run.summary["retrieval_accuracy"]))]
    assert [step for step, _ in told["train/losses/answer"]] == list(range(12))
    train(tiny(), out=tmp_path / "untold", show_progress=False)
    assert lasting_summary(out) == lasting_summary(tmp_path / "untold")


def test_unknown_and_missing_trackers_are_told_before_anything_is_written(tiny, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"unknown tracker 'wandbb': did you mean 'wandb'\?"):
        train(tiny(), out=tmp_path / "run", trackers=["wandbb"], show_progress=False)
    monkeypatch.setattr("torchcram.runs.trackers.get_available_trackers", list)
    with pytest.raises(MissingExtraError, match="pip install mlflow"):
        train(tiny(), out=tmp_path / "run", trackers=["mlflow"], show_progress=False)
    assert list(tmp_path.iterdir()) == []
