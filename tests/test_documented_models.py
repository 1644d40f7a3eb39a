"""What README and docs say about language models can be pasted, top to bottom."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def blocks(file: str) -> list[str]:
    """The Python of a page that has to do with language models."""
    found = re.findall(r"```python\n(.*?)```", (ROOT / file).read_text(), re.DOTALL)
    return [block for block in found if file != "README.md" or "CRAMForCausalLM" in block]


@pytest.mark.parametrize("file", ["README.md", "docs/transformers.md"])
def test_the_code_of_a_page_runs(file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said: dict = {}
    for block in blocks(file):
        exec(compile(block, file, "exec"), said)
    assert said["model"].config.model_type == "cram"
    if file != "README.md":
        assert said["text"].shape == (2, 17)
        assert said["leader"].history[-1]["phase"] == "consolidate"
