"""From measurements to files: ``summary.json`` (few figures, fixed names), ``plan.json`` (what to
replace), ``details.json`` (what figures are drawn from).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from torchcram.pretrained.analysis.causal import Judged
from torchcram.pretrained.analysis.redundancy import (
    DEFINITIONS,
    THRESHOLDS,
    class_table,
    document_interval,
    shares_over_thresholds,
    threshold_for,
)
from torchcram.pretrained.analysis.stages import Measured, Stages
from torchcram.pretrained.texts import SPLITS
from torchcram.pretrained.token_classes import token_classes
from torchcram.training.run_dir import RunDir, environment

SUMMARY, PLAN, DETAILS = "summary.json", "plan.json", "details.json"
# The plan may cost so much, in nats per token.
BUDGET = 0.02
PAPER_SHARE = 0.88
# Tokens of the coloured text.
SHOWN_TOKENS = 360

Record = dict[str, Any]


def write_findings(stages: Stages, measured: Measured, *, name: str) -> dict[str, Record]:
    """Write the three files into the folder of the analysis and return their contents."""
    details = _details(stages, measured, name=name)
    found = {SUMMARY: _summary(stages, measured, details), PLAN: _plan(stages, measured), DETAILS: details}
    for file, content in found.items():
        stages.store.files.write_json(file, content)
    return {file.removesuffix(".json"): content for file, content in found.items()}


def kept_findings(files: RunDir) -> dict[str, Record] | None:
    """Return what a finished analysis wrote, None if it is not finished."""
    names = (SUMMARY, PLAN, DETAILS)
    return (
        {name.removesuffix(".json"): files.read_json(name) for name in names}
        if all((files.path / name).is_file() for name in names)
        else None
    )


def _summary(stages: Stages, measured: Measured, details: Record) -> Record:
    judged = measured.judged
    shares = {
        key: dict(zip(map(str, curve["threshold"]), curve["share"], strict=True))
        for key, curve in details["redundant_share"].items()
    }
    return {
        "explained_variance_by_layer": [figures["explained_variance"] for figures in measured.figures],
        "redundant_share": shares,
        "replace_best": _changes(judged, "replace"),
        "drop_same": _changes(judged, "drop_same"),
        "drop_best": _changes(judged, "drop_best"),
        "replaced_looks_at": measured.looked_at,
        "routed": [
            {key: record[key] for key in ("policy", "skip_rate", "loss_change")} for record in measured.routed
        ],
        "base_loss": judged.base,
        "fit_tokens": stages.corpus.tokens("fit"),
        "seconds": measured.clock.ridge + measured.solution_seconds,
        "forward_seconds": measured.clock.plain_all,
    }


def _changes(judged: Judged, kind: str) -> dict[str, float]:
    names = [name for name in judged.changes if name.rpartition("-")[0] == kind]
    return {name.rpartition("-")[2]: judged.change(name) for name in names}


def _plan(stages: Stages, measured: Measured) -> Record:
    """The most that costs no more than the budget by what select text says; the test text had no say."""
    order = sorted(range(len(stages.sites)), key=lambda number: measured.replaced[number].divergence)
    sizes = [size for size, change in measured.refit_changes.items() if change <= BUDGET]
    size = max(sizes, default=0)
    harm = [
        record
        for record in measured.routed
        if record["policy"] == "predicted_harm" and record["select"]["mean_score"] <= BUDGET
    ]
    routed = max(harm, key=lambda record: record["wanted_rate"], default=None)
    return {
        "budget": BUDGET,
        "layers": {
            "replace": sorted(stages.sites[number].layer for number in order[:size]),
            "predicted_loss_change": measured.refit_changes.get(size, 0.0),
            "by_size": {str(size): change for size, change in measured.refit_changes.items()},
            "ranking": [stages.sites[number].layer for number in order],
        },
        "tokens": None
        if routed is None
        else {
            "policy": "predicted_harm",
            "skip_rate": routed["wanted_rate"],
            "threshold": routed["select"]["threshold"],
            "predicted_loss_change": routed["select"]["mean_score"],
            "skip_rate_by_layer": {
                str(site.layer): share
                for site, share in zip(stages.sites, routed["select"]["by_layer"], strict=True)
            },
        },
    }


def _details(stages: Stages, measured: Measured, *, name: str) -> Record:
    windows = stages.corpus.windows["test"]
    documents = np.concatenate([np.full(len(window.ids), window.document) for window in windows])
    scores = {key: values.numpy() for key, values in measured.scored.scores.items()}
    curves = {key: shares_over_thresholds(scores[key], documents) for key in DEFINITIONS}
    counts = torch.bincount(torch.cat([window.ids for window in stages.corpus.windows["fit"]]), minlength=1)
    vocabulary = int(max(counts.numel(), max(int(window.ids.max()) for window in windows) + 1))
    members = token_classes(
        windows, stages.tokenizer, np.pad(counts.numpy(), (0, vocabulary - counts.numel()))
    )
    parameters = sum(parameter.numel() for parameter in stages.model.parameters())
    return {
        "model": {
            "name": name,
            "class": type(stages.model).__name__,
            "parameters": parameters,
            "layers": len(stages.sites),
        },
        "settings": stages.settings.model_dump(mode="json"),
        "environment": environment(),
        "text": {
            split: {
                "tokens": stages.corpus.tokens(split),
                "windows": len(stages.corpus.windows[split]),
                "documents": _documents(stages, split),
            }
            for split in SPLITS
        },
        "cost": _cost(stages, measured),
        "redundant_share": curves,
        "redundant_share_by_head": {
            key: _head_curve(stages, values.numpy()) for key, values in measured.scored.head_shares.items()
        },
        "paper_share_at": {key: threshold_for(PAPER_SHARE, curve) for key, curve in curves.items()},
        "token_classes": class_table(scores, members),
        "layers": _layers(stages, measured, scores),
        "judged": _judged(measured.judged),
        "replaced_looks_at": measured.looked_at,
        "routed": measured.routed,
        "refit_changes_on_select": {str(size): change for size, change in measured.refit_changes.items()},
        "shown": _shown(stages, scores["centred_cosine"]),
    }


def _documents(stages: Stages, split: Any) -> int:
    return len({window.document for window in stages.corpus.windows[split]})


def _cost(stages: Stages, measured: Measured) -> Record:
    clock = measured.clock
    model = sum(parameter.numel() * parameter.element_size() for parameter in stages.model.parameters())
    return {
        "ridge_seconds": clock.ridge + measured.solution_seconds,
        "forward_seconds": clock.plain_all,
        "ridge_over_forward": (clock.ridge + measured.solution_seconds) / max(clock.plain_all, 1e-9),
        "controls_seconds": clock.controls,
        "mlp_seconds": clock.mlp,
        "stage_seconds": measured.stage_seconds,
        "model_bytes": model,
        "statistics_bytes": max(clock.memory - clock.memory_before, 0),
        "memory_over_model": (model + max(clock.memory - clock.memory_before, 0)) / model,
    }


def _head_curve(
    stages: Stages, shares: Float[np.ndarray, "layers heads thresholds"]
) -> dict[str, list[float]]:
    """Shares of the operations of single heads at each threshold; layers with fewer heads count those they
    have.
    """
    heads = np.array([site.heads for site in stages.sites])
    return {"threshold": list(THRESHOLDS), "share": (shares.sum((0, 1)) / heads.sum()).tolist()}


def _layers(stages: Stages, measured: Measured, scores: dict[str, Any]) -> list[Record]:
    rows = []
    for number, (site, figures) in enumerate(zip(stages.sites, measured.figures, strict=True)):
        mlp = float(measured.scored.mlp_error[number])
        rows.append(
            figures
            | {
                "explained_variance_mlp": 1 - mlp / figures["variance"],
                "block_influence_cosine": float(measured.scored.influence[number]),
                "mean_scores": {key: float(values[number].mean()) for key, values in scores.items()},
                "redundant_at_0.8": {
                    key: float((values[number] >= 0.8).mean()) for key, values in scores.items()
                },
                "redundant_heads_at_0.8": measured.scored.head_shares["centred_cosine"][
                    number, : site.heads, THRESHOLDS.index(0.8)
                ].tolist(),
                "replaced_alone": vars(measured.replaced[number]),
                "dropped_alone": vars(measured.dropped[number]),
            }
        )
    return rows


def _judged(judged: Judged) -> Record:
    """Changes of the loss with 95% intervals over documents."""
    documents, place = np.unique(judged.documents, return_inverse=True)
    sizes = np.bincount(place, weights=judged.predictions).astype(int)
    rows = np.stack([np.bincount(place, weights=changes) for changes in judged.changes.values()])
    low, high = document_interval(rows, sizes)
    variants = {
        name: {"loss_change": judged.change(name), "low": a, "high": b}
        for name, a, b in zip(judged.changes, low, high, strict=True)
    }
    return {
        "base_loss": judged.base,
        "predictions": int(sizes.sum()),
        "documents": len(documents),
        "variants": variants,
    }


def _shown(stages: Stages, scores: Float[np.ndarray, "layers tokens"]) -> list[Record]:
    """The beginning of the test text, token by token, with the mean over layers of the centred cosine."""
    ids = torch.cat([window.ids for window in stages.corpus.windows["test"]])[:SHOWN_TOKENS].tolist()
    means = scores[:, : len(ids)].mean(0)
    return [
        {"token": stages.tokenizer.decode([token]), "score": round(float(mean), 3)}
        for token, mean in zip(ids, means, strict=True)
    ]
