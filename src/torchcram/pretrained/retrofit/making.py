"""A retrofit in the making: its stages, and the folder that keeps each of them, so that what was interrupted
goes on where it was.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from torchcram.calibration.rule import Rule
from torchcram.pretrained.analysis.analysis_progress import AnalysisProgress
from torchcram.pretrained.analysis.layerwise import Layerwise
from torchcram.pretrained.retrofit.card import model_card
from torchcram.pretrained.retrofit.certificate import FILE, Certificate
from torchcram.pretrained.retrofit.certify import LEVELS, certify
from torchcram.pretrained.retrofit.closed_stages import Closed, closed_form
from torchcram.pretrained.retrofit.course import Course
from torchcram.pretrained.retrofit.install import (
    install,
    reading,
    retrofit_of,
)
from torchcram.pretrained.retrofit.judge import Judgement, Setting, judge
from torchcram.pretrained.retrofit.maturing import Matured, Text, mature
from torchcram.pretrained.retrofit.plan import (
    MOST_DOCUMENTS,
    Plan,
    plan_for,
    require_documents,
    seconds_of,
    set_aside,
)
from torchcram.pretrained.retrofit.processes import ALONE, Processes
from torchcram.pretrained.retrofit.saving import base_digest, save_retrofit
from torchcram.pretrained.retrofit.settings import RetrofitSettings
from torchcram.pretrained.retrofit.stages import Stages
from torchcram.pretrained.retrofit.teaching_figure import teaching_png
from torchcram.pretrained.sites import find_sites
from torchcram.pretrained.texts import Corpus
from torchcram.runs.files import load_json, write_json

# The figure of the distillation.
PNG = "consolidation.png"
# The untouched model, run with its own attention and with ours, may differ by as much, in logits.
SAME = 1e-3


@dataclass(frozen=True, kw_only=True)
class Life:
    """What came of the stages.

    Attributes:
        judged: by name: reads as wanted, none, all.
        matured: what was distilled; None if there was no time for it.
        certificate: None if nobody asked for one.
    """

    judged: dict[str, Judgement]
    matured: Matured | None = None
    certificate: Certificate | None = None


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
        risk: share of next tokens that may differ, to be certified; None for no certificate.
        processes: that make it together; the first one writes.

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
        risk: float | None = None,
        processes: Processes = ALONE,
    ):
        self.processes = processes
        self.model, self.reads, self.seed, self.risk = model, reads, seed, risk
        self.out = out
        self.base = {"name": str(model.config.name_or_path), "digest": base_digest(model)}
        fit, documents = set_aside(corpus.windows["fit"], 0 if risk is None else MOST_DOCUMENTS)
        self.fit, self.select, self.test, self.documents = (
            [window.ids.to(model.device) for window in each]
            for each in (fit, corpus.windows["select"], corpus.windows["test"], documents)
        )
        self.place = None if self.out is None else self.out.with_name(f"{self.out.name}.making")
        identity = {
            "base": self.base,
            "text": corpus.digest,
            "settings": settings.model_dump(mode="json"),
            "reads": reads,
            "seed": seed,
        } | ({} if risk is None else {"risk": risk})
        self.plan = Plan.parse(processes.told(lambda: self._planned(identity, minutes).model_dump()))
        expected = _logits(model, self.fit[0])
        install(model, settings).base = self.base
        with reading(model, "all"):
            same = _logits(model, self.fit[0])
        _require_same(expected, same)
        self.layerwise = Layerwise(model, find_sites(model))
        self.stages = Stages(model, self.place, seed=seed, processes=processes)

    def _planned(self, identity: dict[str, Any], minutes: float) -> Plan:
        """Return the plan of the work that is resumed, or a new one."""
        if self.out is not None and self.out.exists():
            raise ValueError(f"{self.out} exists: choose another folder, or delete it")
        if self.place is not None and (self.place / "plan.json").is_file():
            before = load_json(self.place / "plan.json")
            if before["identity"] != identity:
                changed = sorted(key for key in identity if before["identity"].get(key) != identity[key])
                raise ValueError(
                    f"{self.place} holds another retrofit ({', '.join(changed)} differ): choose another "
                    "folder with --out, or delete it"
                )
            return Plan.parse(before["plan"])
        needed = 0
        if self.risk is not None:
            rule = Rule(risk_tolerance=self.risk)
            needed = rule.units_needed
            require_documents(len(self.documents), rule)
        plan = plan_for(
            minutes=minutes,
            seconds=seconds_of(self.model, self.fit[0]),
            fit=self.fit,
            select=self.select,
            test=self.test,
            documents=self.documents,
            needed=needed,
            processes=self.processes.count,
        )
        if self.place is not None:
            self.place.mkdir(parents=True, exist_ok=True)
            write_json(self.place / "plan.json", {"identity": identity, "plan": plan.model_dump()})
        return plan

    def live(self, progress: AnalysisProgress) -> Life:
        """Go through the stages."""
        closed = Closed(
            fit=self.fit[: self.plan.fit],
            select=self.select[: self.plan.select],
            behind=self.fit[: self.plan.refit],
            routed=self.fit[: self.plan.route],
        )
        bases = closed_form(self.layerwise, self.stages, closed, reads=self.reads, progress=progress)
        matured = self._mature(bases, progress) if self.plan.distil else None
        certificate = self._certify(progress) if self.risk is not None else None
        progress.say(f"a read costs {retrofit_of(self.model).control.price:.2e} nats")
        judged = judge(
            self.model,
            self.test[: self.plan.judged],
            {"routed": Setting(), "none": Setting(reads="none"), "all": Setting(reads="all")},
            processes=self.processes,
        )
        for name, judgement in judged.items():
            progress.say(
                f"reads {name}: {judgement.reads:.1%} of token x layer, "
                f"divergence {judgement.divergence:.4f} nats, "
                f"loss {judgement.loss_change:+.4f}, same next token {judgement.agreement:.1%}"
            )
        return Life(judged=judged, matured=matured, certificate=certificate)

    def _mature(self, bases: Mapping[int, Tensor], progress: AnalysisProgress) -> Matured:
        settings = retrofit_of(self.model).settings
        return mature(
            self.layerwise,
            self.stages,
            Text(
                # What the closed form has not seen comes first.
                lessons=self.fit[self.plan.fit :] + self.fit[: self.plan.fit],
                select=self.select[: self.plan.select],
                routed=self.fit[: self.plan.route],
            ),
            bases,
            course=Course(steps=self.plan.distil, near=settings.sinks + settings.window, seed=self.seed),
            reads=self.reads,
            progress=progress,
        )

    def _certify(self, progress: AnalysisProgress) -> Certificate:
        """Certify the tolerance, and set its price; or take up the certificate that was made."""
        assert self.risk is not None, "without a tolerance there is nothing to certify"
        file = self.stages.file(FILE)
        if file is not None and file.is_file():
            certificate = Certificate.parse(load_json(file))
        else:
            documents = self.documents[: self.plan.certify]
            share = -(-len(documents) // self.processes.count)
            advance = progress.stage("certify", total=share * len(LEVELS), unit="documents")
            select = self.select[: self.plan.select]
            by_risk = certify(
                self.layerwise,
                documents,
                select,
                risks=[self.risk],
                processes=self.processes,
                advance=advance,
            )
            certificate = by_risk[self.risk]
            if file is not None and self.processes.first:
                write_json(file, certificate.model_dump(mode="json"))
        progress.say(certificate.told())
        retrofit_of(self.model).set_price(certificate.price)
        return certificate

    def finish(self, tokenizer: Any, life: Life) -> Path | None:
        """Save the model, and clear away what it was made from."""
        if self.out is None or self.place is None:
            return None
        if self.processes.first:
            self._write(tokenizer, life, self.out, self.place)
        self.processes.wait()
        return self.out

    def _write(self, tokenizer: Any, life: Life, out: Path, place: Path) -> None:
        figures = {name: asdict(judgement) for name, judgement in life.judged.items()}
        told = {"base": self.base, "plan": self.plan.model_dump(), "judged": figures}
        card = model_card(
            self.base,
            retrofit_of(self.model).settings,
            life.judged,
            context=max(len(ids) for ids in self.test),
            matured=life.matured,
            certificate=life.certificate,
        )
        further: dict[str, str | bytes] = {"README.md": card, "judged.json": _json(told)}
        if life.matured is not None:
            lines = (json.dumps(record) + "\n" for record in life.matured.records)
            further |= {"metrics.jsonl": "".join(lines), PNG: teaching_png(life.matured.records)}
        if life.certificate is not None:
            further[FILE] = _json(life.certificate.model_dump(mode="json"))
        save_retrofit(self.model, tokenizer, out, further=further)
        shutil.rmtree(place)


def _json(content: Any) -> str:
    return json.dumps(content, indent=1) + "\n"


@torch.no_grad()
def _logits(model: Any, ids: Tensor) -> Tensor:
    return model(input_ids=ids[None], use_cache=False).logits[0, -1].float()


def _require_same(expected: Tensor, actual: Tensor) -> None:
    """The model that reads everything must be the untouched one."""
    wrong = float((expected - actual).abs().max())
    if not wrong <= SAME * max(1.0, float(expected.abs().max())):
        raise ValueError(
            f"with all reads the retrofitted model differs from the untouched one (logits by {wrong:.3g}): "
            "its attention computes something that is not understood, and it cannot be retrofitted"
        )
