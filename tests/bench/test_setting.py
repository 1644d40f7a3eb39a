"""Lengths of the questions: what is asked for in vain is said before anything is measured."""

import pytest
import torch
from typer.testing import CliRunner

from torchcram.bench.questions import QUESTIONS
from torchcram.bench.setting import LENGTHS, Setting
from torchcram.cli import app

CPU = torch.device("cpu")


def test_every_question_has_lengths():
    assert list(LENGTHS) == list(QUESTIONS)


def test_longer_sequences_are_left_out():
    assert Setting(device=CPU).lengths("routed-attention") == [2048, 8192, 32768]
    assert Setting(device=CPU, longest=8192).lengths("routed-attention") == [2048, 8192]
    assert Setting(device=CPU, longest=2047).lengths("scan") == []


def test_nothing_left_to_measure_is_an_error():
    Setting(device=CPU, longest=2048).require_lengths([])
    Setting(device=CPU, longest=2048).require_lengths(["scan", "generate"])
    for longest, named, message in (
        (512, [], "longest 512 leaves out all sequences of routed-attention, .* use at least 2048"),
        (2048, ["scan", "decode"], "longest 2048 leaves out all sequences of decode: use at least 8192"),
    ):
        with pytest.raises(ValueError, match=message):
            Setting(device=CPU, longest=longest).require_lengths(named)


def test_the_command_says_so_and_writes_nothing(tmp_path):
    file = tmp_path / "speed.json"
    result = CliRunner().invoke(app, ["bench", "--longest", "512", "--json", str(file)])
    assert (result.exit_code, str(result.exception)[:11]) == (1, "longest 512")
    assert not file.exists()
