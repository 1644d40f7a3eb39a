"""The scripts of the experiments: they name problems that exist, and collect what has run, and say of the
rest that it was not run yet."""

import json
import shutil
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

from torchcram.series.comparison.methods import METHODS
from torchcram.series.comparison.problems import PROBLEMS
from torchcram.series.comparison.study import main
from torchcram.series.comparison.table import COLUMNS

ROOT = Path(__file__).parents[3] / "experiments"
EXPERIMENTS = ["11_physionet", "12_activity"]
SCORES = {"auroc": 0.9, "auprc": 0.5, "brier": 0.1, "accuracy": 0.8, "macro_f1": 0.7}
RESULT = {
    **SCORES,
    "attention_share": 0.05,
    "seconds": 60.0,
    "per_second": 2000.0,
    "calibration": [{"count": 9, "said": 0.1, "came": 0.2}],
}


def script(file: Path) -> ModuleType:
    spec = spec_from_file_location(f"{file.parent.name}_{file.stem}", file)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_names_a_problem_that_exists_and_answers(name, capsys):
    run = script(ROOT / name / "run.py")
    assert run.STUDY.problem in PROBLEMS
    assert run.STUDY.runs == Path("runs") / name
    with pytest.raises(SystemExit):
        main(run.STUDY, script=ROOT / name / "run.py", say=print, arguments=["--help"])
    said = capsys.readouterr().out
    assert "--splits" in said
    assert "--job " not in said


@pytest.fixture(params=EXPERIMENTS)
def collect(request, tmp_path, monkeypatch) -> ModuleType:
    """The script that collects an experiment, in a copy of its folder, with no runs yet."""
    folder = tmp_path / "experiments" / request.param
    folder.mkdir(parents=True)
    for file in ("collect.py", "README.md"):
        shutil.copy(ROOT / request.param / file, folder)
    monkeypatch.chdir(tmp_path)
    return script(folder / "collect.py")


def test_without_runs_everything_is_said_not_to_have_run(collect):
    collect.main()
    text = (collect.HERE / "README.md").read_text()
    assert text.count("not run yet") >= 2 * len(METHODS)
    assert (collect.HERE / "results.csv").read_text().splitlines() == [",".join(COLUMNS)]
    assert not list(collect.HERE.glob("*.png"))


def test_what_has_run_is_collected_and_collecting_again_changes_nothing(collect):
    collect.RUNS.mkdir(parents=True)
    for split in range(5):
        for name in ("cram", "transformer"):
            (collect.RUNS / f"{name}-split{split}.json").write_text(
                json.dumps({"method": name, "split": split, **RESULT})
            )
    collect.main()
    first = (collect.HERE / "README.md").read_text()
    assert "| attention share <= 10% of dense | 0.050 +- 0.000 | yes |" in first
    assert len((collect.HERE / "results.csv").read_text().splitlines()) == 11
    assert {file.name for file in collect.HERE.glob("*.png")} == {"quality.png", "calibration.png"}
    collect.main()
    assert (collect.HERE / "README.md").read_text() == first
