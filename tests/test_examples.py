"""Every example runs, is short, and does what it says."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest
import torch

import torchcram
from tiny_models import CharTokenizer, documents, tiny_model
from torchcram.training.presets import mini, resolve

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


@pytest.fixture(autouse=True)
def _on_cpu_with_one_thread(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_an_example_is_short_and_says_how_to_run_it(file):
    text = file.read_text()
    assert len(text.splitlines()) <= 60
    assert f"Run: python examples/{file.name}" in text


def test_the_example_of_a_transfer_starts_from_the_run_that_it_says():
    config = resolve(str(ROOT / "examples" / "transfer.yaml"))
    assert config.start_from == mini().digest()
    assert config.training.frozen == ("trunk", "semantic", "router")


def test_every_example_is_run_here():
    tested = set(re.findall(r'example\("(\w+)"\)', Path(__file__).read_text()))
    assert tested == {file.stem for file in EXAMPLES}


@pytest.mark.slow
def test_a_block_in_ones_own_model_falls_to_its_floor(capsys):
    accuracy, reads, floor = example("own_model").main()
    said = capsys.readouterr().out
    assert accuracy >= 0.99
    assert reads <= 1.25 * floor
    assert re.match(r"accuracy \d+\.\d%, reads \d+\.\d\d% of the steps \(floor 12\.\d\d%\)", said)


@pytest.mark.slow
def test_ones_own_data_train_from_start_to_summary(capsys, tmp_path):
    run = example("own_data").main(out=str(tmp_path / "visits"), steps=60)
    said = capsys.readouterr().out
    assert {"summary.json", "config.json", "metrics.jsonl"} <= {file.name for file in run.path.iterdir()}
    assert run.summary["accuracy"]["all"] > 0.55
    assert run.summary["next_reading_mse"] < 0.5
    assert "rhythm" in said


@pytest.mark.slow
def test_irregular_series_are_classified_in_five_lines(capsys):
    accuracy = example("irregular_series").main(steps=60)
    assert re.match(
        (
            r"accuracy \d+\.\d%, reads \d+\.\d% of the steps after \d+ training steps\nfirst series: "
            r"\d+ of \d+ steps read"
        ),
        capsys.readouterr().out,
    )
    assert accuracy > 0.6


@pytest.mark.slow
def test_a_pretrained_model_is_retrofitted_and_given_back(capsys, tmp_path, monkeypatch):
    given = torchcram.RetrofitSettings(sinks=2, window=5, kept=3)
    monkeypatch.setattr("torchcram.pretrained.retrofit.life.RetrofitSettings", lambda: given)

    class Tokenizer(CharTokenizer):
        def save_pretrained(self, folder):
            (folder / "tokenizer.json").write_text("{}")

    file = ROOT / "examples" / "retrofit.py"
    assert len(file.read_text().splitlines()) < 40
    made, untouched, given_back = example("retrofit").main(
        tiny_model("llama"), Tokenizer(), documents(), out=str(tmp_path / "made"), minutes=0.05, context=48
    )
    assert (tmp_path / "made" / "model.safetensors").is_file()
    assert made.judged["routed"].divergence < made.judged["none"].divergence
    assert torch.equal(untouched, given_back)
    said = capsys.readouterr().out
    assert re.search(r"reads routed: \d+\.\d%, 0\.\d{4} nats from the untouched model", said)
    assert re.search(r"\d+% of the tokens that it writes are those of the untouched model", said)


def test_the_tutorial_speaks_of_what_there_is():
    """Every field, key and figure that the tutorial names exists."""
    from torchcram.training.run_config import RunConfig
    from torchcram.types import Batch, Head

    text = (ROOT / "docs" / "tutorial.md").read_text()
    config = RunConfig().model_dump()
    for group, field in re.findall(r"`(controller|evaluation|training)\.(\w+)`", text):
        assert field in config[group], (group, field)
    for field in ("name", "kind", "size", "per", "weight"):
        assert f"| `{field}` |" in text
        assert field in Head.__dataclass_fields__
    for field in ("inputs", "gap", "horizon", "targets", "mask", "slices"):
        assert f"| `{field}` |" in text
        assert field in Batch.__dataclass_fields__
    for link in re.findall(r"\]\(\.\./([^)]+)\)", text):
        assert (ROOT / link).exists(), link


@pytest.mark.parametrize("page", ["README.md", "docs/index.md"])
def test_the_loop_of_the_front_page_leads_a_model(page):
    (loop,) = [
        code
        for code in re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.S)
        if "for x," in code
    ]
    assert len([line for line in loop.splitlines() if line]) <= 15
    generator = torch.Generator().manual_seed(0)
    batches = [
        (torch.randn(4, 6, 64, generator=generator), torch.randint(10, (4, 6), generator=generator))
        for _ in range(3)
    ]
    names: dict = {"batches": batches}
    exec(loop, names)
    assert names["consolidator"].steps == 3
    assert names["consolidator"].phase == "acquire"
    assert names["loss"].isfinite()
