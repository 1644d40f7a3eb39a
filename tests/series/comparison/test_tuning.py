"""Tuning takes so many trials and no more, on validation data alone, keeps what was interrupted, and
returns the best first."""

from dataclasses import dataclass

import numpy as np
import optuna
import pytest

from torchcram.series.comparison.methods import Method
from torchcram.series.comparison.scores import Outcome
from torchcram.series.comparison.tuning import tune


class CutOffError(Exception):
    """A tuning that is cut off."""


@dataclass
class Fake:
    """A fitted method whose AUROC rises with its parameter; its test part must not be touched."""

    quality: float
    share: float | None = None

    def judge(self, part: str) -> Outcome:
        assert part == "validation"
        truth, noise = np.arange(400) % 2, np.random.default_rng(0).normal(size=400)
        chance = 1 / (1 + np.exp(-self.quality * truth - noise))
        return Outcome(
            probability=np.stack([1 - chance, chance], 1),
            truth=truth,
            attention_share=self.share,
            per_second=1.0,
        )


class FakeMethod(Method):
    """A method that counts its fits."""

    def fit(self, problem, number, parameters, *, seed, limit):
        assert (number, limit) == (0, 5.0)
        FITS.append(parameters["quality"])
        if len(FITS) == STOP[0]:
            raise CutOffError
        return Fake(parameters["quality"])


FITS: list[float] = []
STOP = [0]


@pytest.fixture
def method() -> FakeMethod:
    FITS.clear()
    STOP[0] = 0
    return FakeMethod(
        title="fake",
        middle={"quality": 1.0},
        draw=lambda trial: {"quality": trial.suggest_float("quality", 0.0, 2.0)},
        fixed={},
    )


def test_the_middle_comes_first_and_the_best_is_returned_first(method, physionet, tmp_path):
    lines: list[str] = []
    trials = tune(method, physionet, journal=tmp_path / "one.journal", trials=4, limit=5.0, say=lines.append)
    assert FITS[0] == 1.0
    assert len(FITS) == len(trials) == len(lines) == 4
    assert trials[0]["parameters"]["quality"] == max(FITS)
    assert [one["score"] for one in trials] == sorted((one["score"] for one in trials), reverse=True)
    assert "auroc" in lines[0]
    assert "on validation data" in lines[0]


def test_a_trial_that_diverges_is_not_the_end(method, physionet, tmp_path, monkeypatch):
    """Nor does an earlier one lose the middle its turn."""
    plain, calls = FakeMethod.fit, []

    def fit(self, *arguments, **options):
        calls.append(1)
        if len(calls) == 2:
            raise FloatingPointError
        return plain(self, *arguments, **options)

    monkeypatch.setattr(FakeMethod, "fit", fit)
    found = tune(
        method, physionet, journal=tmp_path / "one.journal", trials=4, limit=5.0, say=lambda line: None
    )
    assert (len(calls), len(found)) == (4, 3)
    monkeypatch.setattr(
        FakeMethod, "fit", lambda self, *arguments, **options: (_ for _ in ()).throw(FloatingPointError)
    )
    with pytest.raises(ValueError, match="every trial diverged"):
        tune(method, physionet, journal=tmp_path / "two.journal", trials=2, limit=5.0, say=lambda line: None)


def test_trials_of_an_interrupted_tuning_are_kept(method, physionet, tmp_path):
    STOP[0] = 3
    with pytest.raises(CutOffError):
        tune(method, physionet, journal=tmp_path / "one.journal", trials=4, limit=5.0, say=lambda line: None)
    kept = FITS[:2]
    trials = tune(
        method, physionet, journal=tmp_path / "one.journal", trials=4, limit=5.0, say=lambda line: None
    )
    assert len(FITS) == 5
    found = [one["parameters"]["quality"] for one in trials]
    assert len(found) == 4
    assert set(kept) <= set(found)
    # It does not draw again what it had drawn.
    assert len(set(found)) == 4


def test_what_is_tuned_needs_no_more_trials(method, physionet, tmp_path):
    first = tune(
        method, physionet, journal=tmp_path / "one.journal", trials=2, limit=5.0, say=lambda line: None
    )
    assert (
        tune(method, physionet, journal=tmp_path / "one.journal", trials=2, limit=5.0, say=lambda line: None)
        == first
    )
    assert len(FITS) == 2


def test_what_has_a_price_is_chosen_among_the_trials_that_read_little(
    method, physionet, tmp_path, monkeypatch
):
    """The better it is, the more it reads: the best within the bound comes first, and those beyond it are
    ordered by what they read."""
    priced = FakeMethod(
        title="fake",
        middle={"quality": 1.0},
        draw=lambda trial: {"quality": trial.suggest_float("quality", 0.0, 2.0)},
        fixed={},
        priced=True,
    )
    monkeypatch.setattr(
        FakeMethod,
        "fit",
        lambda self, problem, number, parameters, **options: Fake(
            parameters["quality"], share=parameters["quality"] / 4
        ),
    )
    found = tune(
        priced, physionet, journal=tmp_path / "one.journal", trials=12, limit=5.0, say=lambda line: None
    )
    shares = [one["attention_share"] for one in found]
    within = [share for share in shares if share <= 0.1]
    assert within
    assert shares[: len(within)] == sorted(within, reverse=True)
    assert shares[len(within) :] == sorted(share for share in shares if share > 0.1)
    # The sampler knows the bound, too.
    storage = optuna.storages.JournalStorage(
        optuna.storages.journal.JournalFileBackend(str(tmp_path / "one.journal"))
    )
    known = [
        (trial.user_attrs["attention_share"], trial.constraints["reads"])
        for trial in optuna.load_study(study_name="tuning", storage=storage).trials
    ]
    assert all(excess == pytest.approx(max(0.0, share - 0.1)) for share, excess in known)
    assert any(excess > 0 for _, excess in known)
