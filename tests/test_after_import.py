"""Acting once another package's module has been imported, whichever comes first."""

import subprocess
import sys

import pytest

from fresh_process import run
from torchcram.after_import import after_import


def test_what_is_loaded_is_acted_on_at_once():
    seen = []
    after_import("json", seen.append)
    assert seen == [sys.modules["json"]]


def test_what_comes_later_is_acted_on_then(tmp_path, monkeypatch):
    (tmp_path / "came_later.py").write_text("value = 3\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    finders, seen = list(sys.meta_path), []
    monkeypatch.setattr(sys, "meta_path", finders)
    for number in (1, 2):
        after_import("came_later", lambda module, number=number: seen.append((number, module.value)))
    assert seen == []
    import came_later

    assert seen == [(1, 3), (2, 3)]
    assert came_later.value == 3


def test_what_never_comes_is_no_error():
    after_import("there_is_no_such_module", print)
    with pytest.raises(ModuleNotFoundError):
        import there_is_no_such_module  # noqa: F401


@pytest.mark.slow
@pytest.mark.parametrize(
    "lines",
    [
        "import torchcram; import transformers.quantizers.auto as auto",
        "import transformers.quantizers.auto as auto; import torchcram",
        "import torchcram, transformers.modeling_utils; import transformers.quantizers.auto as auto",
    ],
)
def test_transformers_knows_retrofits_whichever_is_imported_first(lines):
    asked = f"{lines}; print('torchcram' in auto.AUTO_QUANTIZER_MAPPING)"
    found = run(asked)
    assert found.stdout.strip() == "True", found.stderr


def test_importing_the_package_stays_quick():
    asked = (
        "import sys, torchcram; print([name for name in ('torch', 'transformers') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
