"""All contenders, the retrofit first."""

from __future__ import annotations

from collections.abc import Callable

from torchcram.pretrained.rivals.ablations import Shuffled, Zeroed
from torchcram.pretrained.rivals.contender import Contender
from torchcram.pretrained.rivals.dropped_entries import DroppedEntries
from torchcram.pretrained.rivals.dropped_layers import DroppedLayers
from torchcram.pretrained.rivals.linear_layers import LinearLayers
from torchcram.pretrained.rivals.near_alone import NearAlone
from torchcram.pretrained.rivals.retrofitted import Retrofitted
from torchcram.pretrained.rivals.router_alone import RouterAlone

CONTENDERS: tuple[Callable[[], Contender], ...] = (
    Retrofitted,
    Zeroed,
    Shuffled,
    NearAlone,
    RouterAlone,
    LinearLayers,
    DroppedLayers,
    DroppedEntries,
)
