"""Every kind of adapter that PEFT's LoraConfig makes, with logits, gradients and short trainings."""

import json
import warnings
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.optimizers import create_loraplus_optimizer

import nf4
import tiny_llamas
from common import Draw, Golden
from golden_llama import collate
from golden_lora import PAIRS, ROWS, save_adapter, step_loss

STEPS = 10
# name: (base, options of LoraConfig)
ADAPTERS = {
    "adapter-dora": ("llama-gqa", {"target_modules": "all-linear", "use_dora": True}),
    "adapter-dora-bias": ("llama-bias", {"target_modules": ["q_proj", "down_proj"], "use_dora": True, "use_rslora": True}),
    "adapter-regex": (
        "llama-gqa",
        {"target_modules": r".*\.(q_proj|up_proj|o_proj)", "exclude_modules": ["layers.0.self_attn.o_proj"]},
    ),
    "adapter-layers": (
        "llama-gqa",
        {"target_modules": ["v_proj", "up_proj"], "layers_to_transform": [1], "layers_pattern": "layers"},
    ),
    "adapter-embedding": ("llama-gqa", {"target_modules": ["embed_tokens", "lm_head", "q_proj"]}),
    "adapter-embedding-dora": ("llama-gqa", {"target_modules": ["embed_tokens"], "use_dora": True}),
    "adapter-tied": ("llama-scaled", {"target_modules": ["embed_tokens", "v_proj"]}),
    "adapter-tied-head": ("llama-scaled", {"target_modules": ["lm_head", "v_proj"]}),
    "adapter-saved": (
        "llama-gqa",
        {"target_modules": ["q_proj"], "modules_to_save": ["lm_head", "embed_tokens", "post_attention_layernorm"]},
    ),
    "adapter-bias": ("llama-bias", {"target_modules": ["q_proj"], "bias": "all"}),
    "adapter-bias-only": ("llama-bias", {"target_modules": ["q_proj"], "bias": "lora_only"}),
    "adapter-lora-bias": ("llama-bias", {"target_modules": ["q_proj", "up_proj"], "lora_bias": True}),
}
# name: (NF4 base, options of LoraConfig, options of the optimizer)
TRAININGS = {
    "train-dora": (False, {"target_modules": "all-linear", "use_dora": True}, {}),
    "train-dora-nf4": (True, {"target_modules": "all-linear", "use_dora": True}, {}),
    "train-rslora": (False, {"target_modules": ["q_proj", "v_proj"], "use_rslora": True}, {}),
    "train-saved": (False, {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}, {}),
    "train-loraplus": (
        False,
        {"target_modules": ["embed_tokens", "q_proj", "down_proj"]},
        {"ratio": 8, "embedding": 1e-4, "decay": 0.05},
    ),
}


def adapted(base: str, options: dict, quantize: bool = False) -> PeftModel:
    torch.manual_seed(5)
    model = tiny_llamas.build(base)
    model.name_or_path = base
    model.config._name_or_path = base
    if quantize:
        nf4.quantize_linears(model)
    settings = {"r": 4, "lora_alpha": 8, "lora_dropout": 0.0, "task_type": "CAUSAL_LM"}
    return get_peft_model(model, LoraConfig(**settings | options))


def fill(model: PeftModel) -> None:
    """Values far from the initial ones for everything that is trained."""
    draw = Draw(47)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if not parameter.requires_grad:
                continue
            noise = draw.normal(*parameter.shape, std=0.2)
            if "lora_A" in key:
                continue
            if "lora_embedding_A" in key or "lora_B" in key or "lora_embedding_B" in key:
                parameter.copy_(noise)
            elif "magnitude" in key or "norm" in key:
                parameter.mul_(1 + noise)
            else:
                parameter.add_(noise * 0.5)


def gradients(model: PeftModel, golden: Golden, rows: list[dict]) -> None:
    trained = sum(label != -100 for row in rows for label in row["labels"][1:])
    loss = model(**collate(rows), num_items_in_batch=torch.tensor(trained)).loss
    loss.backward()
    golden.value(rows=rows, loss=loss.item())
    for key, parameter in model.named_parameters():
        if parameter.requires_grad:
            golden.array(f"gradient.{key.removeprefix('base_model.model.')}", parameter.grad)


def logits(model: PeftModel, golden: Golden, ids: list[int]) -> None:
    golden.value(sequence=ids)
    with torch.no_grad():
        golden.array("logits", model(input_ids=torch.tensor([ids])).logits[0])


def adapter(name: str, base: str, options: dict, out: Path) -> None:
    model = adapted(base, options)
    fill(model)
    save_adapter(model, out / name / "adapter")
    golden = Golden(out / name, "golden")
    golden.value(base=base)
    logits(model, golden, ROWS[2]["ids"])
    gradients(model, golden, ROWS[:2])
    golden.save()


def sort_config(folder: Path) -> None:
    """Lists that are sets in memory, in one order; what the hub's card wants is left out."""
    (folder / "README.md").unlink(missing_ok=True)
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text())
    config["target_modules"] = sorted(config["target_modules"])
    path.write_text(json.dumps(config, indent=2) + "\n")


def train(name: str, quantize: bool, options: dict, plus: dict, out: Path) -> None:
    model = adapted("llama-gqa", options, quantize)
    save_adapter(model, out / name / "init")
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if plus:
        optimizer = create_loraplus_optimizer(
            model,
            torch.optim.AdamW,
            lr=5e-3,
            loraplus_lr_ratio=plus["ratio"],
            loraplus_lr_embedding=plus["embedding"],
            loraplus_weight_decay=plus["decay"],
        )
    else:
        optimizer = torch.optim.AdamW(trainable, lr=1e-2, weight_decay=0.0)
    losses, norms = [], []
    for step in range(STEPS):
        losses.append(step_loss(model, [PAIRS[step % len(PAIRS)]]))
        norms.append(float(torch.nn.utils.clip_grad_norm_(trainable, float("inf"))))
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-2] < losses[0], losses
    golden = Golden(out / name, "golden")
    golden.value(quantized="nf4" if quantize else None, plus=plus, rows=ROWS, losses=losses, gradNorms=norms)
    logits(model, golden, ROWS[2]["ids"])
    for key, parameter in model.named_parameters():
        if parameter.requires_grad:
            golden.array(f"final.{key.removeprefix('base_model.model.')}", parameter)
    golden.save()


def pissa(out: Path) -> None:
    """PiSSA: what the decomposition leaves and gives, trained values, and PEFT's conversion to a plain adapter."""
    name = "adapter-pissa"
    model = adapted("llama-gqa", {"target_modules": ["q_proj", "down_proj"], "init_lora_weights": "pissa"})
    golden = Golden(out / name, "golden")
    golden.value(base="llama-gqa")
    for path in ("model.layers.0.self_attn.q_proj", "model.layers.1.mlp.down_proj"):
        layer = model.base_model.model.get_submodule(path)
        golden.array(f"residual.{path}", layer.base_layer.weight)
        golden.array(f"delta.{path}", layer.get_delta_weight("default"))
    initial = out / name / "pissa_init"
    model.peft_config["default"].init_lora_weights = True
    save_adapter(model, initial)
    model.peft_config["default"].init_lora_weights = "pissa"
    draw = Draw(53)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if "lora_" in key:
                parameter.add_(draw.normal(*parameter.shape, std=0.05))
    save_adapter(model, out / name / "adapter")
    logits(model, golden, ROWS[2]["ids"])
    model.save_pretrained(out / name / "converted", path_initial_model_for_weight_conversion=str(initial))
    sort_config(out / name / "converted")
    for leftover in initial.iterdir():
        leftover.unlink()
    initial.rmdir()
    golden.save()


def tokens(out: Path) -> None:
    """Three tokens more than the base has: the resized tables are saved beside the adapter."""
    name = "adapter-tokens"
    torch.manual_seed(5)
    model = tiny_llamas.build("llama-gqa")
    model.name_or_path = "llama-gqa"
    model.config._name_or_path = "llama-gqa"
    model.resize_token_embeddings(100, mean_resizing=False)
    draw = Draw(59)
    with torch.no_grad():
        for table in (model.model.embed_tokens.weight, model.lm_head.weight):
            table[97:] = draw.normal(3, 32, std=0.3)
    model = get_peft_model(
        model, LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    )
    fill(model)
    model.save_pretrained(out / name / "adapter", save_embedding_layers=True)
    sort_config(out / name / "adapter")
    golden = Golden(out / name, "golden")
    logits(model, golden, [5, 97, 20, 98, 99, 7])
    golden.save()


def make(out: Path) -> None:
    warnings.filterwarnings("ignore")
    for name, (base, options) in ADAPTERS.items():
        adapter(name, base, options, out)
    for name, (quantize, options, plus) in TRAININGS.items():
        train(name, quantize, options, plus, out)
    pissa(out)
    tokens(out)
