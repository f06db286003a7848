"""What every golden maker shares: reproducible inputs, and files that name the versions that made them."""

import json
import platform
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

PACKAGES = ["torch", "transformers", "peft", "trl", "bitsandbytes", "numpy", "safetensors", "gguf"]


def versions() -> dict[str, str]:
    found = {name: version(name).split("+")[0] for name in PACKAGES}
    return {"python": platform.python_version(), **found}


class Draw:
    """Random inputs. RandomState is numpy's frozen generator: its stream never changes between versions."""

    def __init__(self, seed: int):
        self.state = np.random.RandomState(seed)

    def normal(self, *shape: int, std: float = 1.0, mean: float = 0.0) -> torch.Tensor:
        return torch.from_numpy((self.state.standard_normal(shape) * std + mean).astype(np.float32))

    def uniform(self, *shape: int, low: float = -1.0, high: float = 1.0) -> torch.Tensor:
        return torch.from_numpy(self.state.uniform(low, high, shape).astype(np.float32))

    def ids(self, count: int, vocab: int) -> list[int]:
        return [int(i) for i in self.state.randint(3, vocab, count)]


class Golden:
    """One golden case: OUT/NAME.json (what is small or has a structure) and OUT/NAME.safetensors (arrays)."""

    def __init__(self, out: Path, name: str):
        self.path = out / name
        self.values: dict = {}
        self.arrays: dict[str, torch.Tensor] = {}

    def value(self, **entries) -> None:
        self.values.update(entries)

    def array(self, name: str, tensor: torch.Tensor) -> None:
        self.arrays[name] = tensor.detach().clone().contiguous()

    def save(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        content = {"versions": versions(), **self.values}
        self.path.with_name(self.path.name + ".json").write_text(compact(content))
        if self.arrays:
            save_file(self.arrays, str(self.path) + ".safetensors")


def compact(content: dict) -> str:
    """JSON with one top-level key a line, so that a change shows as a small difference."""
    lines = ",\n".join(f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in content.items())
    return "{\n" + lines + "\n}\n"
