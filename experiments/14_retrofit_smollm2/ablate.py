"""Is it semantic memory that does the work? The retrofitted SmolLM2 beside itself with its memory zeroed or
shuffled, beside near attention alone, and beside near attention with a router, in one pass over the same
windows.

Zeroed and shuffled memory pay the price that the retrofit pays; the router without memory has a price of its
own. It writes ablations.csv.

python experiments/14_retrofit_smollm2/ablate.py [--shares 0.1] [--windows 1] [--select 1] [--threads 2]
"""

from __future__ import annotations

import argparse
import csv
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch
from judge import HERE, loaded

from torchcram.pretrained.judging.by_position import prices
from torchcram.pretrained.judging.frontier import compare
from torchcram.pretrained.rivals.ablations import Shuffled, Zeroed
from torchcram.pretrained.rivals.retrofitted import Retrofitted
from torchcram.pretrained.rivals.router_alone import RouterAlone


def main() -> None:
    """Compare."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--memories", type=Path, default=Path("runs/retrofit_smollm2/routed.safetensors"))
    parser.add_argument("--shares", type=float, nargs="+", default=[0.1])
    for name, default in (("windows", 1), ("select", 1), ("fit", 0), ("threads", 2), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    model, _, windows = loaded(given)
    with torch.no_grad():
        price_of = prices(model, windows["select"], shares=given.shares)
        found = compare(
            model,
            fit=(),
            select=windows["select"],
            test=windows["judged"],
            shares=given.shares,
            contenders=[
                *(partial(make, prices=price_of) for make in (Retrofitted, Zeroed, Shuffled)),
                RouterAlone,
            ],
        )
    rows = [asdict(each) | {"tokens": sum(map(len, windows["judged"]))} for each in found]
    with (HERE / "ablations.csv").open("w", newline="") as handle:
        writer = csv.DictWriter(handle, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
