"""A retrofit in the making: its stages, and the folder that keeps each of them, so that what was interrupted
goes on where it was.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from torchcram.pretrained.analysis.analysis_progress import AnalysisProgress
from torchcram.pretrained.analysis.layerwise import Layerwise
from torchcram.pretrained.retrofit.acquire import FIRST_WINDOWS, acquire
from torchcram.pretrained.retrofit.card import model_card
from torchcram.pretrained.retrofit.install import (
    install,
    memories,
    reading,
    retrofit_of,
)
from torchcram.pretrained.retrofit.judge import Judgement, Setting, judge
from torchcram.pretrained.retrofit.plan import Plan, plan_for, seconds_of
from torchcram.pretrained.retrofit.refit import refit
from torchcram.pretrained.retrofit.router_fit import ROUNDS, fit_routers, price_for
from torchcram.pretrained.retrofit.saving import base_digest, load_memories, memory_state, save_retrofit
from torchcram.pretrained.retrofit.settings import RetrofitSettings
from torchcram.pretrained.sites import find_sites
from torchcram.pretrained.texts import Corpus
from torchcram.runs.files import read_json, write_json
from torchcram.runs.tensor_file import read_tensors, write_tensors

# The untouched model, run with its own attention and with ours, may differ by as much, in logits.
SAME = 1e-3


class Making:
    """A retrofit in the making, and its folder.

    Args:
        model: of Transformers, untouched and at rest.
        corpus: windows of text.
        settings: what to build.
        reads: share of token x layer that may read.
        minutes: that it may take.
        out: folder of the finished model; it is made in a folder beside it. None keeps nothing.
        seed: of labels and first weights.

    Raises:
        ValueError: if the folder holds something else, the text is too short, or the model is not understood.
    """

    def __init__(
        self,
        model: Any,
        corpus: Corpus,
        settings: RetrofitSettings,
        *,
        reads: float,
        minutes: float,
        out: Path | None,
        seed: int,
    ):
        self.model, self.reads, self.seed = model, reads, seed
        self.out = out
        self.base = {"name": str(model.config.name_or_path), "digest": base_digest(model)}
        windows: Mapping[str, list[Tensor]] = {
            split: [window.ids.to(model.device) for window in each] for split, each in corpus.windows.items()
        }
        self.fit, self.select, self.test = windows["fit"], windows["select"], windows["test"]
        self.place = None if self.out is None else self.out.with_name(f"{self.out.name}.making")
        identity = {
            "base": self.base,
            "text": corpus.digest,
            "settings": settings.model_dump(mode="json"),
            "reads": reads,
            "seed": seed,
        }
        self.plan = self._planned(identity, minutes)
        expected = _logits(model, self.fit[0])
        install(model, settings).base = self.base
        with reading(model, "all"):
            same = _logits(model, self.fit[0])
        _require_same(expected, same)
        self.layerwise = Layerwise(model, find_sites(model))

    def _planned(self, identity: dict[str, Any], minutes: float) -> Plan:
        """Return the plan of the work that is resumed, or a new one."""
        if self.out is not None and self.out.exists():
            raise ValueError(f"{self.out} exists: choose another folder, or delete it")
        if self.place is not None and (self.place / "plan.json").is_file():
            before = read_json(self.place / "plan.json")
            if before["identity"] != identity:
                changed = sorted(key for key in identity if before["identity"].get(key) != identity[key])
                raise ValueError(
                    f"{self.place} holds another retrofit ({', '.join(changed)} differ): choose another "
                    "folder with --out, or delete it"
                )
            return Plan.parse(before["plan"])
        plan = plan_for(
            minutes=minutes,
            seconds=seconds_of(self.model, self.fit[0]),
            fit=self.fit,
            select=self.select,
            test=self.test,
        )
        if self.place is not None:
            self.place.mkdir(parents=True, exist_ok=True)
            write_json(self.place / "plan.json", {"identity": identity, "plan": plan.model_dump()})
        return plan

    def live(self, progress: AnalysisProgress) -> dict[str, Judgement]:
        """Go through the stages; return the judgement of the last."""
        fit, select = self.fit[: self.plan.fit], self.select[: self.plan.select]
        tokens = _tokens(fit) + _tokens(fit[:FIRST_WINDOWS]) + _tokens(select)
        acquired = self._stage(
            "acquire", progress, tokens, lambda advance: self._acquire(fit, select, advance, progress)
        )
        behind = fit[: self.plan.refit]
        self._stage(
            "refit",
            progress,
            _tokens(behind) + _tokens(select),
            lambda advance: self._refit(behind, select, advance, progress),
        )
        routed = fit[: self.plan.route]
        price = self._stage(
            "route",
            progress,
            _tokens(routed) + ROUNDS * _tokens(select),
            lambda advance: self._route(routed, select, acquired, advance),
        )["price"]
        retrofit_of(self.model).set_price(float(price))
        progress.say(f"a read costs {float(price):.2e} nats")
        judged = judge(
            self.model,
            self.test[: self.plan.judged],
            {"routed": Setting(), "none": Setting(reads="none"), "all": Setting(reads="all")},
        )
        for name, found in judged.items():
            progress.say(
                f"reads {name}: {found.reads:.1%} of token x layer, divergence {found.divergence:.4f} nats, "
                f"loss {found.loss_change:+.4f}, same next token {found.agreement:.1%}"
            )
        return judged

    def _acquire(
        self,
        fit: Sequence[Tensor],
        select: Sequence[Tensor],
        advance: Callable[[int], None],
        progress: AnalysisProgress,
    ) -> dict[str, Tensor]:
        choices = acquire(
            self.model, self.layerwise, fit=fit, select=select, generator=self._generator(1), advance=advance
        )
        near = sum(choice.near_harm for choice in choices.values())
        left = sum(min(choice.harm.values()) for choice in choices.values())
        progress.say(f"harm, summed over layers: {near:.4f} nats near alone, {left:.4f} with semantic memory")
        return {f"basis.{layer}": choice.basis.contiguous() for layer, choice in choices.items()}

    def _refit(
        self,
        windows: Sequence[Tensor],
        select: Sequence[Tensor],
        advance: Callable[[int], None],
        progress: AnalysisProgress,
    ) -> dict[str, Tensor]:
        divergences = refit(self.model, self.layerwise, fit=windows, select=select, advance=advance)
        before, after = divergences[(0.0, 0.0)], min(divergences.values())
        progress.say(f"divergence without reads: {before:.4f} nats, {after:.4f} behind the refit")
        return {}

    def _route(
        self,
        windows: Sequence[Tensor],
        select: Sequence[Tensor],
        bases: Mapping[str, Tensor],
        advance: Callable[[int], None],
    ) -> dict[str, Tensor]:
        fit_routers(
            self.model,
            self.layerwise,
            windows,
            {layer: bases[f"basis.{layer}"] for layer in memories(self.model)},
            generator=self._generator(2),
            advance=advance,
        )
        return {"price": torch.tensor(price_for(self.model, select, reads=self.reads, advance=advance))}

    def _stage(
        self,
        name: str,
        progress: AnalysisProgress,
        tokens: int,
        work: Callable[[Callable[[int], None]], dict[str, Tensor]],
    ) -> dict[str, Tensor]:
        """Do a stage, or take up what it left: the memories, and what later stages need."""
        file = None if self.place is None else self.place / f"{name}.safetensors"
        if file is not None and file.is_file():
            kept = _loaded(file)
            further = {key: kept.pop(key) for key in list(kept) if key.startswith("further.")}
            load_memories(self.model, kept)
            progress.say(f"{name}: taken up from {file}")
            return {key.removeprefix("further."): value for key, value in further.items()}
        results = work(progress.stage(name, total=tokens))
        if file is not None:
            draft = file.with_suffix(".draft")
            further = {f"further.{key}": value for key, value in results.items()}
            write_tensors(draft, memory_state(self.model) | further)
            draft.replace(file)
        return results

    def _generator(self, stage: int) -> torch.Generator:
        """Each stage draws for itself, so that a resumed one draws the same."""
        return torch.Generator().manual_seed(1000 * self.seed + stage)

    def finish(self, tokenizer: Any, judged: Mapping[str, Judgement]) -> Path | None:
        """Save the model, and clear away what it was made from."""
        if self.out is None or self.place is None:
            return None
        figures = {name: asdict(found) for name, found in judged.items()}
        told = {"base": self.base, "plan": self.plan.model_dump(), "judged": figures}
        card = model_card(
            self.base,
            retrofit_of(self.model).settings,
            judged,
            context=max(len(ids) for ids in self.test),
        )
        further = {"README.md": card, "judged.json": json.dumps(told, indent=1) + "\n"}
        save_retrofit(self.model, tokenizer, self.out, further=further)
        shutil.rmtree(self.place)
        return self.out


def _loaded(file: Path) -> dict[str, Tensor]:
    try:
        return read_tensors(file)
    except ValueError as error:
        raise ValueError(f"{file} is damaged ({error}): delete it, and this stage is done again") from None


def _tokens(windows: Sequence[Tensor]) -> int:
    return sum(len(ids) for ids in windows)


@torch.no_grad()
def _logits(model: Any, ids: Tensor) -> Tensor:
    return model(input_ids=ids[None], use_cache=False).logits[0, -1].float()


def _require_same(expected: Tensor, found: Tensor) -> None:
    """The model that reads everything must be the untouched one."""
    wrong = float((expected - found).abs().max())
    if not wrong <= SAME * max(1.0, float(expected.abs().max())):
        raise ValueError(
            f"with all reads the retrofitted model differs from the untouched one (logits by {wrong:.3g}): "
            "its attention computes something that is not understood, and it cannot be retrofitted"
        )
