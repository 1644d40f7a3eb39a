"""The words of a claim: methods (changes to a preset), goals (bounds on figures), the picture that answers
its question.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import mean
from typing import Any, Literal

from torchcram.training.run_config import RunConfig

READS = ("any_layer_read_rate", "any_layer_floor", "attention_share")
# One finished run: method, seed, scale, source, and the fields of its summary.
Row = Mapping[str, Any]


def is_share(figure: str) -> bool:
    """Whether a figure is a share in [0, 1], which people read in percent."""
    return figure.endswith(("accuracy", "rate", "share", "floor", "bound", "saved"))


@dataclass(frozen=True)
class Share:
    """A number of training steps, as a share of those of the scale's preset."""

    of_steps: float


@dataclass(frozen=True)
class Part:
    """A number of steps of a sequence, as a share of those of the scale's preset."""

    of_length: float


@dataclass(frozen=True, kw_only=True)
class Method:
    """One way to train: the preset of a scale with some fields changed.

    Attributes:
        name: its key in every table.
        title: what a reader calls it.
        changes: value, :class:`Share` or :class:`Part`, by the dotted path of the field.
        family: methods of one family differ in one number and make one line of a figure.
        at: that number.
        base: the method whose finished run, of the same seed, gives the weights; None to start from the seed.
        rival: name of the method whose run, of the same seed, it is measured against (keys scanned until the
            same accuracy).
    """

    name: str
    title: str
    changes: Mapping[str, Any]
    family: str = ""
    at: float | None = None
    base: Method | None = None
    rival: str = ""

    def config(self, preset: RunConfig, *, seed: int) -> RunConfig:
        """Return the configuration of one run.

        Its name is the scale's, so that claims share what they have in common.

        Raises:
            ValueError: if a change does not fit the preset.
        """
        config = preset.updated("seed", seed)
        if self.base is not None:
            config = config.updated("start_from", self.base.config(preset, seed=seed).digest())
        return _updated(config, {path: _in_steps(value, preset) for path, value in self.changes.items()})


def _updated(config: RunConfig, changes: Mapping[str, Any]) -> RunConfig:
    """Change some fields.

    Those that bound each other fit in one order only: what does not fit yet is tried again after the others.
    """
    late = {}
    for path, value in changes.items():
        try:
            config = config.updated(path, value)
        except ValueError:
            if len(changes) == 1:
                raise
            late[path] = value
    if len(late) == len(changes) > 1:
        return _updated(config, dict([next(iter(late.items()))]))
    return _updated(config, late) if late else config


def _in_steps(value: Any, preset: RunConfig) -> Any:
    """Return a value with every :class:`Share` and :class:`Part` in it, also in lists, as a number of
    steps.
    """
    if isinstance(value, list | tuple):
        return [_in_steps(item, preset) for item in value]
    if isinstance(value, Part):
        return round(value.of_length * preset.task.length)
    return round(value.of_steps * preset.training.steps) if isinstance(value, Share) else value


@dataclass(frozen=True, kw_only=True)
class Goal:
    """What every run of a method must reach: ``figure <= bound`` or ``figure >= bound``.

    The bound is ``number``, or ``times`` another field of the same run, or ``times`` the mean of the figure
    over other methods' runs; ``plus`` is added.

    Attributes:
        method: whose runs.
        figure: field of their rows.
        sign: which side of the bound is good.
        number: the bound itself.
        of: field of the run that the bound is a multiple of.
        than: methods that the run is compared with.
        times, plus: see above.
        scales: at which it is asked for; all if empty.
    """

    method: str
    figure: str
    sign: Literal["<=", ">="]
    number: float | None = None
    of: str | None = None
    than: tuple[str, ...] = ()
    times: float = 1.0
    plus: float = 0.0
    scales: tuple[str, ...] = ()

    def bound(self, row: Row, others: Mapping[str, list[Row]]) -> float | None:
        """Return the bound for one run; None where what it depends on has not been measured."""
        if self.number is not None:
            return self.number
        if self.of is not None:
            base = row.get(self.of)
            return None if base is None else self.times * base + self.plus
        compared = [other.get(self.figure) for name in self.than for other in others.get(name, [])]
        known = [value for value in compared if value is not None]
        return (
            self.times * mean(known) + self.plus
            if known and all(others.get(name) for name in self.than)
            else None
        )

    def met(self, row: Row, others: Mapping[str, list[Row]]) -> bool:
        """Whether a run reaches it; what was not measured does not."""
        value, bound = row.get(self.figure), self.bound(row, others)
        if value is None or bound is None:
            return False
        return bool(value <= bound if self.sign == "<=" else value >= bound)

    @property
    def words(self) -> str:
        """The bound in words."""
        if self.number is not None:
            return (
                f"{self.sign} {100 * self.number:g}%"
                if is_share(self.figure)
                else f"{self.sign} {self.number:g}"
            )
        base = (
            f"its {self.of.replace('_', ' ')}"
            if self.of is not None
            else f"the mean of {', '.join(self.than)}"
        )
        factor = "" if self.times == 1 else f"{self.times:g} x "
        return f"{self.sign} {factor}{base}" + (
            f" {'+' if self.plus > 0 else '-'} {abs(self.plus):g}" if self.plus else ""
        )


@dataclass(frozen=True, kw_only=True)
class Picture:
    """What the figure of a claim shows.

    Attributes:
        kind: ``"training"`` (``y`` over training steps, a line a method), ``"sweep"`` (``y`` over the number
            that a family sweeps), ``"frontier"`` (``y`` against ``x``, a point a method, a line a family),
            ``"exposures"`` (read rate against encounters of a pattern) ``"bound"`` (``y`` against reads, a
            line a family, above the bound on static routing) or ``"dots"`` (``x`` and ``y`` for every method,
            one below the other).
        title: what the figure asks.
        x, y: fields of the rows; for ``"training"`` and a course of the metrics.
        methods: which are drawn; all if empty.
        course: names of the methods whose reads over training are drawn above the rest, the one that the
            claim is about first.
    """

    kind: Literal["training", "sweep", "frontier", "exposures", "bound", "dots"]
    title: str
    x: str = "any_layer_read_rate"
    y: str = "retrieval_accuracy"
    methods: tuple[str, ...] = ()
    course: tuple[str, ...] = ()

    def over_training(self, method: str) -> str:
        """Return the field of a method's metrics that is shown over training; empty for none."""
        return self.y if self.kind == "training" else self.x if method in self.course else ""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A method and its rivals: what is told is their difference, seed by seed.

    Attributes:
        ours: name of the method.
        theirs: names of its rivals.
        figures: fields of the rows.
    """

    ours: str
    theirs: tuple[str, ...]
    figures: tuple[str, ...] = (
        "retrieval_accuracy",
        "any_layer_read_rate",
        "attention_share",
        "dynamics_mse",
    )


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One question put to the paper, whose words stand in the README of its folder.

    Attributes:
        name: as on the command line.
        folder: where its results are written, below ``experiments/``.
        methods: what is trained.
        figures: fields of the rows that the table shows, the headline first.
        goals: when it counts as reproduced: all of them, by every seed; some: partly.
        picture: its figure.
        pairs: what is compared seed by seed.
        scales: at which it is trained.
        headline: names of the methods trained at a scale, where that is not all of them.
        first_seed: of its runs.
        seeds: how many it takes, whatever is asked for; None for as many as are asked for.
    """

    name: str
    folder: str
    methods: tuple[Method, ...]
    figures: tuple[str, ...]
    goals: tuple[Goal, ...]
    picture: Picture
    pairs: tuple[Pair, ...] = ()
    scales: tuple[str, ...] = ("mini", "demo", "full")
    headline: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    first_seed: int = 0
    seeds: int | None = None

    def seeds_of(self, asked: int) -> range:
        """Return its seeds where so many are asked for."""
        return range(self.first_seed, self.first_seed + (asked if self.seeds is None else self.seeds))

    def methods_at(self, scale: str, *, also: Sequence[str] = ()) -> tuple[Method, ...]:
        """Return what is trained at a scale, and those methods of the claim that are named in ``also``."""
        headline = self.headline.get(scale)
        return (
            self.methods
            if headline is None
            else tuple(method for method in self.methods if method.name in {*headline, *also})
        )

    def goals_at(self, scale: str) -> tuple[Goal, ...]:
        """Return the goals that what is trained at a scale can be judged by."""
        trained = {method.name for method in self.methods_at(scale)}
        asked = (goal for goal in self.goals if not goal.scales or scale in goal.scales)
        return tuple(goal for goal in asked if {goal.method, *goal.than} <= trained)

    def method(self, name: str) -> Method:
        """Return the method of that name."""
        return next(method for method in self.methods if method.name == name)
