import json

from torchcram.runs.environment import environment


def test_the_environment_says_what_a_result_depends_on():
    here = environment()
    assert {"python", "packages", "commit", "source", "system", "device", "threads", "started"} == set(here)
    assert {"torch", "torchcram", "accelerate"} <= set(here["packages"])
    assert json.loads(json.dumps(here)) == here
