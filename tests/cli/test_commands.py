"""The command line: quick to answer, one line for what went wrong, nothing written before it is sure."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from command_line import run, shell
from torchcram.cli import app
from torchcram.cli.options import parse_assignment


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ([], ["train", "evaluate", "calibrate", "report", "tasks"]),
        (
            ["train"],
            [
                "CONFIG",
                "--set",
                "--seed",
                "--out",
                "--resume",
                "--quiet",
                "A preset (mini, demo, full) or a YAML file",
                "training.steps=500",
            ],
        ),
        (
            ["evaluate"],
            [
                "RUN",
                "--queries",
                "--seed",
                "--reads",
                "--shift",
                "--json",
                "Judge a finished run on fresh sequences",
            ],
        ),
        (["calibrate"], ["RUN", "--tolerance", "--sequences", "--splits", "conformal guarantee"]),
        (["report"], ["RUN", "self-contained HTML"]),
        (["reproduce"], ["CLAIM", "--scale", "--seeds", "--jobs", "--dry-run", "--refresh", "02_transition"]),
        (
            ["analyze"],
            [
                "MODEL",
                "TEXT...",
                "--tokens",
                "--context",
                "--out",
                "--checkpoints",
                "--set",
                "--dtype",
                "GGUF file",
            ],
        ),
        (["tasks"], ["srcd"]),
        (["tasks", "srcd"], ["--set", "--seed", "--out", "--sequences", "Draw one SRCD sequence"]),
    ],
)
def test_help_tells_what_there_is(command, words):
    result = CliRunner().invoke(app, [*command, "--help"])
    assert result.exit_code == 0
    shown = " ".join(result.output.split())
    assert [word for word in words if word not in shown] == []


def test_help_and_mistakes_answer_without_torch():
    code = "import sys; from torchcram.cli import app\ntry: app([{}])\nexcept SystemExit: pass\n"
    code += "print(sorted({{'torch', 'accelerate', 'matplotlib', 'transformers'}} & set(sys.modules)))"
    for arguments in ("'--help'", "'train', '--help'", "'analyze', '--help'", "'trian'"):
        result = subprocess.run(
            [sys.executable, "-c", code.format(arguments)],
            capture_output=True,
            text=True,
            check=True,
            timeout=600,
        )
        assert result.stdout.splitlines()[-1] == "[]"


@pytest.mark.slow
def test_train_evaluate_report_from_start_to_end(monkeypatch, capsys):
    assert (
        run(
            "train",
            "tiny.yaml",
            "--set",
            "training.steps=5",
            "--seed",
            "3",
            "--out",
            "run",
            "--quiet",
            monkeypatch=monkeypatch,
        )
        == 0
    )
    said = capsys.readouterr()
    assert "any-layer read rate" in said.out
    assert said.out.splitlines()[-1] == "run/summary.json"
    summary = json.loads(Path("run/summary.json").read_text())
    assert (summary["steps"], summary["seed"]) == (5, 3)

    assert (
        run(
            "evaluate",
            "run",
            "--queries",
            "10",
            "--reads",
            "all",
            "--json",
            "found.json",
            monkeypatch=monkeypatch,
        )
        == 0
    )
    record = json.loads(capsys.readouterr().out)
    assert record == json.loads(Path("found.json").read_text())
    assert record["any_layer_read_rate"] == 1.0

    arguments = [
        "calibrate",
        "run",
        "--tolerance",
        "0.2",
        "--sequences",
        "8",
        "--test-sequences",
        "8",
        "--splits",
        "4",
    ]
    assert run(*arguments, monkeypatch=monkeypatch) == 0
    (study,) = json.loads(capsys.readouterr().out)
    assert (study["risk_tolerance"], study["splits"], study["reference"]) == (0.2, 4, "cautious")
    assert study["certified"] in (True, False)
    assert study["reads_over_floor"] > 0
    assert {"mean_risk", "standard_error", "mean_skipped", "holds"} <= set(study)
    for wrong, message in (
        (["--tolerance", "0"], "--tolerance 0.0 must lie strictly between 0 and 1"),
        (["--tolerance", "nan"], "--tolerance nan must lie strictly between 0 and 1"),
        (["--tolerance", "2"], "--tolerance 2.0 must lie strictly between 0 and 1"),
        (["--tolerance", "0.01"], "8 calibration sequences cannot certify a risk of 0.01: at least 99 are"),
        (["--bound", "meen"], "risk_bound: Input should be 'mean' or 'betting' (got 'meen')"),
        (["--reference", "dense"], "risk_reference: Input should be 'cautious' or 'labels' (got 'dense')"),
        (["--bound", "betting", "--confidence", "1"], "risk_confidence: Input should be less than 1"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr("torchcram.training.thresholds.fresh_risk_curve", None)
            assert run("calibrate", "run", "--sequences", "8", *wrong, monkeypatch=patch) == 2
        assert message in capsys.readouterr().err
    arguments = ["calibrate", "run", "--test-sequences", "8", "--splits", "2", "--sequences", "10"]
    options = ["--reference", "labels", "--bound", "betting", "--confidence", "0.5", "--tolerance", "0.9"]
    assert run(*arguments, *options, "--json", "study.json", monkeypatch=monkeypatch) == 0
    (study,) = json.loads(Path("study.json").read_text())
    assert json.loads(capsys.readouterr().out) == [study]
    assert (study["reference"], study["bound"], study["confidence"]) == ("labels", "betting", 0.5)

    assert run("report", "run", monkeypatch=monkeypatch) == 0
    page = Path(capsys.readouterr().out.split()[-1])
    assert "<html" in page.read_text()

    assert (
        run(
            "train",
            "tiny.yaml",
            "--set",
            "training.steps=5",
            "--seed",
            "3",
            "--out",
            "run",
            "--resume",
            monkeypatch=monkeypatch,
        )
        == 0
    )
    assert "any-layer read rate" in capsys.readouterr().out


def test_a_sequence_is_drawn_beside_its_statistics(monkeypatch, capsys):
    arguments = [
        "tasks",
        "srcd",
        "--set",
        "length=256",
        "--set",
        "patterns=5",
        "--sequences",
        "20",
        "--out",
        "one.png",
    ]
    assert run(*arguments, monkeypatch=monkeypatch) == 0
    said = capsys.readouterr().out
    assert Path("one.png").read_bytes()[:4] == b"\x89PNG"
    assert "binding share of the steps" in said
    assert "specified" in said
    assert said.splitlines()[-1] == "one.png"
    assert run("tasks", "srcd", "--set", "lenght=256", monkeypatch=monkeypatch) == 2
    assert "unknown key 'lenght' in SRCDConfig: did you mean 'length'?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["demmo"], "unknown preset 'demmo': did you mean 'demo'?"),
        (["missing.yaml"], "cannot read the configuration 'missing.yaml': No such file or directory"),
        (
            ["tiny.yaml", "--set", "training.stesp=3"],
            "unknown key 'stesp' in TrainingConfig: did you mean 'steps'?",
        ),
        (["tiny.yaml", "--set", "training.steps=soon"], "training.steps: Input should be a valid integer"),
        (["tiny.yaml", "--set", "training.steps"], "--set 'training.steps' must look like a.b=value"),
        (["tiny.yaml", "--set", "model.options=["], "--set 'model.options=[': '[' is neither a number"),
        (["tiny.yaml", "--set", "training.steps=true"], "steps is neither true nor false (got True)"),
        (["tiny.yaml", "--set", "training.steps=1:10"], "training.steps: Input should be a valid integer"),
        (["tiny.yaml", "--set", "controller={a: 1, a: 2}"], "the key 'a' stands there twice"),
        (["tiny.yaml", "--seed", "-4"], "seed: Input should be greater than or equal to 0 (got -4)"),
        (["tiny.yaml", "--set", "task.patterns=0"], "recurrence 0.7 needs patterns, but patterns is 0"),
        (["tiny.yaml", "--set", "task.length=12"], "use a length of 25 or more, or larger shares"),
        (
            ["tiny.yaml", "--set", "model.d_model=18"],
            "d_model 18 is not a multiple of 4 x heads = 16 (half of each head turns in pairs): use 16",
        ),
        (
            ["tiny.yaml", "--set", "model.options.slts=3"],
            "unknown option 'slts' of mixer 'cram': did you mean 'slots'?",
        ),
        (
            ["tiny.yaml", "--set", "model.options={semantic: low_rank, surprise: false, rank: 99}"],
            "rank 99 must lie between 1 and d_model = 16",
        ),
        (["tiny.yaml", "--set", "training.head_weights.answr=1"], "'answr': did you mean 'answer'?"),
        (
            ["tiny.yaml", "--set", "task={kind: custom, name: mine, length: 9}"],
            "custom task 'mine': pass the task object",
        ),
        (["tiny.yaml", "--out", "tiny.yaml"], "tiny.yaml exists and is not a run"),
    ],
)
def test_a_mistake_is_one_line_on_stderr_and_writes_nothing(monkeypatch, capsys, arguments, message):
    assert (
        run(
            "train",
            *(["--out", "run"] if "--out" not in arguments else []),
            *arguments,
            monkeypatch=monkeypatch,
        )
        == 2
    )
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("error: ")
    assert message in said.err
    assert len(said.err.splitlines()) == 1
    assert [file.name for file in Path().iterdir()] == ["tiny.yaml"]


@pytest.mark.parametrize(
    "arguments",
    [["train"], ["trian"], ["train", "demo", "--sed", "3"], ["evaluate", "run", "--queries", "0"]],
)
def test_a_command_that_does_not_exist_is_a_usage_error(monkeypatch, capsys, arguments):
    assert run(*arguments, monkeypatch=monkeypatch) == 2
    assert "Usage" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["evaluate", "report", "calibrate"])
def test_what_is_no_run_is_said_in_one_line(monkeypatch, capsys, command):
    Path("empty").mkdir()
    for folder in ("nowhere", "empty"):
        assert run(command, folder, monkeypatch=monkeypatch) == 2
        said = capsys.readouterr().err
        assert said.startswith("error: ")
        assert folder in said
        assert len(said.splitlines()) == 1
    assert list(Path("empty").iterdir()) == []


def test_several_problems_still_make_one_line(monkeypatch, capsys):
    Path("bad.yaml").write_text("training: {steps: -1, clip: 0}\n")
    assert run("train", "bad.yaml", monkeypatch=monkeypatch) == 2
    said = capsys.readouterr().err
    assert "training.steps" in said
    assert "training.clip" in said
    assert len(said.splitlines()) == 1


@pytest.mark.slow
def test_a_mistake_shows_no_traceback_in_a_process_of_its_own():
    result = shell("train", "tiny.yaml", "--set", "model.mixer=crm")
    assert result.returncode == 2
    assert result.stderr.splitlines()[-1] == "error: unknown mixer 'crm': did you mean 'cram'?"
    assert "Traceback" not in result.stderr


@pytest.mark.slow
def test_a_disk_that_fills_up_ends_in_one_line_and_can_be_resumed(monkeypatch):
    """A limit on the size of files stands for the disk: the weights of the first checkpoint do not fit,
    the lines of the metrics do."""

    small_files = (
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))"
    )
    result = shell("train", "tiny.yaml", "--out", "run", "--quiet", before=small_files)
    assert result.returncode == 2
    assert result.stderr.splitlines()[-1].startswith("error: cannot write the checkpoint run/checkpoint: ")
    assert "Traceback" not in result.stderr
    assert sorted(file.name for file in Path("run").iterdir()) == [
        ".lock",
        "config.json",
        "environment.json",
        "metrics.jsonl",
    ]
    assert run("train", "tiny.yaml", "--out", "run", "--quiet", "--resume", monkeypatch=monkeypatch) == 0


@pytest.mark.slow
def test_analyze_goes_from_a_folder_and_text_to_a_report(monkeypatch, capsys):
    from tiny_models import CharTokenizer, documents, tiny_model

    tiny_model("gpt2").save_pretrained("model")
    for number, text in enumerate(documents()):
        Path(f"text{number}.txt").write_text(text)
    transformers = pytest.importorskip("transformers")
    monkeypatch.setattr(
        transformers.AutoTokenizer, "from_pretrained", lambda place, **options: CharTokenizer()
    )
    less = [
        f"--set={name}={value}"
        for name, value in (
            ("replace", "[1]"),
            ("skip_rates", "[0.5]"),
            ("mlp_width", 0),
            ("refit_tokens", 160),
            ("judge_tokens", 64),
        )
    ]
    texts = [str(path) for path in sorted(Path().glob("text*.txt"))]
    arguments = [
        "analyze",
        "model",
        *texts,
        "--tokens",
        "640",
        "--context",
        "32",
        "--out",
        "found",
        *less,
        "--quiet",
    ]
    assert run(*arguments, monkeypatch=monkeypatch) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "found/report.html"
    assert "<html" in Path("found/report.html").read_text()
    assert json.loads(Path("found/summary.json").read_text())["fit_tokens"] >= 640


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["model", "nowhere.txt"], "there is no text nowhere.txt"),
        (["nowhere.gguf", "tiny.yaml"], "there is no GGUF file nowhere.gguf"),
        (["model", "tiny.yaml", "--set", "judge_token=3"], "unknown key 'judge_token'"),
        (["model", "tiny.yaml", "--checkpoints", "step*"], "no folder in model matches 'step*'"),
    ],
)
def test_a_mistake_of_analyze_is_one_line_on_stderr(monkeypatch, capsys, arguments, message):
    assert run("analyze", *arguments, monkeypatch=monkeypatch) == 2
    said = capsys.readouterr().err
    assert message in said
    assert len(said.splitlines()) == 1


def test_an_interruption_is_130(monkeypatch):
    def interrupted(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("torchcram.training.loop.train", interrupted)
    assert run("train", "tiny.yaml", monkeypatch=monkeypatch) == 130


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("a.b=3", ("a.b", 3)),
        ("a=1e-3", ("a", 0.001)),
        ("seed=010", ("seed", 10)),
        ("a=1:10", ("a", "1:10")),
        ("a=1.0e-3", ("a", 0.001)),
        ("a=[[0, 64]]", ("a", [[0, 64]])),
        ("a=null", ("a", None)),
        ("a=x=y", ("a", "x=y")),
        ("a=", ("a", None)),
    ],
)
def test_assignments_are_read_as_yaml(text, parsed):
    assert parse_assignment(text) == parsed
