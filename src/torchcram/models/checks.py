"""What a batch must look like before a model sees it: errors that name the culprit and the way out, instead
of NaN much later.

A few comparisons per batch: cheap beside a forward pass. It checks values and sizes; that shapes belong
together is said by :class:`torchcram.types.Batch`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool
from torch import Tensor

from torchcram.strict import nearest_hint
from torchcram.types import Batch, Head


def check_batch(
    batch: Batch, *, input_size: int | None, vocabulary: int | None, continued: bool = False
) -> None:
    """Check everything but the targets.

    Args:
        batch: what a model is to run over.
        input_size: continuous features that the model takes, or None.
        vocabulary: symbols that the model takes, or None.
        continued: whether states are carried along, so that a sequence may have ended before.

    Raises:
        ValueError: for empty batches and sequences, NaN, infinities, negative times, unknown symbols, padding
            that is not at the end.
    """
    if batch.gap.numel() == 0:
        raise ValueError(
            f"the batch is empty: it has {batch.size} sequences of {batch.gap.shape[1]} steps, at "
            "least one of each is needed"
        )
    _check_inputs(batch.inputs, input_size, vocabulary)
    for name, values in {"gap": batch.gap, "horizon": batch.horizon}.items():
        if values is not None:
            _require(
                (values >= 0) & (values < torch.inf),
                name,
                values,
                "times must be finite and at least 0: sort the steps by time",
            )
    if batch.mask is not None:
        _check_mask(batch.mask, continued)


def check_targets(batch: Batch, heads: Sequence[Head]) -> None:
    """Check that every head finds targets of its size and kind.

    Raises:
        ValueError: for targets that are missing, misshapen or out of range.
    """
    for head in heads:
        if head.name not in batch.targets:
            raise ValueError(
                f"the batch has no target {head.name!r} for the head of that name: "
                f"{nearest_hint(head.name, batch.targets or ['none'])}"
            )
        target = batch.targets[head.name]
        steps = tuple(batch.gap.shape) if head.per == "step" else (batch.size,)
        expected = steps if head.kind == "classification" else (*steps, head.size)
        if tuple(target.shape) != expected:
            raise ValueError(
                f"target {head.name!r} has shape {tuple(target.shape)}, its head (per {head.per}) "
                f"needs {expected}"
            )
        if target.is_floating_point() == (head.kind == "classification"):
            raise ValueError(
                f"target {head.name!r} is {target.dtype}: {head.kind} needs "
                f"{'integers' if head.kind == 'classification' else 'real numbers'}"
            )
        if head.kind == "classification":
            known = (target == -100) | ((target >= 0) & (target < head.size))
            _require(
                known,
                f"target {head.name!r}",
                target,
                f"classes go from 0 to {head.size - 1}; -100 is not scored",
            )
        else:
            _require(
                ~target.isinf(),
                f"target {head.name!r}",
                target,
                "regressed values must be finite; NaN is not scored",
            )


def _check_inputs(inputs: Tensor, input_size: int | None, vocabulary: int | None) -> None:
    if vocabulary is not None:
        if inputs.dim() != 2 or inputs.is_floating_point():
            raise ValueError(
                f"inputs are {inputs.dtype} of shape {tuple(inputs.shape)}: this model takes one "
                "symbol a step, as an integer"
            )
        _require(
            (inputs >= 0) & (inputs < vocabulary), "inputs", inputs, f"symbols go from 0 to {vocabulary - 1}"
        )
        return
    if not inputs.is_floating_point() or inputs.shape[2:] != (input_size,):
        raise ValueError(
            f"inputs are {inputs.dtype} of shape {tuple(inputs.shape)}: this model takes "
            f"{input_size} real numbers a step"
        )
    _require(
        torch.isfinite(inputs),
        "inputs",
        inputs,
        "inputs must be finite, on padding, too: put 0 for what is missing, and a feature that says so",
    )


def _check_mask(mask: Bool[Tensor, "batch time"], continued: bool) -> None:
    if not continued:
        _require(mask[:, :1], "mask", mask[:, :1], "the sequence is empty, leave it out")
    before = torch.cat([torch.ones_like(mask[:, :1]), mask[:, :-1]], 1)
    _require(
        before | ~mask, "mask", mask, "the step before is padding, which stands at the end of a sequence only"
    )


def _require(good: Tensor, name: str, values: Tensor, advice: str) -> None:
    if not bool(good.all()):
        place = (~good).nonzero()[0].tolist()
        raise ValueError(f"{name} {place} is {values[tuple(place)].item()}: {advice}")
