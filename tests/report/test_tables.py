import io

from rich.console import Console

from torchcram.report.tables import print_statistics, print_summary, summary_rows


def by_label(summary: dict) -> dict[str, tuple[str, str]]:
    return {row.label: (row.value, row.note) for row in summary_rows(summary)}


def test_figures_stand_beside_their_floors(summary: dict):
    rows = by_label(summary)
    assert rows["any-layer read rate"] == ("1.52%", "floor 1.41%, 1.08x the floor")
    assert rows["attention share"] == ("0.86%", "floor 0.8%, 1.07x the floor")
    assert rows["read rate by layer"][0] == "1.52% / 0%"
    assert rows["reduction of the any-layer rate"] == ("65.8x", "20.0x by need, 3.29x by consolidation")
    assert rows["all queries"] == ("99.85%", "24,000 fresh queries, exploration off")
    assert rows["reads computed"] == ("41,213", "beside 39,876 counted")
    assert rows["time"] == ("7 min 17 s", "22,489 tokens a second")


def test_every_scalar_of_the_summary_is_shown_somewhere(summary: dict):
    text = " ".join(
        f"{row.value} {row.note}" for row in summary_rows({**summary, "overridden_accuracy": 0.9871})
    )
    for figure in (
        "98.71%",
        "99.99%",
        "99.51%",
        "116x",
        "1,310",
        "0.0274",
        "0.0262",
        "0.0201",
        "21.4%",
        "18.7%",
        "41.2%",
        "148,122",
        "2,400",
        "4f0c2a91be77",
    ):
        assert figure in text


def test_a_row_whose_figure_is_absent_is_left_out():
    assert summary_rows({}) == []
    assert by_label({"seed": 3, "novel_accuracy": None}) == {"seed": ("3", "")}
    assert by_label({"any_layer_read_rate": 0.5}) == {"any-layer read rate": ("50%", "")}


def test_figures_of_tasks_of_ones_own_are_not_hidden():
    rows = [
        row
        for row in summary_rows({"activity_mse": 0.123456, "accuracy": {"activity": 0.75}, "curve": [1, 2]})
        if row.group == "Other figures"
    ]
    assert [(row.label, row.value) for row in rows] == [
        ("activity mse", "0.1235"),
        ("accuracy activity", "0.75"),
    ]


def test_the_printed_table_has_every_row_once(summary: dict):
    console = Console(file=io.StringIO(), width=140)
    print_summary({**summary, "config_hash": "[bold]x"}, console)
    text = console.file.getvalue()
    for row in summary_rows(summary)[:-1]:
        assert any(
            row.label in line and row.value in line and row.note in line for line in text.splitlines()
        ), row
    # Brackets in a value are text, not markup.
    assert "[bold]x" in text
    assert text.count("Honest costs") == 1


def test_statistics_stand_beside_the_specification():
    console = Console(file=io.StringIO(), width=100)
    print_statistics({"share of queries": (0.04688, 0.05), "mean gap": (0.2871, None)}, console)
    lines = [line.split() for line in console.file.getvalue().splitlines()]
    assert lines == [
        ["statistic", "measured", "specified"],
        ["share", "of", "queries", "0.04688", "0.05"],
        ["mean", "gap", "0.2871"],
    ]
