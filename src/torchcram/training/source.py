"""The code that a result depends on, as one short hash: a result of other code is stale, and must not be averaged with those of this one."""

from __future__ import annotations

import ast
import hashlib
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parents[1]
# What only shows results, drives runs or times them does not change what a run computes.
APART = ("report", "reproduce", "analysis", "bench", "cli.py", "__main__.py", "__init__.py")
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


@cache
def source_hash() -> str:
    """Return 12 hexadecimal digits that identify the code of the package as it was first asked for; comments and docstrings do not count."""
    files = [file for file in sorted(PACKAGE.rglob("*.py")) if file.relative_to(PACKAGE).parts[0] not in APART]
    return hash_of({str(file.relative_to(PACKAGE)): file.read_text(encoding="utf-8") for file in files})


def hash_of(sources: dict[str, str]) -> str:
    """Return the hash of some Python sources by name."""
    digest = hashlib.sha256()
    for name, text in sources.items():
        digest.update(f"{name}\n{_bare(text)}\n".encode())
    return digest.hexdigest()[:12]


def _bare(text: str) -> str:
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree)
