"""Each law is found again in counts that it made, and told from the others."""

import numpy as np
import pytest

from torchcram.report.consolidation_curve import LAWS, encounters, fit_curve

EDGES = np.array([0, 1, 2, 5, 10, 20, 50, 100, 200])
TRUE = {"power": (-0.1, 0.6), "exponential": (-0.2, 3.0), "logistic": (2.0, 8.0)}


def counts(law, *, queries=200, patterns=20, seed=0):
    x = encounters(EDGES)
    asked = np.full((patterns, len(x)), queries)
    return x, asked, np.random.default_rng(seed).binomial(asked, LAWS[law](x, *TRUE[law]))


def fit(x, queries, reads):
    return fit_curve(x, queries, reads, generator=np.random.default_rng(1), resamples=50)


@pytest.mark.parametrize("law", LAWS)
def test_the_law_that_made_the_counts_is_the_best(law):
    assert fit(*counts(law)).best == law


def test_the_exponent_is_found_with_an_interval_that_narrows_with_more_queries():
    many, few = fit(*counts("power")), fit(*counts("power", queries=10))
    assert many.exponent == pytest.approx(0.6, abs=0.03)
    for found in (many, few):
        assert found.interval[0] < 0.6 < found.interval[1]
    widths = [high - low for low, high in (many.interval, few.interval)]
    assert widths[0] < 0.5 * widths[1]


def test_the_interval_is_as_wide_as_patterns_differ():
    """Queries for a pattern that is read always, or never, are no independent draws."""
    x, asked, reads = counts("power", patterns=40)
    apart = np.where(np.arange(40)[:, None] % 2, np.minimum(2 * reads, asked), 0)
    apart[1::4] = np.minimum(apart[1::4], asked[1::4] // 4)
    widths = [high - low for low, high in (fit(x, asked, reads).interval, fit(x, asked, apart).interval)]
    assert widths[1] > 2 * widths[0]


def test_the_same_generator_gives_the_same_interval():
    assert fit(*counts("power")) == fit(*counts("power"))


def test_a_bin_stands_for_its_encounters_this_one_included():
    assert encounters(np.array([0, 1, 2, 5])).tolist() == pytest.approx([1.0, 2.0, 15**0.5])


def test_too_little_to_fit_is_no_fit():
    x, queries, reads = counts("power")
    assert fit(x, queries, 0 * reads) is None
    assert fit(x, np.where(x < 4, queries, 0), np.where(x < 4, reads, 0)) is None


def test_what_never_falls_has_no_exponent_and_what_falls_at_once_follows_no_power_law():
    x, queries, _ = counts("power")
    still = fit(x, queries, queries)
    assert still.exponent == pytest.approx(0.0, abs=1e-3)
    assert still.interval[1] < 1e-3
    rising = fit(x, queries, (queries * np.linspace(0.2, 0.9, len(x))).astype(int))
    assert rising.exponent == pytest.approx(0.0, abs=1e-3)
    gone = fit(x, queries, np.where(x < 4, queries, 0))
    assert gone.best == "logistic"
