"""Every benchmark question runs, compares equals, and says what it compared."""

import json

import pytest
import torch
from typer.testing import CliRunner

from lived import run as pass_through
from torchcram.bench import drawn_router, generating, questions, recurrent_layer, run
from torchcram.bench.questions import QUESTIONS
from torchcram.bench.setting import Setting
from torchcram.cli import app
from torchcram.memory.block import CRAMBlock
from torchcram.memory.working import TimeAwareSSM
from torchcram.ops.scan import scan
from torchcram.types import Learning, RoutingControl

FIELDS = {
    "question",
    "device",
    "length",
    "read_rate",
    "peer",
    "ours_ms",
    "peer_ms",
    "ratio",
    "limit",
    "spread",
}


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """Sequences of 64 steps wherever a question would take its own lengths, and language models of a toy's
    size."""
    monkeypatch.setattr(Setting, "lengths", lambda self, question: [64])
    for name, size in {"WIDTH": 16, "DEPTH": 2, "HEADS": 2, "VOCABULARY": 20}.items():
        monkeypatch.setattr(generating, name, size)


@pytest.mark.slow
@pytest.mark.parametrize("name", QUESTIONS)
def test_a_question_answers_with_all_of_its_fields(name):
    found = [
        measurement.record() for measurement in QUESTIONS[name](Setting(device=torch.device("cpu"), rounds=2))
    ]
    assert found
    for record in found:
        assert set(record) == FIELDS
        assert (record["question"], record["length"]) == (name, 64)
        assert min(record["ours_ms"], record["peer_ms"], record["ratio"]) > 0


@pytest.mark.parametrize("peer", questions.SCAN_PEERS)
def test_the_peers_of_the_scan_compute_the_same(peer):
    decay, inputs, initial = torch.rand(2, 9, 3), torch.randn(2, 9, 3), torch.randn(2, 3)
    torch.testing.assert_close(
        questions.SCAN_PEERS[peer](decay, inputs, initial), scan(decay, inputs, initial)
    )


def test_the_layers_of_the_scan_have_states_of_equal_size():
    setting = Setting(device=torch.device("cpu"))
    theirs = recurrent_layer._mamba2(setting)
    assert (
        theirs.num_heads * theirs.head_dim * theirs.ssm_state_size
        == TimeAwareSSM(256, state_size=128).init_state(1).numel()
        == 256
    )


def test_what_is_answered_is_kept_when_a_later_question_fails(tmp_path, monkeypatch):
    def broken(setting):
        raise KeyboardInterrupt
        yield

    monkeypatch.setitem(QUESTIONS, "broken", broken)
    with pytest.raises(KeyboardInterrupt):
        run.ask(
            ["scan", "broken"],
            setting=Setting(device=torch.device("cpu"), rounds=2),
            file=tmp_path / "bench.json",
        )
    kept = json.loads((tmp_path / "bench.json").read_text())
    assert [record["question"] for record in kept] == ["scan"] * 3
    assert all(record["limit"] > 0.5 * record["ratio"] > 0 for record in kept), (
        "the limit is not far below what was reached"
    )


def test_the_command_prints_a_table_and_writes_the_file(tmp_path):
    result = CliRunner().invoke(
        app, ["bench", "scan", "--rounds", "2", "--json", str(tmp_path / "bench.json")]
    )
    assert result.exit_code == 0, result.output
    assert "step-by-step loop" in result.output
    assert set(json.loads((tmp_path / "bench.json").read_text())[0]) == FIELDS


def test_a_benchmark_in_parts_keeps_what_other_parts_measured(tmp_path):
    file, setting = tmp_path / "new" / "bench.json", Setting(device=torch.device("cpu"), rounds=2)
    run.ask(["scan"], setting=setting, file=file)
    kept = json.loads(file.read_text())
    found = run.ask(["routed-attention"], setting=setting, file=file)
    assert [record["question"] for record in found] == ["routed-attention"] * 3 + ["scan"] * 3
    assert json.loads(file.read_text()) == found
    assert found[-3:] == kept
    again = run.ask(["scan"], setting=setting, file=file)
    assert len(again) == 6
    machines = json.loads(run.machine_file(file).read_text())
    assert [record["question"] for record in machines] == ["routed-attention", "scan"]
    assert all(record["date"] and record["threads"] == torch.get_num_threads() for record in machines)


def test_what_is_measured_again_takes_the_place_of_its_own_line_alone():
    old = [
        {
            "question": "scan",
            "device": "cpu",
            "length": length,
            "read_rate": None,
            "peer": "loop",
            "ratio": 1.0,
        }
        for length in (64, 128)
    ]
    fresh = {**old[0], "ratio": 2.0}
    assert run._with(fresh, old) == [fresh, old[1]]
    assert run._with({**fresh, "length": 256}, old) == [*old, {**fresh, "length": 256}]
    assert run._with({**fresh, "question": "decode"}, old)[-1]["question"] == "decode"


@pytest.mark.parametrize("text", ["{", '{"question": "scan"}', "[1]", "[{}]"])
def test_a_file_of_something_else_is_not_overwritten(tmp_path, text):
    file = tmp_path / "other.json"
    file.write_text(text)
    with pytest.raises(ValueError, match=r"other\.json holds no measurements of torchcram bench"):
        run.ask(["scan"], setting=Setting(device=torch.device("cpu"), rounds=2), file=file)
    assert file.read_text() == text


def test_an_unknown_question_is_an_error_before_anything_is_measured(tmp_path):
    with pytest.raises(ValueError, match=r"unknown question 'scam'.*scan"):
        run.ask(["scam"], setting=Setting(device=torch.device("cpu")), file=tmp_path / "bench.json")
    assert not (tmp_path / "bench.json").exists()


def test_lots_decide_what_a_block_reads():
    block = CRAMBlock(16, slots=8)
    drawn_router.force(block, 0.25, torch.Generator().manual_seed(0))
    output = pass_through(
        block,
        torch.randn(4, 500, 16),
        torch.ones(4, 500),
        control=RoutingControl(learning=Learning(exploration=0.1, consolidate=True)),
    )
    # Five standard errors of a share of 2,000.
    assert abs(output.decision.used.double().mean() - 0.25) < 5 * (0.25 * 0.75 / 2000) ** 0.5
    assert set(output.decision.route.unique().tolist()) == {0, 2}
