"""The card of a retrofitted model: what was changed, how it was found, and what makes the figures void."""

from __future__ import annotations

from collections.abc import Mapping

from torchcram.pretrained.retrofit.certificate import Certificate
from torchcram.pretrained.retrofit.judge import Judgement
from torchcram.pretrained.retrofit.maturing import Matured
from torchcram.pretrained.retrofit.settings import RetrofitSettings

ROWS = {"routed": "as saved", "none": "nothing is read", "all": "everything is read"}
CARD = """---
library_name: transformers
tags: [torchcram]
---

# {name}, retrofitted with torchcram

The weights are those of `{name}` (sha256 `{digest}`). Beside them stand memories. Attention to the first
{sinks} and the last {window} tokens is exact, and to the {kept} most notable ones before them. What else
lies between is predicted, or read where a router asks for it.

```python
import torchcram  # before from_pretrained; without it, Transformers loads the untouched model
from transformers import AutoModelForCausalLM
```

| | reads (token x layer) | divergence (nats a token) | change of the loss | same next token |
|---|---|---|---|---|
{rows}

Judged against the untouched model on {tokens:,} tokens that nothing was fitted to, in windows of {context:,}.

The figures hold for text like the text that the retrofit saw. They are void for other kinds of text, for
much longer contexts, for another price of a read, and once the model has been trained further.
{matured}
## Certificate

{certificate}
"""
TAUGHT = """
## Distillation

The memories were taught by the untouched model in {steps} steps (`metrics.jsonl`, `consolidation.png`).
On text that taught nothing, the divergence in nats a token:

| | before | after |
|---|---|---|
| nothing is read | {none:.4f} | {none_after:.4f} |
| {reads:.1%} read before, {reads_after:.1%} after | {routed:.4f} | {routed_after:.4f} |

{unread}
"""
VOID = """It is void for text of another kind, for documents that are longer, for another price of
a read, and once the model has been trained further. Whether documents are of another kind:

```python
from torchcram.pretrained.retrofit.certificate import load_certificate

load_certificate("FOLDER").drift(model, documents).void  # documents: tensors of token ids
```"""


def model_card(
    base: Mapping[str, str],
    settings: RetrofitSettings,
    judged: Mapping[str, Judgement],
    *,
    context: int,
    matured: Matured | None = None,
    certificate: Certificate | None = None,
) -> str:
    """Return the card as Markdown.

    Args:
        base: name and digest of the untouched model.
        settings: of the retrofit.
        judged: by name of the setting.
        context: tokens of the windows that were judged.
        matured: what was distilled, if anything.
        certificate: if there is one.
    """
    rows = (
        f"| {ROWS[name]} | {each.reads:.1%} | {each.divergence:.4f} | {each.loss_change:+.4f} | "
        f"{each.agreement:.1%} |"
        for name, each in judged.items()
    )
    return CARD.format(
        name=base["name"],
        digest=base["digest"],
        sinks=settings.sinks,
        kept=settings.kept,
        window=settings.window,
        rows="\n".join(rows),
        tokens=next(iter(judged.values())).tokens,
        context=context,
        matured="" if matured is None else _taught(matured),
        certificate="There is none." if certificate is None else f"{certificate.told()} {VOID}",
    )


def _taught(matured: Matured) -> str:
    unread = ", ".join(map(str, matured.unread))
    return TAUGHT.format(
        steps=sum(record["kind"] == "train" for record in matured.records),
        none=matured.before.none,
        none_after=matured.after.none,
        routed=matured.before.routed,
        routed_after=matured.after.routed,
        reads=matured.before.reads,
        reads_after=matured.after.reads,
        unread=f"Layers {unread} hardly read, and keep near tokens alone in their cache." if unread else "",
    )
