"""Trajectories of torch's optimizers and of bitsandbytes' AdamW8bit, and the learning rates of transformers' schedules."""

from pathlib import Path

import bitsandbytes
import torch
from transformers import get_scheduler

from common import Draw, Golden

STEPS = 8
SHAPES = {"a": (7,), "b": (3, 5), "c": (33,)}
CASES = {
    "adamw": {"kind": "adamw", "lr": 0.02, "betas": [0.9, 0.999], "eps": 1e-8, "weightDecay": 0.0, "maxNorm": 0.0},
    "adamw-decay": {"kind": "adamw", "lr": 0.05, "betas": [0.8, 0.95], "eps": 1e-6, "weightDecay": 0.1, "maxNorm": 0.0},
    "adamw-clip": {"kind": "adamw", "lr": 0.02, "betas": [0.9, 0.999], "eps": 1e-8, "weightDecay": 0.01, "maxNorm": 1.0},
    "sgd": {"kind": "sgd", "lr": 0.05, "momentum": 0.0, "weightDecay": 0.0, "maxNorm": 0.0},
    "sgd-momentum": {"kind": "sgd", "lr": 0.05, "momentum": 0.9, "weightDecay": 0.0, "maxNorm": 2.0},
}

# Twenty steps of AdamW8bit: "big" has 8-bit states (its last block is short), "small" float32 ones. The gradient of step t is `base` turned by 131 t
# elements and doubled or halved, so that it need not be stored.
STEPS_8BIT = 20
SHAPES_8BIT = {"big": (5000,), "small": (300,)}
CASES_8BIT = {
    "adamw8bit": {"lr": 0.01, "betas": [0.9, 0.999], "eps": 1e-8, "weightDecay": 0.0},
    "adamw8bit-decay": {"lr": 0.02, "betas": [0.8, 0.95], "eps": 1e-6, "weightDecay": 0.1},
}


def gradient(base: torch.Tensor, step: int) -> torch.Tensor:
    return torch.roll(base, 131 * step) * 2.0 ** (step % 3 - 1)


def adamw8bit(out: Path) -> None:
    golden = Golden(out, "optimizer8")
    draw = Draw(10)
    start = {name: draw.normal(*shape) for name, shape in SHAPES_8BIT.items()}
    # Sizes over several decades, and some zeros.
    base = {name: draw.normal(*shape) * 10 ** draw.uniform(*shape, low=-4, high=0) for name, shape in SHAPES_8BIT.items()}
    for name in SHAPES_8BIT:
        base[name][:40] = 0
        golden.array(f"start.{name}", start[name])
        golden.array(f"base.{name}", base[name])
    for title, case in CASES_8BIT.items():
        parameters = {name: torch.nn.Parameter(value.clone()) for name, value in start.items()}
        chosen = bitsandbytes.optim.AdamW8bit(
            parameters.values(), lr=case["lr"], betas=tuple(case["betas"]), eps=case["eps"], weight_decay=case["weightDecay"]
        )
        for step in range(STEPS_8BIT):
            for name, parameter in parameters.items():
                parameter.grad = gradient(base[name], step)
            chosen.step()
        for name, parameter in parameters.items():
            golden.array(f"{title}.{name}", parameter)
            for key in ("state1", "state2", "absmax1", "absmax2"):
                if key in chosen.state[parameter]:
                    golden.array(f"{title}.{name}.{key}", chosen.state[parameter][key])
    golden.value(steps=STEPS_8BIT, shapes=SHAPES_8BIT, cases=CASES_8BIT)
    golden.save()


def optimizer(case: dict, parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
    if case["kind"] == "sgd":
        return torch.optim.SGD(parameters, lr=case["lr"], momentum=case["momentum"])
    return torch.optim.AdamW(
        parameters, lr=case["lr"], betas=tuple(case["betas"]), eps=case["eps"], weight_decay=case["weightDecay"]
    )


def schedules() -> list[dict]:
    rows = []
    for kind, name in (("linear", "linear"), ("cosine", "cosine"), ("constant", "constant_with_warmup")):
        for warmup in (0, 3):
            steps = 12
            dummy = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
            scheduler = get_scheduler(name, dummy, num_warmup_steps=warmup, num_training_steps=steps)
            rates = []
            for _ in range(steps):
                rates.append(dummy.param_groups[0]["lr"])
                dummy.step()
                scheduler.step()
            rows.append({"schedule": kind, "warmup": warmup, "steps": steps, "lr": 0.5, "rates": rates})
    return rows


def make(out: Path) -> None:
    golden = Golden(out, "optimizer")
    draw = Draw(9)
    start = {name: draw.normal(*shape) for name, shape in SHAPES.items()}
    gradients = [{name: draw.normal(*shape) for name, shape in SHAPES.items()} for _ in range(STEPS)]
    for name in SHAPES:
        golden.array(f"start.{name}", start[name])
        golden.array(f"gradients.{name}", torch.stack([step[name] for step in gradients]))
    norms = {}
    for title, case in CASES.items():
        parameters = {name: torch.nn.Parameter(value.clone()) for name, value in start.items()}
        chosen = optimizer(case, list(parameters.values()))
        trace: dict[str, list] = {name: [] for name in SHAPES}
        norms[title] = []
        for step in gradients:
            for name, parameter in parameters.items():
                parameter.grad = step[name].clone()
            limit = case["maxNorm"] or float("inf")
            norms[title].append(float(torch.nn.utils.clip_grad_norm_(parameters.values(), limit)))
            chosen.step()
            for name, parameter in parameters.items():
                trace[name].append(parameter.detach().clone())
        for name in SHAPES:
            golden.array(f"{title}.{name}", torch.stack(trace[name]))
    golden.value(steps=STEPS, shapes=SHAPES, cases=CASES, gradNorms=norms, schedules=schedules())
    golden.save()
    adamw8bit(out)
