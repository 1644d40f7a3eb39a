"""What a CRAM language model is made of, in the form that Transformers saves and loads: ``config.json``.

Any mixer of :data:`torchcram.mixers.MIXERS` can be the layer: ``mixer="transformer"`` is the dense baseline,
through the same model file.
"""

import difflib
import json
from collections.abc import Iterable
from dataclasses import fields
from typing import Any

import torch
from huggingface_hub.dataclasses import strict
from transformers import GenerationConfig, PreTrainedConfig
from transformers.utils import logging

from torchcram.memory.consolidator import LossWeights
from torchcram.mixers import build_mixer
from torchcram.strict import nearest_hint, require_choice, require_positive

logger = logging.get_logger("transformers.torchcram")

# What PreTrainedConfig itself takes beyond its fields.
INHERITED = {
    *(
        "torch_dtype",
        "num_labels",
        "name_or_path",
        "_name_or_path",
        "_commit_hash",
        "auto_map",
        "model_type",
        "output_attentions",
        "per_layer_config",
        "quantization_config",
    ),
    *("attn_implementation", "_attn_implementation", "_attn_implementation_internal"),
    *("experts_implementation", "_experts_implementation", "_experts_implementation_internal"),
}


@strict
class CRAMConfig(PreTrainedConfig):
    """Sizes, mixer, and what is read in evaluation. Unknown keys and options are errors.

    Attributes:
        vocab_size: number of tokens.
        hidden_size: width.
        num_hidden_layers: depth.
        mixer: name in :data:`torchcram.mixers.MIXERS`.
        mixer_options: its keyword arguments (``heads``, ``window``, ``slots``, ...), as in
            ``torchcram.mixers``.
        max_position_embeddings: longest sequence, prompt and continuation together; None for no bound
            (positions are rotations by time).
        initializer_range: standard deviation of initial embeddings, None for ``hidden_size ** -0.5``. Mixers
            initialise themselves.
        use_cache: whether evaluation returns a cache.
        routing: ``"sparse"`` computes what is routed; ``"dense"`` computes everything and selects, for
            ``torch.export``.
        reads: what evaluation reads: ``"routed"``, ``"all"`` or ``"none"``. Training keeps this and the next
            one up to date.
        threshold_shift: logits added to every familiarity threshold in evaluation.
        consolidation_weight, familiarity_weight, surprise_weight, predictor_weight: factors of the losses
            beside the language model's.
    """

    # Its fields are checked by "strict", which reads their types as they stand here; the tests' checker would
    # refuse the further keys.
    __no_type_check__ = True
    model_type = "cram"
    keys_to_ignore_at_inference = ["past_key_values", "routes", "read_rates", "losses", "blocks"]  # noqa: RUF012 (Trainer adds a list to it)

    vocab_size: int = 32_000
    hidden_size: int = 256
    num_hidden_layers: int = 4
    mixer: str = "cram"
    mixer_options: dict[str, Any] | None = None
    max_position_embeddings: int | None = None
    initializer_range: float | None = None
    use_cache: bool = True
    routing: str = "sparse"
    reads: str = "routed"
    threshold_shift: float = 0.0
    consolidation_weight: float = 1.0
    familiarity_weight: float = 1.0
    surprise_weight: float = 0.1
    predictor_weight: float = 1.0
    pad_token_id: int | None = None
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    tie_word_embeddings: bool = True

    def __post_init__(self, **kwargs: Any) -> None:
        for key in _foreign(type(self), kwargs):
            raise ValueError(f"unknown key {key!r} in CRAMConfig: {_hint(type(self), key)}")
        self.mixer_options = dict(self.mixer_options or {})
        self._check()
        super().__post_init__(**kwargs)

    def _check(self) -> None:
        require_positive(
            vocab_size=self.vocab_size, hidden_size=self.hidden_size, num_hidden_layers=self.num_hidden_layers
        )
        require_choice("routing", self.routing, ("sparse", "dense"))
        require_choice("reads", self.reads, ("routed", "all", "none"))
        if self.max_position_embeddings is not None:
            require_positive(max_position_embeddings=self.max_position_embeddings)
        # Building a layer without memory for its weights finds every option that cannot be.
        with torch.device("meta"):
            self.build_layer(0)

    def loss_weights(self) -> LossWeights:
        """Return the factors of the layers' losses in training."""
        return LossWeights(**{name: getattr(self, f"{name}_weight") for name in LossWeights.model_fields})

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Return the configuration that was saved as ``config_dict``, with the fields in ``kwargs`` changed.

        Tools set attributes of their own on a configuration, which are saved with it. They are kept as
        attributes, and named in a warning, since one of them may be a misspelt field.
        """
        foreign = _foreign(cls, config_dict)
        chosen = {name: value for name, value in kwargs.items() if name in _names(cls)}
        own = {name: value for name, value in config_dict.items() if name not in foreign} | chosen
        loaded = super().from_dict(own, **kwargs)
        config = loaded[0] if isinstance(loaded, tuple) else loaded
        for name in foreign:
            near = _hint(cls, name) if difflib.get_close_matches(name, _names(cls)) else "no field is like it"
            logger.warning(
                f"{name!r} in the saved configuration is no field of CRAMConfig: it is kept as an attribute "
                f"({near})"
            )
            setattr(config, name, config_dict[name])
        return loaded

    def build_layer(self, layer: int) -> torch.nn.Module:
        """Return the mixer of one layer.

        Raises:
            ValueError: for an unknown mixer, or an option that it does not have or cannot take.
        """
        return build_mixer(self.mixer, self.hidden_size, self.mixer_options or {}, layer=layer)

    @property
    def layer_types(self) -> list[str]:
        """Names of the cache layers that belong to the model: see :mod:`torchcram.models.cache`."""
        return ["cram"] * self.num_hidden_layers

    def validate_layer_type(self) -> None:
        """The types of the layers are not Transformers' own, and always right."""

    def signature(self) -> str:
        """Return what a cache must share with a model that goes on with it."""
        return json.dumps(
            [self.mixer, self.hidden_size, self.num_hidden_layers, self.mixer_options], sort_keys=True
        )


def _names(kind: type[CRAMConfig]) -> set[str]:
    return {field.name for field in fields(kind)}


def _foreign(kind: type[CRAMConfig], keys: Iterable[str]) -> list[str]:
    """Return the keys that neither we nor Transformers know."""
    generation = GenerationConfig._get_default_generation_params()
    return [key for key in keys if key not in _names(kind) | INHERITED and key not in generation]


def _hint(kind: type[CRAMConfig], key: str) -> str:
    return nearest_hint(key, _names(kind))
