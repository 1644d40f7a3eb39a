"""The findings of an analysis that never happened, with planted numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torchcram.pretrained.analysis.redundancy import DEFINITIONS, THRESHOLDS

LAYERS = 6


def layer(number: int) -> dict[str, Any]:
    return {
        "layer": number,
        "name": f"layers.{number}.attn",
        "explained_variance": 0.15 + 0.15 * number,
        "explained_variance_mlp": 0.2 + 0.14 * number,
        "explained_variance_by_head": [0.1 * number + 0.05 * head for head in range(3)],
        "rank_curve": {"1": 0.1, "4": 0.3, "16": 0.15 + 0.15 * number},
        "cca_bound": 0.9 - 0.1 * number,
        "block_influence_cosine": 0.9 + 0.01 * number,
        "controls": {"token": 0.1, "previous": 0.05, "position": 0.02, "mean": -0.001, "shuffled": -0.002},
        "replaced_alone": {"loss": 0.01, "divergence": 0.05 / (number + 1)},
        "dropped_alone": {"loss": 0.2, "divergence": 0.4 / (number + 1)},
    }


def curve(key: str) -> dict[str, list[float]]:
    share = [max(0.0, 1 - threshold * (0.5 if key == "cosine" else 1.2)) for threshold in THRESHOLDS]
    return {
        "threshold": list(THRESHOLDS),
        "share": share,
        "low": [max(0, s - 0.03) for s in share],
        "high": [min(1, s + 0.03) for s in share],
    }


def details() -> dict[str, Any]:
    """Return the content of details.json."""
    costs = {"replace": 0.004, "plain": 0.012, "drop_best": 0.05, "drop_same": 0.11}
    variants = {
        f"{kind}-{size}": {"loss_change": cost * size, "low": 0.8 * cost * size, "high": 1.2 * cost * size}
        for kind, cost in costs.items()
        for size in (1, 2, 4)
    }
    routed = [
        {"policy": policy, "skip_rate": rate, "loss_change": cost * rate, "wanted_rate": rate, "tokens": 4096}
        for policy, cost in (
            ("oracle", 0.2),
            ("predicted_error", 0.3),
            ("predicted_harm", 0.1),
            ("predicted_harm_dropped", 1.5),
        )
        for rate in (0.25, 0.5, 0.75)
    ]
    return {
        "model": {"name": "Tiny <model>", "class": "TinyForCausalLM", "parameters": 123456, "layers": LAYERS},
        "settings": {"tokens": 200000, "context": 512},
        "environment": {"torch": "2.13"},
        "text": {
            split: {"tokens": tokens, "windows": 9, "documents": 12}
            for split, tokens in (("fit", 200171), ("select", 25681), ("test", 25303))
        },
        "cost": {
            **{
                "ridge_seconds": 130.0,
                "forward_seconds": 100.0,
                "ridge_over_forward": 1.3,
                "controls_seconds": 5.0,
                "mlp_seconds": 20.0,
            },
            **{"stage_seconds": {"alone": 61.0}, "memory_over_model": 1.41},
        },
        "redundant_share": {key: curve(key) for key in DEFINITIONS},
        "redundant_share_by_head": {
            key: {name: curve(key)[name] for name in ("threshold", "share")} for key in DEFINITIONS
        },
        "paper_share_at": {"explained": 0.1, "cosine": 0.24, "centred_cosine": None, "closeness": None},
        "token_classes": {
            "rare token": {"tokens": 0.1, **dict.fromkeys(DEFINITIONS, 0.2)},
            "punctuation": {"tokens": 0.12, **dict.fromkeys(DEFINITIONS, 0.5)},
        },
        "layers": [layer(number) for number in range(LAYERS)],
        "judged": {"base_loss": 3.05, "predictions": 8184, "documents": 8, "variants": variants},
        "replaced_looks_at": 0.25,
        "routed": routed,
        "shown": [{"token": "Fellow", "score": 0.9}, {"token": " <citizens>", "score": 0.3}],
    }


def summary() -> dict[str, Any]:
    """Return the content of summary.json that fits the details."""
    found = details()
    by_kind = {
        kind: {size: found["judged"]["variants"][f"{kind}-{size}"]["loss_change"] for size in ("1", "2", "4")}
        for kind in ("replace", "drop_same", "drop_best")
    }
    return {
        "explained_variance_by_layer": [row["explained_variance"] for row in found["layers"]],
        "redundant_share": {
            key: dict(zip(map(str, THRESHOLDS), one["share"], strict=True))
            for key, one in found["redundant_share"].items()
        },
        "replaced_looks_at": found["replaced_looks_at"],
        **{
            "replace_best": by_kind["replace"],
            "drop_same": by_kind["drop_same"],
            "drop_best": by_kind["drop_best"],
        },
        "routed": [
            {key: record[key] for key in ("policy", "skip_rate", "loss_change")} for record in found["routed"]
        ],
        **{"base_loss": 3.05, "fit_tokens": 200171, "seconds": 130.0, "forward_seconds": 100.0},
    }


def plan() -> dict[str, Any]:
    """Return the content of plan.json."""
    layers = {
        "replace": [3, 5],
        "predicted_loss_change": 0.011,
        "by_size": {"2": 0.011},
        "ranking": [5, 3, 4, 2, 1, 0],
    }
    return {
        "allowed_loss_change": 0.02,
        "layers": layers,
        "tokens": {
            "policy": "predicted_harm",
            "skip_rate": 0.5,
            "threshold": 0.1,
            "predicted_loss_change": 0.013,
        },
    }


def write(folder: Path) -> Path:
    """Write the three files."""
    for name, content in (("summary", summary()), ("details", details()), ("plan", plan())):
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder
