"""A small Qwen2-VL saved by transformers with bitsandbytes' 4-bit weights, vision tower and all, and its logits behind images on the CPU: in
float32 from the weights that bitsandbytes restores."""

import shutil
import tempfile
from pathlib import Path

import torch
from transformers import AutoModelForImageTextToText, BitsAndBytesConfig, Qwen2VLConfig, Qwen2VLForConditionalGeneration

import golden_qwen2_vl as dense
from common import Draw, Golden
from golden_bnb import restore

NAME = "bnb-qwen2-vl"
# Rows of whole blocks of 64: elsewhere the CPU's restoring of bitsandbytes 0.50 is wrong.
CONFIG = {
    **dense.CONFIG,
    "text_config": {
        **dense.CONFIG["text_config"],
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 1,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]},
    },
    "vision_config": {**dense.CONFIG["vision_config"], "depth": 1, "embed_dim": 64, "hidden_size": 64},
}


def build() -> Qwen2VLForConditionalGeneration:
    model = Qwen2VLForConditionalGeneration(Qwen2VLConfig(**CONFIG, attn_implementation="eager"))
    draw = Draw(2300)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            norm = ("norm" in key or "ln_q" in key) and key.endswith("weight")
            std = 0.2 if norm else 0.5 if "embed_tokens" in key else 0.15
            parameter.copy_(draw.normal(*parameter.shape, std=std, mean=1.0 if norm else 0.0))
    return model.eval()


def make(out: Path) -> None:
    draw = Draw(31)
    a, b = dense.picture(draw, 32, 16), dense.picture(draw, 16, 24)
    text = lambda count: dense.text_ids(draw, count)
    rows = [
        ([*text(3), *dense.tokens(a), *text(6)], [a]),
        ([*text(2), *dense.tokens(b), *text(3), *dense.tokens(a), *text(4)], [b, a]),
        (text(9), []),
    ]
    options = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=torch.float32
    )
    with tempfile.TemporaryDirectory() as whole:
        build().save_pretrained(whole)
        model = AutoModelForImageTextToText.from_pretrained(
            whole, quantization_config=options, device_map="cpu", dtype=torch.float32
        ).eval()
    shutil.rmtree(out / NAME, ignore_errors=True)
    model.save_pretrained(out / NAME)
    (out / NAME / "generation_config.json").unlink(missing_ok=True)
    golden = Golden(out, f"{NAME}/golden")
    golden.array("image.0", torch.from_numpy(a))
    golden.array("image.1", torch.from_numpy(b))
    keys = {id(a): "image.0", id(b): "image.1"}
    golden.value(rows=[{"ids": ids, "images": [keys[id(image)] for image in images]} for ids, images in rows])
    restored = build()
    count = restore(model, restored)
    golden.value(matrices=count)
    with torch.no_grad():
        for i, (ids, images) in enumerate(rows):
            golden.array(f"restored.{i}", dense.seen_logits(restored, ids, images))
    golden.save()
