"""The quickstart notebook runs from its first cell to its last, and is kept without outputs."""

import json
import re
from pathlib import Path

import pytest
import torch

NOTEBOOK = Path(__file__).parents[1] / "examples" / "quickstart.ipynb"
# what each variable of the notebook that counts steps becomes here
FEWER = {"STEPS": 30, "MAX_STEPS": 8}


def cells(kind: str) -> list[dict]:
    return [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == kind]


def shortened(code: str) -> str:
    for name, steps in FEWER.items():
        code = re.sub(rf"^{name} = \d+$", f"{name} = {steps}", code, flags=re.M)
    return code


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """The names that the notebook leaves behind."""
    import matplotlib.pyplot as plt

    monkeypatch.setenv("MPLBACKEND", "Agg")
    monkeypatch.chdir(tmp_path)
    plt.switch_backend("Agg")
    names: dict = {"__name__": "__main__"}
    with torch.random.fork_rng():
        for cell in cells("code"):
            exec(compile(shortened("".join(cell["source"])), str(NOTEBOOK), "exec"), names)
    yield names
    plt.close("all")


def test_the_notebook_runs_in_order(ran):
    assert (ran["STEPS"], ran["MAX_STEPS"]) == (FEWER["STEPS"], FEWER["MAX_STEPS"])
    assert ran["read_rates"] == [1.0] * 30
    (line, floor) = ran["axes"].get_lines()
    assert line.get_ydata().tolist() == ran["read_rates"]
    assert set(floor.get_ydata()) == {ran["floor"]} == {0.125}
    assert max(ran["rates"]) <= 0.1
    assert 0 <= ran["accuracy"] <= 1
    assert ran["classifier"].n_iter_ <= FEWER["MAX_STEPS"]
    assert set(ran["classifier"].classes_) == {"falls", "rises"}


def test_the_notebook_holds_no_outputs():
    assert cells("code")
    for cell in cells("code"):
        assert cell["outputs"] == []
        assert cell["execution_count"] is None


def test_the_training_is_short_and_every_link_leads_somewhere():
    sources = ["".join(cell["source"]) for cell in cells("code")]
    (training,) = [source for source in sources if "Consolidator(" in source]
    (model,) = [source for source in sources if "class Lookup" in source]
    code = [line for line in (training + "\n" + model).splitlines() if line.strip()]
    assert len(code) <= 40
    assert any("pip install" in line for line in cells("markdown")[0]["source"])
    for cell in cells("markdown"):
        for link in re.findall(r"\]\(([^)]+)\)", "".join(cell["source"])):
            assert (NOTEBOOK.parent / link).exists(), link
