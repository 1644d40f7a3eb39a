import json
from pathlib import Path

from torchcram.report.records import load_record
from torchcram.report.story import story, tiles, unfinished_message


def test_the_story_tells_what_happened(run_dir: Path):
    told = story(load_record(run_dir))
    assert told[0].startswith(
        "The model first read its key-value memory at 100% of the steps, and in the end at 1.52%, "
        "65.8 times less often."
    )
    assert told[0].endswith("would still have to read at 1.41%: the model reads 1.08 times as often.")
    assert told[1] == (
        "It answers 99.85% of the queries correctly (99.99% of the recurring ones, 99.51% of the novel ones)."
    )
    assert told[2].startswith(
        "Its reads fell most sharply around step 900, in the phase 'consolidate': from 100% to "
    )
    assert "(20.0x)" in told[3]
    assert "(3.29x)" in told[3]
    assert told[4].startswith("In expectation, at most 1% of the answers differ from those with a read for")
    assert "41.2% of the attention" in told[5]
    assert told[6] == "The run took 7 min 17 s for a model of 148,122 parameters, 2,400 steps."


def test_nothing_is_told_about_figures_that_are_absent(run_dir: Path, rewrite):
    (run_dir / "summary.json").write_text("{}")
    (run_dir / "calibration.json").unlink()
    rewrite(run_dir, lambda line: {"kind": line["kind"], "step": line["step"], "task_loss": 1.0})
    record = load_record(run_dir)
    assert (story(record), tiles(record), unfinished_message(record)) == ([], [], "")


def test_reads_that_did_not_fall_are_not_praised(run_dir: Path, rewrite):
    (run_dir / "summary.json").write_text('{"any_layer_read_rate": 1.0}')
    rewrite(
        run_dir, lambda line: {**line, "any_layer_read_rate": 1.0} if "any_layer_read_rate" in line else line
    )
    told = " ".join(story(load_record(run_dir)))
    assert "reads did not fall" in told
    assert "sharply" not in told


def test_a_rate_of_zero_is_no_infinite_praise(run_dir: Path, summary: dict):
    (run_dir / "summary.json").write_text(json.dumps({**summary, "any_layer_read_rate": 0.0}))
    assert "and in the end at 0%. An oracle" in story(load_record(run_dir))[0]


def test_tiles_hold_the_key_figures(run_dir: Path):
    assert [(figure, note) for figure, _, note in tiles(load_record(run_dir))] == [
        ("1.52%", "floor 1.41%"),
        ("0.86%", "floor 0.8%"),
        ("99.85%", ""),
        ("65.8x", ""),
    ]


def test_an_unfinished_run_says_so_and_how_far_it_came(run_dir: Path, rewrite):
    assert unfinished_message(load_record(run_dir)) == ""
    (run_dir / "summary.json").unlink()
    rewrite(run_dir, lambda line: line if line["step"] <= 1200 else None)
    with (run_dir / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "tr')
    message = unfinished_message(load_record(run_dir))
    assert "unfinished" in message
    assert "step 1,200 of 2,400 planned steps" in message
    assert "cut off" in message


def test_a_run_without_calibration_says_nothing_of_it(run_dir: Path):
    assert "certify" in " ".join(story(load_record(run_dir)))
    (run_dir / "calibration.json").unlink()
    assert "certify" not in " ".join(story(load_record(run_dir)))
