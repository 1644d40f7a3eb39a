"""The page of a benchmark: every measurement with its peer, what was not measured said, and where it comes
from."""

import json

from torchcram.bench.page import bench_figure, write_bench_page

RECORDS = [
    {
        "question": "decode",
        "device": "cpu (2 threads)",
        "length": 8192,
        "read_rate": 0.05,
        "peer": "every read",
    }
    | {"ours_ms": 1.5, "peer_ms": 30.0, "ratio": 19.9, "spread": 0.4, "limit": 20.0},
    {"question": "scan", "device": "cpu (2 threads)", "length": 2048, "read_rate": None, "peer": "loop"}
    | {"ours_ms": 20.0, "peer_ms": 10.0, "ratio": 0.5, "spread": 0.01, "limit": None},
    {"question": "scan", "device": "some GPU", "length": 2048, "read_rate": None, "peer": "loop"}
    | {"ours_ms": None, "peer_ms": None, "ratio": None, "spread": None, "limit": None},
]
MACHINES = [
    {
        "question": "scan",
        "device": "cpu (2 threads)",
        "date": "2026-01-02",
        "commit": "abc1234",
        "processor": "Some CPU",
        "gpu": None,
        "torch": "9.9",
    }
]


def test_the_page_holds_every_measurement_and_its_origin(tmp_path):
    (tmp_path / "cpu.json").write_text(json.dumps(RECORDS))
    (tmp_path / "cpu.machine.json").write_text(json.dumps(MACHINES))
    page = write_bench_page(tmp_path / "cpu.json")
    text = page.read_text()
    assert page.name == "cpu.md"
    for line in (
        "# Measured speed: cpu (2 threads), some GPU",
        "| decode | 8,192 | 5% | 1.50 | 30.00 | 19.9x (0.4) | 20.0x | every read, cpu (2 threads) |",
        "| scan | 2,048 |  | 20.00 | 10.00 | 0.50x (0.01) |  | loop, cpu (2 threads) |",
        "| scan | 2,048 |  | not measured | not measured | not measured |  | loop, some GPU |",
        "Not measured on a GPU: `decode`.",
        "- scan, cpu (2 threads): 2026-01-02, processor Some CPU, torch 9.9, commit abc1234",
    ):
        assert line in text.splitlines()
    assert (tmp_path / "cpu.png").read_bytes()[:4] == b"\x89PNG"


def test_what_another_file_measured_on_a_gpu_is_not_said_to_be_missing(tmp_path):
    for name, records, machines in (
        ("cpu", RECORDS[:2], MACHINES),
        ("gpu", [], [{**MACHINES[0], "question": "decode", "device": "some GPU"}]),
    ):
        (tmp_path / f"{name}.json").write_text(json.dumps(records))
        (tmp_path / f"{name}.machine.json").write_text(json.dumps(machines))
    for name in ("cpu", "gpu"):
        lines = write_bench_page(tmp_path / f"{name}.json").read_text().splitlines()
        assert [line for line in lines if line.startswith("Not measured on")] == [
            "Not measured on a GPU: `scan`."
        ]


def test_nothing_is_said_to_be_missing_where_all_was_measured_on_a_gpu(tmp_path):
    (tmp_path / "gpu.json").write_text(json.dumps([{**RECORDS[0], "device": "some GPU"}]))
    (tmp_path / "gpu.machine.json").write_text("[]")
    assert "Not measured" not in write_bench_page(tmp_path / "gpu.json").read_text()


def test_bars_that_ask_the_same_are_told_apart_by_peer_and_device():
    again = [{**RECORDS[1], "peer": "another loop"}, {**RECORDS[1], "device": "some GPU"}]
    labels = [label.get_text() for label in bench_figure([*RECORDS[:2], *again]).axes[0].get_yticklabels()]
    assert labels[0] == "decode, 8,192 tokens, 5% read"
    assert labels[1:] == [
        f"scan, 2,048 tokens\n{words}"
        for words in ("loop\ncpu (2 threads)", "another loop", "loop\nsome GPU")
    ]


def test_bars_go_from_equal_speed_to_the_ratio_and_limits_are_marked():
    (axes,) = bench_figure(RECORDS).axes
    assert [(bar.get_x(), bar.get_width()) for bar in axes.patches] == [(1, 19.9 - 1), (1, 0.5 - 1)]
    assert [text.xy[0] for text in axes.texts] == [20.0, 1.0]
    assert [line.get_xdata()[0] for line in axes.get_lines()] == [20.0, 1]
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        "decode, 8,192 tokens, 5% read",
        "scan, 2,048 tokens",
    ]
