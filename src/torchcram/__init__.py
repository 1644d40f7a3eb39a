"""Sequence models that learn to stop paying for attention: consolidation-based routing for adaptive memory
(CRAM, arXiv 2602.12204).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from torchcram.after_import import after_import

__version__ = "0.2.0"

# Public name -> the module that defines it. Imported on first use, so that `import torchcram` and the command
# line stay quick.
_PUBLIC = {
    "Batch": "torchcram.types",
    "BlockOutput": "torchcram.types",
    "Head": "torchcram.types",
    "MemoryState": "torchcram.types",
    "Route": "torchcram.types",
    "RoutingControl": "torchcram.types",
    "RoutingDecision": "torchcram.types",
    "SequenceMixer": "torchcram.types",
    "CRAMBlock": "torchcram.memory.block",
    "Consolidator": "torchcram.memory.consolidator",
    "ConsolidationRules": "torchcram.memory.phases",
    "LossWeights": "torchcram.memory.consolidator",
    "Learning": "torchcram.types",
    "Step": "torchcram.types",
    "SequenceModel": "torchcram.models.sequence",
    "CRAMConfig": "torchcram.models.modeling_cram",
    "CRAMModel": "torchcram.models.modeling_cram",
    "CRAMForCausalLM": "torchcram.models.modeling_cram",
    "ConsolidationCallback": "torchcram.models.consolidation_callback",
    "ReadBudget": "torchcram.types",
    "SRCD": "torchcram.tasks.srcd",
    "SRCDConfig": "torchcram.tasks.srcd_config",
    "Floors": "torchcram.tasks.base",
    "Task": "torchcram.tasks.base",
    "RunConfig": "torchcram.training.run_config",
    "demo": "torchcram.training.presets",
    "full": "torchcram.training.presets",
    "Run": "torchcram.training.loop",
    "load_run": "torchcram.training.loop",
    "train": "torchcram.training.loop",
    "CRAMClassifier": "torchcram.series.estimators",
    "CRAMRegressor": "torchcram.series.estimators",
    "AnalysisConfig": "torchcram.pretrained.analysis.settings",
    "analyze": "torchcram.pretrained.analysis.analyze",
    "write_report": "torchcram.report.html",
    "RetrofitSettings": "torchcram.pretrained.retrofit.settings",
    "judge": "torchcram.pretrained.judging.verdict",
    "load_adapter": "torchcram.pretrained.retrofit.saving",
    "reading": "torchcram.pretrained.retrofit.install",
    "remove": "torchcram.pretrained.retrofit.install",
    "retrofit": "torchcram.pretrained.retrofit.life",
    "save_adapter": "torchcram.pretrained.retrofit.saving",
    "save_retrofit": "torchcram.pretrained.retrofit.saving",
}

__all__ = [
    "SRCD",
    "AnalysisConfig",
    "Batch",
    "BlockOutput",
    "CRAMBlock",
    "CRAMClassifier",
    "CRAMConfig",
    "CRAMForCausalLM",
    "CRAMModel",
    "CRAMRegressor",
    "ConsolidationCallback",
    "ConsolidationRules",
    "Consolidator",
    "Floors",
    "Head",
    "Learning",
    "LossWeights",
    "MemoryState",
    "ReadBudget",
    "RetrofitSettings",
    "Route",
    "RoutingControl",
    "RoutingDecision",
    "Run",
    "RunConfig",
    "SRCDConfig",
    "SequenceMixer",
    "SequenceModel",
    "Step",
    "Task",
    "__version__",
    "analyze",
    "demo",
    "full",
    "judge",
    "load_adapter",
    "load_run",
    "reading",
    "remove",
    "retrofit",
    "save_adapter",
    "save_retrofit",
    "train",
    "write_report",
]

if TYPE_CHECKING:
    from torchcram.memory.block import CRAMBlock
    from torchcram.memory.consolidator import Consolidator, LossWeights
    from torchcram.memory.phases import ConsolidationRules
    from torchcram.models.consolidation_callback import ConsolidationCallback
    from torchcram.models.modeling_cram import CRAMConfig, CRAMForCausalLM, CRAMModel
    from torchcram.models.sequence import SequenceModel
    from torchcram.pretrained.analysis.analyze import analyze
    from torchcram.pretrained.analysis.settings import AnalysisConfig
    from torchcram.pretrained.judging.verdict import judge
    from torchcram.pretrained.retrofit.install import reading, remove
    from torchcram.pretrained.retrofit.life import retrofit
    from torchcram.pretrained.retrofit.saving import load_adapter, save_adapter, save_retrofit
    from torchcram.pretrained.retrofit.settings import RetrofitSettings
    from torchcram.report.html import write_report
    from torchcram.series.estimators import CRAMClassifier, CRAMRegressor
    from torchcram.tasks.base import Floors, Task
    from torchcram.tasks.srcd import SRCD
    from torchcram.tasks.srcd_config import SRCDConfig
    from torchcram.training.loop import Run, load_run, train
    from torchcram.training.presets import demo, full
    from torchcram.training.run_config import RunConfig
    from torchcram.types import (
        Batch,
        BlockOutput,
        Head,
        Learning,
        MemoryState,
        ReadBudget,
        Route,
        RoutingControl,
        RoutingDecision,
        SequenceMixer,
        Step,
    )


def _enter(tables: Any) -> None:
    """Let the Auto classes, pipelines and Trainer know our own models."""
    import_module("torchcram.models.auto_classes").enter(tables)


def _announce(auto: Any) -> None:
    """Let ``AutoModelForCausalLM.from_pretrained`` know retrofitted models."""
    import_module("torchcram.pretrained.retrofit.quantizer").register(auto)


after_import("transformers.models.auto.configuration_auto", _enter)
after_import("transformers.models.auto.modeling_auto", _enter)
after_import("transformers.quantizers.auto", _announce)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'torchcram' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return __all__
