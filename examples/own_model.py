"""A CRAM block inside one's own model: ten lines of nn.Module, then a plain PyTorch loop.

The toy: symbols in threes, a key, its value (fixed for ever), and the key again. At the third step the model
must name the value.
Run: python examples/own_model.py
"""

import torch
from torch import nn

from torchcram import CRAMBlock, RoutingControl

KEYS, VALUES = 8, 4


class Tagger(nn.Module):
    def __init__(self, d_model: int = 32):
        super().__init__()
        self.embed = nn.Embedding(KEYS + VALUES, d_model)
        self.block = CRAMBlock(d_model, slots=32, state_size=16)
        self.head = nn.Linear(d_model, VALUES)

    def forward(self, symbols, gap, control):
        output = self.block(self.embed(symbols), gap, control=control)
        return self.head(output.hidden_states), output


def draw(size: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    key = torch.randint(KEYS, (size, 8), generator=generator)
    value = key * 3 % VALUES
    return torch.stack([key, KEYS + value, key], -1).flatten(1), value


def main(steps: int = 120) -> float:
    torch.manual_seed(0)
    generator, model = torch.Generator().manual_seed(0), Tagger()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for step in range(steps):
        # First read everything; then let the block route, pay for reads, and learn from the reads that are
        # left.
        control = (
            RoutingControl(reads="all")
            if step < steps // 2
            else RoutingControl(price=0.02, exploration=0.1, consolidate=True)
        )
        symbols, value = draw(16, generator)
        answer, output = model(symbols, torch.ones(symbols.shape), control)
        loss = nn.functional.cross_entropy(answer[:, 2::3].flatten(0, 1), value.flatten())
        loss = (
            loss
            + control.price * output.losses["price"]
            + sum(value for name, value in output.losses.items() if name != "price")
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        model.block.after_step(output)
    symbols, value = draw(64, generator)
    answer, output = model(symbols, torch.ones(symbols.shape), RoutingControl())
    accuracy = (answer[:, 2::3].argmax(-1) == value).float().mean().item()
    print(f"accuracy {accuracy:.1%}, reads {output.decision.read.float().mean():.1%} of the steps")
    return accuracy


if __name__ == "__main__":
    main()
