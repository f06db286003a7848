"""Small Llamas saved by transformers with bitsandbytes' 4-bit weights, and their logits on the CPU: as bitsandbytes computes them
(its kernels round inputs to 16 bits), and in float32 from the weights that it restores."""

import shutil
import tempfile
from pathlib import Path

import bitsandbytes as bnb
import torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, LlamaConfig, LlamaForCausalLM

from common import Draw, Golden

# Rows of whole blocks of 64: elsewhere the CPU's restoring of bitsandbytes 0.50 is wrong.
CONFIG = {
    "vocab_size": 97,
    "hidden_size": 64,
    "intermediate_size": 192,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
CASES = {"bnb-nf4": ("nf4", False), "bnb-nf4-nested": ("nf4", True), "bnb-fp4-nested": ("fp4", True)}


def build() -> LlamaForCausalLM:
    model = LlamaForCausalLM(LlamaConfig(**CONFIG))
    draw = Draw(77)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            norm = "norm" in key
            std = 0.2 if norm else 0.5 if "embed" in key else 0.12
            parameter.copy_(draw.normal(*parameter.shape, std=std, mean=1.0 if norm else 0.0))
    return model.eval()


def restore(quantized: torch.nn.Module, model: torch.nn.Module) -> int:
    """Gives a model of the same shape the 4-bit weights of another, restored to float32; how many there are."""
    count = 0
    with torch.no_grad():
        for name, module in quantized.named_modules():
            if isinstance(module, bnb.nn.Linear4bit):
                weight = bnb.functional.dequantize_4bit(module.weight.data, module.weight.quant_state)
                model.get_submodule(name).weight.copy_(weight)
                count += 1
    return count


def check_kernel(kind: str, nested: bool) -> None:
    """How far a product of bitsandbytes' kernel is from the weight that it restores, multiplied in float64: it rounds inputs, scales of
    blocks and results to bfloat16, 2e-3 each on average. The reference for logits is the restored weight."""
    draw = Draw(78)
    layer = bnb.nn.Linear4bit(64, 192, False, torch.float32, nested, kind)
    layer.load_state_dict({"weight": draw.normal(192, 64, std=0.12)})
    layer.to("cpu")
    # Before the first product, which lays the codes out anew.
    weight = bnb.functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state).double()
    x = draw.normal(12, 64)
    with torch.no_grad():
        exact = x.double() @ weight.T
        error = ((layer(x).double() - exact).norm() / exact.norm()).item()
    assert error < 5e-3, f"bitsandbytes' {kind} product is {error} away from its restored weight"


def make(out: Path) -> None:
    sequences = [Draw(5).ids(12, CONFIG["vocab_size"]), Draw(6).ids(3, CONFIG["vocab_size"])]
    with tempfile.TemporaryDirectory() as whole:
        build().save_pretrained(whole)
        for name, (kind, nested) in CASES.items():
            check_kernel(kind, nested)
            options = BitsAndBytesConfig(
                load_in_4bit=True,
                bnb_4bit_quant_type=kind,
                bnb_4bit_use_double_quant=nested,
                bnb_4bit_compute_dtype=torch.float32,
            )
            model = AutoModelForCausalLM.from_pretrained(
                whole, quantization_config=options, device_map="cpu", dtype=torch.float32
            ).eval()
            shutil.rmtree(out / name, ignore_errors=True)
            model.save_pretrained(out / name)
            (out / name / "generation_config.json").unlink(missing_ok=True)
            golden = Golden(out, f"{name}/golden")
            golden.value(sequences=sequences)
            whole_model = build()
            restore(model, whole_model)
            with torch.no_grad():
                for i, ids in enumerate(sequences):
                    golden.array(f"logits.{i}", model(torch.tensor([ids])).logits[0])
                    golden.array(f"restored.{i}", whole_model(torch.tensor([ids])).logits[0])
            golden.save()
