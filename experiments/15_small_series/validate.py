"""Judge settings of ``CRAMClassifier`` on validation data: ``python validate.py sets hapt '{"hide": 0.3}'``.

A third of the training part is held out in turn, by user for hapt, stratified by class elsewhere. The test
part is not touched. Prints what the pooled predictions score. See README.md.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from data import NAMES, RANKED, SmallSet, read
from methods import Estimator
from sklearn.metrics import accuracy_score, log_loss, roc_auc_score

FOLDS = 3


def folds(one: SmallSet, name: str, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Return the rows to train on and to judge on, of each fold."""
    generator, fold = np.random.default_rng(100 + seed), np.empty(len(one.train), dtype=int)
    if name == "hapt":
        users = generator.permutation(np.unique(one.groups))
        place = dict(zip(users.tolist(), np.arange(len(users)) % FOLDS, strict=True))
        fold[:] = [place[user] for user in one.groups.tolist()]
    else:
        for kind in np.unique(one.train_label):
            rows = generator.permutation(np.flatnonzero(one.train_label == kind))
            fold[rows] = np.arange(len(rows)) % FOLDS
    for number in range(FOLDS):
        yield np.flatnonzero(fold != number), np.flatnonzero(fold == number)


def judge(one: SmallSet, name: str, seed: int, settings: dict) -> dict[str, float]:
    chance = np.zeros((len(one.train), len(np.unique(one.train_label))))
    begin = time.process_time()
    for train, held in folds(one, name, seed):
        model = Estimator(**{"mixer": "cram", "seed": seed, **settings})
        model.fit([one.train[row] for row in train], one.train_label[train], one.groups[train])
        chance[held] = model.predict_proba([one.train[row] for row in held])
    chance = np.clip(chance, 1e-6, 1.0)
    chance /= chance.sum(1, keepdims=True)
    ranked, label = name in RANKED, one.train_label
    goal = roc_auc_score(label, chance[:, 1]) if ranked else accuracy_score(label, chance.argmax(1))
    return {
        "auroc" if ranked else "accuracy": round(float(goal), 4),
        "log_loss": round(float(log_loss(label, chance)), 4),
        "seconds": round(time.process_time() - begin),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="what data.py wrote")
    parser.add_argument("set", choices=NAMES)
    parser.add_argument("settings", nargs="+", type=json.loads, help="arguments of CRAMClassifier, as JSON")
    parser.add_argument("--seed", type=int, default=0)
    told = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    one = read(told.folder, told.set, told.seed)
    for settings in told.settings:
        print(told.set, told.seed, settings, judge(one, told.set, told.seed, settings), flush=True)


if __name__ == "__main__":
    main()
