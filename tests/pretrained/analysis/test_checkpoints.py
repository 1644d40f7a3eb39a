"""Checkpoints are analysed in the order of their steps, once."""

import json

import pytest

from tiny_models import CharTokenizer, documents, tiny_model
from torchcram.pretrained.analysis import checkpoints
from torchcram.pretrained.analysis.checkpoints import analyze_series, find_checkpoints, step_of
from torchcram.pretrained.analysis.checkpoints_page import write_series_page


def test_checkpoints_are_in_the_order_of_their_steps(tmp_path):
    for name in ("checkpoint-100", "checkpoint-20", "checkpoint-3", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
    (tmp_path / "checkpoint-7").mkdir()
    assert [path.name for path in find_checkpoints(tmp_path, "checkpoint-*")] == [
        "checkpoint-3",
        "checkpoint-20",
        "checkpoint-100",
    ]
    assert step_of(tmp_path / "other") == -1
    with pytest.raises(
        ValueError, match=r"no folder in .* matches 'step\*' and holds a model \(config\.json\)"
    ):
        find_checkpoints(tmp_path, "step*")


@pytest.mark.slow
def test_a_series_is_analysed_and_reported(tmp_path, small, monkeypatch):
    for step in (0, 10):
        tiny_model("gpt2").save_pretrained(tmp_path / "training" / f"checkpoint-{step}")
    monkeypatch.setattr(checkpoints, "load_model", lambda name, dtype: (tiny_model("gpt2"), CharTokenizer()))
    short = small.updated("replace", [1]).updated("skip_rates", [0.5]).updated("mlp_width", 0)
    records = analyze_series(
        tmp_path / "training", "checkpoint-*", documents(), settings=short, out=tmp_path / "out"
    )
    assert [record["step"] for record in records] == [0, 10]
    assert json.loads((tmp_path / "out" / "series.json").read_text()) == records
    page = write_series_page(tmp_path / "out").read_text()
    assert "From step 0 to step 10 the share of operations" in page
    assert "data:image/png;base64," in page
    assert (tmp_path / "out" / "series.png").stat().st_size > 10_000


def test_a_folder_without_a_series_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"holds no series of analyses: it has no series\.json"):
        write_series_page(tmp_path)
