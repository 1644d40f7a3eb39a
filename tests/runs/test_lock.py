"""One process a folder, and no lock that outlives its process."""

import signal
import subprocess
import sys

import pytest

from torchcram.runs.lock import alone

HOLD = """
import sys
from pathlib import Path
from torchcram.runs.lock import alone
with alone(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_one_is_refused_while_the_first_is_there(tmp_path):
    folder = tmp_path / "new" / "run"
    message = "another process is at .*run: wait until it has ended, or choose another folder with --out"
    with alone(folder):
        with pytest.raises(ValueError, match=message), alone(folder):
            raise AssertionError("both were let in")
        with alone(tmp_path / "other"):
            pass
    with alone(folder):
        pass


def test_a_lock_ends_with_its_process_however_that_ends(tmp_path):
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(ValueError, match="another process"), alone(tmp_path):
            pass
        process.send_signal(signal.SIGKILL)
    with alone(tmp_path):
        pass


def test_what_goes_wrong_inside_passes_through_and_frees_the_folder(tmp_path):
    with pytest.raises(ZeroDivisionError), alone(tmp_path):
        raise ZeroDivisionError
    with alone(tmp_path):
        pass
