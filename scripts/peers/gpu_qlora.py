"""A QLoRA step and greedy decoding on one GPU with transformers + PEFT + bitsandbytes: the peer of `npm run bench:gpu`.

Random weights of a shape serve: speed and memory do not depend on their values. Prints one JSON line per measurement.
Frozen linear layers are NF4 with double quantisation, compute bfloat16; LoRA on all linear layers but the head; AdamW8bit.
"""

import argparse
import json
import time

import bitsandbytes as bnb
import torch
import transformers
from peft import LoraConfig, get_peft_model
from transformers import CONFIG_MAPPING, AutoModelForCausalLM


def arguments():
    p = argparse.ArgumentParser()
    p.add_argument("--config", required=True, help="fields of config.json, as JSON")
    p.add_argument("--batch", type=int, default=4)
    p.add_argument("--length", type=int, default=2048)
    p.add_argument("--rank", type=int, default=16)
    p.add_argument("--steps", type=int, default=4)
    p.add_argument("--modes", default="none,full")
    p.add_argument("--decode", type=int, default=32, help="tokens to decode; 0: none")
    return p.parse_args()


def as_glm(c):
    """ChatGLM2 and 3 have no class in transformers: GLM-4's computes the same, with query_key_value in three."""
    return {
        "model_type": "glm",
        "vocab_size": c["padded_vocab_size"],
        "hidden_size": c["hidden_size"],
        "intermediate_size": c["ffn_hidden_size"],
        "num_hidden_layers": c["num_layers"],
        "num_attention_heads": c["num_attention_heads"],
        "num_key_value_heads": c["multi_query_group_num"],
        "head_dim": c["kv_channels"],
        "max_position_embeddings": c["seq_length"],
        "rms_norm_eps": c["layernorm_epsilon"],
        "attention_bias": True,
        "pad_token_id": 0,
    }


def of_one_layer(fields):
    counts = ("num_hidden_layers", "n_layer", "num_layers", "depth")
    return {k: of_one_layer(v) if isinstance(v, dict) else 1 if k in counts else v for k, v in fields.items()}


def configured(fields):
    fields = dict(as_glm(fields) if fields["model_type"] == "chatglm" else fields)
    return CONFIG_MAPPING[fields.pop("model_type")](**fields)


def quantised(fields, device="cuda", auto=AutoModelForCausalLM, dense=()):
    """The model of a config with random weights, linear layers but the head, and those with a part of `dense` in their names, in NF4."""
    torch.set_default_dtype(torch.bfloat16)
    config = configured(fields)
    with torch.device("meta"):
        model = auto.from_config(config)
    for name, module in list(model.named_modules()):
        if not isinstance(module, torch.nn.Linear) or name == "lm_head" or any(part in name for part in dense):
            continue
        layer = bnb.nn.Linear4bit(
            module.in_features,
            module.out_features,
            bias=module.bias is not None,
            compute_dtype=torch.bfloat16,
            compress_statistics=True,
            quant_type="nf4",
            quant_storage=torch.uint8,
            device="meta",
        )
        weight = torch.empty(module.out_features, module.in_features, dtype=torch.bfloat16, device=device).normal_(0, 0.02)
        layer.weight = bnb.nn.Params4bit(weight, requires_grad=False, compress_statistics=True, quant_type="nf4").to(device)
        parent = model.get_submodule(name.rpartition(".")[0])
        setattr(parent, name.rpartition(".")[2], layer)
        del weight
    for name, parameter in list(model.named_parameters()):
        if parameter.device.type == "meta":
            value = torch.empty(parameter.shape, dtype=torch.bfloat16, device=device).normal_(0, 0.02)
            owner = model.get_submodule(name.rpartition(".")[0])
            setattr(owner, name.rpartition(".")[2], torch.nn.Parameter(value, requires_grad=False))
    model.tie_weights()
    # Tables that are not saved come from a real model of one layer.
    small = dict(auto.from_config(configured(of_one_layer(fields))).named_buffers())
    for name, buffer in list(model.named_buffers()):
        if buffer.device.type == "meta":
            owner = model.get_submodule(name.rpartition(".")[0])
            owner.register_buffer(name.rpartition(".")[2], small[name].to(device), persistent=False)
    torch.set_default_dtype(torch.float32)
    if device == "cuda":
        torch.cuda.empty_cache()
    return model


def peak_gib():
    return torch.cuda.max_memory_allocated() / 2**30


def report(**fields):
    print(json.dumps(fields), flush=True)


def measure_steps(model, vocab, optimizer, mode, a):
    if mode == "full":
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.enable_input_require_grads()
    else:
        model.gradient_checkpointing_disable()
    model.train()
    ids = torch.randint(0, vocab, (a.batch, a.length), device="cuda")
    times = []
    torch.cuda.reset_peak_memory_stats()
    for _ in range(a.steps + 1):
        torch.cuda.synchronize()
        begun = time.perf_counter()
        with torch.autocast("cuda", dtype=torch.bfloat16):
            loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        torch.cuda.synchronize()
        times.append(time.perf_counter() - begun)
    best = min(times[1:])
    report(
        peer="transformers + PEFT + bitsandbytes", work="train", checkpointing=mode, loss=loss.item(),
        ms=best * 1e3, tokens_per_second=a.batch * a.length / best, peak_gib=peak_gib(),
    )


def measure_decode(model, vocab, a):
    model.eval()
    model.gradient_checkpointing_disable()
    # As for inference: adapters in the weights' dtype, no autocast.
    for parameter in model.parameters():
        if parameter.dtype == torch.float32:
            parameter.data = parameter.data.bfloat16()
    ids = torch.randint(0, vocab, (1, 16), device="cuda")
    options = dict(do_sample=False, pad_token_id=0, eos_token_id=None, use_cache=True)
    with torch.no_grad():
        model.generate(input_ids=ids, max_new_tokens=4, min_new_tokens=4, **options)
        torch.cuda.synchronize()
        begun = time.perf_counter()
        model.generate(input_ids=ids, max_new_tokens=a.decode, min_new_tokens=a.decode, **options)
        torch.cuda.synchronize()
    report(peer="transformers + PEFT + bitsandbytes", work="decode", tokens_per_second=a.decode / (time.perf_counter() - begun))


def main():
    a = arguments()
    report(torch=torch.__version__, transformers=transformers.__version__, bitsandbytes=bnb.__version__,
           device=torch.cuda.get_device_name())
    model = quantised(json.loads(a.config))
    vocab = model.config.vocab_size
    model = get_peft_model(model, LoraConfig(r=a.rank, lora_alpha=2 * a.rank, target_modules="all-linear", task_type="CAUSAL_LM"))
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    optimizer = bnb.optim.AdamW8bit([p for p in model.parameters() if p.requires_grad], lr=2e-4)
    for mode in a.modes.split(","):
        measure_steps(model, vocab, optimizer, mode, a)
    if a.decode > 0:
        measure_decode(model, vocab, a)


if __name__ == "__main__":
    main()
