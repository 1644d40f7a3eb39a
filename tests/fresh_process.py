"""Programs in processes that have imported nothing of Transformers and torchcram yet.

A server imports what those two import of others, which takes longer than most of the programs, and every
program runs in a fork of it: as ``python -W error -c`` would run it, but for the wait.
"""

import atexit
import gc
import importlib
import json
import os
import select
import subprocess
import sys
import traceback
import warnings
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

# What takes long to import, of others: no module of those whose order of imports is under test.
OTHERS = (
    *("accelerate", "huggingface_hub", "jinja2", "matplotlib.figure", "numpy", "pandas", "pydantic", "rich"),
    *("safetensors.torch", "scipy.stats", "sklearn.metrics", "tokenizers", "typer", "yaml"),
    *("torch", "torch._dynamo", "torch.distributed", "torch.export"),
)
UNDER_TEST = ("transformers", "torchcram")
SECONDS = 600


def run(
    program: str,
    *arguments: str,
    cwd: Path | None = None,
    site: Path | None = None,
    strict: bool = True,
) -> Any:
    """Run a program in a process of its own.

    Args:
        program: source code.
        arguments: ``sys.argv[1:]``.
        cwd: where it runs; None is here.
        site: a folder whose modules come first, as by ``PYTHONPATH``.
        strict: whether warnings are errors.

    Returns:
        The ``subprocess.CompletedProcess``: ``returncode``, ``stdout``, ``stderr``.
    """
    with TemporaryDirectory() as folder:
        streams = [Path(folder, name) for name in ("out", "err")]
        status = _ask(
            program=program,
            arguments=arguments,
            cwd=str(cwd or Path.cwd()),
            site=None if site is None else str(site),
            strict=strict,
            environment=dict(os.environ),
            streams=[str(stream) for stream in streams],
        )
        said = [stream.read_text() for stream in streams]
    return subprocess.CompletedProcess(["-c", program, *arguments], status, *said)


def _ask(**request: Any) -> int:
    server = _server()
    print(json.dumps(request), file=server.stdin, flush=True)
    answered, _, _ = select.select([server.stdout], [], [], SECONDS)
    line = server.stdout.readline() if answered else ""
    if not line:
        server.kill()
        _server.cache_clear()
        raise AssertionError(f"the server of programs gave no answer in {SECONDS} seconds, or it died")
    return int(line)


@cache
def _server() -> subprocess.Popen[str]:
    command = [sys.executable, str(Path(__file__))]
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    # It ends with its input.
    atexit.register(server.communicate)
    return server


def _serve() -> str:
    """Answer requests with exit statuses; return only in a fork, with the program that it is to run."""
    for name in OTHERS:
        importlib.import_module(name)
    gc.freeze()
    early = [name for name in sys.modules if name.partition(".")[0] in UNDER_TEST]
    assert not early, early
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if child == 0:
            return _prepared(**request)
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()
    os._exit(0)


def _prepared(
    *,
    program: str,
    arguments: list[str],
    cwd: str,
    site: str | None,
    strict: bool,
    environment: dict[str, str],
    streams: list[str],
) -> str:
    for number, stream in enumerate(streams, 1):
        os.dup2(os.open(stream, os.O_WRONLY | os.O_CREAT), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    # Not the folder of this file, but where the program runs.
    sys.path[:1] = ["" if site is None else site]
    sys.argv[1:] = arguments
    if strict:
        warnings.resetwarnings()
        warnings.simplefilter("error")
    return program


def _end_of(program: str) -> int:
    try:
        exec(program, {"__name__": "__main__"})
    except SystemExit as end:
        return int(end.code or 0)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    status = _end_of(_serve())
    sys.stdout.flush()
    # Taking the interpreter apart would take two seconds.
    os._exit(status)
