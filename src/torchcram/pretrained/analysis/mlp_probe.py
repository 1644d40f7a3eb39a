"""A small MLP probe that learns on the fly, from each window once: what a non-linear function of the input
predicts beyond the ridge probe.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

LEARNING_RATE = 2e-3
# Tokens of one step.
STEP = 256


class MLPProbe:
    """One hidden layer, trained by Adam on standardised inputs and outputs; its scale is that of the first
    window.

    Args:
        inputs: width of the input.
        outputs: width of the output.
        width: hidden units.
        generator: of the first weights.
    """

    def __init__(self, inputs: int, outputs: int, *, width: int, generator: torch.Generator):
        first, last = nn.Linear(inputs, width), nn.Linear(width, outputs)
        for layer in (first, last):
            nn.init.normal_(layer.weight, std=layer.in_features**-0.5, generator=generator)
            nn.init.zeros_(layer.bias)
        self.net = nn.Sequential(first, nn.GELU(), last)
        self.optimiser = torch.optim.Adam(self.net.parameters(), lr=LEARNING_RATE)
        self.scale: dict[str, Tensor] = {}

    def learn(self, x: Float[Tensor, "tokens inputs"], y: Float[Tensor, "tokens outputs"]) -> None:
        """Take a step on every few tokens, in random order."""
        x, y = x.float(), y.float()
        if not self.scale:
            self.net.to(x.device)
            self.scale = {
                "x_mean": x.mean(0),
                "x_std": x.std(0) + 1e-6,
                "y_mean": y.mean(0),
                "y_std": y.std() + 1e-12,
            }
        with torch.enable_grad():
            for some_x, some_y in zip(x.split(STEP), y.split(STEP), strict=True):
                loss = (
                    (self.net(self._entered(some_x)) - (some_y - self.scale["y_mean"]) / self.scale["y_std"])
                    .square()
                    .mean()
                )
                loss.backward()
                self.optimiser.step()
                # At once, so that only the probe of one layer holds gradients.
                self.optimiser.zero_grad()

    @torch.no_grad()
    def predict(self, x: Float[Tensor, "tokens inputs"]) -> Float[Tensor, "tokens outputs"]:
        """Return the predicted outputs."""
        return self.net(self._entered(x.float())) * self.scale["y_std"] + self.scale["y_mean"]

    def anneal(self, share: float) -> None:
        """Lower the learning rate linearly; ``share`` is the part of the text that has been seen."""
        for group in self.optimiser.param_groups:
            group["lr"] = LEARNING_RATE * max(1 - share, 0.02)

    def state(self) -> dict[str, Any]:
        """Return everything that is needed to go on."""
        return {"net": self.net.state_dict(), "optimiser": self.optimiser.state_dict(), "scale": self.scale}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from :meth:`state`."""
        self.net.load_state_dict(state["net"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.scale = state["scale"]

    def _entered(self, x: Tensor) -> Tensor:
        return (x - self.scale["x_mean"]) / self.scale["x_std"]
