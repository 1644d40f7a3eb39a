import json
from pathlib import Path

import pytest

from torchcram.report.records import load_record, series


def test_every_file_is_read(run_dir: Path):
    record = load_record(run_dir)
    assert (len(record.train), len(record.evaluations), record.last_step, record.torn) == (
        241,
        12,
        2400,
        False,
    )
    assert record.config["name"] == "demo"
    assert record.environment["device"] == "cpu"
    assert record.summary is not None
    assert record.calibration is not None
    assert record.route_map is not None
    assert record.exposures is not None


def test_phases_are_contiguous_and_end_with_the_run(run_dir: Path):
    phases = [(phase.name, phase.start, phase.stop) for phase in load_record(run_dir).phases]
    assert phases == [("acquire", 0, 750), ("consolidate", 750, 1600), ("mature", 1600, 2400)]


def test_a_phase_that_comes_back_is_a_stretch_of_its_own(run_dir: Path, rewrite):
    rewrite(
        run_dir,
        lambda line: (
            {**line, "phase": "consolidate"} if line["step"] >= 2000 and line["kind"] == "train" else line
        ),
    )
    assert [(phase.name, phase.start) for phase in load_record(run_dir).phases][-2:] == [
        ("mature", 1600),
        ("consolidate", 2000),
    ]


def test_a_series_leaves_out_what_was_not_observed(run_dir: Path):
    steps, values = series(load_record(run_dir).train, "quality", "novel")
    assert steps.max() == 890
    assert set(values) == {0.2}
    assert series(load_record(run_dir).train, "read_rate_by_layer", 1)[1][-1] == 0.0
    assert series(load_record(run_dir).train, "read_rate_by_layer", 2)[0].size == 0
    assert series(load_record(run_dir).train, "no", "such", "field")[0].size == 0


def test_final_figures_come_from_the_summary_and_else_from_the_last_evaluation(run_dir: Path):
    assert load_record(run_dir).final("retrieval_accuracy", "accuracy", "query") == 0.9985
    (run_dir / "summary.json").unlink()
    assert load_record(run_dir).final("retrieval_accuracy", "accuracy", "query") == pytest.approx(
        0.7 * 0.9999 + 0.3 * 0.995
    )
    assert load_record(run_dir).final("seconds") is None


def test_a_cut_off_last_line_is_left_out(run_dir: Path):
    with (run_dir / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "train", "step": 2410, "any_la')
    record = load_record(run_dir)
    assert (record.torn, record.last_step) == (True, 2400)


def test_a_damaged_line_in_the_middle_is_an_error_that_names_it(run_dir: Path):
    lines = (run_dir / "metrics.jsonl").read_text().splitlines()
    lines[4] = lines[4][:30]
    (run_dir / "metrics.jsonl").write_text("\n".join(lines))
    with pytest.raises(ValueError, match=r"metrics\.jsonl is damaged in line 5"):
        load_record(run_dir)


def test_of_a_step_repeated_after_a_resume_the_last_one_counts(run_dir: Path):
    with (run_dir / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"kind": "eval", "step": 1000, "accuracy": {"query": 0.5}}) + "\n")
    steps, values = series(load_record(run_dir).evaluations, "accuracy", "query")
    assert list(steps) == list(range(200, 2401, 200))
    assert values[4] == 0.5


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("config.json", r"is no run: it has no config\.json"),
        ("metrics.jsonl", r"has recorded nothing yet: metrics\.jsonl is missing"),
    ],
)
def test_a_directory_that_is_no_run_is_told_what_it_lacks(run_dir: Path, missing: str, message: str):
    (run_dir / missing).unlink()
    with pytest.raises(ValueError, match=message):
        load_record(run_dir)


def test_a_missing_directory_is_an_error(tmp_path: Path):
    with pytest.raises(ValueError, match=r"there is no run .*nowhere"):
        load_record(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("content", "message"), [('{"half": ', "is damaged"), ("[1, 2]", "holds a list, not an object")]
)
def test_a_damaged_file_is_named(run_dir: Path, content: str, message: str):
    (run_dir / "summary.json").write_text(content)
    with pytest.raises(ValueError, match=rf"summary\.json.*{message}"):
        load_record(run_dir)
