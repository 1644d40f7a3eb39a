"""Is it semantic memory that does the work? The retrofitted SmolLM2 beside itself with its memory zeroed or
shuffled, beside near attention alone, and beside near attention with a router, in one pass over the same
windows.

Zeroed and shuffled memory pay the price that the retrofit pays; the router without memory has a price of its
own. It adds to ablations.csv.

python experiments/14_retrofit_smollm2/ablate.py [--shares 0.1] [--windows 1] [--select 1] [--threads 2]
    [--only "memory shuffled"]
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
    parser.add_argument("--shares", type=float, nargs="*", default=[0.1])
    parser.add_argument("--only", nargs="*", default=[], help="names of contenders; all if none")
    for name, default in (("windows", 1), ("select", 1), ("fit", 0), ("threads", 2), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    model, _, windows = loaded(given)
    with torch.no_grad():
        price_of = prices(model, windows["select"], shares=given.shares)
        made = [partial(make, prices=price_of) for make in (Retrofitted, Zeroed, Shuffled)]
        made.append(RouterAlone)
        found = compare(
            model,
            fit=(),
            select=windows["select"],
            test=windows["judged"],
            shares=given.shares,
            contenders=[make for make in made if not given.only or make().name in given.only],
        )
    rows = [asdict(each) | {"tokens": sum(map(len, windows["judged"]))} for each in found]
    file = HERE / "ablations.csv"
    begins = not file.is_file()
    with file.open("a", newline="") as handle:
        writer = csv.DictWriter(handle, list(rows[0]))
        if begins:
            writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
