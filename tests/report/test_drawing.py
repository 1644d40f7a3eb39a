from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_hex

from torchcram.report.drawing import draw_sequence, query_kind
from torchcram.report.style import BLUE, SLICE_COLOURS, VERMILION
from torchcram.tasks.srcd import SRCD
from torchcram.tasks.srcd_config import SRCDConfig
from torchcram.types import Batch


@pytest.fixture
def batch(seeded: Callable[[int], torch.Generator]) -> Batch:
    config = SRCDConfig(length=200, patterns=6, override=0.5, unanswerable=0.2, query_share=0.1)
    return SRCD(config).batch(2, generator=seeded(3))


def marks(axes: Axes, prefix: str) -> dict[int, tuple[float, str]]:
    """Return moment and colour of each mark by its step."""
    found = [line for line in axes.lines if (line.get_gid() or "").startswith(prefix)]
    return {
        int(line.get_gid().split("-")[1]): (float(line.get_xdata()[0]), to_hex(line.get_color()).upper())
        for line in found
    }


def test_observations_stand_at_their_moments(batch: Batch):
    observed = draw_sequence(batch, steps=200).axes[0]
    time = batch.gap[0].double().cumsum(0).numpy()
    for column, line in enumerate(observed.lines):
        assert line.get_xdata() == pytest.approx(time)
        assert line.get_ydata() == pytest.approx(batch.inputs[0, :, column].numpy())


def test_every_binding_and_query_is_marked_with_its_kind(batch: Batch):
    events = draw_sequence(batch, steps=200).axes[1]
    time = batch.gap[0].double().cumsum(0)
    bindings, queries = marks(events, "binding"), marks(events, "query")
    assert list(bindings) == batch.slices["binding"][0].nonzero()[:, 0].tolist()
    assert list(queries) == batch.slices["query"][0].nonzero()[:, 0].tolist()
    for step, (moment, colour) in bindings.items():
        assert moment == pytest.approx(float(time[step]))
        assert colour == (BLUE if batch.info["pattern"][0, step] >= 0 else VERMILION)
    kinds = {query_kind(batch, step) for step in queries}
    assert kinds == {"recurring", "novel", "overridden", "unanswerable"}
    for step, (_, colour) in queries.items():
        (kind,) = [kind for kind in kinds if batch.slices[kind][0, step]]
        assert colour == SLICE_COLOURS[kind]


def test_an_arrow_leads_from_each_answerable_query_to_its_binding(batch: Batch):
    events = draw_sequence(batch, steps=200).axes[1]
    arrows = {(text.xyann[0], text.xy[0]) for text in events.texts if text.arrow_patch is not None}
    time = batch.gap[0].double().cumsum(0).numpy()
    answerable = (batch.slices["query"] & ~batch.slices["unanswerable"])[0].nonzero()[:, 0].tolist()
    assert len(answerable) > 5
    sources = [step - int(batch.info["distance"][0, step]) for step in answerable]
    assert arrows == {(time[step], time[source]) for step, source in zip(answerable, sources, strict=True)}
    for step, source in zip(answerable, sources, strict=True):
        # The value at both ends is the one that the binding shows.
        shown = int(batch.inputs[0, source, -16:].argmax())
        assert int(batch.targets["answer"][0, step]) == shown
        assert {str(shown)} == {
            text.get_text() for text in events.texts if text.arrow_patch is None and text.xy[0] == time[step]
        }


def test_only_the_first_steps_are_drawn(batch: Batch):
    figure = draw_sequence(batch, steps=50)
    assert max(marks(figure.axes[1], "")) < 50
    assert len(figure.axes[0].lines[0].get_xdata()) == 50


def test_other_sequences_are_refused(batch: Batch):
    with pytest.raises(
        ValueError, match=r"only sequences of SRCD can be drawn: this batch lacks distance, query"
    ):
        draw_sequence(
            replace(
                batch, slices={"binding": batch.slices["binding"]}, info={"pattern": batch.info["pattern"]}
            )
        )


def test_time_is_real_time(batch: Batch):
    gaps = np.diff(draw_sequence(batch, steps=200).axes[0].lines[0].get_xdata())
    assert gaps.max() > 5 * gaps.min() > 0
