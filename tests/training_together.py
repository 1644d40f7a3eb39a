"""Processes that take training steps together, each with its part of the batch."""

import json
import os
import socket
from pathlib import Path

import torch
from safetensors.torch import save_file

from tiny_runs import tiny_config
from torchcram.training.build import build_task
from torchcram.training.distributed import leave_group, make_accelerator
from torchcram.training.run_config import RunConfig
from torchcram.training.trainer import Trainer
from training_child import child, exit_code

STEPS = 20


def exact_config() -> RunConfig:
    # Without caution some tokens go to semantic memory from the start, so that there is something to explore.
    shape = {
        "training__steps": STEPS,
        "task__length": 64,
        "training__tokens_per_step": 512,
        "model__layers": 2,
    }
    return tiny_config(training__precision="fp64", controller__caution_start=0.0, **shape)


def learn_together(out: Path, *, processes: int) -> None:
    """Take 20 steps in several processes; the main one writes what came of it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = [child(_learn, out, rank, processes, port) for rank in range(processes)]
    assert [exit_code(process) for process in children] == [0] * processes


def _learn(out: Path, rank: int, processes: int, port: int) -> None:
    # As torch.distributed.run would say it.
    places = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "MASTER_PORT": port}
    os.environ |= {name: str(value) for name, value in places.items()}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "ACCELERATE_USE_CPU": "true"}
    torch.set_num_threads(1)
    _take_steps(out)
    leave_group()


def _take_steps(out: Path) -> None:
    config, accelerator = exact_config(), make_accelerator()
    trainer = Trainer(config, build_task(config), accelerator)
    records = [trainer.train_step() for _ in range(STEPS)]
    seen = {
        "processes": accelerator.num_processes,
        "explored": sum(record["explored_rate"] for record in records),
    }
    if accelerator.is_main_process:
        save_file(
            {name: value.contiguous() for name, value in trainer.plain.state_dict().items()},
            out / "model.safetensors",
        )
        state = {
            "consolidator": trainer.consolidator.state_dict(),
            "exposures": trainer.exposures.state_dict(),
            "counts": trainer.ledger.counts,
        }
        (out / "state.json").write_text(json.dumps({"records": records, **state, **seen}))
    accelerator.wait_for_everyone()
