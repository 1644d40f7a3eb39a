"""A whole model around a whole-sequence encoder: the same batches, heads and losses as
:class:`torchcram.models.sequence.SequenceModel`, no blocks to stack.

It carries no state from piece to piece, reads no key-value memory step by step, and routes nothing.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, cast

from jaxtyping import Float
from torch import Tensor, nn

from torchcram.baselines.encoder import Encoding, MaskedVectors, SeriesEncoder, no_reads
from torchcram.baselines.grud import GRUD
from torchcram.baselines.mtand import MTAND
from torchcram.memory.residual import ResidualBlock
from torchcram.models.checks import check_batch
from torchcram.models.read_out import width_read
from torchcram.models.sequence import ModelOutput, SequenceModel
from torchcram.ops.rms_norm import RMSNorm
from torchcram.strict import nearest_hint, require_choice
from torchcram.types import Batch, Head, MemoryState, RoutingControl

ENCODERS: dict[str, type[GRUD] | type[MTAND]] = {"grud": GRUD, "mtand": MTAND}


class EncoderModel(SequenceModel):
    """An encoder and one linear head per output.

    Args:
        heads: outputs.
        input_size: number of features of a step: values beside as many flags, or values alone.
        flags: whether there are flags.
        d_model: width.
        encoder: name in :data:`ENCODERS`.
        options: keyword arguments of the encoder.

    Raises:
        ValueError: for an unknown name or option, with the nearest valid one; for inputs that are not values
            and as many flags.
    """

    def __init__(
        self,
        heads: Sequence[Head],
        *,
        input_size: int | None,
        flags: bool,
        d_model: int = 64,
        encoder: str = "grud",
        options: Mapping[str, Any] | None = None,
    ):
        # What a stack of blocks needs is not built: heads, checks and losses are what is shared.
        nn.Module.__init__(self)
        if input_size is None:
            raise ValueError(
                f"encoder {encoder!r} takes masked vectors, but the task's steps are symbols: choose a mixer"
            )
        if flags and input_size % 2:
            raise ValueError(f"input_size {input_size} is odd: values need as many flags beside them")
        self.input_size, self.vocabulary, self.flags = input_size, None, flags
        # The encoder stands where training looks for blocks, and nowhere else: its weights are saved once.
        self.blocks = cast(
            list[ResidualBlock],
            nn.ModuleList(
                [build_encoder(encoder, input_size // 2 if flags else input_size, d_model, options or {})]
            ),
        )
        self.norm = RMSNorm(d_model)
        self.specs = tuple(heads)
        self.heads = nn.ModuleDict(
            {head.name: nn.Linear(width_read(head, d_model), head.size) for head in heads}
        )

    @property
    def encoder(self) -> SeriesEncoder:
        """What turns masked vectors into an encoding."""
        return cast(SeriesEncoder, self.blocks[0])

    def forward(
        self,
        batch: Batch,
        states: Sequence[MemoryState] | None = None,
        *,
        control: RoutingControl | None = None,
        noise: Float[Tensor, "batch time layers 4"] | None = None,
    ) -> ModelOutput:
        """Run over a batch of whole sequences; there is nothing to route, so control and noise change
        nothing.

        Raises:
            ValueError: if states are given, or the batch is not as
                :func:`torchcram.models.checks.check_batch` wants it.
        """
        del control, noise
        if states is not None:
            raise ValueError("an encoder takes whole sequences: it has no states to carry on from")
        check_batch(batch, input_size=self.input_size, vocabulary=None)
        series = MaskedVectors.of_batch(batch, flags=self.flags)
        by_step = any(head.per == "step" or head.pooled for head in self.specs)
        whole = any(head.per == "sequence" for head in self.specs)
        encoding: Encoding = self.encoder(series, steps=by_step, whole=whole)
        # What no head asked for is not read.
        steps, last = (
            batch.gap.new_zeros(0) if part is None else self.norm(part)
            for part in (encoding.steps, encoding.whole)
        )
        outputs = self._heads_of(steps, last, batch)
        return ModelOutput(outputs=outputs, blocks=(no_reads(series, self.norm.weight.numel()),))


def build_encoder(name: str, variables: int, d_model: int, options: Mapping[str, Any]) -> SeriesEncoder:
    """Build an encoder.

    Raises:
        ValueError: for an unknown name or option, with the nearest valid one.
    """
    kind = ENCODERS[require_choice("encoder", name, ENCODERS)]
    valid = [key for key in inspect.signature(kind).parameters if key not in ("variables", "d_model")]
    for key in options:
        if key not in valid:
            raise ValueError(f"unknown option {key!r} of encoder {name!r}: {nearest_hint(key, valid)}")
    return kind(variables, d_model, **options)
