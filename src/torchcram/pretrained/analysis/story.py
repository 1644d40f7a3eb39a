"""The findings of an analysis in plain words: what is predictable, what it would cost, how sure it is, and
where the paper's 88% lies.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torchcram.pretrained.analysis.figures import DEFINITION_WORDS
from torchcram.report.wording import count, duration, percent

Details = Mapping[str, Any]


def nats(change: float) -> str:
    """Write a change of the loss with its sign: "+0.013"."""
    return f"{change:+.3f}"


def analysis_story(summary: Details, details: Details, plan: Details) -> list[str]:
    """Return a few sentences, the most important one first."""
    values = summary["explained_variance_by_layer"]
    share = summary["redundant_share"]["centred_cosine"]["0.8"]
    predictable = (
        f"From its input alone a linear probe explains {percent(min(values))} to {percent(max(values))} "
        "of the variance of a layer's attention output on text that it never saw (mean "
        f"{percent(sum(values) / len(values))}). {percent(share)} of the operations reach a centred "
        "cosine of 0.8."
    )
    return [
        _headline(summary, details),
        predictable,
        _plan_words(plan, details),
        eighty_eight(details),
        _certainty(details),
    ]


def _headline(summary: Details, details: Details) -> str:
    layers, base = details["model"]["layers"], summary["base_loss"]
    size = max((int(size) for size, change in summary["replace_best"].items() if change <= 0.02), default=0)
    if not size:
        return (
            f"None of the {layers} attention layers measured here can be replaced at a cost below "
            f"0.02 nats per token (loss {base:.3f})."
        )
    return (
        f"The best {size} of {layers} attention layers can be replaced by probes at "
        f"{nats(summary['replace_best'][str(size)])} nats per token (loss "
        f"{base:.3f}){_left_to_look_at(details)}; dropping the same layers costs "
        f"{nats(summary['drop_same'][str(size)])}."
    )


def _left_to_look_at(details: Details) -> str:
    share, context = details["replaced_looks_at"], details["settings"]["context"]
    return (
        (
            f", where they look at a buffer of fixed size, {percent(share)} of the entries of a "
            f"window of {context}"
        )
        if share
        else ""
    )


def _plan_words(plan: Details, details: Details) -> str:
    layers, tokens = plan["layers"], plan["tokens"]
    chosen = ", ".join(map(str, layers["replace"])) or "none"
    words = (
        f"The plan, chosen without the test text: replace the attention of layers {chosen} (predicted "
        f"{nats(layers['predicted_loss_change'])} nats)"
    )
    if tokens is None:
        return f"{words}; no routing of single tokens stays below {plan['allowed_loss_change']} nats."
    return (
        f"{words}, or skip {percent(tokens['skip_rate'])} of all reads by predicted harm (predicted "
        f"{nats(tokens['predicted_loss_change'])} nats)."
    )


def eighty_eight(details: Details) -> str:
    """Say under which definition and threshold 88% of the operations would be redundant, as the paper
    reports for GPT-2.
    """
    places = {key: value for key, value in details["paper_share_at"].items() if value is not None}
    rest = [DEFINITION_WORDS[key] for key, value in details["paper_share_at"].items() if value is None]
    reaching = ", ".join(f"{DEFINITION_WORDS[key]} above {value:.2f}" for key, value in places.items())
    words = (
        "The paper counts 88% of GPT-2's attention operations as redundant and leaves the definition "
        "open. Here "
    )
    words += f"88% are reached by {reaching}" if places else "no definition reaches 88% between 0.1 and 0.99"
    missing = f"; {' and '.join(rest)} pass 88% at no threshold from 0.1 to 0.99" if rest and places else ""
    return (
        f"{words}{missing}. The definition decides, so all of them are shown; and predictable is not "
        "removable, so the cost stands beside them."
    )


def _certainty(details: Details) -> str:
    text, judged = details["text"], details["judged"]
    return (
        f"Measured on {count(text['fit']['tokens'])} tokens to fit ({text['fit']['documents']} "
        f"documents), {count(text['select']['tokens'])} to select ({text['select']['documents']}) and "
        f"{count(text['test']['tokens'])} to test ({text['test']['documents']}); nothing was chosen on "
        f"the test text. Costs of whole layers come from {count(judged['predictions'])} test tokens of "
        f"{judged['documents']} documents, those of routing from "
        f"{count(details['routed'][0]['tokens']) if details['routed'] else 0}. Bands are 95% bootstrap "
        "intervals over documents."
    )


def analysis_tiles(summary: Details, details: Details) -> list[tuple[str, str, str]]:
    """Return (figure, what it is, remark) of the most important figures."""
    cost = details["cost"]
    tiles = [
        (
            nats(summary["replace_best"][size]),
            f"nats: {size} of {details['model']['layers']} layers replaced",
            f"dropped: {nats(summary['drop_same'][size])}",
        )
        for size in _sizes(summary)
    ]
    values = summary["explained_variance_by_layer"]
    tiles.append(
        (
            percent(round(sum(values) / len(values), 3)),
            "explained variance, mean over layers",
            f"{percent(round(min(values), 2))} to {percent(round(max(values), 2))}",
        )
    )
    tiles.append(
        (f"{cost['ridge_over_forward']:.2f}x", "time of statistics and probes", "over plain forward passes")
    )
    tiles.append((f"{cost['memory_over_model']:.2f}x", "memory with statistics", "over the model's own"))
    return tiles


def _sizes(summary: Details) -> list[str]:
    wanted = [size for size in ("4", "8", "12") if size in summary["replace_best"]]
    return wanted or list(summary["replace_best"])[-1:]


def analysis_rows(summary: Details, details: Details) -> list[tuple[str, str, str, str, str]]:
    """Return the table of whole layers: size, replaced with its interval, plain ridge, dropped the same,
    dropped the best for it.
    """
    variants = details["judged"]["variants"]

    def cell(name: str) -> str:
        one = variants[name]
        return f"{nats(one['loss_change'])} ({nats(one['low'])} to {nats(one['high'])})"

    return [
        (
            size,
            cell(f"replace-{size}"),
            cell(f"plain-{size}"),
            cell(f"drop_same-{size}"),
            cell(f"drop_best-{size}"),
        )
        for size in summary["replace_best"]
    ]


def cost_words(details: Details) -> str:
    """Say what the analysis itself took."""
    cost = details["cost"]
    parts = ", ".join(f"{stage} {duration(seconds)}" for stage, seconds in cost["stage_seconds"].items())
    return (
        f"Statistics and probes {duration(cost['ridge_seconds'])}, against "
        f"{duration(cost['forward_seconds'])} of plain forward passes over the same tokens; controls "
        f"{duration(cost['controls_seconds'])}, MLP probe {duration(cost['mlp_seconds'])}; then {parts}."
    )
