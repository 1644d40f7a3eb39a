"""What the models for Transformers have in common: how they are saved, loaded, initialised, checkpointed."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers import initialization as init

from torchcram.models.configuration_cram import CRAMConfig
from torchcram.models.decoder_layer import CRAMDecoderLayer


class CRAMPreTrainedModel(PreTrainedModel):
    """Base of the models: weights that a checkpoint lacks have the values of a fresh model."""

    config: CRAMConfig
    config_class = CRAMConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _no_split_modules = ["CRAMDecoderLayer"]  # noqa: RUF012 (Transformers wants lists here)
    _skip_keys_device_placement = ["past_key_values"]  # noqa: RUF012
    _is_stateful = True
    _can_compile_fullgraph = False

    def _initialize_weights(self, module: nn.Module, is_custom_code: bool = False) -> None:
        """Initialise what no checkpoint has set.

        For code outside of Transformers, a module without weights of its own counts as initialised. Ours are
        initialised layer by layer, and weights that are set already are left alone.
        """
        super()._initialize_weights(module, is_custom_code=False)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Initialise one module; a mixer's weights are those of a mixer that is just built."""
        if isinstance(module, CRAMDecoderLayer):
            module.renew()
        elif isinstance(module, nn.Linear | nn.Embedding):
            self._init_projection(module)
        else:
            super()._init_weights(module)

    def _init_projection(self, module: nn.Linear | nn.Embedding) -> None:
        """Draw embeddings, and heads that are not tied to them."""
        if module is self.get_output_embeddings() and self.config.tie_word_embeddings:
            return
        chosen = self.config.initializer_range
        init.normal_(module.weight, std=self.config.hidden_size**-0.5 if chosen is None else chosen)
        if isinstance(module, nn.Linear) and module.bias is not None:
            init.zeros_(module.bias)

    def _set_gradient_checkpointing(
        self, enable: bool = True, gradient_checkpointing_func: Any = checkpoint, every_n_layers: int = 1
    ) -> None:
        """Switch checkpointing on or off.

        Raises:
            ValueError: unless ``use_reentrant`` is False; PyTorch's default keeps the gradients of bare
                tensors alone.
        """
        settings = getattr(gradient_checkpointing_func, "keywords", {})
        if enable and settings.get("use_reentrant") is not False:
            raise ValueError(
                "reentrant checkpointing would lose the gradients of a CRAM layer, which returns more than a "
                "tensor: pass {'use_reentrant': False}"
            )
        super()._set_gradient_checkpointing(enable, gradient_checkpointing_func, every_n_layers)
