"""SeqBoat: a latent configurator activates tokens, and attention is among the activated ones alone."""

import pytest
import torch
from torch import Tensor

from lived import assert_same, live, run, tensors
from torchcram.accounting import keys_scanned
from torchcram.baselines.seqboat import LatentConfigurator, SeqBoatBlock
from torchcram.types import Learning, Route, RoutingControl

WIDTH, BATCH, TIME = 32, 3, 12
ROUTED, DENSE, SILENT = RoutingControl(), RoutingControl(reads="all"), RoutingControl(reads="none")

pytestmark = pytest.mark.usefixtures("float64")


def block(**options) -> SeqBoatBlock:
    return live(SeqBoatBlock(WIDTH, **options))


def stream(seed: int = 1) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "hidden_states": torch.randn(BATCH, TIME, WIDTH, generator=generator),
        "gap": torch.rand(BATCH, TIME, generator=generator),
    }


def without_recurrence(mixer: SeqBoatBlock) -> SeqBoatBlock:
    with torch.no_grad():
        mixer.working.out.weight.zero_()
    return mixer


def test_what_a_token_holds_that_is_not_activated_reaches_nobody_by_attention():
    """The recurrence, which every token goes through, is silenced.

    What differs at skipped tokens is then seen at these tokens only.
    """
    mixer, given = without_recurrence(block()), stream()
    before = run(mixer, **given, control=ROUTED)
    skipped = ~before.decision.used
    nudged = given["hidden_states"] + 1e-3 * skipped[..., None] * torch.randn(BATCH, TIME, WIDTH)
    after = run(mixer, nudged, given["gap"], control=ROUTED)
    assert torch.equal(after.decision.used, before.decision.used)
    assert torch.equal(after.hidden_states[~skipped], before.hidden_states[~skipped])
    assert (after.hidden_states != before.hidden_states).any(-1)[skipped].all()
    everywhere = [
        run(mixer, values, given["gap"], control=DENSE).hidden_states
        for values in (given["hidden_states"], nudged)
    ]
    assert (everywhere[0] - everywhere[1])[~skipped].abs().amax() > 1e-6, (
        "with all tokens activated, they notice"
    )


def test_the_keys_that_are_counted_are_those_of_activated_tokens():
    output = run(block(window=None), **stream(), control=ROUTED)
    decision, by_hand = output.decision, 0
    assert torch.equal(decision.written, decision.used)
    for row in decision.used.tolist():
        by_hand += sum(1 + sum(row[:t]) for t in range(TIME) if row[t])
    assert keys_scanned(decision.read, written=decision.written) == by_hand < keys_scanned(decision.read)
    assert torch.equal(output.state.episodic.entries, 1 + decision.used.sum(1))


def test_a_token_is_activated_where_that_is_the_more_probable():
    decision = run(block(), **stream(), control=ROUTED).decision
    assert torch.equal(
        decision.used,
        decision.probabilities[..., Route.EPISODIC] > decision.probabilities[..., Route.WORKING],
    )


def test_the_confidence_scales_what_the_unit_adds():
    """Twice: the gain of each activated token is p times what it would be with a confidence of one;
    skipped tokens gain nothing."""
    mixer, given = without_recurrence(block()), stream()
    mixer.mlp.forward = lambda x: torch.zeros_like(x)
    output = run(mixer, **given, control=DENSE)
    probability = output.decision.probabilities[..., Route.EPISODIC]
    mixer.configurator.forward = lambda h: torch.ones(h.shape[:2])
    certain = run(mixer, **given, control=DENSE).hidden_states - given["hidden_states"]
    torch.testing.assert_close(
        output.hidden_states - given["hidden_states"], probability[..., None] * certain
    )
    assert torch.equal(run(mixer, **given, control=SILENT).hidden_states, given["hidden_states"])


def test_only_confidence_and_price_teach_the_configurator():
    mixer = block()
    output = run(mixer, **stream(), control=ROUTED)
    torch.testing.assert_close(
        output.losses["price"], output.decision.probabilities[..., Route.EPISODIC].mean()
    )
    price = torch.autograd.grad(output.losses["price"], mixer.configurator.logits.bias, retain_graph=True)[0]
    assert price[1] > 0 > price[0]
    task = torch.autograd.grad(
        (output.hidden_states * torch.randn(BATCH, TIME, WIDTH)).sum(), mixer.configurator.logits.bias
    )[0]
    assert task.any()


def test_the_configurator_starts_open_and_as_warm_as_the_width():
    configurator = LatentConfigurator(WIDTH, start=2.0)
    assert configurator.log_temperature.exp().item() == pytest.approx(WIDTH**0.5)
    torch.testing.assert_close(configurator(torch.zeros(1, 1, WIDTH)), torch.sigmoid(torch.tensor([[2.0]])))
    logits = configurator.logits(x := torch.randn(2, 3, WIDTH))
    torch.testing.assert_close(configurator(x), torch.softmax(logits / WIDTH**0.5, -1)[..., 1])


def test_noise_changes_nothing():
    mixer, given = block(), stream()
    assert_same(
        *(
            tensors(
                run(mixer, **given, noise=noise, control=RoutingControl(learning=Learning(exploration=0.5)))
            )
            for noise in (None, torch.rand(BATCH, TIME, 4))
        )
    )
