from torchcram.report.markdown import markdown_table


def test_a_table_has_a_head_a_rule_and_a_line_a_row():
    table = markdown_table(("method", ""), [("CRAM", "1"), ("dense", "")])
    assert table.split("\n") == ["| method |  |", "|---|---|", "| CRAM | 1 |", "| dense |  |"]


def test_a_table_without_rows_is_its_head():
    assert markdown_table(("a", "b", "c"), []) == "| a | b | c |\n|---|---|---|"
