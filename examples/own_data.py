"""Train on one's own data: an object that draws batches and names its heads is all that is needed.
docs/tutorial.md explains each line.

The data: patients with irregular visits. Each has a rhythm; what is asked is the next reading, and at the end
whether the rhythm was fast.
Run: python examples/own_data.py
"""

import torch

from torchcram import Batch, Head, RunConfig, train

LONGEST = 48


class Visits:
    input_size = 2  # features of a step: the reading, and whether it was taken at all
    heads = (
        Head(name="next_reading", kind="regression", size=1),
        Head(name="fast", kind="classification", size=2, per="sequence"),
    )

    def batch(self, size, *, generator, step=0, length=None):
        steps = (length or LONGEST) + 1
        gap = torch.rand(size, steps, generator=generator)
        fast = torch.rand(size, 1, generator=generator) < 0.5
        reading = torch.sin(gap.cumsum(1) * (0.6 + fast) + 6.3 * torch.rand(size, 1, generator=generator))
        taken = torch.rand(size, steps, generator=generator) < 0.8
        last = torch.randint(steps // 2, steps, (size, 1), generator=generator)
        mask = torch.arange(steps - 1) < last
        shown = torch.where(taken, reading, torch.nan)
        return Batch(
            inputs=torch.stack([reading * taken, taken.float()], -1)[:, :-1] * mask[..., None],
            gap=gap[:, :-1],
            horizon=gap[:, 1:],
            mask=mask,
            targets={"next_reading": shown[:, 1:, None], "fast": fast[:, 0].long()},
        )


def main(out: str = "runs/visits", steps: int = 300):
    config = RunConfig.parse(
        {
            "name": "visits",
            "task": {"kind": "custom", "name": "visits", "length": LONGEST},
            "model": {"d_model": 32, "options": {"slots": 32, "state_size": 16}},
            "controller": {"acquire_steps": 2 * steps // 3},
            "training": {"steps": steps, "tokens_per_step": 768, "head_weights": {"next_reading": 2.0}},
            "evaluation": {"queries": 4000},
        }
    )
    run = train(config, task=Visits(), out=out, show_progress=False)
    found = {**run.summary, **run.summary["accuracy"]}
    said = "rhythm {all:.1%}, next reading MSE {next_reading_mse:.4f}, reads {any_layer_read_rate:.1%}"
    print(said.format(**found))
    return run


if __name__ == "__main__":
    main()
