"""What is summed up for one attention block, over the tokens of a split."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from torchcram.pretrained.analysis.controls import Classes, ClassSums, no_class_sums
from torchcram.pretrained.analysis.moments import Moments, no_moments
from torchcram.pretrained.sites import AttentionSite

# Output channels of the control with shuffled targets.
SHUFFLED = 16


@dataclass(kw_only=True)
class SiteSums:
    """The sums of one block; outputs are its heads side by side.

    Attributes:
        moments: of inputs and outputs.
        controls: of the classes of each control.
        shuffled: products of the inputs with some channels of the outputs of other tokens, less their
            window's mean.
    """

    moments: Moments
    controls: dict[str, ClassSums]
    shuffled: Float64[Tensor, "inputs channels"]

    def add_controls(
        self,
        x: Float[Tensor, "tokens inputs"],
        y: Float[Tensor, "tokens outputs"],
        *,
        classes: dict[str, Int[Tensor, " tokens"]],
        permutation: Int[Tensor, " tokens"],
    ) -> None:
        """Take in the tokens of a window for all controls.

        Args:
            x: inputs.
            y: outputs.
            classes: of the tokens, for each control.
            permutation: says whose outputs a token gets in the control with shuffled targets.
        """
        for name, sums in self.controls.items():
            sums.add(classes[name], y)
        # Less the window's mean: tokens of one window share its document, and that is no nothing.
        some = y[:, : self.shuffled.shape[1]].double()
        self.shuffled.addmm_(x.double().T, (some - some.mean(0))[permutation])


def no_site_sums(site: AttentionSite, classes: Classes, *, device: torch.device) -> SiteSums:
    """Return the sums over no tokens."""
    outputs = site.heads * site.head_size
    return SiteSums(
        moments=no_moments(site.width, outputs, device=device),
        controls={
            name: no_class_sums(size, outputs, device=device) for name, size in classes.sizes().items()
        },
        shuffled=torch.zeros(site.width, min(SHUFFLED, outputs), dtype=torch.float64, device=device),
    )
