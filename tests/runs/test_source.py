"""The hash of the code: what a run computes changes it, how it is explained does not."""

import pytest

from torchcram.runs import source
from torchcram.runs.source import hash_of, source_hash

CODE = 'def double(x):\n    """Twice."""\n    return 2 * x  # exact\n'


@pytest.mark.parametrize(
    "text",
    [
        '"""A module."""\n' + CODE,
        CODE.replace("Twice", "Two times"),
        CODE.replace("  # exact", ""),
        "\n\n" + CODE,
    ],
)
def test_comments_docstrings_and_blank_lines_do_not_count(text):
    assert hash_of({"a.py": text}) == hash_of({"a.py": CODE})


@pytest.mark.parametrize(
    "sources", [{"a.py": CODE.replace("2", "3")}, {"b.py": CODE}, {"a.py": CODE, "b.py": ""}, {}]
)
def test_code_and_names_of_files_count(sources):
    assert hash_of(sources) != hash_of({"a.py": CODE})


def test_a_body_of_a_docstring_alone_can_be_hashed():
    assert hash_of({"a.py": 'class Stop(Exception):\n    """Enough."""\n'}) == hash_of(
        {"a.py": "class Stop(Exception):\n    pass\n"}
    )


# What versions of Python write down or parse in different ways: quotes in quotes, numbers, types with
# parameters, empty lists of a node.
VERSIONED = """
def shown(self, *names: str, width: int = 0x10) -> "list[str]":
    first, *rest = [
        f"{self.name!r:>{width}} {'a' + 'b'} {{}} {width=}" for name in names if not (yes := 1e-300 < .5)
    ]
    return lambda: print("it's", 'a "b"', b"\\x00", ..., end=f'{first["a"]}')
"""


def test_every_version_of_python_finds_the_same_hash():
    """Version 3.12 gave another before: rows made there would have been called stale everywhere else."""
    assert hash_of({"a.py": VERSIONED}) == "b5e64f22161e"


FILES = {
    "training/loop.py": (
        "from torchcram.ops.scan import double\nfrom torchcram.training.summary import write\n"
    ),
    "training/summary.py": "def write():\n    from torchcram.memory import router\n",
    "ops/scan.py": CODE,
    "memory/__init__.py": "",
    "memory/router.py": "import torchcram.words as words\n",
    "words.py": "WORD = 2\n",
    "report/style.py": "import torchcram.training.loop\nRED = 2\n",
}


@pytest.mark.parametrize(
    ("file", "counts"),
    [
        ("training/loop.py", True),
        ("ops/scan.py", True),
        ("memory/router.py", True),
        ("words.py", True),
        ("report/style.py", False),
    ],
)
def test_what_training_imports_counts_also_inside_functions_and_at_second_hand_and_nothing_else(
    monkeypatch, tmp_path, file, counts
):
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(source, "PACKAGE", tmp_path)
    first = source_hash.__wrapped__()
    (tmp_path / file).write_text(FILES[file] + "MORE = 1\n")
    assert (source_hash.__wrapped__() != first) is counts


def test_the_real_training_counts_its_memories_and_baselines_but_not_the_language_model():
    names = {str(file.relative_to(source.PACKAGE)) for file in source.files_of_training()}
    assert {
        "memory/router.py",
        "baselines/seqboat.py",
        "tasks/srcd_oracle.py",
        "calibration/choice.py",
        "training/loop.py",
        "mixers.py",
    } <= names
    apart = {"models/modeling_cram.py", "report/page.py", "series/comparison/study.py"}
    assert not names & apart
    assert not any(name.startswith("cli/") for name in names)


def test_the_package_has_one():
    assert len(source_hash()) == 12
