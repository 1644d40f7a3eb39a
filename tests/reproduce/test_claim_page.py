"""The folder of a claim is written from its runs, says what is missing, and keeps what people wrote around
the marks."""

import json
import re
from dataclasses import replace
from functools import partial

import pytest

from fake_runs import SOURCE, SUMMARY, TOY, fake_run
from torchcram.report.consolidation_curve import fit_curve
from torchcram.report.page import between
from torchcram.reproduce import run_figures
from torchcram.reproduce.claim import Pair, Picture
from torchcram.reproduce.claim_figures import claim_figure
from torchcram.reproduce.claim_page import write_claim
from torchcram.reproduce.claims import CLAIMS
from torchcram.reproduce.plan import plan
from torchcram.reproduce.readme import MARKS
from torchcram.reproduce.results import load_rows, rows_of
from torchcram.reproduce.status import grouped


@pytest.fixture
def runs(tmp_path):
    return plan([TOY], scale="mini", seeds=3, runs=tmp_path / "runs", source=SOURCE)


def write(runs, folder, claim=TOY):
    return write_claim(claim, runs, experiments=folder, source=SOURCE)


def test_a_finished_claim_has_table_status_figure_and_page(tmp_path, runs):
    for run in runs:
        fake_run(run.job.folder, run.job)
    assert write(runs, tmp_path) == "reproduced"
    folder = tmp_path / "99_toy"
    assert sorted(file.name for file in folder.iterdir()) == [
        "README.md",
        "figure.png",
        "results.csv",
        "status.json",
    ]
    assert len((folder / "results.csv").read_text().splitlines()) == 1 + 9
    status = json.loads((folder / "status.json").read_text())
    assert (status["claim"], status["status"], status["scales"]["mini"]["seeds"]) == (
        "99_toy",
        "reproduced",
        3,
    )
    page = (folder / "README.md").read_text()
    for words in (
        "# 99_toy\n",
        "\n    torchcram reproduce 99_toy --scale mini --seeds 3\n",
        "**Status: Reproduced.**",
        "| CRAM, cheap | 3 | 99.50% | 1.50% | - |",
        "| 3 of 3 seeds |",
    ):
        assert words in page
    assert "Holes" not in page


def test_a_page_tells_on_what_its_runs_were_trained(tmp_path, runs):
    for index, run in enumerate(runs):
        fake_run(run.job.folder, run.job)
        environment = {
            "source": SOURCE,
            "device": "cpu" if index else "NVIDIA H100",
            "packages": {"torch": "2.13.0+cpu" if index else "2.11.0"},
        }
        (run.job.folder / "environment.json").write_text(json.dumps(environment))
    write(runs, tmp_path)
    page = (tmp_path / TOY.folder / "README.md").read_text()
    assert (
        f"Trained on cpu, PyTorch 2.13.0 ({len(runs) - 1} runs); NVIDIA H100, PyTorch 2.11.0 (1 run)." in page
    )
    # The rows of the file tell it, too, where the runs' folders are gone.
    assert {row["machine"] for row in load_rows(tmp_path / TOY.folder / "results.csv")} == {
        "cpu, PyTorch 2.13.0",
        "NVIDIA H100, PyTorch 2.11.0",
    }


def test_a_failed_run_leaves_a_hole_and_the_command_to_repeat_it(tmp_path, runs):
    for run in runs[:-1]:
        fake_run(run.job.folder, run.job)
    log = runs[-1].job.log
    log.parent.mkdir()
    log.write_text("error: training stopped at step 7: a | b\n")
    assert write(runs, tmp_path) == "partly"
    page = (tmp_path / "99_toy/README.md").read_text()
    command = "torchcram reproduce 99_toy --scale mini --seeds 3 --only dense"
    assert f"| mini | dense | 2 | failed: training stopped at step 7: a / b | `{command}` |" in page
    assert "| dense | 2 |" in page


def test_nothing_measured_is_said_and_no_figure_drawn(tmp_path, runs):
    assert write(runs, tmp_path) == "not"
    folder = tmp_path / "99_toy"
    assert not (folder / "figure.png").exists()
    assert (folder / "README.md").read_text().count("not run yet") == 9
    assert json.loads((folder / "status.json").read_text())["scales"] == {}


def test_stale_results_are_marked(tmp_path, runs):
    for run in plan([TOY], scale="mini", seeds=3, runs=tmp_path / "runs", source="otherothero1"):
        fake_run(run.job.folder, run.job)
    assert write(runs, tmp_path) == "stale"
    page = (tmp_path / "99_toy/README.md").read_text()
    assert "| CRAM | 3 (stale: other code) | 99.50% |" in page
    assert len(re.findall("stale: made with other code .* --refresh` \\|", page)) == 9


def test_a_consolidation_curve_shows_runs_their_pool_and_the_papers_slope(tmp_path, monkeypatch):
    monkeypatch.setattr(run_figures, "fit_curve", partial(fit_curve, resamples=4))
    claim = CLAIMS["05_consolidation_curve"]
    runs = plan([claim], scale="mini", seeds=2, runs=tmp_path, source=SOURCE)
    for run in runs:
        fake_run(run.job.folder, run.job)
    (axes,) = claim_figure(claim, grouped(rows_of(runs), scale="mini", source=SOURCE)).axes
    assert len(axes.get_lines()) == len(claim.methods) * (2 + 1) + 1
    pooled = next(line for line in axes.get_lines() if line.get_label() == "patterns by Zipf's law")
    assert pooled.get_ydata().tolist() == pytest.approx(
        [reads / 120 for reads in (90, 60, 40, 30, 20, 10, 8, 5)]
    )


def test_what_people_wrote_and_other_scales_stay(tmp_path, runs):
    demo = plan([TOY], scale="demo", seeds=1, runs=tmp_path / "runs", source=SOURCE)
    for run in (*runs, *demo):
        fake_run(run.job.folder, run.job)
    write(demo, tmp_path)
    readme = tmp_path / "99_toy/README.md"
    above = "# 99_toy: Does it work?\n\n**How to read it**: Look\ntwice.\n\n**What came out**: little.\n\n"
    marked = readme.read_text()[readme.read_text().index(MARKS[0]) :]
    readme.write_text(f"{above}{marked}\nAfterword.\n")
    write(runs, tmp_path)
    page = readme.read_text()
    assert page.startswith(above)
    assert page.endswith("\nAfterword.\n")
    assert [line for line in page.splitlines() if line.startswith("## Scale")] == [
        "## Scale mini: reproduced",
        "## Scale demo: partly",
    ]
    before = {file.name: file.read_bytes() for file in (tmp_path / "99_toy").iterdir()}
    write(runs, tmp_path)
    assert {file.name: file.read_bytes() for file in (tmp_path / "99_toy").iterdir()} == before


def test_a_page_without_marks_is_not_overwritten(tmp_path, runs):
    (tmp_path / "99_toy").mkdir()
    (tmp_path / "99_toy/README.md").write_text("mine\n")
    with pytest.raises(ValueError, match="needs the marks"):
        write(runs, tmp_path)
    assert [file.name for file in (tmp_path / "99_toy").iterdir()] == ["README.md"]
    assert between(f"a{MARKS[0]}b{MARKS[1]}c", marks=MARKS, content="x") == f"a{MARKS[0]}\nx\n{MARKS[1]}c"


def test_a_goal_against_a_method_without_runs_is_not_measured(tmp_path, runs):
    for run in runs:
        if run.method.name != "dense":
            fake_run(run.job.folder, run.job)
    write(runs, tmp_path)
    page = (tmp_path / "99_toy/README.md").read_text()
    assert "| cram | any layer read rate | <= 0.2 x the mean of dense | not measured |" in page
    assert "Runs that are lacking: 3." in page


def test_results_of_another_scale_go_stale_with_the_code_too(tmp_path):
    """A verdict is made of rows, each time anew: it must not outlive the code that earned it."""
    demo = plan([TOY], scale="demo", seeds=5, runs=tmp_path / "runs", source=SOURCE)
    for run in demo:
        fake_run(run.job.folder, run.job)
    assert write(demo, tmp_path) == "reproduced"
    later = plan([TOY], scale="mini", seeds=3, runs=tmp_path / "runs", source="otherothero1")
    assert write_claim(TOY, later, experiments=tmp_path, source="otherothero1") == "stale"
    assert "**Status: Made with earlier code.**" in (tmp_path / "99_toy/README.md").read_text()


def test_fewer_seeds_than_the_scale_needs_reproduce_nothing(tmp_path):
    few = plan([TOY], scale="mini", seeds=2, runs=tmp_path / "runs", source=SOURCE)
    for run in few:
        fake_run(run.job.folder, run.job)
    assert write(few, tmp_path) == "partly"
    assert json.loads((tmp_path / "99_toy/status.json").read_text())["scales"]["mini"]["holes"] == 3


def test_a_scale_that_trains_some_methods_alone_is_judged_by_them(tmp_path):
    claim = replace(TOY, headline={"demo": ("cram",)}, pairs=(Pair(ours="cram", theirs=("dense",)),))
    demo = plan([claim], scale="demo", seeds=5, runs=tmp_path / "runs", source=SOURCE)
    assert {run.method.name for run in demo} == {"cram"}
    for run in demo:
        fake_run(run.job.folder, run.job)
    assert write(demo, tmp_path, claim) == "reproduced"
    record = json.loads((tmp_path / "99_toy/status.json").read_text())["scales"]["demo"]
    assert (record["holes"], {goal["method"] for goal in record["goals"]}) == (0, {"cram"})
    page = (tmp_path / "99_toy/README.md").read_text()
    assert "| dense |" not in page
    assert "](figure_demo.png)" in page
    more = plan([claim], scale="demo", seeds=5, runs=tmp_path / "runs", source=SOURCE, also=("dense",))
    assert {run.method.name for run in more} == {"cram", "dense"}
    fake_run(more[1].job.folder, more[1].job)
    write(more, tmp_path, claim)
    assert "| dense | 1 |" in (tmp_path / "99_toy/README.md").read_text()


def test_pairs_are_compared_seed_by_seed(tmp_path, runs):
    claim = replace(
        TOY,
        pairs=(
            Pair(
                ours="cram", theirs=("dense", "cheap"), figures=("retrieval_accuracy", "any_layer_read_rate")
            ),
        ),
    )
    for run in runs[:-1]:
        fake_run(
            run.job.folder,
            run.job,
            retrieval_accuracy=0.9 + 0.01 * run.seed if run.method.name == "dense" else 0.99,
        )
    write([replace(run, claim=claim) for run in runs], tmp_path, claim)
    page = (tmp_path / "99_toy/README.md").read_text()
    assert "| CRAM | dense | +8.50 (+8.00 to +9.00) | -98.50 (-98.50 to -98.50) | 2 |" in page
    assert "| CRAM | CRAM, cheap | +0.00 (+0.00 to +0.00) | +0.00 (+0.00 to +0.00) | 3 |" in page


@pytest.mark.parametrize(
    ("picture", "labels"),
    [
        (Picture(kind="training", title="T", y="any_layer_read_rate"), {"CRAM", "CRAM, cheap", "dense"}),
        (Picture(kind="training", title="T", y="any_layer_read_rate", methods=("cram",)), {"CRAM"}),
        (
            Picture(kind="sweep", title="T", x="share", y="any_layer_read_rate"),
            {"any layer read rate", "any layer floor"},
        ),
        (Picture(kind="frontier", title="T"), {"CRAM", "dense", "any layer floor"}),
        (Picture(kind="bound", title="T"), {"CRAM", "dense", "bound on static routing"}),
    ],
)
def test_each_kind_of_picture_shows_its_methods(tmp_path, runs, picture, labels):
    for run in runs:
        fake_run(run.job.folder, run.job)
    claim = replace(TOY, picture=picture)
    figure = claim_figure(
        claim, grouped(rows_of([replace(run, claim=claim) for run in runs]), scale="mini", source=SOURCE)
    )
    (axes,) = figure.axes
    assert {text.get_text() for text in axes.get_legend().get_texts()} == labels
    if picture.kind == "frontier":
        runs_alone = [
            line.get_xydata().tolist() for line in axes.get_lines() if line.get_label().startswith("_")
        ]
        assert runs_alone == [[[0.015, 0.995]] * 3, [[0.015, 0.995]] * 3, [[1.0, 0.995]] * 3]
        lines = {
            line.get_label(): line.get_xydata().tolist()
            for line in axes.get_lines()
            if not line.get_label().startswith("_")
        }
        floor = [x for x, _ in lines.pop("any layer floor")]
        assert lines == {"CRAM": [[0.015, 0.995], [0.015, 0.995]], "dense": [[1.0, 0.995]]}
        assert floor == pytest.approx([SUMMARY["any_layer_floor"]] * 2)
    if picture.kind == "bound":
        (bound,) = [
            line.get_xydata() for line in axes.get_lines() if line.get_label() == "bound on static routing"
        ]
        # From a guess among 16 up to 6 queries in 128 steps, where every query has its read.
        assert bound[0].tolist() == [0.0, 1 / 16]
        assert bound[bound[:, 1] < 1 - 1e-9][-1, 0] < 6 / 128 <= bound[-1, 0]
        assert (bound[:, 1].max(), bound[-1, 1]) == (1.0, 1.0)


@pytest.mark.parametrize("kind", ["training", "frontier", "bound"])
def test_a_method_keeps_its_colour_where_others_are_missing(tmp_path, runs, kind):
    for run in runs:
        fake_run(run.job.folder, run.job)
    claim = replace(
        TOY,
        picture=Picture(
            kind=kind, title="T", y="any_layer_read_rate" if kind == "training" else "retrieval_accuracy"
        ),
    )
    groups = grouped(rows_of([replace(run, claim=claim) for run in runs]), scale="mini", source=SOURCE)

    def colours(names):
        (axes,) = claim_figure(claim, {name: groups[name] for name in names}).axes
        return {
            line.get_label(): line.get_color()
            for line in axes.get_lines()
            if not line.get_label().startswith("_")
        }

    every, alone = colours(groups), colours(["dense"])
    assert alone["dense"] == every["dense"] != every["CRAM"]
