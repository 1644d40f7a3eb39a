"""Tables say what was measured, pair it split by split, and name what was not run; no goal is met by a
part of the splits."""

import json

import pytest

from torchcram.series.comparison.methods import METHODS
from torchcram.series.comparison.table import (
    Bound,
    Lead,
    goals_table,
    load_results,
    paired,
    paired_table,
    results_table,
    spread,
    tuning_table,
    write_csv,
)

SHARE = Bound(figure="attention_share", number=0.1, above=False, title="share")
QUALITY = Bound(figure="auroc", number=0.85, above=True, title="quality")


def result(method: str, split: int, auroc: float, **more) -> dict:
    return {
        "method": method,
        "split": split,
        "auroc": auroc,
        "attention_share": 0.05,
        "seconds": 100.0,
        **more,
    }


def results(**means: float) -> dict:
    """Five splits of each method, whose scores rise by 0.01 from split to split."""
    return {
        name: {split: result(name, split, mean + 0.01 * (split - 2)) for split in range(5)}
        for name, mean in means.items()
    }


def rows(table: str) -> dict[str, list[str]]:
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]
    return {first: rest for first, *rest in cells}


def test_results_are_read_in_the_order_of_the_methods(tmp_path):
    for name in ("ssm", "cram"):
        (tmp_path / f"{name}-split1.json").write_text(json.dumps(result(name, 1, 0.8)))
    (tmp_path / "other-split1.json").write_text("{}")
    found = load_results(tmp_path)
    assert list(found) == ["cram", "ssm"]
    assert found["ssm"][1]["auroc"] == 0.8


def test_the_csv_has_the_agreed_columns_and_leaves_empty_what_does_not_apply(tmp_path):
    write_csv(
        {"boosting": {0: result("boosting", 0, 0.86123456, attention_share=None, accuracy=0.9)}},
        tmp_path / "results.csv",
    )
    assert (tmp_path / "results.csv").read_text().splitlines() == [
        "method,split,auroc,auprc,brier,accuracy,macro_f1,attention_share,seconds",
        "boosting,0,0.86123,,,0.9,,,100",
    ]


def test_means_come_with_their_spread_and_what_was_not_run_says_so():
    table = rows(results_table(results(cram=0.86), figures=["auroc"]))
    assert table["CRAM (`cram`)"] == ["0.860 +- 0.016", "0.050 +- 0.000", "100 +- 0", "5"]
    assert all(
        table[f"{method.title} (`{name}`)"] == ["not run yet", "", "", "0"]
        for name, method in METHODS.items()
        if name != "cram"
    )
    assert spread([None]) == ""
    assert spread([0.5]) == "0.500"


def test_differences_are_paired_by_split():
    both = results(cram=0.86, ssm=0.85)
    del both["ssm"][3]
    assert paired(both, ours="cram", theirs="ssm", figure="auroc") == pytest.approx([0.01] * 4)
    table = rows(paired_table(both, figures=["auroc"]))
    assert table["SSM alone"] == ["+0.010 +- 0.000", "4"]
    assert table["GRU-D"] == ["not run yet", "0"]


@pytest.mark.parametrize(("auroc", "met"), [(0.849, "no"), (0.851, "yes")])
def test_a_bound_holds_for_the_mean_over_all_splits(auroc, met):
    assert rows(goals_table(results(cram=auroc), [QUALITY, SHARE])) == {
        "quality": [f"{auroc:.3f} +- 0.016", met],
        "share": ["0.050 +- 0.000", "yes"],
    }


def test_no_goal_is_judged_on_a_part_of_the_splits():
    part = results(cram=0.9, transformer=0.5)
    del part["cram"][4]
    lead = Lead(figure="auroc", peer="transformer", spreads=0.0, title="lead")
    assert [cells[1] for cells in rows(goals_table(part, [QUALITY, SHARE, lead])).values()] == [
        "not run yet"
    ] * 3


@pytest.mark.parametrize(
    ("spreads", "behind", "ahead"), [(-1.0, "yes", "yes"), (0.0, "no", "yes"), (1.0, "no", "no")]
)
def test_a_lead_is_measured_in_paired_spreads(spreads, behind, ahead):
    """Differences of mean -0.01 and 0.01, whose deviation is 0.0158."""
    for mean, met in ((0.84, behind), (0.86, ahead)):
        both = results(cram=mean) | {"ssm": {split: result("ssm", split, 0.85) for split in range(5)}}
        (cells,) = rows(
            goals_table(both, [Lead(figure="auroc", peer="ssm", spreads=spreads, title="lead")])
        ).values()
        assert cells == [f"{mean - 0.85:+.3f} +- 0.016 above SSM alone", met]


def test_the_best_neural_peer_is_found_once_all_have_run():
    peers = {"grud": 0.80, "transformer": 0.83, "ssm": 0.81, "seqboat": 0.82, "mtand": 0.79}
    lead = Lead(figure="auroc", peer=None, spreads=-1.0, title="lead")
    (cells,) = rows(goals_table(results(cram=0.84, boosting=0.9, **peers), [lead])).values()
    assert cells == ["+0.010 +- 0.000 above dense Transformer", "yes"]
    del peers["mtand"]
    (cells,) = rows(goals_table(results(cram=0.84, **peers), [lead])).values()
    assert cells == ["", "not run yet"]


def test_the_best_trial_of_each_method_is_shown(tmp_path):
    (tmp_path / "tuned").mkdir()
    (tmp_path / "tuned" / "ssm.json").write_text(
        json.dumps([{"parameters": {"learning_rate": 0.002}, "score": 0.85, "seconds": 9.0}])
    )
    table = rows(tuning_table(tmp_path))
    assert table["SSM alone"] == ["0.8500", "1", "learning_rate 0.002"]
    assert table["CRAM"] == ["not run yet", "0", ""]
