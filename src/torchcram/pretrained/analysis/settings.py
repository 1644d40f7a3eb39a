"""What an analysis measures, and on how much text."""

from __future__ import annotations

from pydantic import Field, model_validator

from torchcram.strict import StrictConfig


class AnalysisConfig(StrictConfig):
    """Settings of an analysis; tokens are counted, the select and the test split get an eighth of the fit
    split each.

    Attributes:
        tokens: fit tokens.
        context: longest window.
        seed: of the splits, the MLP probe and the bootstrap.
        rank_tokens: select tokens on which every layer alone is replaced, and alone is dropped, to rank them.
        refit_tokens: fit tokens on which the probes are refitted behind replaced layers.
        harm_tokens: fit tokens on which error and downstream harm are learned, with a backward pass each.
        judge_tokens: test tokens on which whole layers are replaced or dropped.
        route_tokens: test tokens on which single tokens are routed.
        replace: numbers of layers to replace together.
        skip_rates: shares of the reads that are skipped by routing.
        state_directions: directions in which a replacing probe sees the tokens before; 0 for none.
        local_reach: a replacing probe sees what the block itself finds in a buffer: so many tokens before, up
            to twice as many, and the first one; 0 for none; None for a 32nd of the context.
        mlp_width: hidden units of the MLP probe; 0 leaves it out.
    """

    tokens: int = Field(200_000, gt=0)
    context: int = Field(1024, gt=1)
    seed: int = Field(0, ge=0)
    rank_tokens: int = Field(2048, gt=0)
    refit_tokens: int = Field(32_768, gt=0)
    harm_tokens: int = Field(16_384, gt=0)
    judge_tokens: int = Field(8192, gt=0)
    route_tokens: int = Field(4096, gt=0)
    replace: tuple[int, ...] = (1, 2, 4, 8, 12, 16)
    skip_rates: tuple[float, ...] = (0.1, 0.25, 0.5, 0.75, 0.9)
    state_directions: int = Field(128, ge=0)
    local_reach: int | None = Field(None, ge=0)
    mlp_width: int = Field(64, ge=0)

    @property
    def reach(self) -> int:
        """Tokens before each one that attention on a buffer sees at least; 0 for none."""
        return self.context // 32 if self.local_reach is None else self.local_reach

    @model_validator(mode="after")
    def _buffer_is_no_window(self) -> AnalysisConfig:
        if 8 * self.reach > self.context:
            raise ValueError(
                f"local_reach {self.reach} lets a probe see up to {2 * self.reach + 1} of a "
                f"window's {self.context} tokens, which is no replacement of reading "
                f"them: use {self.context // 8} or less"
            )
        return self
