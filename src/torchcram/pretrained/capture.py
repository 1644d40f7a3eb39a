"""Look into the attention of a model that is not ours, and put other outputs in its place, without leaving a
trace.

The hooks are those of PyTorch, on the block (input, output) and on its output projection (heads): they work
whatever attention function the model was set to (eager, sdpa, flash, a registered one), and for families that
bypass the attention interface. They are gone when the block ends, also by an exception; no configuration,
attribute or registry is touched. It is *not* a way to save time: replaced attention is computed all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from torchcram.pretrained.sites import AttentionSite, block_input, first_tensor

# (number of the site, input, heads side by side), tokens of the batch one after the other
See = Callable[[int, Float[Tensor, "tokens width"], Float[Tensor, "tokens heads_width"]], None]
# (number of the site, input, output) -> output
Replace = Callable[
    [int, Float[Tensor, "tokens width"], Float[Tensor, "tokens width"]], Float[Tensor, "tokens width"]
]


@contextmanager
def capture(
    sites: Sequence[AttentionSite], *, see: See | None = None, replace: Replace | None = None
) -> Iterator[None]:
    """Call functions of one's own at every attention block while the model runs inside ``with``.

    Args:
        sites: of :func:`torchcram.pretrained.sites.find_sites`, all or some.
        see: gets input and heads.
        replace: gets input and output, and returns what takes the output's place.
    """
    handles = []
    try:
        for number, site in enumerate(sites):
            watch = _Watch(number, see=see, replace=replace)
            handles.append(site.module.register_forward_pre_hook(watch.enter, with_kwargs=True))
            handles.append(site.projection.register_forward_pre_hook(watch.project))
            handles.append(site.module.register_forward_hook(watch.leave))
        yield
    finally:
        for handle in handles:
            handle.remove()


class _Watch:
    def __init__(self, number: int, *, see: See | None, replace: Replace | None):
        self.number, self.see, self.replace = number, see, replace
        self.given: Tensor | None = None

    def enter(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.given = block_input(args, kwargs).flatten(0, -2)

    def project(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        if self.see is not None and self.given is not None:
            self.see(self.number, self.given, args[0].flatten(0, -2))

    def leave(self, module: nn.Module, args: Any, output: Any) -> Any:
        given, self.given = self.given, None
        if self.replace is None or given is None:
            return None
        old = first_tensor(output)
        new = self.replace(self.number, given, old.flatten(0, -2)).reshape(old.shape)
        return (new, *output[1:]) if isinstance(output, tuple) else new
