"""Distillation: it teaches, it never makes worse, and what is killed goes on the same."""

import json

import pytest
import torch

from retrofitted import make_retrofitted
from tiny_models import random_windows
from torchcram.pretrained.analysis.layerwise import Layerwise
from torchcram.pretrained.retrofit import consolidate as module
from torchcram.pretrained.retrofit.consolidate import Held, HeldText, consolidate, taught_parameters
from torchcram.pretrained.retrofit.course import Course
from torchcram.pretrained.retrofit.saving import base_digest
from torchcram.pretrained.sites import find_sites

LESSONS, SELECT = random_windows(6, seed=1, tokens=40), random_windows(2, seed=2, tokens=40)


def teach(model, *, steps=24, rate=3e-3, **changes):
    return consolidate(
        model,
        Layerwise(model, find_sites(model)),
        lessons=LESSONS,
        select=SELECT,
        course=Course(steps=steps, near=7, rate=rate, looks=4),
        reads=0.25,
        **changes,
    )


def weights(model):
    return {name: parameter.detach().clone() for name, parameter in taught_parameters(model).items()}


def test_memories_are_taught_and_nothing_else_is():
    # With nothing kept, so that so tiny a model has something left to learn.
    model = make_retrofitted(kept=0)
    digest, asking = base_digest(model), [parameter.requires_grad for parameter in model.parameters()]
    routers = {name: tensor.clone() for name, tensor in model.state_dict().items() if "router" in name}
    done = teach(model, steps=60)
    assert done.after.none < done.before.none
    assert done.after.routed < done.before.routed
    assert done.after.reads == pytest.approx(done.before.reads, abs=0.05)
    assert base_digest(model) == digest
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in routers.items())
    assert [parameter.requires_grad for parameter in model.parameters()] == asking
    assert all(parameter.grad is None for parameter in model.parameters())
    # The weights that are left are those that were found best.
    held = HeldText(Layerwise(model, find_sites(model)), SELECT)
    assert held.divergence("none")[0] == pytest.approx(done.after.none)


def test_reads_fall_as_their_price_climbs():
    records = [one for one in teach(make_retrofitted(), steps=40).records if one["kind"] == "train"]
    routed = [one for one in records if not one["silent"]]
    assert routed[-1]["price"] > routed[0]["price"]
    assert routed[0]["reads"] > 0.6
    assert sum(one["reads"] for one in routed[-5:]) / 5 < 0.45
    assert all(one["reads"] == 0 for one in records if one["silent"])


def test_a_distillation_that_makes_worse_leaves_what_was_there():
    model = make_retrofitted()
    before = weights(model)
    done = teach(model, rate=30.0)
    assert done.after == done.before
    assert all(torch.equal(before[name], tensor) for name, tensor in weights(model).items())
    assert max(one["none"] for one in done.records if one["kind"] == "held") > done.before.none


def test_one_of_two_divergences_that_rises_is_worse():
    before = Held(none=0.5, routed=0.2, reads=0.25)
    assert not Held(none=0.1, routed=0.21, reads=0.25).no_worse(before)
    assert Held(none=0.5, routed=0.2, reads=0.25).no_worse(before)


@pytest.fixture(scope="module")
def undisturbed():
    """A model, and what came of teaching it from start to end."""
    torch.manual_seed(0)
    whole = make_retrofitted()
    return whole, teach(whole)


@pytest.mark.slow
@pytest.mark.parametrize("killed_after", [1, 9, 16])
def test_what_was_killed_goes_on_and_ends_the_same(killed_after, undisturbed, tmp_path, monkeypatch):
    whole, expected = undisturbed
    # A snapshot after every step, and none of the last moment: the process dies.
    monkeypatch.setattr(module, "SNAPSHOT_SECONDS", -1.0)
    files = {"snapshot": tmp_path / "snapshot.safetensors", "metrics": tmp_path / "metrics.jsonl"}
    steps = []

    def die(count, text):
        steps.append(count)
        if len(steps) > killed_after:
            raise SystemError("killed")

    with pytest.raises(SystemError):
        teach(make_retrofitted(), advance=die, **files)
    # The memories that stood before: the snapshot brings the taught ones.
    model = make_retrofitted()
    done = teach(model, **files)
    assert done.after.none == pytest.approx(expected.after.none, rel=1e-6)
    assert [one["kind"] for one in done.records] == [one["kind"] for one in expected.records]
    for name, tensor in weights(whole).items():
        assert torch.allclose(tensor, weights(model)[name], atol=1e-6), name
    lines = [json.loads(line) for line in files["metrics"].read_text().splitlines()]
    assert lines == list(done.records)


def test_a_request_to_end_is_heard_behind_a_step(tmp_path, monkeypatch):
    import signal

    snapshot = tmp_path / "snapshot.safetensors"

    def ask(count, text):
        if text:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        teach(make_retrofitted(), advance=ask, snapshot=snapshot)
    assert snapshot.is_file()
    assert len(teach(make_retrofitted(), snapshot=snapshot).records) == 24 + 5


def test_a_snapshot_of_another_model_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SNAPSHOT_SECONDS", -1.0)
    snapshot = tmp_path / "snapshot.safetensors"
    teach(make_retrofitted(), steps=4, snapshot=snapshot)
    with pytest.raises(ValueError, match=r"holds nothing for .*delete it"):
        teach(make_retrofitted(kind="low_rank"), steps=4, snapshot=snapshot)
    snapshot.write_bytes(snapshot.read_bytes()[:-9])
    with pytest.raises(ValueError, match=r"snapshot\.safetensors is"):
        teach(make_retrofitted(), steps=4, snapshot=snapshot)


def test_what_overflows_is_told(monkeypatch):
    monkeypatch.setattr(module, "distil", lambda *args, **kwargs: (float("nan"), None))
    with pytest.raises(FloatingPointError, match="divergence is nan at step 0: use a smaller rate"):
        teach(make_retrofitted())
