"""Logits (dense and NF4), greedy tokens, loss and gradients of the small models, by transformers (chatglm.py for ChatGLM) and PEFT."""

import tempfile
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
from torch.nn import functional
from transformers import AutoModelForCausalLM

import nf4
import tiny_models
from common import Draw, Golden
from golden_llama import collate, greedy
from golden_lora import save_adapter

HEADS = ("lm_head", "output_layer")


def rows_with_labels(draw: Draw, lengths: list[int]) -> list[dict]:
    """Rows of ids with labels of the same length, not shifted; the first third is not trained."""
    rows = []
    for length in lengths:
        ids = draw.ids(length, tiny_models.VOCAB)
        rows.append({"ids": ids, "labels": [-100] * (length // 3) + ids[length // 3 :]})
    return rows


def logits(model, ids: list[int]) -> torch.Tensor:
    return model(input_ids=torch.tensor([ids])).logits[0]


def loss_of(model, rows: list[dict]) -> torch.Tensor:
    """Mean cross entropy of the trained tokens, every row by itself: no padding that could play a part."""
    sums = [
        functional.cross_entropy(logits(model, row["ids"])[:-1], torch.tensor(row["labels"][1:]), reduction="sum")
        for row in rows
    ]
    return sum(sums) / sum(label != -100 for row in rows for label in row["labels"][1:])


def linears(model: torch.nn.Module) -> list[str]:
    names = {key.split(".")[-1] for key, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    return sorted(names - set(HEADS))


def adapters(name: str, golden: Golden, rows: list[dict], out: Path) -> None:
    """An adapter on every linear layer but the head, with non-zero B: logits, loss, gradients."""
    torch.manual_seed(5)
    base = tiny_models.build(name)
    targets = linears(base)
    if name not in tiny_models.CHATGLMS:
        base.name_or_path = base.config._name_or_path = name
    model = get_peft_model(base, LoraConfig(r=2, lora_alpha=4, lora_dropout=0.0, target_modules=targets, bias="none"))
    draw = Draw(48)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if "lora_B" in key:
                parameter.copy_(draw.normal(*parameter.shape, std=0.2))
    save_adapter(model, out / name / "adapter")
    with torch.no_grad():
        golden.array("adapter.logits", logits(model, rows[0]["ids"]))
    loss = loss_of(model, rows)
    loss.backward()
    golden.value(adapterLoss=loss.item())
    for key, parameter in model.named_parameters():
        if parameter.requires_grad:
            golden.array(f"adapter.gradient.{key.removeprefix('base_model.model.')}", parameter.grad)


def one(name: str, out: Path) -> None:
    folder = out / name
    tiny_models.save(name, folder)
    model = tiny_models.build(name)
    draw = Draw(18)
    if name not in tiny_models.CHATGLMS:
        with tempfile.TemporaryDirectory() as temporary:
            # What is checked is the folder as it is read back, not the object in memory.
            tiny_models.save(name, Path(temporary) / name)
            model = AutoModelForCausalLM.from_pretrained(Path(temporary) / name, attn_implementation="eager").eval()
    golden = Golden(folder, "golden")
    sequences = [draw.ids(length, tiny_models.VOCAB) for length in (1, 7, 40)]
    kind = tiny_models.TYPES[name]
    golden.value(sequences=sequences, targets=TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING[kind])
    for index, ids in enumerate(sequences):
        with torch.no_grad():
            golden.array(f"logits.{index}", logits(model, ids))

    if name == "chatglm":
        glm = tiny_models.as_glm(model, name)
        with torch.no_grad():
            error = float((logits(glm, sequences[2]) - logits(model, sequences[2])).abs().max())
        assert error < 1e-4, f"chatglm.py and transformers' Glm differ by {error}"
        golden.value(glm=round(error, 5))

    for _ in range(50):
        prompt = [1, *draw.ids(4, tiny_models.VOCAB)]
        ids, lead = greedy(model, prompt, 64)
        if lead > 1e-3 and len(set(ids)) > 10:
            break
    else:
        raise AssertionError(f"{name}: no prompt leads to a text whose ids are all clearly the likeliest")
    golden.value(greedy={"prompt": prompt, "ids": ids, "lead": lead})

    rows = rows_with_labels(draw, [12, 5, 21])
    model.zero_grad()
    loss = loss_of(model, rows)
    loss.backward()
    golden.value(rows=rows, loss=loss.item(), parameters={k: list(p.shape) for k, p in model.named_parameters()})
    if name not in tiny_models.CHATGLMS:
        with torch.no_grad():
            for left in (False, True):
                padded = model(**collate(rows, left=left)).loss
                assert abs(loss.item() - padded.item()) < 1e-5, f"{name}: padding changes the loss"
    for key, parameter in model.named_parameters():
        if parameter.ndim == 1 or "wpe" in key:  # of the matrices those of the adapters speak
            golden.array(f"gradient.{key}", parameter.grad)
    adapters(name, golden, rows, out)
    nf4.quantize_linears(model, heads=HEADS)
    with torch.no_grad():
        golden.array("nf4.logits", logits(model, sequences[2]))
    golden.save()


def make(out: Path) -> None:
    for name in tiny_models.NAMES:
        one(name, out)
