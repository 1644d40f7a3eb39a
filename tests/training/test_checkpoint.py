"""A checkpoint is there completely or not at all, and nothing foreign or torn is taken for one."""

import errno
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from torchcram.runs import tensor_file
from torchcram.runs.run_dir import RunDir
from torchcram.runs.tensor_file import load_tensors, write_tensors
from torchcram.training.build import build_task
from torchcram.training.checkpoint import (
    OPTIMIZER,
    STATE,
    WEIGHTS,
    find_checkpoint,
    load_checkpoint,
    load_weights,
    save_checkpoint,
    save_weights,
)
from torchcram.training.distributed import make_accelerator
from torchcram.training.trainer import Trainer


def make(config) -> Trainer:
    return Trainer(config, build_task(config), make_accelerator())


def steps(trainer: Trainer, count: int) -> list:
    return [trainer.train_step() for _ in range(count)]


@pytest.fixture
def saved(tiny, tmp_path) -> Path:
    """A checkpoint after 4 steps, in acquisition: some parameters have had no gradient yet."""
    trainer = make(tiny())
    steps(trainer, 4)
    trainer.save(RunDir(tmp_path), seconds=1.5)
    return tmp_path / "checkpoint"


@pytest.mark.parametrize("first", [1, 4, 5, 6, 9])
def test_going_on_equals_never_having_stopped(tiny, tmp_path, first):
    whole, half = make(tiny()), make(tiny())
    expected = steps(whole, 12)[first:]
    steps(half, first)
    half.save(RunDir(tmp_path), seconds=2.5)
    resumed = make(tiny())
    assert resumed.load(RunDir(tmp_path)) == 2.5
    assert steps(resumed, 12 - first) == expected
    assert all(
        torch.equal(tensor, resumed.plain.state_dict()[name])
        for name, tensor in whole.plain.state_dict().items()
    )
    assert resumed.exposures.state_dict() == whole.exposures.state_dict()
    assert resumed.ledger.counts == whole.ledger.counts


def test_saving_changes_nothing(tiny, tmp_path):
    one, other = make(tiny()), make(tiny())
    for step in range(7):
        assert one.train_step() == other.train_step(), step
        one.save(RunDir(tmp_path), seconds=0.0)


def test_moments_of_what_never_learned_stay_absent(saved, tiny):
    fresh = make(tiny())
    fresh.load(RunDir(saved.parent))
    idle = fresh.plain.blocks[0].familiarity.net[0].weight
    assert idle not in fresh.optimizer.state
    assert fresh.plain.embed.weight in fresh.optimizer.state


def test_the_generator_goes_along(saved, tiny):
    torch.manual_seed(5)
    trainer = make(tiny())
    trainer.save(RunDir(saved.parent), seconds=0.0)
    expected = torch.rand(3)
    torch.manual_seed(6)
    trainer.load(RunDir(saved.parent))
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("name", [WEIGHTS, OPTIMIZER, STATE])
@pytest.mark.parametrize("damage", ["truncated", "missing", "empty", "noise"])
def test_a_damaged_file_is_named(saved, tiny, name, damage):
    file = saved / name
    whole = file.read_bytes()
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(
            {"truncated": whole[: len(whole) // 2], "empty": b"", "noise": b"\xff" * 100}[damage]
        )
    trainer = make(tiny())
    before = {key: tensor.clone() for key, tensor in trainer.plain.state_dict().items()}
    with pytest.raises(
        ValueError,
        match=rf"{name} is (missing|truncated|damaged).*: restore it from a copy, or delete the run",
    ):
        trainer.load(RunDir(saved.parent))
    assert all(torch.equal(tensor, before[key]) for key, tensor in trainer.plain.state_dict().items())


def flip(file: Path) -> None:
    """Change one bit in the middle of what a file holds."""
    content = bytearray(file.read_bytes())
    content[-len(content) // 4] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("name", [WEIGHTS, OPTIMIZER])
def test_a_flipped_bit_is_no_weight(saved, tiny, name):
    """It loads as another number, of the right shape and type."""
    flip(saved / name)
    trainer = make(tiny())
    with pytest.raises(ValueError, match=rf"{name} is damaged, or of another version .*: restore it from a"):
        trainer.load(RunDir(saved.parent))
    with pytest.raises(ValueError, match="is damaged"):
        load_weights(saved / name, trainer.plain)


@pytest.mark.parametrize("change", [{"step": 5}, {"step": None}, {"seconds": 2.0}, {"controller": {}}])
def test_a_state_that_was_changed_or_lacks_something_is_refused(saved, tiny, change):
    state = {**json.loads((saved / STATE).read_text()), **change}
    kept = {name: value for name, value in state.items() if value is not None}
    (saved / STATE).write_text(json.dumps(kept))
    with pytest.raises(ValueError, match=r"state\.json is damaged, or of another version"):
        make(tiny()).load(RunDir(saved.parent))


def test_all_files_are_as_readable_as_the_system_says(saved, tiny, tmp_path):
    """safetensors alone makes them readable for their owner only."""
    (tmp_path / "plain").touch()
    save_weights(tmp_path / "model.safetensors", make(tiny()).plain)
    files = [*saved.iterdir(), tmp_path / "model.safetensors"]
    assert {file.stat().st_mode for file in files} == {(tmp_path / "plain").stat().st_mode}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model__d_model": 32}, "another run: its config_hash"),
        ({"seed": 1}, "another run: its config_hash"),
    ],
)
def test_the_checkpoint_of_another_run_is_refused(saved, tiny, change, message):
    with pytest.raises(ValueError, match=message):
        make(tiny(**change)).load(RunDir(saved.parent))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model__d_model": 32}, "weights of another model: '.*' does not fit"),
        ({"model__layers": 1}, "weights of another model: 'blocks.1"),
        ({"model__mixer": "ssm", "model__options": {}}, "weights of another model"),
        ({"training__precision": "fp64"}, "weights of another model"),
    ],
)
def test_the_weights_of_another_model_are_refused(saved, tiny, change, message):
    trainer = make(tiny(**change))
    with pytest.raises(ValueError, match=message):
        load_checkpoint(saved, trainer.model, trainer.optimizer, expected={})
    with pytest.raises(ValueError, match=message):
        load_weights(saved / WEIGHTS, trainer.plain)


def test_the_moments_of_another_optimizer_are_refused(saved, tiny):
    moments = load_tensors(saved / OPTIMIZER)
    write_tensors(saved / OPTIMIZER, {**moments, "embed.weight|exp_avg": torch.zeros(2, 2)})
    with pytest.raises(ValueError, match=r"another optimizer's: 'embed.weight\|exp_avg' does not fit"):
        make(tiny()).load(RunDir(saved.parent))
    del moments["rng"]
    write_tensors(saved / OPTIMIZER, moments)
    with pytest.raises(ValueError, match="another optimizer's: 'rng' does not fit"):
        make(tiny()).load(RunDir(saved.parent))


def full_disk(*arguments: object, **options: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def later(calls: int):
    """Return a full_disk that lets so many calls through."""
    done = []

    def attempt(tensors, file, metadata):
        done.append(file)
        if len(done) > calls:
            # What fits is written, as a real disk does.
            Path(file).write_bytes(b"torn")
            full_disk()
        save_file(tensors, file, metadata=metadata)

    return attempt


@pytest.mark.parametrize("written", [0, 1])
def test_a_full_disk_keeps_the_older_checkpoint(saved, tiny, contents, monkeypatch, written):
    trainer = make(tiny())
    trainer.load(RunDir(saved.parent))
    steps(trainer, 1)
    before = contents(saved.parent)
    monkeypatch.setattr(tensor_file, "save_file", later(written))
    with pytest.raises(
        OSError,
        match=(
            r"cannot write the checkpoint .*No space left on device\. An older checkpoint is kept: "
            r"free some space"
        ),
    ):
        trainer.save(RunDir(saved.parent), seconds=0.0)
    assert contents(saved.parent) == before
    monkeypatch.undo()
    trainer.save(RunDir(saved.parent), seconds=0.0)
    assert json.loads((saved / STATE).read_text())["step"] == 5


@pytest.mark.parametrize("renames", [0, 1, 2])
def test_a_crash_between_two_renames_loses_nothing(saved, tiny, monkeypatch, renames):
    """The process dies at each of the renames; what it left is found, and saving goes on from there."""
    trainer = make(tiny())
    trainer.load(RunDir(saved.parent))
    steps(trainer, 1)
    rename, done = Path.rename, []

    class KilledError(BaseException):
        pass

    def dying(self, target):
        if len(done) == renames:
            raise KilledError
        done.append(target)
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", dying)
    if renames < 2:
        with pytest.raises(KilledError):
            trainer.save(RunDir(saved.parent), seconds=0.0)
    else:
        trainer.save(RunDir(saved.parent), seconds=0.0)
    monkeypatch.undo()
    found = find_checkpoint(saved)
    assert found is not None
    assert json.loads((found / STATE).read_text())["step"] == (5 if renames == 2 else 4)
    again = make(tiny())
    again.load(RunDir(saved.parent))
    steps(again, 3)
    again.save(RunDir(saved.parent), seconds=0.0)
    assert find_checkpoint(saved) == saved
    assert [entry.name for entry in saved.parent.iterdir()] == ["checkpoint"]


def test_the_older_checkpoint_outlives_a_full_disk_after_a_crash(saved, tiny, monkeypatch):
    """A crash left the older one only; the next attempt to save must not throw it away first."""
    saved.rename(saved.with_name(".checkpoint.old"))
    trainer = make(tiny())
    trainer.load(RunDir(saved.parent))
    monkeypatch.setattr(tensor_file, "save_file", full_disk)
    with pytest.raises(OSError, match="No space left"):
        trainer.save(RunDir(saved.parent), seconds=0.0)
    make(tiny()).load(RunDir(saved.parent))


def test_only_the_writing_process_writes(tiny, tmp_path):
    trainer = make(tiny())
    save_checkpoint(tmp_path / "checkpoint", trainer.model, trainer.optimizer, {}, write=False)
    assert list(tmp_path.iterdir()) == []
    assert find_checkpoint(tmp_path / "checkpoint") is None


def test_weights_are_written_whole_or_not_at_all(tiny, tmp_path, monkeypatch):
    trainer, file = make(tiny()), tmp_path / "model.safetensors"
    save_weights(file, trainer.plain)
    before = file.read_bytes()
    steps(trainer, 1)
    monkeypatch.setattr(tensor_file, "save_file", later(0))
    with pytest.raises(OSError, match=r"cannot write .*model\.safetensors"):
        save_weights(file, trainer.plain)
    assert file.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.safetensors"]


def test_a_checkpoint_holds_no_pickles(saved):
    assert sorted(file.name for file in saved.iterdir()) == sorted([WEIGHTS, OPTIMIZER, STATE])
    assert not any(file.read_bytes()[:2] in (b"\x80\x04", b"PK") for file in saved.iterdir())
    shutil.rmtree(saved)
