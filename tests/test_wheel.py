"""The wheel holds all that the package needs: it is built, installed into a folder of its own, and used
from outside the checkout."""

import os
import subprocess
import sys
import tomllib
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

import fresh_process
from torchcram.reproduce.claims import CLAIMS
from torchcram.reproduce.readme import words_of

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    """Run a command and return what it printed; show all of it if the command failed."""
    result = subprocess.run(
        [*map(str, command)],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout.strip()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder into which the wheel is installed.

    The dependencies come from the environment of the tests.
    """
    folder = tmp_path_factory.mktemp("site")
    run(
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--target",
        folder,
        wheel,
        cwd=folder,
    )
    return folder


def python(code: str, *, site: Path, cwd: Path) -> str:
    """Run a program in a process that has the wheel in front of everything; return what it printed."""
    result = fresh_process.run(code, cwd=cwd, site=site)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout.strip()


def test_the_wheel_holds_every_file_of_the_package_and_no_other(wheel: Path):
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    files = {
        str(file.relative_to(SOURCE))
        for file in (SOURCE / "torchcram").rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    readmes = {f"torchcram/reproduce/experiments/{claim.folder}/README.md" for claim in CLAIMS.values()}
    assert packed == files | readmes
    assert "torchcram/py.typed" in packed


def test_the_wheel_carries_the_licence(wheel: Path):
    assert [name for name in zipfile.ZipFile(wheel).namelist() if name.endswith("licenses/LICENSE")] != []


def test_the_installed_package_is_the_one_in_use(installed: Path, tmp_path: Path):
    place = python("import torchcram; print(torchcram.__file__)", site=installed, cwd=tmp_path)
    assert Path(place).is_relative_to(installed)


def test_the_version_is_that_of_the_project(installed: Path, tmp_path: Path):
    code = (
        "from importlib.metadata import distribution as d; import torchcram; "
        "print(d('torchcram').version, torchcram.__version__)"
    )
    assert python(code, site=installed, cwd=tmp_path).split() == [PROJECT["version"]] * 2


def test_every_module_can_be_imported(installed: Path, tmp_path: Path):
    """But for the kernels, where their package is not installed."""
    code = """
import importlib, importlib.util, pkgutil, torchcram
apart = {"__main__"} if importlib.util.find_spec("triton") else {"__main__", "triton"}
modules = pkgutil.walk_packages(torchcram.__path__, "torchcram.")
names = [module.name for module in modules if module.name.rpartition(".")[2] not in apart]
for name in names:
    importlib.import_module(name)
print(len(names))
"""
    apart = {"__main__.py"} if find_spec("triton") else {"__main__.py", "triton.py"}
    modules = [file for file in (SOURCE / "torchcram").rglob("*.py") if file.name not in apart]
    assert int(python(code, site=installed, cwd=tmp_path)) == len(modules) - 1


def test_importing_the_package_is_light(installed: Path, tmp_path: Path):
    """The command line answers at once: what takes seconds to import comes when it is first used."""
    code = (
        "import sys, torchcram; print(sorted({'torch', 'accelerate', 'matplotlib', 'scipy', "
        "'pydantic', 'transformers'} & set(sys.modules)))"
    )
    printed = run(sys.executable, "-W", "error", "-c", code, cwd=tmp_path, PYTHONPATH=str(installed))
    assert printed == "[]"


def test_a_task_works(installed: Path, tmp_path: Path):
    code = """
import torch
from torchcram.tasks.srcd import SRCD
from torchcram.tasks.srcd_config import SRCDConfig
batch = SRCD(SRCDConfig(length=64)).batch(2, generator=torch.Generator().manual_seed(0))
print(*batch.inputs.shape)
"""
    assert python(code, site=installed, cwd=tmp_path) == "2 64 36"


def test_a_claim_has_its_words_outside_a_checkout(installed: Path, tmp_path: Path):
    code = """
from pathlib import Path
from torchcram.reproduce.claims import CLAIMS
from torchcram.reproduce.readme import words_of
print(words_of(CLAIMS["02_transition"], Path("nowhere")).question)
"""
    words = python(code, site=installed, cwd=tmp_path)
    assert words == words_of(CLAIMS["02_transition"], ROOT / "experiments").question != ""


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["report", "--help"]])
def test_the_command_answers(arguments: list[str], installed: Path, tmp_path: Path):
    assert "Usage" in run(
        sys.executable, installed / "bin" / "torchcram", *arguments, cwd=tmp_path, PYTHONPATH=str(installed)
    )
    assert "Usage" in run(
        sys.executable, "-m", "torchcram", *arguments, cwd=tmp_path, PYTHONPATH=str(installed)
    )
