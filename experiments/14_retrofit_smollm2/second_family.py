"""The whole life of a retrofit on another architecture: the small GPT-2s of experiment 10.

Each is trained on four fifths of the State of the Union addresses, retrofitted and certified on the other
fifth, saved, loaded again by Transformers, and judged on addresses that nothing was fitted to.

python experiments/14_retrofit_smollm2/second_family.py [--seeds 3] [--minutes 6] [--threads 2]

It writes second_family.csv here, a row as soon as it is measured. Finished trainings and models are not made
again.
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import torchcram
from torchcram.pretrained.retrofit.settings import RetrofitSettings

HERE = Path(__file__).parent
# The models know 128 tokens: 36 of them are at hand, as 132 of 1,024 are in SmolLM2.
SETTINGS = RetrofitSettings(sinks=4, window=16, kept=16)
READS, RISK = 0.25, 0.1
COLUMNS = (
    "seed",
    "reading",
    "reads",
    "divergence",
    "loss_change",
    "agreement",
    "certified_price",
    "certified_reads",
    "loaded_writes_the_same",
)


def experiment_10() -> ModuleType:
    """Return the script that trains the models."""
    file = HERE.parent / "10_redundancy_training" / "run.py"
    spec = importlib.util.spec_from_file_location("redundancy_training", file)
    if spec is None or spec.loader is None:
        raise SystemExit(f"{file} is missing")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def base_model(trained: Path) -> tuple[Any, Any]:
    """Return the untouched model and its tokenizer."""
    return AutoModelForCausalLM.from_pretrained(trained).eval(), AutoTokenizer.from_pretrained(trained)


def make(trained: Path, out: Path, texts: list[str], *, minutes: float, seed: int) -> None:
    """Retrofit a model, unless it was."""
    if out.is_dir():
        return
    model, tokenizer = base_model(trained)
    context = model.config.n_positions
    torchcram.retrofit(
        model,
        tokenizer,
        texts,
        reads=READS,
        risk=RISK,
        minutes=minutes,
        context=context,
        settings=SETTINGS,
        out=out,
        seed=seed,
    )


@torch.no_grad()
def written(model: Any, prompt: torch.Tensor) -> torch.Tensor:
    """Return what a model writes behind a prompt."""
    return model.generate(prompt, max_new_tokens=32, do_sample=False, pad_token_id=0)


def loaded_writes_the_same(trained: Path, out: Path, text: str) -> bool:
    """Whether the folder, loaded by Transformers, writes with all reads what the untouched model writes."""
    base, tokenizer = base_model(trained)
    prompt = torch.tensor([tokenizer(text)["input_ids"][:90]])
    loaded = AutoModelForCausalLM.from_pretrained(out).eval()
    with torchcram.reading(loaded, "all"):
        return bool(torch.equal(written(base, prompt), written(loaded, prompt)))


def rows_of(seed: int, trained: Path, out: Path, text: str) -> list[dict[str, Any]]:
    """Return the rows of a model that was made."""
    judged = json.loads((out / "judged.json").read_text())["judged"]
    certificate = json.loads((out / "certificate.json").read_text())
    same = loaded_writes_the_same(trained, out, text)
    return [
        {
            "seed": seed,
            "reading": name,
            "reads": f"{found['reads']:.4f}",
            "divergence": f"{found['divergence']:.4f}",
            "loss_change": f"{found['loss_change']:+.4f}",
            "agreement": f"{found['agreement']:.4f}",
            "certified_price": certificate["price"],
            "certified_reads": certificate["reads"],
            "loaded_writes_the_same": same,
        }
        for name, found in judged.items()
    ]


def main() -> None:
    """Train, retrofit, judge, write."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=6.0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--work", type=Path, default=Path("runs/second_family"))
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    training = experiment_10()
    texts = training.addresses()
    held = texts[:: training.HELD]
    rows: list[dict[str, Any]] = []
    for seed in range(given.seeds):
        folder = given.work / f"seed{seed}"
        training.train(folder, [text for place, text in enumerate(texts) if place % training.HELD], seed)
        trained, out = folder / f"checkpoint-{training.STEPS}", folder / "retrofitted"
        make(trained, out, held, minutes=given.minutes, seed=seed)
        rows += rows_of(seed, trained, out, held[-1])
        with (HERE / "second_family.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(rows)
        print(*rows[-3:], sep="\n", flush=True)


if __name__ == "__main__":
    main()
