"""Keep what finished runs have to say (``finished/``), and make results.csv, the figure, the page of coloured
text and the tables of the README of it.

python experiments/09_text_lm/collect.py
"""

from __future__ import annotations

import csv
import json
import statistics
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from torchcram.report.text_routes import Passage, text_page
from torchcram.types import Route

HERE = Path(__file__).parent
RUNS, FINISHED = Path("runs") / HERE.name, HERE / "finished"
BEGIN, END = "<!-- results: written by experiments/09_text_lm/collect.py -->", "<!-- /results -->"
COLOURS = {"cram": "#D55E00", "dense": "#222222"}


def keep(runs: Path, finished: Path) -> None:
    """Copy configuration, summary and progress of every finished run, without its weights: other machines
    need not train it again. Trials are left out."""
    for file in sorted(runs.glob("*-seed*/summary.json")):
        config, summary = json.loads((file.parent / "config.json").read_text()), json.loads(file.read_text())
        if config["training"]["steps"] == summary["steps"]:
            progress = [
                json.loads(line) for line in (file.parent / "progress.jsonl").read_text().splitlines()
            ]
            finished.mkdir(exist_ok=True)
            (finished / f"{file.parent.name}.json").write_text(
                json.dumps({"config": config, "summary": summary, "progress": progress}, indent=1) + "\n"
            )


def read_runs(finished: Path) -> dict[tuple[str, int], dict[str, Any]]:
    """Configuration, summary and progress of every finished run, by name and seed."""
    parts = {file: file.stem.rsplit("-seed", 1) for file in sorted(finished.glob("*-seed*.json"))}
    return {(name, int(seed)): json.loads(file.read_text()) for file, (name, seed) in parts.items()}


def compared(runs: dict[tuple[str, int], dict[str, Any]]) -> dict[tuple[str, int], dict[str, Any]]:
    """Those of the two models themselves; the others are pilots."""
    return {key: run for key, run in runs.items() if key[0] in COLOURS}


def write_csv(runs: dict[tuple[str, int], dict[str, Any]], file: Path) -> None:
    """One line for each point of each run's frontier; the routed point is called "routed"."""
    with file.open("w", newline="") as lines:
        writer = csv.writer(lines)
        writer.writerow(
            [
                "model",
                "seed",
                "budget",
                "loss",
                "attention_share",
                "any_layer_read_rate",
                "parameters",
                "steps",
                "training_cpu_seconds",
            ]
        )
        for (name, seed), run in runs.items():
            summary = run["summary"]
            for point in ({"budget": "routed", **summary}, *summary["frontier"]):
                figures = [f"{point[key]:.5f}" for key in ("loss", "attention_share", "any_layer_read_rate")]
                writer.writerow(
                    [
                        name,
                        seed,
                        point["budget"],
                        *figures,
                        summary["parameters"],
                        summary["steps"],
                        f"{summary['training_cpu_seconds']:.0f}",
                    ]
                )


def draw(runs: dict[tuple[str, int], dict[str, Any]], file: Path) -> None:
    """Held-out loss and attention share over training, and the frontier at the end."""
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    loss, share, ends = figure.subplots(1, 3)
    for (name, seed), run in compared(runs).items():
        style = {"color": COLOURS[name], "alpha": 0.8, "label": name if seed == 0 else None}
        steps = [record["step"] for record in run["progress"]]
        loss.plot(steps, [record["loss"] for record in run["progress"]], **style)
        share.plot(steps, [100 * record["attention_share"] for record in run["progress"]], **style)
        points = sorted(
            (100 * point["attention_share"], point["loss"])
            for point in (run["summary"], *run["summary"]["frontier"])
        )
        ends.plot(*zip(*points, strict=True), marker="o", markersize=3, **style)
    loss.set(title="Held-out loss", xlabel="step", ylabel="nats a token")
    share.set(title="Keys scanned, of dense attention's", xlabel="step", ylabel="%", ylim=(0, 105))
    ends.set(title="Frontier at the end, over budgets", xlabel="attention share, %", ylabel="held-out loss")
    loss.legend(frameon=False)
    figure.savefig(file, dpi=150)


def tables(runs: dict[tuple[str, int], dict[str, Any]]) -> str:
    """The tables of the README."""
    lines = [
        (
            "| model | parameters | held-out loss | attention share | any-layer reads | training "
            "seconds (CPU) | seeds |"
        ),
        "|---|---|---|---|---|---|---|",
    ]
    for name in COLOURS:
        own = [run["summary"] for (model, _), run in runs.items() if model == name]
        if own:
            cells = [
                _spread(own, "loss"),
                _spread(own, "attention_share", 100),
                _spread(own, "any_layer_read_rate", 100),
                _spread(own, "training_cpu_seconds"),
            ]
            lines.append(f"| {name} | {own[0]['parameters']:,} | {' | '.join(cells)} | {len(own)} |")
    both = [seed for seed in range(3) if ("cram", seed) in runs and ("dense", seed) in runs]
    if both:
        above = [
            runs["cram", seed]["summary"]["loss"] - runs["dense", seed]["summary"]["loss"] for seed in both
        ]
        lines += [
            "",
            (
                "CRAM's held-out loss above the dense model's, seed by seed: "
                f"{', '.join(f'{value:+.3f}' for value in above)} nats a token."
            ),
        ]
    lines += _pilots(runs)
    kinds = [run["summary"]["routes_by_class"] for (model, _), run in runs.items() if model == "cram"]
    if kinds:
        lines += ["", "| tokens (CRAM) | working | semantic | episodic: a read |", "|---|---|---|---|"]
        for kind in kinds[0]:
            totals = [sum(counts[kind][route] for counts in kinds) for route in Route]
            lines.append(
                f"| {kind} | "
                + " | ".join(f"{100 * total / max(1, sum(totals)):.1f}%" for total in totals)
                + " |"
            )
    return "\n".join(lines)


def _pilots(runs: dict[tuple[str, int], dict[str, Any]]) -> list[str]:
    """What other learning rates and prices came to, and the rates and prices of the two models beside
    them."""
    lines = [
        "",
        "| pilot | seed | learning rate | dearest read | held-out loss | attention share |",
        "|---|---|---|---|---|---|",
    ]
    for (name, seed), run in sorted(
        runs.items(),
        key=lambda item: (item[0][0].split("_")[0], item[1]["config"]["training"]["learning_rate"]),
    ):
        if seed == 0:
            rules, price = run["config"]["training"], run["config"]["controller"].get("price_most", "")
            ends = f"{run['summary']['loss']:.3f} | {100 * run['summary']['attention_share']:.1f}%"
            lines.append(f"| {name} | {seed} | {rules['learning_rate']} | {price} | {ends} |")
    return lines


def _spread(summaries: list[dict[str, Any]], key: str, factor: float = 1.0) -> str:
    values, unit = [factor * summary[key] for summary in summaries], "%" if factor == 100 else ""
    form = ".0f" if key == "training_cpu_seconds" else ".1f" if unit else ".3f"
    return f"{statistics.mean(values):{form}}{unit} ({min(values):{form}} to {max(values):{form}})"


def write_page(runs: Path, file: Path) -> None:
    """Held-out text in the colours of its routes, from the first CRAM run on this machine."""
    chosen = sorted(runs.glob("cram-seed*/routes.json"))
    if chosen:
        shown = json.loads(chosen[0].read_text())
        passages = [
            Passage(heading=f"Held-out passage {number}", tokens=passage["tokens"])
            for number, passage in enumerate(shown, 1)
        ]
        caption = (
            "Each token in the colour of the dearest memory that it used in any layer. What is "
            "underlined in orange was looked up in the context."
        )
        file.write_text(
            text_page("What a small language model still reads", caption, passages), encoding="utf-8"
        )


def main() -> None:
    """Collect what is there."""
    keep(RUNS, FINISHED)
    runs = read_runs(FINISHED)
    if not runs:
        raise SystemExit(f"no finished run in {RUNS}: start with python {HERE.name}/run.py")
    write_csv(runs, HERE / "results.csv")
    draw(runs, HERE / "figure.png")
    write_page(RUNS, RUNS / "report.html")
    page = HERE / "README.md"
    before, _, rest = page.read_text().partition(BEGIN)
    page.write_text(
        before
        + BEGIN
        + "\n![Loss and keys scanned while training, and loss over budgets](figure.png)\n\n"
        + tables(runs)
        + "\n"
        + END
        + rest.partition(END)[2]
    )


if __name__ == "__main__":
    main()
