"""The arguments of the estimators for series, checked before any series is read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
from pydantic import Field, StrictBool, model_validator

from torchcram.strict import StrictConfig

Whole = Annotated[int, Field(strict=True)]
Real = Annotated[float, Field(strict=True)]


class SeriesArguments(StrictConfig):
    """Every argument that both estimators share; see :class:`torchcram.series.estimators.CRAMClassifier`.

    Those of the model (``mixer``, ``mixer_options``) are checked where it is built.
    """

    d_model: Whole = Field(ge=1)
    layers: Whole = Field(ge=1)
    mixer: str
    mixer_options: dict[str, Any] | None
    history: StrictBool
    hide: Real = Field(ge=0.0, lt=1.0)
    forecast: Real = Field(ge=0.0)
    replicate: Real = Field(ge=0.0)
    read_price: Real = Field(ge=0.0)
    max_steps: Whole = Field(ge=1)
    batch_size: Whole = Field(ge=1)
    learning_rate: Real = Field(gt=0.0)
    weight_decay: Real = Field(ge=0.0)
    early_stopping: StrictBool
    validation_share: Real = Field(gt=0.0, lt=1.0)
    patience: Whole = Field(ge=1)
    members: Whole = Field(ge=1)
    verbose: StrictBool

    @model_validator(mode="after")
    def _what_sees_all_forecasts_nothing(self) -> SeriesArguments:
        if self.forecast and self.mixer == "mtand":
            raise ValueError(
                "forecast: mixer 'mtand' sees the whole series, what comes next included: set forecast=0.0"
            )
        return self

    @classmethod
    def of(cls, parameters: Mapping[str, Any]) -> SeriesArguments:
        """Check the parameters of an estimator; those that only one of them has are left out.

        Raises:
            ValueError: one line per problem, with the name of the argument.
        """
        known = {name: parameters[name] for name in cls.model_fields}
        # A search over a grid passes NumPy's numbers.
        return cls.parse(
            {name: value.item() if isinstance(value, np.generic) else value for name, value in known.items()}
        )
