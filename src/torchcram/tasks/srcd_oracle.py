"""Oracles of SRCD: who knows the answers, and the least that answering them can cost.

Pure functions of a batch. :func:`exact_retrieval` looks the answers up in the inputs, as dense attention
ideally would. The two floors say what a model must still read once it knows every recurring pattern by heart
(the paper's 1.5%, section 5): :func:`any_layer_floor` counts steps, :func:`attention_share_floor` counts the
keys that they scan. :func:`kalman_mse` is the floor of the dynamics. :func:`statistics` holds what was drawn
against what was specified. Nothing here looks at a model.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import pad

from torchcram.accounting import dense_keys, keys_scanned
from torchcram.tasks.oscillator import Oscillator, kalman_predictions
from torchcram.tasks.srcd_config import SRCDConfig
from torchcram.types import Batch


def exact_retrieval(batch: Batch, *, config: SRCDConfig) -> Int[Tensor, "batch time"]:
    """Answer every query from the inputs alone: the value in the latest earlier binding of the very same key
    vector.

    Args:
        batch: sequences drawn with ``config``; only their inputs are looked at.
        config: says where the features of a step lie.

    Returns:
        The class of each query (``config.values`` where its key is not bound earlier), -100 on all other
        steps, as in the target ``answer``.
    """
    keys, values = _keys_and_values(batch.inputs, config)
    binding = (values != 0).any(-1)
    query = (keys != 0).any(-1) & ~binding
    answers = torch.full_like(query, -100, dtype=torch.long)
    for row in range(batch.size):
        asked, bound = query[row].nonzero().squeeze(1), binding[row].nonzero().squeeze(1)
        same = (keys[row, asked][:, None] == keys[row, bound][None]).all(-1) & (bound < asked[:, None])
        latest = pad(torch.where(same, bound, -1), (1, 0), value=-1).amax(1)
        answers[row, asked] = torch.where(latest >= 0, values[row, latest].argmax(-1), config.values)
    return answers


def needs_read(batch: Batch, *, config: SRCDConfig) -> Bool[Tensor, "batch time"]:
    """Return the steps whose answer no consolidated memory can know: novel, overridden and unanswerable
    queries, or all queries where the map is redrawn in every sequence.
    """
    slices = batch.slices
    return (
        slices["query"]
        if config.redrawn_map
        else slices["novel"] | slices["overridden"] | slices["unanswerable"]
    )


def any_layer_floor(batch: Batch, *, config: SRCDConfig) -> float:
    """Return the share of steps, in [0, 1], that need a read."""
    return _mean(needs_read(batch, config=config))


def attention_share_floor(batch: Batch, *, config: SRCDConfig, layers: int) -> float:
    """Return the least attention share, in [0, 1]: keys scanned if the steps that need a read do so in one
    layer, over dense attention in all.

    Queries follow their bindings, so they scan more keys than an average step.

    Args:
        batch: SRCD sequences.
        config: what they were drawn with.
        layers: number of layers with attention, at least 1.

    Raises:
        ValueError: if ``layers`` is below 1.
    """
    if layers < 1:
        raise ValueError(f"layers {layers} is below 1: attention is shared out over at least one layer")
    scanned = keys_scanned(needs_read(batch, config=config))
    return float(scanned.double() / (layers * dense_keys(batch.real)))


def kalman_mse(batch: Batch, *, config: SRCDConfig) -> float:
    """Return the mean squared error, per coordinate, of the Kalman filter that knows each sequence's
    frequency, damping and phase.

    No predictor of ``next_observation`` that sees the same observations has a smaller expected error.
    """
    oscillator = Oscillator(
        frequency=batch.info["frequency"],
        damping=batch.info["damping"],
        phase=batch.info["phase"],
        stationary_std=config.stationary_std,
        observation_std=config.observation_std,
    )
    assert batch.horizon is not None, "SRCD batches say how far ahead the next observation lies"
    predictions = kalman_predictions(oscillator, batch.inputs[..., :2], batch.gap, batch.horizon)
    return _mean((predictions - batch.targets["next_observation"]).square())


def statistics(batch: Batch, *, config: SRCDConfig) -> list[tuple[str, float, float]]:
    """Return rows (what, measured in the batch, specified by ``config``); the last is NaN where nothing is
    specified.
    """
    return [*_shares(batch, config), *_gap_statistics(batch, config), *_floors(batch, config)]


def _shares(batch: Batch, config: SRCDConfig) -> list[tuple[str, float, float]]:
    binding, query, recurring = batch.slices["binding"], batch.slices["query"], batch.info["pattern"] >= 0
    return [
        ("binding share of the steps", _mean(binding), config.binding_share),
        ("query share of the steps", _mean(query), config.query_share),
        ("recurring share of the bindings", _mean(recurring[binding]), config.recurrence),
        (
            "recurring share of the queries",
            _mean(recurring[query]),
            config.recurrence * (1 - config.unanswerable),
        ),
    ]


def _gap_statistics(batch: Batch, config: SRCDConfig) -> list[tuple[str, float, float]]:
    """Mean and median of ``min(gap, gap_max)`` for a gap with ``P(gap > g) = (gap_min / g) **
    gap_exponent``.
    """
    assert batch.horizon is not None, "SRCD batches say how far ahead the next observation lies"
    least, most, exponent = config.gap_min, config.gap_max, config.gap_exponent
    scaled = (
        math.log(most / least) if exponent == 1 else ((most / least) ** (1 - exponent) - 1) / (1 - exponent)
    )
    return [
        ("mean gap", _mean(batch.horizon), least * (1 + scaled)),
        ("median gap", batch.horizon.median().item(), min(least * 2 ** (1 / exponent), most)),
    ]


def _floors(batch: Batch, config: SRCDConfig) -> list[tuple[str, float, float]]:
    unknown = 1.0 if config.redrawn_map else 1 - config.recurrence * (1 - config.unanswerable)
    last_observation = (batch.inputs[..., :2] - batch.targets["next_observation"]).square()
    return [
        (
            "any-layer floor",
            any_layer_floor(batch, config=config),
            config.query_share * unknown if config.override == 0 else math.nan,
        ),
        ("attention-share floor, 2 layers", attention_share_floor(batch, config=config, layers=2), math.nan),
        ("squared error of the last observation", _mean(last_observation), math.nan),
        ("squared error of the Kalman filter", kalman_mse(batch, config=config), math.nan),
    ]


def _mean(values: Tensor) -> float:
    return values.double().mean().item()


def _keys_and_values(
    inputs: Float[Tensor, "batch time features"], config: SRCDConfig
) -> tuple[Float[Tensor, "batch time key"], Float[Tensor, "batch time value"]]:
    """Key vectors and one-hot values, zero where a step has none: the last features of a step, after
    observation and flags.
    """
    return inputs[..., -config.key_size - config.values : -config.values], inputs[..., -config.values :]
