"""The checker that holds the package to its annotations while the tests run: beartype, with the rule of
PEP 484 that an int is a float, too.

The first calls of every test are checked, far more than a unit test makes. A long training repeats itself:
checking each of its hundred thousand calls took more than half of the time of all tests.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

from beartype import BeartypeConf, beartype
from jaxtyping import config

CALLS = 3000
_checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
_left = CALLS


def begin_test() -> None:
    """Check calls again."""
    global _left
    _left = CALLS
    config.update("jaxtyping_disable", False)


def check(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function with its annotations checked, and its calls counted."""
    checked = _checked(function)

    @wraps(checked)
    def counted(*args: Any, **kwargs: Any) -> Any:
        global _left
        _left -= 1
        if _left == 0:
            config.update("jaxtyping_disable", True)
        return checked(*args, **kwargs)

    return counted
