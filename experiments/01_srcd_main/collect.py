"""Collect the finished runs of this claim: ``results.csv``, figures, and the tables of this folder's README.

    python experiments/01_srcd_main/collect.py

What is new comes from ``runs/01_srcd_main/*/summary.json`` and ``calibration_study.json`` /
``zero_shot.json`` beside them; ``run.py`` makes those. Rows that ``results.csv`` and ``studies.csv`` already
hold are kept while their configurations stay as they are, so the runs need not all lie on one machine.
"""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

from torchcram.report.page import between
from torchcram.report.style import png
from torchcram.reproduce.claim import Goal, is_share
from torchcram.reproduce.headline import headline_figure
from torchcram.reproduce.results import csv_text, load_rows
from torchcram.training.presets import resolve

HERE = Path(__file__).parent
RUNS = Path("runs") / HERE.name
MARKS = "<!-- results: written by experiments/01_srcd_main/collect.py -->", "<!-- /results -->"
COLUMNS = (  # noqa: SIM905 - one name a line would be a page
    "retrieval_accuracy recurring_accuracy novel_accuracy overridden_accuracy any_layer_read_rate "
    "any_layer_floor attention_share attention_share_floor reduction_any_layer reduction_need "
    "reduction_consolidation reduction_attention_share transition_step dynamics_mse "
    "dynamics_mse_all_reads kalman_mse mixing_flops_share bytes_share training_attention_share "
    "reads_computed reads_counted evaluated_queries parameters steps seconds tokens_per_second "
    "config_hash"
).split()

GOALS = (
    Goal(method="demo", figure="retrieval_accuracy", sign=">=", number=0.995),
    Goal(method="demo", figure="novel_accuracy", sign=">=", number=0.990),
    Goal(method="demo", figure="any_layer_read_rate", sign="<=", of="any_layer_floor", times=1.25),
    Goal(method="demo", figure="attention_share", sign="<=", of="attention_share_floor", times=1.25),
    Goal(method="demo", figure="dynamics_mse", sign="<=", than=("demo_transformer",)),
    Goal(method="demo", figure="dynamics_mse", sign="<=", than=("demo_transformer_wide",)),
    Goal(method="demo", figure="seconds", sign="<=", number=480),
    Goal(method="full", figure="retrieval_accuracy", sign=">=", number=0.999),
    Goal(method="full", figure="novel_accuracy", sign=">=", number=0.997),
    Goal(method="full", figure="any_layer_read_rate", sign="<=", of="any_layer_floor", times=1.07),
    Goal(method="full", figure="transition_step", sign="<=", number=2000),
    Goal(method="full", figure="dynamics_mse", sign="<=", than=("full_transformer",)),
    Goal(method="full", figure="dynamics_mse", sign="<=", than=("full_transformer_wide",)),
    Goal(method="demo_override", figure="overridden_accuracy", sign=">=", number=0.98),
    Goal(method="demo_override", figure="any_layer_read_rate", sign="<=", of="any_layer_floor", plus=0.003),
)

MODELS = (
    ("", "CRAM"),
    ("_transformer", "dense Transformer, equal width"),
    ("_transformer_wide", "dense Transformer, equal parameters"),
    ("_ssm", "SSM alone"),
)


def load() -> dict[str, list[dict[str, Any]]]:
    """Return the rows by configuration, in the order of their seeds: those committed, and in their places
    those of the runs at hand."""
    rows = {
        (row["method"], row["seed"]): row
        for row in load_rows(HERE / "results.csv")
        if row["config_hash"] == current_hash(row["method"], row["seed"])
    }
    for file in RUNS.glob("*-seed*/summary.json"):
        method, summary = file.parent.name.rsplit("-seed", 1)[0], json.loads(file.read_text())
        if summary["config_hash"] == current_hash(method, summary["seed"]):
            environment = json.loads(file.with_name("environment.json").read_text())
            origin = {
                "method": method,
                "commit": str(environment["commit"]),
                "source": environment["source"],
                "threads": environment["threads"],
            }
            rows[method, summary["seed"]] = {
                **origin,
                "seed": summary["seed"],
                **{column: summary.get(column) for column in COLUMNS},
            }
    found: dict[str, list[dict[str, Any]]] = {}
    for key in sorted(rows):
        found.setdefault(key[0], []).append(rows[key])
    return found


def current_hash(method: str, seed: int) -> str | None:
    """Return the hash of a run's configuration as it is now; None if there is none of that name."""
    file = HERE / "configs" / f"{method}.yaml"
    return resolve(str(file)).updated("seed", seed).digest() if file.exists() else None


def load_studies() -> list[dict[str, Any]]:
    """Return a row for each study of a run: calibration at each tolerance, and zero-shot overrides."""
    rows = {
        (row["run"], row["study"]): row
        for row in load_rows(HERE / "studies.csv")
        if row["config_hash"] == run_hash(row["run"])
    }
    for file in RUNS.glob("*-seed*/calibration_study.json"):
        for study in json.loads(file.read_text()):
            row = {
                "run": file.parent.name,
                "study": f"risk {100 * study['risk_tolerance']:g}%",
                "config_hash": run_hash(file.parent.name),
                **study,
            }
            rows[row["run"], row["study"]] = row
    for file in RUNS.glob("demo-seed*/zero_shot.json"):
        record = json.loads(file.read_text())
        scores = {
            f"{name}_accuracy": record["accuracy"][name] for name in ("overridden", "novel", "recurring")
        }
        row = {
            "run": file.parent.name,
            "study": "zero-shot",
            "config_hash": run_hash(file.parent.name),
            **scores,
        }
        rows[row["run"], row["study"]] = row | {
            name: record[name] for name in ("any_layer_read_rate", "any_layer_floor", "evaluated_queries")
        }
    return [rows[key] for key in sorted(rows)]


def run_hash(run: str) -> str | None:
    """Return the hash of the configuration of a run, by its name."""
    method, _, seed = run.rpartition("-seed")
    return current_hash(method, int(seed))


def spread(values: list[float], *, percent: bool) -> str:
    """Return mean, and least and greatest value, of some runs."""
    scale, unit, digits = (100.0, "%", 2) if percent else (1.0, "", 4 if max(values) < 1 else 0)
    low, mean, high = (
        f"{scale * value:.{digits}f}" for value in (min(values), statistics.mean(values), max(values))
    )
    return f"{mean}{unit} ({low} to {high})" if len(values) > 1 else f"{mean}{unit}"


def goal_rows(found: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Return, for each goal, the figures, the bound, and whether every seed meets it."""
    rows = []
    for goal in GOALS:
        runs = found.get(goal.method, [])
        # A run whose read rate never settled has no transition step: it misses that goal.
        values = [run[goal.figure] for run in runs if run[goal.figure] is not None]
        if values:
            value = spread(values, percent=is_share(goal.figure))
            known = all(found.get(name) for name in goal.than)
            met = (
                f"{sum(goal.met(run, found) for run in runs)} of {len(runs)} seeds"
                if known
                else "not measured yet"
            )
            rows.append(
                f"| {goal.method} | {goal.figure.replace('_', ' ')} | {value} | {goal.words} | {met} |"
            )
    return rows


def dynamics_rows(found: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Return the prediction errors of every model at each scale, with what they cost."""
    rows = []
    for scale in ("demo", "full"):
        for suffix, title in MODELS:
            runs = found.get(scale + suffix, [])
            if runs:
                error, floor = (
                    spread([run["dynamics_mse"] for run in runs], percent=False),
                    spread([run["kalman_mse"] for run in runs], percent=False),
                )
                forced = spread([run["dynamics_mse_all_reads"] for run in runs], percent=False)
                accuracy = spread([run["retrieval_accuracy"] for run in runs], percent=True)
                rows.append(
                    f"| {scale} | {title} | {runs[0]['parameters']:,} | {error} | {forced} | "
                    f"{floor} | {accuracy} | {len(runs)} |"
                )
    return rows


def study_rows(studies: list[dict[str, Any]]) -> list[str]:
    """Return what the conformal studies measured. Rows of before there was a choice compared with all reads,
    and have no read rate."""
    return [study_row(study) for study in studies if study["study"].startswith("risk")]


def study_row(study: dict[str, Any]) -> str:
    """Return the row of one study."""
    holds = study["mean_risk"] <= study["risk_tolerance"] + 2 * study["standard_error"]
    over, certified = study.get("reads_over_floor"), study.get("certified_share")
    cells = [
        study["run"],
        f"{100 * study['risk_tolerance']:g}%",
        str(study["calibration_sequences"]),
        study.get("reference") or "all reads",
        f"{study['mean_risk']:.3%} +- {study['standard_error']:.3%}",
        f"{study['mean_skipped']:.1%}",
        "-" if over is None else f"{over:.2f} x",
        "-" if certified is None else f"{certified:.0%}",
        "yes" if holds and study["mean_skipped"] >= 0.8 else "no",
    ]
    return f"| {' | '.join(cells)} |"


def override_rows(found: dict[str, list[dict[str, Any]]], studies: list[dict[str, Any]]) -> list[str]:
    """Return the figures of the override variant, trained and zero-shot."""
    trained = [
        override_row(f"trained with overrides, seed {run['seed']}", run)
        for run in found.get("demo_override", [])
    ]
    return trained + [
        override_row(f"zero-shot ({study['run']})", study)
        for study in studies
        if study["study"] == "zero-shot"
    ]


def override_row(title: str, row: dict[str, Any]) -> str:
    """Return one row of the override table."""
    shares = [
        f"{row[name]:.2%}"
        for name in ("overridden_accuracy", "novel_accuracy", "any_layer_read_rate", "any_layer_floor")
    ]
    return f"| {' | '.join([title, *shares])} |"


def table(head: str, rows: list[str]) -> str:
    """Return a Markdown table, or a line that says that there is nothing yet."""
    columns = head.count("|") - 1
    return "\n".join([head, "|" + "---|" * columns, *rows]) if rows else "Not measured yet."


def sections(found: dict[str, list[dict[str, Any]]], studies: list[dict[str, Any]]) -> dict[str, str]:
    """Return the tables by title."""
    return {
        "Goals": table("| runs | figure | mean (least to greatest) | goal | met by |", goal_rows(found)),
        "Dynamics: mean squared error of the next observation": table(
            "| scale | model | parameters | error | all reads forced | Kalman floor | retrieval | seeds |",
            dynamics_rows(found),
        ),
        "Override: a fifth of the recurring keys bound again": table(
            "| run | overridden | novel | any-layer reads | floor |", override_rows(found, studies)
        ),
        "Conformal calibration: 200 random splits": table(
            (
                "| run | tolerance | sequences | compared with | realised risk (mean, standard error) | "
                "skippable reads skipped | reads over floor | splits that certified skipping | "
                "holds, and >= 80% skipped |"
            ),
            study_rows(studies),
        ),
    }


def main() -> None:
    """Write everything."""
    found, studies = load(), load_studies()
    (HERE / "results.csv").write_text(
        csv_text([run for runs in found.values() for run in runs], leading=("method", "seed"))
    )
    (HERE / "studies.csv").write_text(csv_text(studies, leading=("run", "study")))
    for scale, file in (("demo", "figure.png"), ("full", "figure_full.png")):
        folders = sorted(path.parent for path in RUNS.glob(f"{scale}-seed*/summary.json"))
        # The figure needs the metrics, which are not committed: it is drawn anew where all the runs lie.
        if folders and len(folders) == len(found.get(scale, [])):
            (HERE / file).write_bytes(png(headline_figure(folders)))
    tables = sections(found, studies)
    readme = HERE / "README.md"
    readme.write_text(
        between(
            readme.read_text(),
            marks=MARKS,
            content="\n\n".join(f"## {title}\n\n{body}" for title, body in tables.items()),
        )
    )


if __name__ == "__main__":
    main()
