"""What ``transformers.Trainer`` must do so that a model can be led: hand over labels, and train its loss."""

from __future__ import annotations

from typing import Any

from transformers import TrainingArguments

from torchcram.models.modeling_cram import CRAMForCausalLM
from torchcram.models.outputs import CRAMCausalLMOutput

LABELS = "labels must reach the model, since its own loss holds the price of its reads: "


def check_leadable(model: Any, args: TrainingArguments) -> None:
    """Check a model and its training arguments before the first step.

    Raises:
        ValueError: for a model that is none of ours, one that holds an adapter, or label smoothing.
    """
    if not isinstance(model, CRAMForCausalLM):
        raise ValueError(f"ConsolidationCallback leads a CRAMForCausalLM, not a {type(model).__name__}")
    if model.model.routed and getattr(model, "_hf_peft_config_loaded", False):
        raise ValueError(
            "the model holds an adapter, with which the slots of semantic memory are not saved, although "
            "training moves them: train the model itself, or train the adapter without this callback"
        )
    if args.label_smoothing_factor:
        raise ValueError(
            f"{LABELS}label_smoothing_factor={args.label_smoothing_factor} takes them away. Set it to 0"
        )


def require_labels(output: Any) -> None:
    """Check the output of a training pass.

    Raises:
        ValueError: if it was made without labels.
    """
    if not isinstance(output, CRAMCausalLMOutput) or output.losses is None:
        raise ValueError(
            f"{LABELS}this training pass had none. compute_loss_func takes them away, and so does a trainer "
            "that computes its own loss; use Trainer's own"
        )


def require_own_loss(backwards: int) -> None:
    """Check that the model's loss was trained.

    Raises:
        ValueError: if no backward pass went through it.
    """
    if backwards == 0:
        raise ValueError(
            f"{LABELS}no backward pass of this step went through that loss. A trainer that computes its own "
            "loss, or one fused with the head (TRL's SFTTrainer), cannot be led: use transformers.Trainer"
        )
