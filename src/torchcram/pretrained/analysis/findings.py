"""From measurements to files: ``summary.json`` (few figures, fixed names), ``plan.json`` (what to
replace), ``details.json`` (what figures are drawn from).
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from torchcram.pretrained.analysis.judged import Judged
from torchcram.pretrained.analysis.measure import Measured
from torchcram.pretrained.analysis.plan import make_plan
from torchcram.pretrained.analysis.redundancy import (
    DEFINITIONS,
    THRESHOLDS,
    class_table,
    document_interval,
    shares_over_thresholds,
    threshold_for,
)
from torchcram.pretrained.analysis.study import Study
from torchcram.pretrained.texts import SPLITS
from torchcram.pretrained.token_classes import token_classes
from torchcram.runs.environment import environment
from torchcram.runs.run_dir import RunDir

SUMMARY, PLAN, DETAILS = "summary.json", "plan.json", "details.json"
PAPER_SHARE = 0.88
# Tokens of the coloured text.
SHOWN_TOKENS = 360

Record = dict[str, Any]


def write_findings(study: Study, measured: Measured, *, name: str) -> dict[str, Record]:
    """Write the three files into the folder of the analysis and return their contents."""
    details = _details(study, measured, name=name)
    summary = _summary(study, measured, details)
    files = {SUMMARY: summary, PLAN: make_plan(study, measured), DETAILS: details}
    for file, content in files.items():
        study.store.files.write_json(file, content)
    return {file.removesuffix(".json"): content for file, content in files.items()}


def kept_findings(files: RunDir) -> dict[str, Record] | None:
    """Return what a finished analysis wrote, None if it is not finished."""
    names = (SUMMARY, PLAN, DETAILS)
    return (
        {name.removesuffix(".json"): files.load_json(name) for name in names}
        if all((files.path / name).is_file() for name in names)
        else None
    )


def _summary(study: Study, measured: Measured, details: Record) -> Record:
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
            {"policy": one.policy, "skip_rate": one.skip_rate, "loss_change": one.loss_change}
            for one in measured.routed
        ],
        "base_loss": judged.base,
        "fit_tokens": study.corpus.tokens("fit"),
        "seconds": measured.cost.ridge + measured.solution_seconds,
        "forward_seconds": measured.cost.plain_all,
    }


def _changes(judged: Judged, kind: str) -> dict[str, float]:
    names = [name for name in judged.changes if name.rpartition("-")[0] == kind]
    return {name.rpartition("-")[2]: judged.change(name) for name in names}


def _details(study: Study, measured: Measured, *, name: str) -> Record:
    windows = study.corpus.windows["test"]
    documents = np.concatenate([np.full(len(window.ids), window.document) for window in windows])
    scores = {key: values.numpy() for key, values in measured.scored.scores.items()}
    curves = {key: shares_over_thresholds(scores[key], documents) for key in DEFINITIONS}
    counts = torch.bincount(torch.cat([window.ids for window in study.corpus.windows["fit"]]), minlength=1)
    vocabulary = int(max(counts.numel(), max(int(window.ids.max()) for window in windows) + 1))
    members = token_classes(
        windows, study.tokenizer, np.pad(counts.numpy(), (0, vocabulary - counts.numel()))
    )
    parameters = sum(parameter.numel() for parameter in study.model.parameters())
    return {
        "model": {
            "name": name,
            "class": type(study.model).__name__,
            "parameters": parameters,
            "layers": len(study.sites),
        },
        "settings": study.settings.model_dump(mode="json"),
        "environment": environment(),
        "text": {
            split: {
                "tokens": study.corpus.tokens(split),
                "windows": len(study.corpus.windows[split]),
                "documents": _documents(study, split),
            }
            for split in SPLITS
        },
        "cost": _cost(study, measured),
        "redundant_share": curves,
        "redundant_share_by_head": {
            key: _head_curve(study, values.numpy()) for key, values in measured.scored.head_shares.items()
        },
        "paper_share_at": {key: threshold_for(PAPER_SHARE, curve) for key, curve in curves.items()},
        "token_classes": class_table(scores, members),
        "layers": _layers(study, measured, scores),
        "judged": _judged(measured.judged),
        "replaced_looks_at": measured.looked_at,
        "routed": [asdict(one) for one in measured.routed],
        "refit_changes_on_select": {str(size): change for size, change in measured.refit_changes.items()},
        "shown": _shown(study, scores["centred_cosine"]),
    }


def _documents(study: Study, split: Any) -> int:
    return len({window.document for window in study.corpus.windows[split]})


def _cost(study: Study, measured: Measured) -> Record:
    cost = measured.cost
    model = sum(parameter.numel() * parameter.element_size() for parameter in study.model.parameters())
    return {
        "ridge_seconds": cost.ridge + measured.solution_seconds,
        "forward_seconds": cost.plain_all,
        "ridge_over_forward": (cost.ridge + measured.solution_seconds) / max(cost.plain_all, 1e-9),
        "controls_seconds": cost.controls,
        "mlp_seconds": cost.mlp,
        "stage_seconds": measured.stage_seconds,
        "model_bytes": model,
        "statistics_bytes": max(cost.memory - cost.memory_before, 0),
        "memory_over_model": (model + max(cost.memory - cost.memory_before, 0)) / model,
    }


def _head_curve(study: Study, shares: Float[np.ndarray, "layers heads thresholds"]) -> dict[str, list[float]]:
    """Shares of the operations of single heads at each threshold; layers with fewer heads count those they
    have.
    """
    heads = np.array([site.heads for site in study.sites])
    return {"threshold": list(THRESHOLDS), "share": (shares.sum((0, 1)) / heads.sum()).tolist()}


def _layers(study: Study, measured: Measured, scores: dict[str, Any]) -> list[Record]:
    rows = []
    for number, (site, figures) in enumerate(zip(study.sites, measured.figures, strict=True)):
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
                "replaced_alone": vars(measured.alone.replaced[number]),
                "dropped_alone": vars(measured.alone.dropped[number]),
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


def _shown(study: Study, scores: Float[np.ndarray, "layers tokens"]) -> list[Record]:
    """The beginning of the test text, token by token, with the mean over layers of the centred cosine."""
    ids = torch.cat([window.ids for window in study.corpus.windows["test"]])[:SHOWN_TOKENS].tolist()
    means = scores[:, : len(ids)].mean(0)
    return [
        {"token": study.tokenizer.decode([token]), "score": round(float(mean), 3)}
        for token, mean in zip(ids, means, strict=True)
    ]
