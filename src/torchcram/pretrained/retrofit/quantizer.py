"""How Transformers finds a retrofit in a saved folder: as a "quantization method" of the name ``torchcram``,
which builds the memories before the weights are loaded.

``AutoModelForCausalLM.from_pretrained`` then loads a retrofitted model of unchanged model type, once
``torchcram`` has been imported; without, Transformers warns of an unknown method and loads the untouched
model.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

from transformers.quantizers.base import HfQuantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

from torchcram.pretrained.retrofit.block import NAME
from torchcram.pretrained.retrofit.install import install
from torchcram.pretrained.retrofit.settings import RetrofitSettings

METHOD = "torchcram"


class RetrofitConfig(QuantizationConfigMixin):
    """What ``config.json`` says of a retrofit.

    Args:
        settings: of the retrofit, as plain data.
        base: name and digest of the untouched model.
        quant_method: always ``torchcram``.
    """

    def __init__(
        self,
        settings: dict[str, Any] | None = None,
        base: dict[str, str] | None = None,
        quant_method: str = METHOD,
    ):
        self.quant_method: Any = quant_method
        self.settings, self.base = settings or {}, base or {}


class RetrofitQuantizer(HfQuantizer):
    """Puts memories into a model that is about to be loaded."""

    quantization_config: RetrofitConfig

    def _process_model_before_weight_loading(self, model: Any, **kwargs: Any) -> Any:
        settings = RetrofitSettings.parse(self.quantization_config.settings)
        install(model, settings).base = dict(self.quantization_config.base)
        # Memories stay in float32, whatever the model is loaded in: their features differ a thousandfold.
        kept = model._keep_in_fp32_modules_strict or ()
        model._keep_in_fp32_modules_strict = {*kept, NAME}
        return model

    def is_serializable(self) -> bool:
        """Whether the model can be saved."""
        return True

    @property
    def is_trainable(self) -> bool:
        """Whether the model can be trained."""
        return True


def register(auto: ModuleType) -> None:
    """Enter the method into the tables of ``transformers.quantizers.auto``."""
    if METHOD not in auto.AUTO_QUANTIZER_MAPPING:
        auto.register_quantization_config(METHOD)(RetrofitConfig)
        auto.register_quantizer(METHOD)(RetrofitQuantizer)
