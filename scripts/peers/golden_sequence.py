"""Classification by a head: transformers' LlamaForSequenceClassification, PEFT's task SEQ_CLS, ten steps of torch's AdamW."""

from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import LlamaForSequenceClassification

import tiny_llamas
from common import Draw, Golden
from golden_llama import VOCAB
from golden_lora import save_adapter

NAME = "classifier"
LABELS = ["calm", "sad", "glad"]
LENGTHS = [12, 5, 16, 9, 1, 14, 20, 6]
CLASSES = [0, 2, 1, 2, 0, 1, 1, 0]
BATCHES = [[0, 1, 2, 3], [4, 5, 6, 7]]
STEPS = 10
PAD = 0
OPTIONS = {"lr": 2e-3, "weightDecay": 0.0, "maxGradNorm": 0.0, "schedule": "constant", "batch": 4}


def rows() -> list[dict]:
    draw = Draw(61)
    return [{"ids": draw.ids(length, VOCAB), "class": one} for length, one in zip(LENGTHS, CLASSES)]


ROWS = rows()


def build() -> LlamaForSequenceClassification:
    """The small model with a drawn head in place of its output layer."""
    causal = tiny_llamas.build("llama-gqa")
    config = causal.config
    config.id2label = dict(enumerate(LABELS))
    config.label2id = {label: i for i, label in enumerate(LABELS)}
    config.pad_token_id = PAD
    model = LlamaForSequenceClassification(config)
    model.model.load_state_dict(causal.model.state_dict())
    with torch.no_grad():
        model.score.weight.copy_(Draw(62).normal(*model.score.weight.shape, std=0.3))
    return model.eval()


def collated(batch: list[int], left: bool = False) -> dict:
    longest = max(len(ROWS[i]["ids"]) for i in batch)
    ids, mask = [], []
    for i in batch:
        row = ROWS[i]["ids"]
        padding = [PAD] * (longest - len(row))
        ids.append(padding + row if left else row + padding)
        mask.append([0] * len(padding) + [1] * len(row) if left else [1] * len(row) + [0] * len(padding))
    labels = torch.tensor([ROWS[i]["class"] for i in batch])
    return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask), "labels": labels}


def measured(model, golden: Golden, title: str) -> None:
    """Logits of all rows, padded on the right; on the left they must be the same."""
    every = list(range(len(ROWS)))
    with torch.no_grad():
        right, left = (model(**collated(every, side)) for side in (False, True))
    assert torch.allclose(right.logits, left.logits, atol=1e-4), "the side of the padding changes the logits"
    golden.array(f"logits.{title}", right.logits)
    golden.value(**{f"loss.{title}": right.loss.item()})


def gradients(model, golden: Golden, title: str) -> None:
    model.zero_grad()
    model(**collated(list(range(len(ROWS))))).loss.backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            golden.array(f"gradient.{title}.{name}", parameter.grad)
    model.zero_grad()


def train(model, golden: Golden, title: str) -> None:
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=OPTIONS["lr"], weight_decay=OPTIONS["weightDecay"])
    losses = []
    for step in range(STEPS):
        loss = model(**collated(BATCHES[step % len(BATCHES)])).loss
        losses.append(loss.item())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert sum(losses[-2:]) < 0.8 * sum(losses[:2]), f"{title}: the loss hardly moved: {losses}"
    golden.value(**{f"losses.{title}": losses})


def with_lora(folder: Path) -> PeftModel:
    torch.manual_seed(63)
    base = build()
    base.name_or_path = NAME
    base.config._name_or_path = NAME
    model = get_peft_model(base, LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="SEQ_CLS"))
    save_adapter(model.eval(), folder)
    return model


def make(out: Path) -> None:
    folder = out / NAME
    build().save_pretrained(folder)
    golden = Golden(folder, "golden")
    golden.value(labels=LABELS, rows=ROWS, options=OPTIONS, steps=STEPS)
    model = build()
    measured(model, golden, "full")
    gradients(model, golden, "full")
    train(model, golden, "full")
    adapted = with_lora(folder / "init")
    train(adapted, golden, "lora")
    measured(adapted, golden, "lora")
    gradients(adapted, golden, "lora")
    save_adapter(adapted, folder / "final")
    golden.save()
