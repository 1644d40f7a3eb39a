"""The results page says what the files say: status, figures, holes, and what has not been measured."""

import json
from pathlib import Path

import pytest

from torchcram.reproduce.claims import CLAIMS
from torchcram.reproduce.readme import words_of
from torchcram.reproduce.results_page import OVERVIEW, results_page, write_overview

SPREAD = {"mean": 0.015, "least": 0.014, "greatest": 0.016, "runs": 3}
ALL = {"mean": 1.0, "least": 1.0, "greatest": 1.0, "runs": 3}


def write(folder, name, *, status="partly", holes=0, **figures):
    place = folder / CLAIMS[name].folder
    place.mkdir(parents=True)
    scale = {
        "status": status,
        "seeds": 3,
        "holes": holes,
        "source": "0123456789ab",
        "figures": figures,
        "goals": [],
    }
    (place / "status.json").write_text(
        json.dumps({"claim": name, "status": status, "scales": {"mini": scale}})
    )
    return place


def test_without_any_result_every_claim_is_listed_as_not_measured(tmp_path):
    page = results_page(tmp_path)
    judged = [name for name, claim in CLAIMS.items() if claim.goals]
    assert page.count("| not measured yet |") == len(judged) == len(CLAIMS) - 1
    assert all(f"[{name}](#{name})" in page and f"{{ #{name} }}" in page for name in judged)
    assert "![" not in page


def test_a_measured_claim_shows_its_status_and_figures(tmp_path):
    place = write(
        tmp_path, "07_recurrence", recurrence70={"any_layer_read_rate": SPREAD, "retrieval_accuracy": ALL}
    )
    (place / "figure.png").write_bytes(b"")
    page = results_page(tmp_path)
    words = words_of(CLAIMS["07_recurrence"], tmp_path)
    assert f"| [07_recurrence](#07_recurrence) | {words.question} | partly |" in page
    assert f"**The paper**: {words.paper}\n" in page
    assert f"**Status**: partly. {words.reading}\n" in page
    assert "| 70% recur | 1.50% (1.40% to 1.60%) | - | 100.00% | - | - |" in page
    assert "Scale mini, 3 seeds, partly:" in page
    assert "(figures/07_recurrence-figure.png)" in page


def test_the_overview_counts_the_goals_that_every_seed_meets_and_touches_nothing_else(tmp_path):
    place = write(tmp_path / "experiments", "07_recurrence") / "status.json"
    record = json.loads(place.read_text())
    record["scales"]["mini"]["goals"] = [
        {"met": met, "seeds": seeds} for met, seeds in ((3, 3), (2, 3), (0, 0))
    ]
    place.write_text(json.dumps(record))
    readme = tmp_path / "README.md"
    write_overview(readme, tmp_path / "experiments")
    assert not readme.exists()
    readme.write_text("no marks\n")
    write_overview(readme, tmp_path / "experiments")
    assert readme.read_text() == "no marks\n"
    readme.write_text(f"before\n{OVERVIEW[0]}\nold\n{OVERVIEW[1]}\nafter\n")
    write_overview(readme, tmp_path / "experiments")
    lines = readme.read_text().splitlines()
    assert (lines[0], lines[-1], lines.count("old")) == ("before", "after", 0)
    question = words_of(CLAIMS["07_recurrence"], tmp_path).question
    assert (
        f"| [07_recurrence](07_recurrence/README.md) | {question} | mini: partly (1 "
        "of 2 goals, 1 not measured; seeds: 3) |"
    ) in lines
    assert (
        sum(line.endswith("| not measured yet |") for line in lines)
        == len([claim for claim in CLAIMS.values() if claim.goals]) - 1
    )


def test_the_list_of_experiments_says_what_the_files_say(tmp_path):
    root = Path(__file__).parents[2]
    copy = tmp_path / "README.md"
    copy.write_text((root / "experiments/README.md").read_text())
    write_overview(copy, root / "experiments")
    assert copy.read_text() == (root / "experiments/README.md").read_text()
    assert all(mark in copy.read_text() for mark in OVERVIEW)


def test_holes_and_stale_rows_are_said(tmp_path):
    write(
        tmp_path,
        "07_recurrence",
        status="not",
        holes=2,
        recurrence70={"any_layer_read_rate": SPREAD, "stale": True},
    )
    page = results_page(tmp_path)
    assert "Scale mini, 3 seeds, not reproduced; 2 runs are missing:" in page
    assert "| 70% recur (stale: other code) |" in page


@pytest.mark.parametrize("text", ["{", "[]", '{"status": "splendid", "scales": {}}', '{"status": "not"}'])
def test_a_damaged_status_is_an_error_that_names_the_file(tmp_path, text):
    (write(tmp_path, "07_recurrence") / "status.json").write_text(text)
    with pytest.raises(ValueError, match=r"07_recurrence/status\.json is damaged.*: restore it"):
        results_page(tmp_path)
