"""The peer of scripts/bench/lora.mjs: LoRA steps of transformers + PEFT, driven line by line.

One JSON request a line on stdin, one JSON reply a line on stdout, so that rounds with another process can interleave:
  {"steps": n} → {"seconds": [n times], "loss": last, "peakBytes": peak resident memory}
"""

import json
import os
import resource
import sys
import tempfile
import time
from importlib.metadata import version

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from transformers import BitsAndBytesConfig, LlamaConfig, LlamaForCausalLM


def main() -> None:
    case = json.loads(sys.argv[1])
    transformers.utils.logging.set_verbosity_error()
    torch.manual_seed(0)
    torch.set_num_threads(case["threads"])
    dtype = getattr(torch, case["dtype"])
    base = LlamaForCausalLM(LlamaConfig(**case["model"], dtype=dtype)).to(dtype)
    if case.get("nf4"):
        base = in_nf4(base, dtype)
    lora = LoraConfig(
        r=case["rank"], lora_alpha=2 * case["rank"], target_modules="all-linear", lora_dropout=0.0, task_type="CAUSAL_LM"
    )
    model = get_peft_model(base, lora).train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)
    ids = torch.randint(3, case["model"]["vocab_size"], (case["batch"], case["length"]))

    def step() -> float:
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    name = f"transformers {transformers.__version__} + PEFT" + (f" + bitsandbytes {version('bitsandbytes')}" if case.get("nf4") else "")
    reply({"ready": True, "trainable": trained, "name": name})
    for line in sys.stdin:
        seconds, loss = [], 0.0
        for _ in range(json.loads(line)["steps"]):
            begin = time.perf_counter()
            loss = step()
            seconds.append(time.perf_counter() - begin)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        reply({"seconds": seconds, "loss": loss, "peakBytes": peak})


def in_nf4(base: LlamaForCausalLM, dtype: torch.dtype) -> LlamaForCausalLM:
    """The model as users of bitsandbytes get it: quantised while it loads, norms in float32, no checkpointing (tunebook uses none either)."""
    with tempfile.TemporaryDirectory() as folder:
        base.save_pretrained(folder)
        config = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
        )
        model = LlamaForCausalLM.from_pretrained(folder, quantization_config=config, dtype=dtype, device_map="cpu")
    return prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)


def reply(message: dict) -> None:
    print(json.dumps(message), flush=True)


main()
