"""What a stage keeps is whole, or said to be damaged; a folder belongs to one analysis."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from torchcram.pretrained.store import Store


@dataclass(frozen=True, kw_only=True)
class Sums:
    count: int
    total: torch.Tensor


def store(folder: Path) -> Store:
    return Store(folder / "run", identity={"model": "a"})


def test_a_stage_comes_back_in_its_type_with_its_seconds(tmp_path):
    store(tmp_path).keep("sums", [Sums(count=3, total=torch.arange(3.0))], seconds=1.5)
    again = store(tmp_path).load("sums", list[Sums])
    assert again is not None
    assert again[0].count == 3
    assert torch.equal(again[0].total, torch.arange(3.0))
    assert store(tmp_path).seconds("sums") == 1.5


def test_what_was_not_kept_is_not_there(tmp_path):
    kept = store(tmp_path)
    assert kept.load("sums", Sums) is None
    kept.keep("sums", Sums(count=0, total=torch.zeros(1)))
    kept.forget("sums")
    assert kept.load("sums", Sums) is None
    kept.forget("sums")


def test_a_draft_that_was_not_finished_is_no_stage(tmp_path, monkeypatch):
    def stops(content, file):
        file.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", stops)
    with pytest.raises(KeyboardInterrupt):
        store(tmp_path).keep("sums", 1)
    assert store(tmp_path).load("sums", int) is None


@pytest.mark.parametrize("content", [b"PK\x03\x04nothing", b""])
def test_a_damaged_stage_is_named(tmp_path, content):
    kept = store(tmp_path)
    (tmp_path / "run" / "stages" / "alone.pt").write_bytes(content)
    for look in (lambda: kept.load("alone", Sums), lambda: kept.seconds("alone")):
        with pytest.raises(
            ValueError, match=r"alone\.pt is damaged .*: delete it, and this stage is computed again"
        ):
            look()


@pytest.mark.parametrize("content", [{"content": {"count": 3}, "seconds": 1.0}, {"count": 3}, [3]])
def test_what_another_version_kept_is_named(tmp_path, content):
    kept = store(tmp_path)
    torch.save(content, tmp_path / "run" / "stages" / "sums.pt")
    with pytest.raises(ValueError, match=r"sums\.pt is damaged .*: delete it, and this stage"):
        kept.load("sums", Sums)
