"""What the documentation site is made of beside the pages in this folder: navigation, API, examples,
results and figures. A hook of mkdocs.
"""

from __future__ import annotations

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from torchcram.reproduce.results_page import results_page

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "torchcram"
# The pages in their order, those that are there; other pages of this folder follow.
PAGES = {
    "What it is": "index.md",
    "When to use it": "when_to_use.md",
    "Tutorial": "tutorial.md",
    "Concepts": "concepts.md",
    "Commands": "commands.md",
    "Transformers": "transformers.md",
    "Serving": "serving.md",
    "Analyze": "analyze.md",
    "Retrofit": "retrofit.md",
    "Irregular series": "irregular_series.md",
    "Theory": "theory.md",
    "Results": "results.md",
    "Deviations from the paper": "deviations.md",
}
GENERATED = ("results.md",)
WORDS = {
    "": "Words and tables",
    "ops": "Operations",
    "memory": "Memories",
    "baselines": "Baselines",
    "models": "Models",
    "tasks": "Tasks",
    "training": "Training",
    "pretrained": "Pretrained models",
    "series": "Irregular series",
    "bench": "Benchmarks",
    "reproduce": "Claims",
    "runs": "Run folders",
    "report": "Reports",
}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Make the navigation."""
    here = {file.name for file in (ROOT / "docs").glob("*.md")} | set(GENERATED)
    listed = [{title: page} for title, page in PAGES.items() if page in here]
    others = sorted(here - set(PAGES.values()))
    examples = [f"examples/{file.stem}.md" for file in _examples()]
    speed = (
        [{"Speed": [{file.stem: f"benchmarks/{file.name}"} for file in pages]}]
        if (pages := _benchmarks(".md"))
        else []
    )
    config.nav = [
        *listed,
        *others,
        *speed,
        {"Examples": examples},
        {"API": [{_title(name): f"api/{name or 'words'}.md"} for name in _packages()]},
    ]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what is made."""
    made: dict[str, str | bytes] = {"results.md": results_page(ROOT / "experiments")}
    made |= {f"api/{name or 'words'}.md": _api(name, modules) for name, modules in _packages().items()}
    made |= {f"examples/{file.stem}.md": _example(file) for file in _examples()}
    made |= {
        f"figures/{_slug(file)}": file.read_bytes()
        for file in sorted((ROOT / "experiments").glob("**/*.png"))
    }
    made |= {
        f"benchmarks/{file.name}": file.read_bytes() for file in (*_benchmarks(".md"), *_benchmarks(".png"))
    }
    for name, content in made.items():
        files.append(File.generated(config, name, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead links to files of the repository to their pages."""
    del page, config, files
    markdown = re.sub(r"\]\(\.\./examples/(\w+)\.py\)", r"](examples/\1.md)", markdown)
    markdown = re.sub(r"\]\(\.\./(benchmarks/\w+\.md)\)", r"](\1)", markdown)
    markdown = markdown.replace("](../experiments/)", "](results.md)")
    return re.sub(
        r"\]\(\.\./(experiments/[\w/]+\.png)\)",
        lambda picture: f"](figures/{_slug(ROOT / picture[1])})",
        markdown,
    )


def _packages() -> dict[str, list[str]]:
    """Return the modules of each package, by their dotted names; what lies at the top goes by the empty
    name.
    """
    modules: dict[str, list[str]] = {name: [] for name in WORDS}
    for file in sorted(PACKAGE.rglob("*.py")):
        parts = file.relative_to(PACKAGE).with_suffix("").parts
        if parts[-1] not in ("__init__", "__main__") and parts != ("cli",):
            modules.setdefault(parts[0] if len(parts) > 1 else "", []).append(".".join(("torchcram", *parts)))
    return modules


def _title(name: str) -> str:
    return WORDS.get(name, name.replace("_", " ").capitalize())


def _api(name: str, modules: list[str]) -> str:
    return "\n\n".join(
        [
            f"# {_title(name)}",
            *(f"## {module.removeprefix('torchcram.')}\n\n::: {module}" for module in modules),
        ]
    )


def _examples() -> list[Path]:
    return sorted((ROOT / "examples").glob("*.py"))


def _example(file: Path) -> str:
    title = file.stem.replace("_", " ").capitalize()
    return f"# {title}\n\n`examples/{file.name}`:\n\n```python\n{file.read_text()}```\n"


def _benchmarks(suffix: str) -> list[Path]:
    return sorted((ROOT / "benchmarks").glob(f"*{suffix}"))


def _slug(file: Path) -> str:
    return "-".join(file.relative_to(ROOT / "experiments").parts)
