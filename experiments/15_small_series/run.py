"""Fit the methods of experiment 15 on its sets, one row a fit: ``python run.py FOLDER``. See README.md."""

from __future__ import annotations

import argparse
import csv
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from data import NAMES, SEEDS, SmallSet, read
from methods import METHODS, Estimator
from sklearn.metrics import accuracy_score, log_loss, roc_auc_score

COLUMNS = ("set", "method", "seed", "accuracy", "auroc", "log_loss", "fit_seconds", "read_rate", "steps")
RESULTS = Path(__file__).parent / "results.csv"


def row_of(one: SmallSet, method: str, seed: int) -> dict[str, float | None]:
    model = METHODS[method](seed)
    begin = time.process_time()
    model.fit(one.train, one.train_label, one.groups)
    seconds = time.process_time() - begin
    chance = model.predict_proba(one.test).astype(float)
    chance /= chance.sum(1, keepdims=True)
    inner = model.model if isinstance(model, Estimator) else None
    return {
        "accuracy": accuracy_score(one.test_label, chance.argmax(1)),
        "auroc": roc_auc_score(one.test_label, chance[:, 1]) if chance.shape[1] == 2 else None,
        "log_loss": log_loss(one.test_label, np.clip(chance, 1e-6, 1.0), labels=range(chance.shape[1])),
        "fit_seconds": seconds,
        "read_rate": getattr(inner, "read_rate_", None),
        "steps": getattr(inner, "n_iter_", None),
    }


def done(results: Path) -> set[tuple[str, str, int]]:
    if not results.exists():
        return set()
    with results.open() as lines:
        return {(row["set"], row["method"], int(row["seed"])) for row in csv.DictReader(lines)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="what data.py wrote")
    parser.add_argument("--sets", nargs="+", default=NAMES, choices=NAMES)
    parser.add_argument("--methods", nargs="+", default=tuple(METHODS), choices=tuple(METHODS))
    parser.add_argument("--seeds", nargs="+", type=int, default=range(SEEDS))
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for seed in arguments.seeds:
        for name in arguments.sets:
            for method in arguments.methods:
                if (name, method, seed) in done(arguments.results):
                    continue
                numbers = row_of(read(arguments.folder, name, seed), method, seed)
                new = not arguments.results.exists()
                with arguments.results.open("a", newline="") as lines:
                    writer = csv.DictWriter(lines, COLUMNS, lineterminator="\n")
                    writer.writeheader() if new else None
                    shown = {key: "" if value is None else f"{value:.4f}" for key, value in numbers.items()}
                    writer.writerow({"set": name, "method": method, "seed": seed, **shown})
                print(name, method, seed, shown, flush=True)


if __name__ == "__main__":
    main()
