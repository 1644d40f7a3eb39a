"""The checker that holds the package to its annotations while the tests run: beartype, with the rule of
PEP 484 that an int is a float, too.

In every test the first calls of each function are checked. A long training repeats itself: checking each of
its hundred thousand calls took more than half of the time of all tests.
"""

import sys
from collections.abc import Callable
from functools import reduce, wraps
from typing import Any

from beartype import BeartypeConf, beartype
from jaxtyping import config

# Of one function, and of all together.
CALLS, ALL_CALLS = 20, 3000
_checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
_calls: dict[str, int] = {}
_at_rest: list[Any] = []


def begin_test() -> None:
    """Check calls again."""
    _calls.clear()
    config.update("jaxtyping_disable", False)
    while _at_rest:
        _at_rest.pop().__no_type_check__ = False


def check(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function with its annotations checked, and its calls counted."""
    checked = _checked(function)
    name = f"{function.__module__}:{function.__qualname__}"

    @wraps(checked)
    def counted(*args: Any, **kwargs: Any) -> Any:
        _calls[name] = _calls.get(name, 0) + 1
        # Arguments and what is returned are checked apart.
        if _calls[name] == 2 * CALLS:
            _let_rest(name)
        return checked(*args, **kwargs)

    return counted


def _let_rest(name: str) -> None:
    """Check a function no more; where it cannot be found by its name, check none once there were many."""
    module, path = name.split(":")
    try:
        found = reduce(getattr, path.split("."), sys.modules[module])
        found.__no_type_check__ = True
    except (AttributeError, KeyError):
        if sum(_calls.values()) > ALL_CALLS:
            config.update("jaxtyping_disable", True)
    else:
        _at_rest.append(found)
