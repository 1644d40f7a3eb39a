"""Two processes make what one makes."""

import json
import os
import subprocess
import sys

import pytest
import torch
import transformers
from safetensors.torch import load_file

from retrofit_together import make_together
from retrofitted import make_retrofitted
from tiny_models import documents, random_windows, tiny_model
from torchcram.pretrained.analysis.layerwise import Layerwise
from torchcram.pretrained.retrofit.consolidate import consolidate
from torchcram.pretrained.retrofit.course import Course
from torchcram.pretrained.retrofit.install import is_retrofitted
from torchcram.pretrained.retrofit.plan import plan_for
from torchcram.pretrained.retrofit.processes import ALONE, Processes, processes_here
from torchcram.pretrained.sites import find_sites

CLOSED = {"fit": 8, "refit": 4, "route": 4, "judged": 3, "distil": 0, "certify": 7}


def test_one_process_has_all_parts_and_waits_for_nobody():
    sums = torch.arange(3.0)
    ALONE.add(sums)
    ALONE.follow(sums)
    ALONE.wait()
    assert torch.equal(sums, torch.arange(3.0))
    assert ALONE.mine([1, 2, 3]) == ALONE.joined([1, 2, 3]) == [1, 2, 3]
    assert ALONE.told(lambda: "found") == "found"
    assert processes_here() is ALONE


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_every_part_is_somebodys(count):
    parts = list(range(7))
    shares = [Processes(rank=rank, count=count).mine(parts) for rank in range(count)]
    assert sorted(part for share in shares for part in share) == parts
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_many_processes_have_a_window_of_each_kind():
    windows = [torch.zeros(8)] * 20
    given = {"minutes": 1.0, "seconds": 100.0, "fit": windows, "select": windows, "test": windows}
    plan = plan_for(**given, processes=16)
    assert min(plan.fit, plan.select, plan.refit, plan.route, plan.judged) == 16
    with pytest.raises(ValueError, match=r"21, 21 and 21 are needed.* or start fewer processes"):
        plan_for(**given, processes=21)


def test_twice_as_many_processes_take_twice_as_many_windows():
    windows = [torch.zeros(8)] * 500
    given = {"minutes": 8.0, "seconds": 2.0, "fit": windows, "select": windows, "test": windows}
    one, two = (plan_for(**given, processes=count) for count in (1, 2))
    assert 2 <= two.fit / one.fit < 4
    assert (
        plan_for(**(given | {"minutes": 60.0}), processes=2).distil
        >= plan_for(**(given | {"minutes": 60.0})).distil
    )


@pytest.mark.parametrize("parts", [1, 2, 3])
def test_steps_with_and_without_reads_get_recalls_alike(parts):
    course, lessons = Course(steps=16, near=7), random_windows(50, seed=1, tokens=40)
    recalled = {True: 0, False: 0}
    for step in range(16):
        for part in range(parts):
            window = course.window(lessons, step, part=part, parts=parts)
            recalled[course.silent(step)] += not torch.equal(window, lessons[(step * parts + part) % 50])
    assert recalled == {True: 2 * parts, False: 2 * parts}


class SecondOfTwo(Processes):
    """The second of two processes, the first of which finds nothing but zeros."""

    def add(self, *tensors):
        self.__dict__.setdefault("summed", []).extend(tensors)

    def joined(self, made):
        return list(made)

    def told(self, work):
        return work()

    def follow(self, *tensors):
        pass

    def wait(self):
        pass


def first_gradients(monkeypatch, lessons, **options):
    """Return the gradients of the first step of a distillation, its record, and what was summed."""
    seen = []

    def clip(parameters, largest):
        seen.append([torch.zeros_like(one) if one.grad is None else one.grad.clone() for one in parameters])

    monkeypatch.setattr("torch.nn.utils.clip_grad_norm_", clip)
    model = make_retrofitted()
    done = consolidate(
        model,
        Layerwise(model, find_sites(model)),
        lessons=lessons,
        select=random_windows(2, seed=2, tokens=40),
        course=Course(steps=2, near=7, rate=1e-5, looks=1),
        reads=0.25,
        **options,
    )
    return seen[0], next(record for record in done.records if record["kind"] == "train")


def test_a_step_takes_the_mean_over_processes_of_their_own_windows(monkeypatch):
    lessons = random_windows(6, seed=1, tokens=40)
    pair = SecondOfTwo(rank=1, count=2)
    gradients, record = first_gradients(monkeypatch, lessons, processes=pair)
    alone, of_one = first_gradients(monkeypatch, lessons[1:2])
    for half, whole in zip(gradients, alone, strict=True):
        torch.testing.assert_close(half, whole / 2)
    assert any(whole.count_nonzero() for whole in alone)
    assert record["divergence"] == pytest.approx(of_one["divergence"] / 2)
    # Every gradient went through the sum over processes, and not a copy of it.
    summed = {tensor.shape for tensor in pair.summed}
    assert {gradient.shape for gradient in alone} <= summed


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """What two processes and one process made, in closed form."""
    folders = {}
    for count in (2, 1):
        folders[count] = tmp_path_factory.mktemp(f"processes{count}")
        make_together(folders[count], processes=count, plan=CLOSED)
    return folders


def found(folder, rank=0):
    return json.loads((folder / f"found{rank}.json").read_text())


@pytest.mark.slow
def test_two_processes_make_what_one_makes(together):
    two, one = (load_file(together[count] / "memories0.safetensors") for count in (2, 1))
    assert two.keys() == one.keys()
    # Routers descend for some hundred steps, in which rounding grows: they are compared by what they expect.
    solved = [name for name in one if "cram.router" not in name]
    assert len(solved) == 2 * 7
    for name in solved:
        torch.testing.assert_close(two[name], one[name], rtol=1e-5, atol=1e-5, msg=name)
    for reading in ("routed", "none"):
        judged = [found(together[count])["judged"][reading] for count in (2, 1)]
        assert judged[0] == pytest.approx(judged[1], rel=1e-2, abs=1e-5)
        assert judged[0]["divergence"] > 0
    certificates = [found(together[count])["certificate"] for count in (2, 1)]
    assert certificates[0]["documents"] == certificates[1]["documents"] == 7
    assert certificates[0]["harms"] == pytest.approx(certificates[1]["harms"], rel=2e-2)
    assert certificates[0]["price"] == pytest.approx(certificates[1]["price"], rel=2e-2)


@pytest.mark.slow
def test_both_processes_have_the_same_model(together):
    first, second = (load_file(together[2] / f"memories{rank}.safetensors") for rank in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert found(together[2], 0) == found(together[2], 1)
    loaded = transformers.AutoModelForCausalLM.from_pretrained(together[2] / "made")
    assert is_retrofitted(loaded)


@pytest.mark.slow
def test_a_step_of_a_distillation_takes_a_window_of_each_process(tmp_path):
    make_together(tmp_path, processes=2, plan=CLOSED | {"distil": 3})
    first, second = (load_file(tmp_path / f"memories{rank}.safetensors") for rank in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    records = [found(tmp_path, rank)["records"] for rank in range(2)]
    assert records[0] == records[1]
    assert sum(record["kind"] == "train" for record in records[0]) == 3
    written = (tmp_path / "made" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in written] == records[0]


@pytest.mark.slow
def test_accelerate_launches_the_command(tmp_path):
    model = tiny_model("gpt2")
    model.save_pretrained(tmp_path / "base")
    tokenizer_of(tmp_path / "base")
    texts = tmp_path / "texts"
    texts.mkdir()
    for number, document in enumerate(documents()):
        (texts / f"{number}.txt").write_text(document)
    launch = [
        *(sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2", "-m"),
        *("torchcram", "retrofit", str(tmp_path / "base"), str(texts), "--out", str(tmp_path / "made")),
        *("--minutes", "0.02", "--context", "48", "--set", "window=5", "--set", "sinks=2"),
        *("--set", "kept=3", "--quiet"),
    ]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        launch, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=600
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.strip().splitlines() == [str(tmp_path / "made")]
    assert not (tmp_path / "made.making").exists()
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "made")
    assert is_retrofitted(loaded)
    assert Layerwise(loaded, find_sites(loaded)).layers


def tokenizer_of(folder):
    """Write a tokenizer of single characters."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    signs = {chr(97 + number): number for number in range(26)} | {" ": 26, "<unk>": 27}
    tokenizer = Tokenizer(models.WordLevel(signs, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(folder)
