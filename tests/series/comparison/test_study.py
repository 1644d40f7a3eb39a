"""An experiment does each job once: what is finished is skipped, unfinished files are never there, and a
test part is touched once."""

import json

import pytest

from small_series import small_physionet
from torchcram.series.comparison import study as module
from torchcram.series.comparison.methods import METHODS
from torchcram.series.comparison.neural import Neural
from torchcram.series.comparison.patient import SHOWN, patient_map
from torchcram.series.comparison.problems import PROBLEMS, PhysioNetProblem
from torchcram.series.comparison.study import Study, main, write

SCRIPT = """
import sys
from pathlib import Path
method, *split = sys.argv[2:]
if method == "ssm":
    sys.exit(3)
target = Path("{runs}") / (f"{{method}}-split{{split[0]}}.json" if split else f"tuned/{{method}}.json")
assert not target.exists()
target.write_text("[]")
"""


class Small(PhysioNetProblem):
    """The small stays, under the name of a problem."""

    steps, sequences = 4, 8

    @classmethod
    def load(cls, folder=None):
        return cls(small_physionet())


@pytest.fixture
def study(tmp_path, monkeypatch) -> Study:
    monkeypatch.setitem(PROBLEMS, "small", Small)
    return Study(problem="small", runs=tmp_path / "runs")


def tuned(study: Study, method: str) -> None:
    parameters = (
        {**METHODS[method].middle, "d_model": 16} if method != "boosting" else {"min_samples_leaf": 3}
    )
    write(study.tuned(method), [{"parameters": parameters, "score": 0.5, "seconds": 1.0}])


@pytest.mark.parametrize("method", ["boosting", "cram"])
def test_a_tuned_method_is_judged_on_a_split_and_its_file_has_the_columns_of_the_table(study, method):
    tuned(study, method)
    study.judge(method, 0)
    result = json.loads(study.result(method, 0).read_text())
    assert (result["method"], result["split"]) == (method, 0)
    assert {
        "auroc",
        "auprc",
        "brier",
        "accuracy",
        "attention_share",
        "seconds",
        "per_second",
        "calibration",
        "parameters",
    } <= set(result)
    assert sum(part["count"] for part in result["calibration"]) == len(small_physionet().split(0).test)
    assert (study.runs / "cram-map.json").exists() == (method == "cram")
    assert set(result["all_reads"]) == (
        {"auroc", "auprc", "brier", "accuracy"} if method == "cram" else set()
    )


def test_what_is_judged_is_never_judged_again(study, monkeypatch):
    tuned(study, "boosting")
    study.judge("boosting", 1)
    before = study.result("boosting", 1).read_text()
    monkeypatch.setattr(Study, "load", lambda self: pytest.fail("the data were loaded again"))
    study.judge("boosting", 1)
    study.tune("boosting", say=lambda line: None)
    assert study.result("boosting", 1).read_text() == before


def test_a_method_that_is_not_tuned_cannot_be_judged(study):
    with pytest.raises(FileNotFoundError):
        study.judge("ssm", 0)


def test_tuning_writes_the_trials(study, monkeypatch):
    monkeypatch.setattr(
        module,
        "tune",
        lambda method, problem, *, journal, say: [
            {"parameters": {"title": method.title}, "score": 1.0, "seconds": 0.0}
        ],
    )
    study.tune("ssm", say=lambda line: None)
    assert json.loads(study.tuned("ssm").read_text())[0]["parameters"] == {"title": "SSM alone"}


def test_the_command_does_every_job_once_says_how_it_went_and_goes_on_after_a_failure(study, tmp_path):
    script, lines = tmp_path / "script.py", []
    script.write_text(SCRIPT.format(runs=study.runs))
    arguments = ["--only", "ssm", "grud", "--splits", "0", "3", "--jobs", "2"]
    main(study, script=script, say=lines.append, arguments=arguments)
    assert len(lines) == 6
    assert [line.split(":")[0] for line in lines] == [
        *(f"tuning {n} of 2" for n in (1, 2)),
        *(f"test {n} of 4" for n in range(1, 5)),
    ]
    assert sum("exit status 3" in line for line in lines) == 3
    assert {file.name for file in study.runs.glob("*.json")} == {"grud-split0.json", "grud-split3.json"}
    lines.clear()
    main(study, script=script, say=lines.append, arguments=arguments)
    assert sum("finished before" in line for line in lines) == 3


def test_the_map_of_a_patient_is_that_of_a_stay_that_died(study):
    problem = study.load()
    fitted = Neural(
        problem, 0, "cram", {**METHODS["cram"].starting(problem), "d_model": 16}, seed=0, limit=100.0
    )
    found = patient_map(problem, fitted)
    row = problem.data.record.tolist().index(found["record"])
    assert problem.data.death[row] == 1
    assert row in problem.data.split(0).test
    assert len(found["routes"]) == 2
    assert len(found["routes"][0]) == max(1, len(found["hours"]))
    shown = sum(len(part["values"]) for part in found["measured"].values())
    series = problem.data.series()[row]
    assert shown == sum(
        int(
            (
                series.values[:, problem.data.names.index(name)]
                == series.values[:, problem.data.names.index(name)]
            ).sum()
        )
        for name in SHOWN
    )
