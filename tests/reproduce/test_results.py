"""A run is a row; rows survive the file, and those of other scales are kept."""

from fake_runs import SOURCE, TOY, fake_run, trained
from torchcram.reproduce.plan import plan
from torchcram.reproduce.results import csv_text, load_rows, merged, rows_of


def test_there_is_one_row_a_run_with_the_fields_of_its_summary(tmp_path):
    rows = rows_of(trained(tmp_path))
    assert [(row["method"], row["seed"], row["scale"]) for row in rows] == [
        (name, seed, "mini") for seed in (0, 1) for name in ("cram", "cheap", "dense")
    ]
    assert rows[0]["retrieval_accuracy"] == 0.995
    assert rows[0]["source"] == SOURCE
    assert "run_dir" not in rows[0]


def test_rows_survive_the_file(tmp_path):
    rows = merged([], rows_of(trained(tmp_path)), claim=TOY, source=SOURCE)
    file = tmp_path / "results.csv"
    file.write_text(csv_text(rows))
    assert file.read_text().startswith("scale,method,seed,source,")
    assert load_rows(file) == [dict(row) for row in rows]
    assert load_rows(tmp_path / "none.csv") == []


def test_rows_of_other_scales_and_seeds_are_kept_and_those_of_other_configurations_dropped(tmp_path):
    demo = plan([TOY], scale="demo", seeds=1, runs=tmp_path, source=SOURCE)
    for run in demo:
        fake_run(run.job.folder, run.job)
    old = [*rows_of(trained(tmp_path / "a", seeds=2)), *rows_of(demo)]
    gone = [
        {**old[0], "method": "gone"},
        {**old[1], "config_hash": "000000000000"},
        {**old[2], "scale": "huge"},
    ]
    new = rows_of(trained(tmp_path / "b", seeds=1, retrieval_accuracy=0.5))
    both = merged([*gone, *old], new, claim=TOY, source=SOURCE)
    assert [(row["scale"], row["method"], row["seed"]) for row in both] == [
        *(("demo", name, 0) for name in ("cram", "cheap", "dense")),
        *(("mini", name, seed) for name in ("cram", "cheap", "dense") for seed in (0, 1)),
    ]
    assert [row["retrieval_accuracy"] for row in both if row["scale"] == "mini" and row["seed"] == 0] == [
        0.5
    ] * 3
