"""Every kernel compiles to machine code of a GPU: the interpreter alone would let pass what the compiler
refuses."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="make test-kernels installs triton")


def test_every_kernel_compiles_to_machine_code():
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    script = Path(__file__).with_name("compile_kernels.py")
    done = subprocess.run(
        [sys.executable, str(script)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    lines = done.stdout.splitlines()
    assert len(lines) == 3 * 4 + 2 * 4
    assert all(line.endswith("True") for line in lines)
