"""How a command ends where the user can mend what went wrong: one line on stderr, never a traceback.

Light: a command answers to ``--help`` before anything heavy is imported.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable

# Exit statuses.
WRONG, INTERRUPTED = 2, 130


def ending_in_one_line(work: Callable[[], object]) -> None:
    """Do some work. What the user can mend is one line, ``error: ...``, and exit status 2; an interruption
    is 130. Our own mistakes keep their tracebacks.
    """
    try:
        work()
    except (ValueError, FloatingPointError, ImportError, OSError) as error:
        _complain("; ".join(str(error).splitlines()))
        sys.exit(WRONG)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        _complain(memory_words(error))
        sys.exit(WRONG)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether there was not enough memory, for Python, NumPy, or PyTorch on CPUs and GPUs."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "DefaultCPUAllocator" in str(error)
    )


def memory_words(error: BaseException) -> str:
    """Say that memory was not enough, for how much, and what to do."""
    amount = re.search(r"allocate ([\d.]+ ?\w+)", str(error))
    wanted = f" for {amount.group(1)} more" if amount else ""
    return (
        f"not enough memory{wanted}: take smaller batches (training.tokens_per_step), shorter sequences "
        "(--context), or a smaller model"
    )


def _complain(text: str) -> None:
    from rich.console import Console
    from rich.text import Text

    # Knows NO_COLOR, and files and pipes.
    Console(stderr=True).print(Text(f"error: {text}", style="red"), soft_wrap=True)
