"""Processes that make one retrofit together, each with its part of the windows."""

import json
import os
import socket
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from tiny_models import CharTokenizer, documents, tiny_model
from torchcram.pretrained.retrofit import certify, life, making, router_fit
from torchcram.pretrained.retrofit.plan import plan_for
from torchcram.pretrained.retrofit.saving import memory_state
from torchcram.pretrained.retrofit.settings import RetrofitSettings
from torchcram.training.distributed import leave_group
from training_child import child, exit_code

NEAR = RetrofitSettings(sinks=2, window=5, kept=3)


class SavedTokenizer(CharTokenizer):
    def save_pretrained(self, folder: Path) -> None:
        (folder / "tokenizer.json").write_text("{}")


def make_together(folder: Path, *, processes: int, plan: dict[str, int]) -> None:
    """Retrofit a tiny model in several processes; each writes what it has then."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = [child(_make, folder, rank, processes, port, plan) for rank in range(processes)]
    assert [exit_code(process) for process in children] == [0] * processes


def _make(folder: Path, rank: int, processes: int, port: int, plan: dict[str, int]) -> None:
    # As torch.distributed.run would say it.
    places = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "MASTER_PORT": port}
    os.environ |= {name: str(value) for name, value in places.items()}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    torch.set_num_threads(1)

    def planned(**given: Any) -> Any:
        return plan_for(**given).model_copy(update=plan)

    making.plan_for = planned
    router_fit.STEPS = 40
    certify.LEVELS = (0.6, 0.3)
    made = life.retrofit(
        tiny_model("llama"),
        SavedTokenizer(),
        documents(),
        reads=0.25,
        risk=0.5,
        minutes=0.05,
        context=48,
        settings=NEAR,
        out=folder / "made",
        show_progress=False,
    )
    save_file(memory_state(made.model), folder / f"memories{rank}.safetensors")
    assert made.certificate is not None
    found = {
        "judged": {name: asdict(each) for name, each in made.judged.items()},
        "certificate": made.certificate.model_dump(),
        "records": [] if made.matured is None else list(made.matured.records),
    }
    (folder / f"found{rank}.json").write_text(json.dumps(found))
    leave_group()
