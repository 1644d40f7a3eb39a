"""The code that a result depends on, as one short hash: a result of other code is stale, and must not be
averaged with those of this one.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parents[1]
# What this file imports, also inside functions, is all that can change what a run computes; reports, sweeps
# and other models do not.
LOOP = Path("training/loop.py")
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


@cache
def source_hash() -> str:
    """Return 12 hexadecimal digits that identify the code of a training run as it was first asked for;
    comments and docstrings do not count.
    """
    return hash_of(
        {str(file.relative_to(PACKAGE)): file.read_text(encoding="utf-8") for file in files_of_training()}
    )


def files_of_training() -> list[Path]:
    """Return the files of the training and whatever they import from the package, sorted."""
    left, files = [PACKAGE / LOOP], set[Path]()
    while left:
        file = left.pop()
        if file not in files:
            files.add(file)
            left += _imported_by(file)
    return sorted(files)


def hash_of(sources: dict[str, str]) -> str:
    """Return the hash of some Python sources by name."""
    digest = hashlib.sha256()
    for name, text in sources.items():
        digest.update(f"{name}\n{_bare(text)}\n".encode())
    return digest.hexdigest()[:12]


def _imported_by(file: Path) -> Iterator[Path]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            yield from _files_of([node.module, *(f"{node.module}.{alias.name}" for alias in node.names)])
        elif isinstance(node, ast.Import):
            yield from _files_of([alias.name for alias in node.names])


def _files_of(modules: list[str]) -> Iterator[Path]:
    """Return the files of those modules that belong to the package; a name that is no module has none."""
    for package, *path in (module.split(".") for module in modules):
        if package == __package__.partition(".")[0]:
            place = PACKAGE.joinpath(*path)
            yield from (
                file for file in (place.with_suffix(".py"), place / "__init__.py") if path and file.is_file()
            )


def _bare(text: str) -> str:
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return _written(tree)


def _written(part: object) -> str:
    """Return a tree in words that are the same in every version of Python: ``ast.unparse`` quotes
    otherwise in 3.12, and newer nodes have more empty fields.
    """
    if isinstance(part, ast.AST):
        fields = [
            f"{name}={_written(value)}"
            for name, value in ast.iter_fields(part)
            if value is not None and value != []
        ]
        return f"{type(part).__name__}({', '.join(fields)})"
    return f"[{', '.join(map(_written, part))}]" if isinstance(part, list) else repr(part)
