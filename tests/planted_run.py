"""A run that never happened: files as training writes them, with planted numbers that the tests can look
for."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

STEPS, ACQUIRED, FALL = 2400, 750, 900
FLOOR, SHARE_FLOOR = 0.0141, 0.0080

SUMMARY = {
    **{
        "retrieval_accuracy": 0.9985,
        "recurring_accuracy": 0.9999,
        "novel_accuracy": 0.9951,
        "evaluated_queries": 24000,
    },
    **{"any_layer_read_rate": 0.0152, "any_layer_floor": FLOOR, "read_rate_by_layer": [0.0152, 0.0]},
    **{"attention_share": 0.0086, "attention_share_floor": SHARE_FLOOR, "transition_step": 1310},
    **{
        "reduction_any_layer": 65.8,
        "reduction_need": 20.0,
        "reduction_consolidation": 3.29,
        "reduction_attention_share": 116.3,
    },
    **{
        "mixing_flops_share": 0.214,
        "bytes_share": 0.187,
        "training_attention_share": 0.412,
        "reads_computed": 41213,
        "reads_counted": 39876,
    },
    **{"dynamics_mse": 0.0274, "kalman_mse": 0.0201, "dynamics_mse_all_reads": 0.0262},
    "routes_by_slice": {
        "query": [0.02, 0.66, 0.32],
        "recurring": [0.03, 0.94, 0.03],
        "novel": [0.002, 0.003, 0.995],
    },
    **{
        "parameters": 148122,
        "steps": STEPS,
        "seconds": 437.2,
        "tokens_per_second": 22489.0,
        "seed": 3,
        "config_hash": "4f0c2a91be77",
    },
}


def rate_at(step: int) -> float:
    """Every step reads; then a sharp fall to 5% at ``FALL``; then an exponential approach to the end
    value."""
    if step < FALL:
        return 1.0
    return 0.0152 + 0.035 * math.exp(-(step - FALL) / 220)


def phase_at(step: int) -> str:
    return "acquire" if step < ACQUIRED else "consolidate" if step < 1600 else "mature"


def train_line(step: int, noise: np.random.Generator) -> dict[str, Any]:
    rate = min(1.0, rate_at(step) * math.exp(0.1 * noise.standard_normal())) if step >= FALL else 1.0
    learned = 1 - math.exp(-step / 600)
    return {
        **{
            "kind": "train",
            "step": step,
            "phase": phase_at(step),
            "length": 256,
            "learning_rate": 1e-3,
            "price": 0.0,
            "task_loss": 0.1,
        },
        **{
            "losses": {"task": 0.1},
            "any_layer_read_rate": rate,
            "read_rate_by_layer": [rate, 1.0 if step < FALL else 0.0],
            "explored_rate": 0.02,
        },
        "attention_share": 1.0 if step < FALL else 0.56 * rate,
        "quality": {
            "recurring": 0.72 * learned + 0.02 * noise.standard_normal(),
            "novel": 0.2 if step < FALL else None,
        },
        "familiarity": {"recurring": 0.7 * learned, "novel": 0.22 + 0.02 * noise.standard_normal()},
        "seconds": 0.18 * step,
    }


def eval_line(step: int) -> dict[str, Any]:
    novel = 0.06 + 0.935 / (1 + math.exp(-(step - 480) / 60))
    recurring = 0.9999 - 0.9 * math.exp(-step / 120)
    return {
        **{
            "kind": "eval",
            "step": step,
            "accuracy": {"query": 0.7 * recurring + 0.3 * novel, "recurring": recurring, "novel": novel},
        },
        **{
            "any_layer_read_rate": rate_at(step),
            "read_rate_by_layer": [rate_at(step), 1.0 if step < FALL else 0.0],
            "attention_share": 1.0 if step < FALL else 0.56 * rate_at(step),
        },
        **{"any_layer_floor": FLOOR, "attention_share_floor": SHARE_FLOOR, "dynamics_mse": 0.03},
        "routes_by_slice": SUMMARY["routes_by_slice"],
    }


def route_map(length: int = 256) -> dict[str, Any]:
    """One query in twenty, every third of them novel; novel ones are read in layer 1, the others known,
    but for one that is read."""
    query = [step % 20 == 19 for step in range(length)]
    needs = [step % 60 == 59 for step in range(length)]
    first = [
        2 if novel or step == 19 else 1 if asked else 0
        for step, (asked, novel) in enumerate(zip(query, needs, strict=True))
    ]
    return {
        "routes": [first, [0] * length],
        "query": query,
        "needs_read": needs,
        "time": [0.4 * step for step in range(length)],
    }


def write_planted_run(directory: Path, *, seed: int = 0) -> Path:
    """Write all files of a finished run."""
    directory.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed)
    lines = [train_line(step, noise) for step in range(0, STEPS + 1, 10)] + [
        eval_line(step) for step in range(200, STEPS + 1, 200)
    ]
    edges = [1, 2, 4, 8, 16, 32, 64, 128]
    reads = [round(1000 * 0.9 * ((low + 1) * 2 * low) ** (-0.45 / 2)) for low in edges[:-1]]
    by_pattern = [[n // 2 for n in reads], [n - n // 2 for n in reads]]
    lines.append(
        {
            "kind": "exposures",
            "step": STEPS,
            "edges": edges,
            "queries": [[500] * len(reads)] * 2,
            "reads": by_pattern,
        }
    )
    curve = [
        [shift, 0.09 / (1 + math.exp(2.2 * (shift + 1.6))), 1 / (1 + math.exp(1.6 * (shift - 2.2)))]
        for shift in np.linspace(-4, 4, 33).tolist()
    ]
    training = {"steps": STEPS, "batch_size": 16, "learning_rate": 1e-3}
    files = {
        "config.json": {
            "name": "demo",
            "seed": 3,
            "task": {"kind": "srcd", "length": 256},
            "model": {"d_model": 64, "layers": 2},
            "training": training,
        },
        "environment.json": {
            "torchcram": "0.1.0",
            "torch": "2.13.0",
            "python": "3.12.1",
            "device": "cpu",
            "threads": 2,
        },
        "route_map.json": route_map(),
        "calibration.json": {
            "risk_tolerance": 0.01,
            "bound": "mean",
            "confidence": None,
            "reference": "cautious",
            "certified": True,
            "threshold_shift": -0.5,
            "empirical_risk": 0.0073,
            "skipped_share": 0.9869,
            "read_rate": 0.0152,
            "sequences": 400,
            "next_shift": -0.75,
            "next_risk": 0.0086,
            "further_sequences": 308,
            "curve": curve,
        },
        "summary.json": SUMMARY,
    }
    for name, content in files.items():
        (directory / name).write_text(json.dumps(content))
    (directory / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return directory


def rewrite_metrics(directory: Path, change: Callable[[dict[str, Any]], dict[str, Any] | None]) -> None:
    """Change every line of a run's metrics; a change to None drops the line."""
    path = directory / "metrics.jsonl"
    changed = [change(json.loads(line)) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(line) + "\n" for line in changed if line is not None))
