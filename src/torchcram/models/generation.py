"""How the language model generates: with Transformers' own ``generate``, whose prompts are checked first."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers import GenerationMixin


class CRAMGenerationMixin(GenerationMixin):
    """``generate``, with one clear error for each prompt that cannot be continued.

    ``read_budget``, like every argument of ``forward``, may be passed to ``generate`` and holds for one call.
    """

    def prepare_inputs_for_generation(
        self,
        input_ids: Any,
        next_sequence_length: int | None = None,
        past_key_values: Any = None,
        attention_mask: Any = None,
        inputs_embeds: Any = None,
        is_first_iteration: bool | None = False,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Return the arguments of the next ``forward``: see Transformers.

        Raises:
            ValueError: for a prompt shorter than what the cache holds, and for ``output_routing``.
        """
        if kwargs.get("output_routing"):
            raise ValueError(
                "generate returns no routes: call the model on what was generated with output_routing=True, "
                "or read_meter on the cache"
            )
        if next_sequence_length is not None and next_sequence_length < 0:
            held = past_key_values.get_seq_length()
            raise ValueError(
                f"the cache holds {held} tokens, the prompt has {held + next_sequence_length}: pass all "
                "tokens so far, those in the cache and the new ones"
            )
        # Slicing by -0 would take all tokens; a prompt that is in the cache has none that are new.
        # Transformers annotates self by a class of its own that no model derives from.
        inputs = super().prepare_inputs_for_generation(  # type: ignore[misc]
            input_ids,
            next_sequence_length=next_sequence_length or None,
            past_key_values=past_key_values,
            attention_mask=attention_mask,
            inputs_embeds=inputs_embeds,
            is_first_iteration=is_first_iteration,
            **kwargs,
        )
        return _without_tokens(inputs) if next_sequence_length == 0 else inputs

    def _prefill(
        self, input_ids: Any, generation_config: Any, model_kwargs: Any, is_first_iteration: bool = True
    ) -> Any:
        """Take in the prompt.

        Raises:
            ValueError: for a prompt that ends in padding, or is padding alone.
        """
        mask = model_kwargs.get("attention_mask")
        if mask is not None and mask.dim() == 2:
            _check_padding(mask)
        return super()._prefill(input_ids, generation_config, model_kwargs, is_first_iteration)  # type: ignore[misc]


def _check_padding(mask: Tensor) -> None:
    empty = ~mask.bool().any(1)
    if bool(empty.any()):
        raise ValueError(
            f"row {int(empty.nonzero()[0])} of attention_mask is padding alone: leave it out, or give it a "
            "first token"
        )
    ends = mask[:, -1] == 0
    if bool(ends.any()):
        raise ValueError(
            f"row {int(ends.nonzero()[0])} of the prompt ends in padding, where generation would go on: pad "
            "on the left (padding_side='left')"
        )


def _without_tokens(inputs: dict[str, Any]) -> dict[str, Any]:
    """Ask for what comes after the tokens in the cache."""
    sliced = ("input_ids", "inputs_embeds", "position_ids", "token_type_ids")
    return {
        name: value[:, :0] if name in sliced and isinstance(value, Tensor) else value
        for name, value in inputs.items()
    }
