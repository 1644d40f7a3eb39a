import base64
import json
import re
import shutil
from collections.abc import Callable
from html import unescape
from pathlib import Path

import pytest

from planted_run import write_planted_run
from torchcram.report.html import SECTIONS, write_report
from torchcram.report.records import load_record
from torchcram.report.story import story


def headings(page: str) -> list[str]:
    return re.findall(r'<section id="(\w+)">', page)


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run with its report, which tests only look at."""
    folder = write_planted_run(tmp_path_factory.mktemp("reported") / "run")
    assert write_report(folder) == folder / "report.html"
    return folder


def test_the_report_is_one_file_with_the_figures_beside_it(reported: Path):
    page = (reported / "report.html").read_text()
    assert headings(page) == [section.name for section in SECTIONS] + ["summary", "terms", "details"]
    images = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    beside = {file.read_bytes() for file in (reported / "figures").iterdir()}
    assert {base64.b64decode(image) for image in images} == beside
    assert len(beside) == len(SECTIONS) == 7
    assert all(image.startswith(b"\x89PNG") for image in beside)


def test_the_page_needs_nothing_else(reported: Path):
    page = (reported / "report.html").read_text()
    assert set(re.findall(r'(?:src|href)="([^"]{0,22})', page)) == {"data:image/png;base64,"}
    assert "<script" not in page
    assert "url(" not in page


def test_the_page_tells_the_story_the_figures_and_their_origin(reported: Path):
    page = unescape((reported / "report.html").read_text())
    for text in [
        *story(load_record(reported)),
        "floor 1.41%, 1.08x the floor",
        '"d_model": 64',
        '"threads": 2',
        "seed 3",
    ]:
        assert text in page
    assert "This run is unfinished" not in page


@pytest.mark.slow
def test_the_same_run_gives_the_same_report(reported: Path, tmp_path: Path):
    again = tmp_path / "run"
    shutil.copytree(reported, again)
    first = (again / "report.html").read_bytes()
    (again / "report.html").unlink()
    assert write_report(again).read_bytes() == first


def test_an_unfinished_run_is_reported_as_far_as_it_got(run_dir: Path, rewrite):
    for name in ("summary.json", "calibration.json", "route_map.json", "environment.json"):
        (run_dir / name).unlink()
    rewrite(run_dir, lambda line: line if line["step"] <= 700 else None)
    page = write_report(run_dir).read_text()
    assert "This run is unfinished" in page
    assert headings(page) == ["read_rate", "accuracy", "routes_by_slice", "quality", "terms", "details"]


def test_a_run_on_ones_own_data_has_only_what_it_recorded(run_dir: Path, rewrite):
    kept = ("kind", "step", "task_loss", "any_layer_read_rate")
    rewrite(
        run_dir,
        lambda line: None if line["kind"] == "exposures" else {key: line[key] for key in kept if key in line},
    )
    for name in ("calibration.json", "route_map.json"):
        (run_dir / name).unlink()
    (run_dir / "summary.json").write_text(
        json.dumps({"any_layer_read_rate": 0.1, "activity_accuracy": 0.8, "seed": 0})
    )
    page = write_report(run_dir).read_text()
    assert headings(page) == ["read_rate", "summary", "terms", "details"]
    assert "activity accuracy" in page


def test_a_baseline_without_routes_is_reported(run_dir: Path, rewrite):
    routed = {
        "phase",
        "any_layer_read_rate",
        "read_rate_by_layer",
        "attention_share",
        "quality",
        "familiarity",
        "routes_by_slice",
    }
    rewrite(
        run_dir,
        lambda line: (
            None
            if line["kind"] == "exposures"
            else {key: value for key, value in line.items() if key not in routed}
        ),
    )
    for name in ("calibration.json", "route_map.json"):
        (run_dir / name).unlink()
    (run_dir / "summary.json").write_text(json.dumps({"retrieval_accuracy": 0.99, "dynamics_mse": 0.03}))
    assert headings(write_report(run_dir).read_text()) == ["accuracy", "summary", "terms", "details"]


def test_a_run_of_a_single_record_is_reported(run_dir: Path, rewrite):
    (run_dir / "summary.json").unlink()
    rewrite(run_dir, lambda line: line if line["step"] == 0 else None)
    page = write_report(run_dir).read_text()
    assert "records end at step 0 of 2,400" in page
    assert "read_rate" in headings(page)


@pytest.mark.slow
def test_a_figure_of_an_earlier_report_does_not_outlive_its_data(reported: Path, tmp_path: Path, rewrite):
    run_dir = tmp_path / "run"
    shutil.copytree(reported, run_dir)
    assert (run_dir / "figures" / "calibration.png").exists()
    (run_dir / "calibration.json").unlink()
    rewrite(run_dir, lambda line: line if line["step"] == 0 else None)
    write_report(run_dir)
    assert not (run_dir / "figures" / "calibration.png").exists()


def test_names_are_text_and_not_markup(run_dir: Path, rewrite):
    for name in ("summary.json", "calibration.json", "route_map.json"):
        (run_dir / name).unlink()
    rewrite(run_dir, lambda line: line if line["step"] == 0 else None)
    (run_dir / "config.json").write_text(json.dumps({"name": "<b>x</b> & y"}))
    page = write_report(run_dir).read_text()
    assert "<h1>&lt;b&gt;x&lt;/b&gt; &amp; y</h1>" in page


def test_a_directory_that_is_no_run_is_left_alone(tmp_path: Path):
    with pytest.raises(ValueError, match=r"it has no config\.json"):
        write_report(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.name)
def test_captions_help_a_newcomer(section, run_dir: Path, write_run: Callable[..., Path]):
    assert section.heading.endswith("?")
    assert len(section.caption.split()) > 25
