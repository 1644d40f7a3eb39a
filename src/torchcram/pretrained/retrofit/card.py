"""The card of a retrofitted model: what was changed, how it was found, and what makes the figures void."""

from __future__ import annotations

from collections.abc import Mapping

from torchcram.pretrained.retrofit.judge import Judgement
from torchcram.pretrained.retrofit.settings import RetrofitSettings

ROWS = {"routed": "as saved", "none": "nothing is read", "all": "everything is read"}
CARD = """---
library_name: transformers
tags: [torchcram]
---

# {name}, retrofitted with torchcram

The weights are those of `{name}` (sha256 `{digest}`). Beside them stand memories. Attention to the first
{sinks} and the last {window} tokens is exact. What lies between is predicted, or read where a router asks
for it.

```python
import torchcram  # before from_pretrained; without it, Transformers loads the untouched model
from transformers import AutoModelForCausalLM
```

| | reads (token x layer) | divergence (nats a token) | change of the loss | same next token |
|---|---|---|---|---|
{rows}

Judged against the untouched model on {tokens:,} tokens that nothing was fitted to, in windows of {context:,}.

The figures hold for text like the text that the retrofit saw. They are void for other kinds of text, for
much longer contexts, for another price of a read, and once the model has been trained further. No certificate
comes with them.
"""


def model_card(
    base: Mapping[str, str], settings: RetrofitSettings, judged: Mapping[str, Judgement], *, context: int
) -> str:
    """Return the card as Markdown.

    Args:
        base: name and digest of the untouched model.
        settings: of the retrofit.
        judged: by name of the setting.
        context: tokens of the windows that were judged.
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
        window=settings.window,
        rows="\n".join(rows),
        tokens=next(iter(judged.values())).tokens,
        context=context,
    )
