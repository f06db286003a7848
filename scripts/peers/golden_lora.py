"""LoRA training by PEFT and torch on fixed batches, and adapters saved by PEFT with their logits."""

import json
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import get_scheduler

import nf4
import tiny_llamas
from common import Draw, Golden
from golden_llama import VOCAB, collate, rows_with_labels

BASE = "llama-gqa"
STEPS = 20
# Rows of unequal length, so that the micro-batches of a step train unequal numbers of tokens.
ROWS = rows_with_labels(Draw(21), [12, 5, 16, 9, 7, 14, 20, 6])
PAIRS = [[0, 1], [2, 3], [4, 5], [6, 7]]
CASES = {
    "lora": {"lr": 1e-2, "weightDecay": 0.0, "maxGradNorm": 0.0, "schedule": "constant", "warmup": 0, "accumulate": 1},
    "lora-schedule": {
        "lr": 2e-2,
        "weightDecay": 0.1,
        "maxGradNorm": 1.0,
        "schedule": "linear",
        "warmup": 5,
        "accumulate": 2,
    },
    "lora-nf4": {"lr": 1e-2, "weightDecay": 0.0, "maxGradNorm": 0.0, "schedule": "constant", "warmup": 0, "accumulate": 1},
}
SCHEDULES = {"constant": "constant_with_warmup", "linear": "linear"}


def save_adapter(model: PeftModel, folder: Path) -> None:
    model.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text())
    for key in ("target_modules", "modules_to_save", "exclude_modules"):
        if isinstance(config[key], list):
            config[key] = sorted(config[key])  # a set in memory: its order would change each time
    path.write_text(json.dumps(config, indent=2) + "\n")


def with_lora(**options) -> PeftModel:
    """The base with an adapter whose A is drawn by torch (PEFT's default initialisation) and whose B is zero."""
    torch.manual_seed(5)
    base = tiny_llamas.build(BASE)
    base.name_or_path = BASE
    base.config._name_or_path = BASE
    settings = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "lora_dropout": 0.0, "task_type": "CAUSAL_LM"}
    return get_peft_model(base, LoraConfig(**settings | options))


def step_loss(model: PeftModel, batches: list[list[int]]) -> float:
    """Adds the gradients of one optimizer step: one normaliser over all of its micro-batches."""
    rows = [[ROWS[i] for i in batch] for batch in batches]
    # A row's first label has nothing before it that could predict it.
    trained = sum(label != -100 for batch in rows for row in batch for label in row["labels"][1:])
    total = 0.0
    for batch in rows:
        loss = model(**collate(batch), num_items_in_batch=torch.tensor(trained)).loss
        loss.backward()
        total += loss.item()
    return total


def train(name: str, case: dict, out: Path) -> None:
    model = with_lora()
    if name == "lora-nf4":
        nf4.quantize_linears(model.get_base_model())
    save_adapter(model, out / name / "init")
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=case["lr"], weight_decay=case["weightDecay"])
    scheduler = get_scheduler(SCHEDULES[case["schedule"]], optimizer, case["warmup"], STEPS)
    accumulate = case["accumulate"]
    order = [[PAIRS[(step * accumulate + i) % len(PAIRS)] for i in range(accumulate)] for step in range(STEPS)]
    losses, rates, norms = [], [], []
    for batches in order:
        losses.append(step_loss(model, batches))
        rates.append(optimizer.param_groups[0]["lr"])
        norms.append(float(torch.nn.utils.clip_grad_norm_(trainable, case["maxGradNorm"] or float("inf"))))
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
    start, end = sum(losses[:4]) / 4, sum(losses[-4:]) / 4  # the batches come round every four steps or sooner
    assert end < 0.8 * start, f"{name}: the loss hardly moved ({start} to {end})"
    save_adapter(model, out / name / "final")
    golden = Golden(out / name, "golden")
    golden.value(base=BASE, quantized="nf4" if name == "lora-nf4" else None, options=case, rows=ROWS, steps=order)
    golden.value(losses=losses, rates=rates, gradNorms=norms)
    logits(model, golden)
    golden.save()


def logits(model: PeftModel, golden: Golden) -> None:
    ids = ROWS[2]["ids"]
    golden.value(sequence=ids)
    with torch.no_grad():
        golden.array("logits", model(input_ids=torch.tensor([ids])).logits[0])
        with model.disable_adapter():
            golden.array("logits.base", model(input_ids=torch.tensor([ids])).logits[0])


def adapter(name: str, out: Path, **options) -> None:
    """An adapter that PEFT saved, its B drawn instead of trained, with its logits."""
    model = with_lora(**options)
    draw = Draw(31)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if "lora_B" in key:
                parameter.copy_(draw.normal(*parameter.shape, std=0.2))
    save_adapter(model, out / name / "adapter")
    golden = Golden(out / name, "golden")
    golden.value(base=BASE)
    logits(model, golden)
    golden.save()


def quantized_base(out: Path) -> None:
    """Logits of the base with its linears in NF4, and in NF4 with doubly quantised statistics."""
    golden = Golden(out, "nf4-base")
    ids = ROWS[6]["ids"]
    golden.value(base=BASE, sequence=ids)
    for title, double in (("nf4", False), ("double", True)):
        model = tiny_llamas.build(BASE)
        nf4.quantize_linears(model, double)
        with torch.no_grad():
            golden.array(f"logits.{title}", model(input_ids=torch.tensor([ids])).logits[0])
    golden.save()


def make(out: Path) -> None:
    for name, case in CASES.items():
        train(name, case, out)
    adapter("adapter-rslora", out, target_modules=["q_proj", "v_proj"], use_rslora=True)
    adapter(
        "adapter-patterns",
        out,
        r=2,
        lora_alpha=4,
        rank_pattern={"q_proj": 6, "layers.1.mlp.down_proj": 3},
        alpha_pattern={"q_proj": 3},
        target_modules=["q_proj", "o_proj", "down_proj"],
    )
    quantized_base(out)
