"""A CRAM block inside one's own model, led by a Consolidator until its reads have fallen to the floor.

Eight steps bind keys to values, eight ask for them. Most keys always have the same value, which can be known.
The others get a new one in each sequence, which must be read. Run: python examples/own_model.py
"""

import torch
from torch.nn import Embedding, Linear, Module
from torch.nn.functional import cross_entropy

from torchcram import Consolidator, CRAMBlock, Step

KNOWN, NEW, VALUES = 24, 8, 8


class Lookup(Module):
    def __init__(self, d_model: int = 32):
        super().__init__()
        self.key, self.value = Embedding(KNOWN + NEW, d_model), Embedding(VALUES + 1, d_model)
        self.block, self.head = CRAMBlock(d_model, slots=64, state_size=8), Linear(d_model, VALUES)

    def forward(self, keys, values, control):
        x = self.key(keys) + self.value(values)
        output = self.block(x, Step.regular(x, control))
        return self.head(output.hidden_states[:, 8:]).transpose(1, 2), [output]


def draw(size, generator):
    key = torch.rand(size, KNOWN + NEW, generator=generator).argsort(1)[:, :8]
    value = torch.where(key < KNOWN, key % VALUES, torch.randint(VALUES, (size, 8), generator=generator))
    order = torch.rand(size, 8, generator=generator).argsort(1)
    values = torch.cat([value, torch.full_like(value, VALUES)], 1)
    return torch.cat([key, key.gather(1, order)], 1), values, value.gather(1, order)


def judge(model, batch, control):
    *inputs, target = batch
    answer, blocks = model(*inputs, control)
    return cross_entropy(answer, target), (answer.argmax(1) == target).float().mean().item(), blocks


def main(steps: int = 800) -> tuple[float, float, float]:
    generator, model = torch.manual_seed(0), Lookup()
    consolidator = Consolidator(model, generator=torch.Generator().manual_seed(1))
    optimizer = torch.optim.AdamW(consolidator.parameter_groups(2e-3))
    for batch in (draw(32, generator) for _ in range(steps)):
        task_loss, _, blocks = judge(model, batch, consolidator.control())
        optimizer.zero_grad()
        consolidator.loss(task_loss, blocks).backward()
        consolidator.step(blocks, task_loss, rerun=lambda control, on=batch: judge(model, on, control)[0])
        optimizer.step()
    batch = draw(512, generator)
    _, accuracy, (block,) = judge(model.eval(), batch, consolidator.evaluation_control())
    reads, new = block.decision.read.float().mean().item(), (batch[0][:, 8:] >= KNOWN).float().mean().item()
    print(f"accuracy {accuracy:.1%}, reads {reads:.2%} of the steps (floor {new / 2:.2%})")
    return accuracy, reads, new / 2


if __name__ == "__main__":
    main()
