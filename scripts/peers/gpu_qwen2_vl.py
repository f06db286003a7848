"""A QLoRA step of Qwen2-VL on rows with an image, with transformers + PEFT + bitsandbytes: the peer of scripts/bench/vision.mjs.

Random weights serve. The language layers' linear weights are NF4 with double quantisation; the vision tower stays in bfloat16, as
`quantize` leaves it here (--vision-nf4 quantises it too). Adapters on the seven linear layers of each language layer.
"""

import argparse
import json
import time

import torch
from gpu_qlora import peak_gib, quantised, report
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForImageTextToText

TARGETS = r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
IMAGE, START, END = 151655, 151652, 151653


def arguments():
    p = argparse.ArgumentParser()
    p.add_argument("--config", required=True, help="fields of config.json in transformers' nested form, as JSON")
    p.add_argument("--batch", type=int, default=4)
    p.add_argument("--side", type=int, default=448, help="pixels of an image's side, a multiple of 28")
    p.add_argument("--text", type=int, default=256)
    p.add_argument("--rank", type=int, default=16)
    p.add_argument("--steps", type=int, default=4)
    p.add_argument("--modes", default="none,full")
    p.add_argument("--vision-nf4", action="store_true")
    p.add_argument("--device", default="cuda")
    return p.parse_args()


def rows(a):
    patches = a.side // 14
    tokens = (patches // 2) ** 2
    words = torch.randint(0, 151000, (a.batch, a.text))
    head = torch.tensor([START] + [IMAGE] * tokens + [END]).expand(a.batch, -1)
    ids = torch.cat([head, words], dim=1)
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "labels": ids.masked_fill(ids >= START, -100),
        "mm_token_type_ids": (ids == IMAGE).long(),
        "pixel_values": torch.randn(a.batch * patches * patches, 3 * 2 * 14 * 14),
        "image_grid_thw": torch.tensor([[1, patches, patches]]).expand(a.batch, -1),
    }


def main():
    a = arguments()
    cuda = a.device == "cuda"
    keep = () if a.vision_nf4 else ("visual",)
    model = quantised(json.loads(a.config), a.device, auto=AutoModelForImageTextToText, dense=keep)
    model = get_peft_model(model, LoraConfig(r=a.rank, lora_alpha=2 * a.rank, target_modules=TARGETS, task_type="CAUSAL_LM"))
    trained = [p for p in model.parameters() if p.requires_grad]
    for parameter in trained:
        parameter.data = parameter.data.float()
    if cuda:
        import bitsandbytes as bnb

        optimizer = bnb.optim.AdamW8bit(trained, lr=2e-4)
    else:
        optimizer = torch.optim.AdamW(trained, lr=2e-4)
    inputs = {name: value.to(a.device) for name, value in rows(a).items()}
    inputs["pixel_values"] = inputs["pixel_values"].bfloat16()
    model.train()
    for mode in a.modes.split(","):
        if mode == "full":
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
            model.enable_input_require_grads()
        else:
            model.gradient_checkpointing_disable()
        times = []
        if cuda:
            torch.cuda.reset_peak_memory_stats()
        for _ in range(a.steps + 1):
            if cuda:
                torch.cuda.synchronize()
            begun = time.perf_counter()
            with torch.autocast(a.device, dtype=torch.bfloat16):
                loss = model(**inputs).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            if cuda:
                torch.cuda.synchronize()
            times.append(time.perf_counter() - begun)
        best = min(times[1:])
        report(peer="transformers + PEFT + bitsandbytes", work="train", checkpointing=mode, loss=loss.item(), ms=best * 1e3,
               tokens_per_second=inputs["input_ids"].numel() / best, peak_gib=peak_gib() if cuda else None)


if __name__ == "__main__":
    main()
