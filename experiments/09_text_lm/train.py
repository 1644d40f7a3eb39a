"""Train one language model on State of the Union text, and judge it on the speeches that were held out.

    python experiments/09_text_lm/train.py experiments/09_text_lm/configs/cram.json --seed 0 --out
    runs/09_text_lm/cram-seed0

The run's folder gets ``config.json`` first, then ``progress.jsonl``, at the end ``model/``, ``routes.json``
and ``summary.json``.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainerCallback, TrainingArguments, get_cosine_schedule_with_warmup

from torchcram.accounting import any_layer, dense_keys, keys_scanned
from torchcram.models.configuration_cram import CRAMConfig
from torchcram.models.consolidation_callback import ConsolidationCallback
from torchcram.models.modeling_cram import CRAMForCausalLM
from torchcram.tasks.text import TOKEN_CLASSES, Speech, load_speeches, token_classes, train_tokenizer, windows
from torchcram.types import ReadBudget, Route, RoutingControl

BUDGETS = (0.0, 0.02, 0.05, 0.1, 0.2, 0.4)


def parameters(config: CRAMConfig) -> int:
    """Weights of a model, slots among them."""
    with torch.device("meta"):
        return sum(weight.numel() for weight in CRAMForCausalLM(config).parameters())


def model_config(config: dict[str, Any], folder: Path) -> CRAMConfig:
    """The model's configuration; a feed-forward network is widened until the model has as many parameters
    as the one to match."""
    own = CRAMConfig(**config["model"])
    if "match" not in config:
        return own
    other = parameters(CRAMConfig(**json.loads((folder / f"{config['match']}.json").read_text())["model"]))
    per_ratio = 2 * own.num_hidden_layers * own.hidden_size**2
    ratio = 4.0 + (other - parameters(own)) / per_ratio
    return CRAMConfig(
        **{**config["model"], "mixer_options": {**own.mixer_options, "mlp_ratio": round(ratio, 3)}}
    )


class Texts:
    """Training and held-out windows, and the tokenizer, which has seen the training speeches only."""

    def __init__(self, speeches: list[Speech], *, vocabulary: int, length: int):
        training = [speech for speech in speeches if not speech.held_out]
        self.tokenizer = train_tokenizer((speech.text for speech in training), vocabulary=vocabulary)
        self.training = windows([self.encoded(speech) for speech in training], length)
        self.held_out = windows([self.encoded(speech) for speech in speeches if speech.held_out], length)

    def encoded(self, speech: Speech) -> torch.Tensor:
        return torch.tensor(self.tokenizer.encode(speech.text).ids)

    def pieces(self, ids: torch.Tensor) -> list[str]:
        return [self.tokenizer.decode([token]) for token in ids.tolist()]


@torch.no_grad()
def judge(
    model: CRAMForCausalLM,
    batches: torch.Tensor,
    *,
    texts: Texts | None = None,
    control: RoutingControl | None = None,
) -> dict[str, Any]:
    """Held-out loss in nats a token, reads and keys scanned; with ``texts`` also the routes by class of
    token."""
    mode, window = model.training, (model.config.mixer_options or {}).get("window")
    model.eval()
    loss, tokens, read, scanned, dense = 0.0, 0, 0.0, 0.0, 0.0
    by_class = {kind: [0.0] * len(Route) for kind in TOKEN_CLASSES}
    for ids in batches.split(16):
        output = model.model(
            ids,
            use_cache=False,
            control=model._control() if control is None else control,
            output_routing=True,
        )
        logits = model.lm_head(output.last_hidden_state)
        loss += float(
            torch.nn.functional.cross_entropy(
                logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten(), reduction="sum"
            )
        )
        tokens += ids[:, 1:].numel()
        decisions = [block.decision for block in output.blocks]
        read += float(any_layer(decisions).double().mean()) * len(ids)
        scanned += sum(
            float(keys_scanned(decision.read, window=window, written=decision.written))
            for decision in decisions
        )
        dense += len(decisions) * float(dense_keys(torch.ones_like(ids, dtype=torch.bool)))
        if texts is not None:
            _count_routes(by_class, torch.stack(output.routes).amax(0), ids, texts)
    model.train(mode)
    record: dict[str, Any] = {
        "loss": loss / tokens,
        "any_layer_read_rate": read / len(batches),
        "attention_share": scanned / dense,
    }
    return record if texts is None else record | {"routes_by_class": by_class}


def _count_routes(
    by_class: dict[str, list[float]], routes: torch.Tensor, ids: torch.Tensor, texts: Texts
) -> None:
    for row, taken in zip(ids, routes, strict=True):
        for kind, own in token_classes(texts.pieces(row)).items():
            for route in Route:
                by_class[kind][route] += int((taken[own] == route).sum())


def frontier(model: CRAMForCausalLM, batches: torch.Tensor) -> list[dict[str, Any]]:
    """Held-out loss against attention share, over budgets of reads; and with every read."""
    points = [{"budget": "all reads", **judge(model, batches, control=RoutingControl(reads="all"))}]
    for ratio in BUDGETS if model.config.mixer == "cram" else ():
        with model.set_read_budget(ReadBudget(ratio=ratio)):
            points.append({"budget": ratio, **judge(model, batches)})
    return points


class Progress(TrainerCallback):
    """Writes held-out loss and attention share every so many steps, and what the controller did in
    between."""

    def __init__(self, file: Path, sample: torch.Tensor, *, every: int, leader: ConsolidationCallback):
        self.file, self.sample, self.every, self.leader, self.begin = (
            file,
            sample,
            every,
            leader,
            time.process_time(),
        )
        self.seconds_judging = 0.0

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Judge the model as it is."""
        if state.global_step % self.every and state.global_step != state.max_steps:
            return
        begin = time.process_time()
        record = {
            "step": state.global_step,
            **judge(kwargs["model"], self.sample),
            "phase": self.leader.history[-1]["phase"],
        }
        self.seconds_judging += time.process_time() - begin
        record |= {
            "price": self.leader.history[-1]["price"],
            "training": self.leader.history[-1],
            "cpu_seconds": begin - self.begin,
        }
        with self.file.open("a") as lines:
            lines.write(json.dumps(record) + "\n")
        print(
            json.dumps(
                {name: record[name] for name in ("step", "loss", "attention_share", "phase", "cpu_seconds")}
            ),
            flush=True,
        )


def passages(model: CRAMForCausalLM, texts: Texts, count: int = 3) -> list[dict[str, Any]]:
    """Some held-out windows, token by token, with the dearest route of each."""
    chosen = texts.held_out[:: max(1, len(texts.held_out) // count)][:count]
    with torch.no_grad():
        routes = torch.stack(model(chosen, use_cache=False, output_routing=True).routes).amax(0)
    return [
        {"tokens": list(zip(texts.pieces(ids), taken.tolist(), strict=True))}
        for ids, taken in zip(chosen, routes, strict=True)
    ]


def train(
    config: dict[str, Any], *, folder: Path, seed: int, out: Path, steps: int | None = None
) -> dict[str, Any]:
    """Train, judge and save; return the summary."""
    rules, sizes = config["training"], model_config(config, folder)
    steps = rules["steps"] if steps is None else steps
    out.mkdir(parents=True, exist_ok=True)
    (out / "progress.jsonl").unlink(missing_ok=True)
    (out / "config.json").write_text(
        json.dumps(
            {**config, "seed": seed, "steps": steps, "built": sizes.to_diff_dict()}, indent=1, default=str
        )
        + "\n"
    )
    texts = Texts(load_speeches(), vocabulary=sizes.vocab_size, length=rules["length"])
    torch.manual_seed(seed)
    model, leader = CRAMForCausalLM(sizes), ConsolidationCallback(config["controller"])
    sample = texts.held_out[:: max(1, len(texts.held_out) // 64)]
    arguments = TrainingArguments(
        output_dir=str(out / "trainer"),
        max_steps=steps,
        per_device_train_batch_size=rules["batch"],
        seed=seed,
        use_cpu=True,
        dataloader_pin_memory=False,
        disable_tqdm=True,
        save_strategy="no",
        logging_strategy="no",
    )
    optimizer = torch.optim.AdamW(
        model.parameter_groups(learning_rate=rules["learning_rate"]), betas=(0.9, 0.98), weight_decay=0.01
    )
    schedule = get_cosine_schedule_with_warmup(optimizer, min(rules["warmup_steps"], steps // 2), steps)
    data = [{"input_ids": ids, "labels": ids} for ids in texts.training]
    progress = Progress(
        out / "progress.jsonl", sample, every=min(rules["evaluate_every"], steps), leader=leader
    )
    Trainer(
        model=model,
        args=arguments,
        train_dataset=data,
        callbacks=[leader, progress],
        optimizers=(optimizer, schedule),
    ).train()
    seconds = time.process_time() - progress.begin - progress.seconds_judging

    model.eval()
    limited = texts.held_out if steps == rules["steps"] else texts.held_out[:16]
    summary = {
        **judge(model, limited, texts=texts),
        "frontier": frontier(model, limited),
        "parameters": parameters(sizes),
        "training_cpu_seconds": seconds,
        "steps": steps,
        "training_tokens": steps * rules["batch"] * rules["length"],
        "controller": leader.controller.state_dict(),
    }
    (out / "routes.json").write_text(json.dumps(passages(model, texts)) + "\n")
    model.save_pretrained(out / "model")
    texts.tokenizer.save(str(out / "model" / "tokenizer.json"))
    (out / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    return summary


def main() -> None:
    """Train the run that the command line names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, help="for a trial; judged on a few windows only")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    train(
        json.loads(asked.config.read_text()),
        folder=asked.config.parent,
        seed=asked.seed,
        out=asked.out,
        steps=asked.steps,
    )


if __name__ == "__main__":
    main()
