"""The command line: train, evaluate, calibrate, report, tasks, bench, reproduce, analyze, retrofit.

Each command imports what it needs when it runs.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Sequence models that learn to stop paying for attention.",
)


@app.command("train")
def train_command(
    config: Annotated[
        str, typer.Argument(metavar="CONFIG", help="A preset (mini, demo, full) or a YAML file.")
    ],
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="A.B=VALUE",
            help="Change a field, e.g. --set training.steps=500. May be repeated.",
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of weights, data and noise.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run; runs/NAME-seedS if not given.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the last checkpoint.")] = False,
    start: Annotated[
        Path | None, typer.Option(help="Folder of the finished run that start_from names.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
) -> None:
    """Train a model, evaluate it on fresh sequences, and print the summary."""
    from accelerate import PartialState
    from rich.console import Console

    from torchcram.report.tables import print_summary
    from torchcram.training.distributed import leave_group
    from torchcram.training.loop import train
    from torchcram.training.presets import resolve

    chosen = resolve(config)
    for assignment in set_ or []:
        chosen = chosen.updated(*parse_assignment(assignment))
    if seed is not None:
        chosen = chosen.updated("seed", seed)
    run = train(chosen, out=out, resume=resume, start=start, show_progress=not quiet)
    if PartialState().is_main_process:
        print_summary(run.summary, Console())
        typer.echo(f"{run.path / 'summary.json'}")
    leave_group()


@app.command("evaluate")
def evaluate_command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run.")],
    queries: Annotated[
        int,
        typer.Option(min=1, help="Least number of scored queries (sequences, where a task has no queries)."),
    ] = 20_000,
    seed: Annotated[int, typer.Option(help="Seed of the fresh sequences.")] = 1,
    reads: Annotated[
        str, typer.Option(help="routed: obey the router; all: force every read; none: forbid reads.")
    ] = "routed",
    shift: Annotated[
        float, typer.Option(help="Logits added to the familiarity thresholds; lower skips more.")
    ] = 0.0,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="FIELD=VALUE",
            help="Change a field of the task, e.g. --set override=0.2: zero-shot.",
        ),
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the record there, too.")] = None,
) -> None:
    """Judge a finished run on fresh sequences and print the record as JSON."""
    from torchcram.training.loop import evaluate_run, load_run

    changes = dict(parse_assignment(assignment) for assignment in set_ or [])
    _show_json(
        evaluate_run(
            load_run(run), queries=queries, seed=seed, reads=reads, shift=shift, task_changes=changes
        ),
        json_file,
    )


@app.command("calibrate")
def calibrate_command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run.")],
    tolerance: Annotated[
        list[float] | None, typer.Option(help="Risk tolerance; may be repeated. Default: 0.01 and 0.05.")
    ] = None,
    sequences: Annotated[int, typer.Option(min=1, help="Calibration sequences of each split.")] = 200,
    test_sequences: Annotated[int, typer.Option(min=1, help="Test sequences of each split.")] = 400,
    splits: Annotated[int, typer.Option(min=1, help="Random splits.")] = 200,
    seed: Annotated[int, typer.Option(help="Seed of the sequences and of the splits.")] = 1,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the result there, too.")] = None,
) -> None:
    """Test the conformal guarantee of a finished run over random splits, and print the result as JSON."""
    from dataclasses import asdict

    import torch

    from torchcram.calibration import split_study
    from torchcram.training.evaluate import fresh_risk_curve
    from torchcram.training.loop import load_run

    loaded = load_run(run)
    curve = fresh_risk_curve(
        loaded.model,
        loaded.task,
        sequences=sequences + test_sequences,
        seed=seed,
        step=loaded.config.training.steps,
    )
    studies = [
        split_study(
            curve,
            calibration_sequences=sequences,
            risk_tolerance=value,
            splits=splits,
            generator=torch.Generator().manual_seed(seed),
        )
        for value in tolerance or (0.01, 0.05)
    ]
    _show_json([asdict(study) | {"holds": study.holds} for study in studies], json_file)


@app.command("report")
def report_command(run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run.")]) -> None:
    """Write one self-contained HTML file, and its figures as PNG."""
    from torchcram.report.html import write_report

    typer.echo(str(write_report(run)))


@app.command("tasks")
def tasks_command(
    task: Annotated[str, typer.Argument(metavar="TASK", help="srcd")],
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="FIELD=VALUE", help="Change a field of the task, e.g. --set length=256."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the sequences.")] = 0,
    out: Annotated[Path, typer.Option(help="Where to draw one sequence.")] = Path("srcd.png"),
    sequences: Annotated[int, typer.Option(min=1, help="Sequences for the statistics.")] = 200,
) -> None:
    """Draw one SRCD sequence as a picture and print the statistics of many against the specification."""
    import math

    import torch
    from rich.console import Console

    from torchcram.report.drawing import draw_sequence
    from torchcram.report.tables import print_statistics
    from torchcram.strict import require_choice
    from torchcram.tasks.srcd import SRCD
    from torchcram.tasks.srcd_config import SRCDConfig
    from torchcram.tasks.srcd_oracle import statistics

    require_choice("task", task, ("srcd",))
    config = SRCDConfig()
    for assignment in set_ or []:
        config = config.updated(*parse_assignment(assignment))
    generator = torch.Generator().manual_seed(seed)
    batch = SRCD(config).batch(sequences, generator=generator)
    draw_sequence(batch).savefig(out, dpi=150)
    rows = {
        name: (measured, None if math.isnan(specified) else specified)
        for name, measured, specified in statistics(batch, config=config)
    }
    print_statistics(rows, Console())
    typer.echo(str(out))


@app.command("bench")
def bench_command(
    questions: Annotated[
        list[str] | None, typer.Argument(metavar="[QUESTION]...", help="Names as in the table; all if none.")
    ] = None,
    json_file: Annotated[
        Path | None,
        typer.Option(
            "--json", help="Write the measurements there as they come; table and figure go beside it."
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    rounds: Annotated[int, typer.Option(min=2, help="Turns of ours and of the peer.")] = 7,
    longest: Annotated[int | None, typer.Option(min=1, help="Leave out longer sequences.")] = None,
) -> None:
    """Time parts of the library against named peers, in turns, in one run."""
    import torch
    from rich.console import Console

    from torchcram.bench.page import write_bench_page
    from torchcram.bench.run import ask, machine
    from torchcram.bench.setting import Setting
    from torchcram.bench.table import bench_line, print_bench
    from torchcram.strict import require_choice

    if require_choice("device", device, ("cpu", "cuda")) == "cuda" and not torch.cuda.is_available():
        raise ValueError("device 'cuda': there is no CUDA GPU here; use cpu")
    console = Console()
    console.print(
        ", ".join(f"{name} {value}" for name, value in machine().items() if value is not None), style="dim"
    )
    setting = Setting(device=torch.device(device), rounds=rounds, longest=longest)
    found = ask(
        questions or [],
        setting=setting,
        file=json_file,
        show=lambda measurement: console.print(bench_line(measurement.record())),
    )
    print_bench(found, console)
    if json_file is not None:
        typer.echo(str(write_bench_page(json_file)))


@app.command("reproduce")
def reproduce_command(
    claim: Annotated[
        str,
        typer.Argument(
            metavar="CLAIM", help="A claim, e.g. 02_transition; all: 01 to 08. Their tuning is 00_tuning."
        ),
    ],
    scale: Annotated[str, typer.Option(help="mini, demo or full.")] = "mini",
    seeds: Annotated[int, typer.Option(help="Seeds 0 to N - 1 of every method.")] = 3,
    only: Annotated[
        list[str] | None, typer.Option(metavar="METHOD", help="Train this method alone; may be repeated.")
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(help="Runs at once, one thread each; as many as there are cores if not given."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what there is and what is to do; train and write nothing.")
    ] = False,
    refresh: Annotated[
        bool, typer.Option("--refresh", help="Train again what was trained with other code.")
    ] = False,
    executor: Annotated[
        str, typer.Option(help="local: processes of this machine; ray: a Ray cluster (extra ray).")
    ] = "local",
    runs: Annotated[Path, typer.Option(help="Folder of the runs.")] = Path("runs/reproduce"),
    out: Annotated[
        Path,
        typer.Option(
            help="Folder of the claims' results; a README.md beside it gets their table, if it has its marks."
        ),
    ] = Path("experiments"),
) -> None:
    """Train what a claim still needs, and write its table, figure and status."""
    from rich.console import Console

    from torchcram.reproduce.reproduction import look_up
    from torchcram.strict import require_choice, require_positive

    require_positive(jobs=1 if jobs is None else jobs)
    require_choice("executor", executor, ("local", "ray"))
    reproduction = look_up(
        claim, scale=scale, seeds=seeds, only=only or (), refresh=refresh, runs=runs, experiments=out
    )
    if dry_run:
        reproduction.show(Console())
    else:
        reproduction.carry_out(executor=executor, workers=jobs, say=typer.echo)


@app.command("analyze")
def analyze_command(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="A Hub id, a folder, or a GGUF file of a causal language model."
        ),
    ],
    texts: Annotated[
        list[Path],
        typer.Argument(
            metavar="TEXT...", help="Text files, or folders of text files; each file is a document."
        ),
    ],
    tokens: Annotated[
        int, typer.Option(min=1, help="Tokens to fit on; an eighth of it to select and to test.")
    ] = 200_000,
    context: Annotated[int, typer.Option(min=2, help="Longest window.")] = 1024,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the analysis, also to resume it; runs/analyze-MODEL if not given."),
    ] = None,
    checkpoints: Annotated[
        str | None,
        typer.Option(
            metavar="GLOB", help="Folders in MODEL to analyse one after the other, e.g. 'checkpoint-*'."
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="Change a setting, e.g. --set judge_tokens=4096."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the splits.")] = 0,
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "float32",
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
) -> None:
    """Measure how predictable the attention of a pretrained model is, and what replacing it costs.

    Run it again to resume it.
    """
    from torchcram.pretrained.analysis.page import write_analysis_page
    from torchcram.pretrained.analysis.settings import AnalysisConfig
    from torchcram.pretrained.texts import load_texts

    settings = AnalysisConfig.parse({"tokens": tokens, "context": context, "seed": seed})
    for assignment in set_ or []:
        settings = settings.updated(*parse_assignment(assignment))
    documents = load_texts(texts)
    name = Path(model).name.removesuffix(".gguf")
    place = out or Path("runs") / f"analyze-{name}"
    if checkpoints is not None:
        from torchcram.pretrained.analysis.checkpoints import analyze_series
        from torchcram.pretrained.analysis.checkpoints_page import write_series_page

        analyze_series(
            Path(model),
            checkpoints,
            documents,
            settings=settings,
            out=place,
            dtype=dtype,
            show_progress=not quiet,
        )
        typer.echo(str(write_series_page(place)))
        return
    from torchcram.pretrained.analysis.analyze import analyze
    from torchcram.pretrained.loading import load_model

    loaded, tokenizer = load_model(model, dtype=dtype)
    analyze(loaded, tokenizer, documents, settings=settings, out=place, name=name, show_progress=not quiet)
    typer.echo(str(write_analysis_page(place)))


@app.command("retrofit")
def retrofit_command(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="A Hub id, a folder, or a GGUF file of a causal language model."
        ),
    ],
    texts: Annotated[
        list[Path],
        typer.Argument(
            metavar="TEXT...", help="Text files, or folders of text files; each file is a document."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder to save to; run again to resume.")],
    reads: Annotated[
        float, typer.Option(min=0, max=1, help="Share of token x layer that may read the context.")
    ] = 0.25,
    minutes: Annotated[float, typer.Option(min=0, help="That it may take, more or less.")] = 10.0,
    context: Annotated[int, typer.Option(min=2, help="Longest window, in tokens.")] = 1024,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="Change a setting, e.g. --set window=128."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of windows, labels and first weights.")] = 0,
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "float32",
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
) -> None:
    """Give a pretrained language model the three memories: it reads its cache only where it must."""
    from torchcram.pretrained.loading import load_model
    from torchcram.pretrained.retrofit.life import retrofit
    from torchcram.pretrained.retrofit.settings import RetrofitSettings
    from torchcram.pretrained.texts import load_texts

    settings, documents = RetrofitSettings(), load_texts(texts)
    for assignment in set_ or []:
        settings = settings.updated(*parse_assignment(assignment))
    loaded, tokenizer = load_model(model, dtype=dtype)
    made = retrofit(
        loaded,
        tokenizer,
        documents,
        reads=reads,
        minutes=minutes,
        context=context,
        settings=settings,
        out=out,
        seed=seed,
        show_progress=not quiet,
    )
    typer.echo(str(made.folder))


def _show_json(content: Any, file: Path | None) -> None:
    import json

    text = json.dumps(content, indent=1)
    if file is not None:
        file.write_text(text + "\n")
    typer.echo(text)


def parse_assignment(text: str) -> tuple[str, Any]:
    """Split ``a.b=value``; the value is read as YAML (so numbers, lists, true, null work).

    Raises:
        ValueError: if there is no equals sign, or the value is not YAML.
    """
    from torchcram.strict_yaml import load_yaml

    path, equals, value = text.partition("=")
    if not equals or not path:
        raise ValueError(f"--set {text!r} must look like a.b=value")
    try:
        return path, load_yaml(value)
    except ValueError as error:
        raise ValueError(
            f"--set {text!r}: {value!r} is neither a number, nor a word, nor a list: {error} (quote what "
            "holds brackets or colons)"
        ) from None


def main() -> None:
    """Run the command line; what the user can mend is one line on stderr and exit status 2, an
    interruption is 130.
    """
    try:
        app()
    except (ValueError, FloatingPointError, ImportError, OSError) as error:
        typer.secho(f"error: {'; '.join(str(error).splitlines())}", err=True, fg=typer.colors.RED)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
