"""A small random Qwen2-VL: what tiny architectures have in golden_models.py for its text, and logits, greedy ids and gradients with images."""

import shutil
from pathlib import Path

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from PIL import Image
from torch.nn import functional
from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

import nf4
import tiny_models
from common import Draw, Golden
from golden_llama import collate, greedy
from golden_lora import save_adapter
from golden_models import logits, loss_of, rows_with_labels
from qwen2_vl_images import processor

IMAGE, START, END = 64, 62, 63
TEXT = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
PATCH = 4
CONFIG = {
    "text_config": {
        **tiny_models.COMMON,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]},
    },
    "vision_config": {
        "depth": 2,
        "embed_dim": 32,
        "num_heads": 2,
        "hidden_size": 32,
        "mlp_ratio": 2,
        "patch_size": PATCH,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
    },
    "image_token_id": IMAGE,
    "video_token_id": 65,
    "vision_start_token_id": START,
    "vision_end_token_id": END,
    "tie_word_embeddings": True,
}


def build() -> Qwen2VLForConditionalGeneration:
    model = Qwen2VLForConditionalGeneration(Qwen2VLConfig(**CONFIG, attn_implementation="eager"))
    draw = Draw(2100)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            norm = "norm" in key or "ln_q" in key
            if norm and key.endswith("weight"):
                parameter.copy_(draw.normal(*parameter.shape, std=0.2, mean=1.0))
            else:
                parameter.copy_(draw.normal(*parameter.shape, std=0.5 if "embed_tokens" in key else 0.25))
    return model.eval()


def picture(draw: Draw, width: int, height: int) -> np.ndarray:
    """Pixels that need no resizing: both sides are multiples of a token's."""
    return draw.state.randint(0, 256, (height, width, 3)).astype(np.uint8)


PROCESSOR = processor(patch_size=PATCH, size={"shortest_edge": 1, "longest_edge": 10**6})


def inputs(ids: list[int], images: list[np.ndarray]) -> dict:
    given = {"input_ids": torch.tensor([ids])}
    if images:
        seen = PROCESSOR(images=[Image.fromarray(image) for image in images], return_tensors="pt")
        given |= {"pixel_values": seen["pixel_values"], "image_grid_thw": seen["image_grid_thw"]}
        given["mm_token_type_ids"] = (given["input_ids"] == IMAGE).int()
    return given


def tokens(image: np.ndarray) -> list[int]:
    return [START, *[IMAGE] * (image.shape[0] * image.shape[1] // (2 * PATCH) ** 2), END]


def seen_logits(model, ids: list[int], images: list[np.ndarray]) -> torch.Tensor:
    return model(**inputs(ids, images)).logits[0]


def seen_loss(model, rows: list[dict]) -> torch.Tensor:
    sums = [
        functional.cross_entropy(seen_logits(model, r["ids"], r["images"])[:-1], torch.tensor(r["labels"][1:]), reduction="sum")
        for r in rows
    ]
    return sum(sums) / sum(label != -100 for row in rows for label in row["labels"][1:])


def text_ids(draw: Draw, count: int) -> list[int]:
    return draw.ids(count, START)


def conversations(draw: Draw) -> list[dict]:
    """One image, then two of other sizes, then two that touch, then none."""
    a, b, c = picture(draw, 32, 16), picture(draw, 16, 48), picture(draw, 24, 24)
    made = []
    for images, parts in (
        ([a], lambda t: [*t(4), *tokens(a), *t(9)]),
        ([b, c], lambda t: [*t(3), *tokens(b), *t(5), *tokens(c), *t(7)]),
        ([c, a], lambda t: [*tokens(c), *tokens(a), *t(6)]),
        ([], lambda t: t(11)),
    ):
        ids = parts(lambda n: text_ids(draw, n))
        labels = [-100 if i < 6 or id >= START else id for i, id in enumerate(ids)]
        made.append({"ids": ids, "labels": labels, "images": images})
    return made


def pictures(golden: Golden, draw: Draw, out: Path) -> None:
    rows = conversations(draw)
    names = {}
    listed = []
    for row in rows:
        keys = []
        for image in row["images"]:
            key = names.setdefault(id(image), f"image.{len(names)}")
            golden.array(key, torch.from_numpy(image))
            keys.append(key)
        listed.append({"ids": row["ids"], "labels": row["labels"], "images": keys})
    model = Qwen2VLForConditionalGeneration.from_pretrained(out, attn_implementation="eager").eval()
    for index, row in enumerate(rows):
        with torch.no_grad():
            golden.array(f"seen.logits.{index}", seen_logits(model, row["ids"], row["images"]))
    golden.array("seen.patches", inputs(rows[1]["ids"], rows[1]["images"])["pixel_values"])

    # Greedy ids behind an image, by passes over the whole text, and by generate() with its cache.
    row = rows[0]
    for _ in range(50):
        prompt = [*text_ids(draw, 3), *tokens(row["images"][0]), *text_ids(draw, 3)]
        ids, lead = list(prompt), float("inf")
        for _ in range(48):
            with torch.no_grad():
                top = seen_logits(model, ids, row["images"])[-1].topk(2)
            lead = min(lead, float(top.values[0] - top.values[1]))
            ids.append(int(top.indices[0]))
            if ids[-1] == IMAGE:
                lead = 0.0
                break
        if lead > 1e-3 and len(set(ids[len(prompt):])) > 10:
            break
    else:
        raise AssertionError("no prompt leads to a text whose ids are all clearly the likeliest")
    made = model.generate(**inputs(prompt, row["images"]), max_new_tokens=48, do_sample=False, eos_token_id=None, pad_token_id=0)
    assert made[0].tolist() == ids, "generate() with its cache gives other ids"
    golden.value(seen={"rows": listed, "greedy": {"prompt": prompt, "ids": ids, "lead": lead, "images": listed[0]["images"]}})

    model.zero_grad()
    loss = seen_loss(model, rows)
    loss.backward()
    golden.value(seenLoss=loss.item())
    for key, parameter in model.named_parameters():
        if parameter.ndim == 1 or "patch_embed" in key or "merger.mlp.2" in key:
            golden.array(f"seen.gradient.{key}", parameter.grad)
    adapted = get_peft_model(build(), LoraConfig(r=2, lora_alpha=4, target_modules=TEXT, bias="none"))
    fill(adapted)
    loss = seen_loss(adapted, rows)
    loss.backward()
    golden.value(seenAdapterLoss=loss.item())
    for key, parameter in adapted.named_parameters():
        if parameter.requires_grad:
            golden.array(f"seen.adapter.gradient.{key.removeprefix('base_model.model.')}", parameter.grad)


def fill(model) -> None:
    draw = Draw(48)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if "lora_A" in key or "lora_B" in key:
                parameter.copy_(draw.normal(*parameter.shape, std=0.2))


def make(out: Path) -> None:
    folder = out / "qwen2-vl"
    shutil.rmtree(folder, ignore_errors=True)
    build().save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    model = Qwen2VLForConditionalGeneration.from_pretrained(folder, attn_implementation="eager").eval()
    golden = Golden(folder, "golden")
    draw = Draw(18)
    sequences = [text_ids(draw, length) for length in (1, 7, 40)]
    golden.value(sequences=sequences, targets=["q_proj", "v_proj"])
    for index, ids in enumerate(sequences):
        with torch.no_grad():
            golden.array(f"logits.{index}", logits(model, ids))
    for _ in range(50):
        prompt = [1, *text_ids(draw, 4)]
        ids, lead = greedy(model, prompt, 64)
        if lead > 1e-3 and len(set(ids)) > 10:
            break
    else:
        raise AssertionError("no prompt leads to a text whose ids are all clearly the likeliest")
    golden.value(greedy={"prompt": prompt, "ids": ids, "lead": lead})
    rows = rows_with_labels(draw, [12, 5, 21])
    rows = [{key: [min(id, START - 1) for id in ids] for key, ids in row.items()} for row in rows]
    loss = loss_of(model, rows)
    loss.backward()
    golden.value(rows=rows, loss=loss.item(), parameters={k: list(p.shape) for k, p in model.named_parameters()})
    with torch.no_grad():
        for left in (False, True):
            assert abs(loss.item() - model(**collate(rows, left=left)).loss.item()) < 1e-5, "padding changes the loss"
    for key, parameter in model.named_parameters():
        if parameter.ndim == 1 and parameter.grad is not None:
            golden.array(f"gradient.{key}", parameter.grad)

    base = build()
    base.name_or_path = base.config._name_or_path = "qwen2-vl"
    adapted = get_peft_model(base, LoraConfig(r=2, lora_alpha=4, target_modules=TEXT, bias="none"))
    fill(adapted)
    save_adapter(adapted, folder / "adapter")
    with torch.no_grad():
        golden.array("adapter.logits", logits(adapted, rows[0]["ids"]))
    loss = loss_of(adapted, rows)
    loss.backward()
    golden.value(adapterLoss=loss.item())
    for key, parameter in adapted.named_parameters():
        if parameter.requires_grad:
            golden.array(f"adapter.gradient.{key.removeprefix('base_model.model.')}", parameter.grad)
    pictures(golden, draw, folder)
    nf4.quantize_linears(model, heads=("lm_head",))
    with torch.no_grad():
        golden.array("nf4.logits", logits(model, sequences[2]))
    golden.save()
