"""Classify irregular series with missing values as one does in scikit-learn. docs/irregular_series.md
explains each form of input.

The data: two sensors that are read at moments of their own; what is asked is whether the first oscillates
fast.
Run: python examples/irregular_series.py
"""

import pickle

import numpy as np

from torchcram import CRAMClassifier


def draw(count: int, *, seed: int):
    """Series of unequal lengths as pairs (time, values), values (channels, time), NaN where a sensor was
    not read; and the class of each.
    """
    generator, series = np.random.default_rng(seed), []
    fast = generator.integers(0, 2, count)
    for kind in fast:
        time = generator.exponential(0.4, generator.integers(10, 30)).cumsum()
        values = np.stack(
            [np.sin((1 + 2 * kind) * time + generator.uniform(0, 6)), generator.normal(size=len(time))]
        )
        values[generator.random(values.shape) < 0.2] = np.nan
        series.append((time, values))
    return series, np.where(fast, "fast", "slow")


def main(steps: int = 300):
    series, label = draw(400, seed=0)
    model = CRAMClassifier(max_steps=steps, random_state=0).fit(series, label)

    fresh, truth = draw(200, seed=1)
    print(
        f"accuracy {model.score(fresh, truth):.1%}, reads {model.read_rate_:.1%} of the steps "
        f"after {model.n_iter_} training steps"
    )

    route_map = model.explain(fresh[:1])[0]
    print(
        f"first series: {route_map.read.sum()} of {len(route_map.time)} steps read, "
        f"p({model.classes_[0]}) = {model.predict_proba(fresh[:1])[0, 0]:.2f}"
    )

    again = pickle.loads(pickle.dumps(model))
    assert (again.predict(fresh) == model.predict(fresh)).all()
    return model.score(fresh, truth)


if __name__ == "__main__":
    main()
