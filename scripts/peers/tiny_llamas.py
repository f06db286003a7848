"""Three small random Llamas, each with other features, as transformers saves them."""

import json
import shutil
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from common import Draw

COMMON = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": None,
}

CONFIGS = {
    # Grouped-query attention, an own output head.
    "llama-gqa": {"num_key_value_heads": 2, "tie_word_embeddings": False, "rms_norm_eps": 1e-5},
    # Tied head, the rope scaling of Llama 3.1, saved in shards.
    "llama-scaled": {
        "num_key_value_heads": 1,
        "tie_word_embeddings": True,
        "rms_norm_eps": 1e-5,
        "rope_parameters": {
            "rope_type": "llama3",
            "rope_theta": 500.0,
            "factor": 4.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32,
        },
    },
    # Biases everywhere, heads wider than hidden / heads, as many key heads as query heads.
    "llama-bias": {
        "num_key_value_heads": 4,
        "head_dim": 12,
        "attention_bias": True,
        "mlp_bias": True,
        "tie_word_embeddings": False,
        "rms_norm_eps": 1e-6,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    },
}


def build(name: str) -> LlamaForCausalLM:
    """The model of that name with its own fixed weights, in eval mode, fp32."""
    model = LlamaForCausalLM(LlamaConfig(**COMMON, **CONFIGS[name], attn_implementation="eager"))
    draw = Draw(1000 + list(CONFIGS).index(name))
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            # Larger than usual, so that the logits are far from uniform and attention is far from an average.
            if "norm" in key:
                parameter.copy_(draw.normal(*parameter.shape, std=0.2, mean=1.0))
            else:
                parameter.copy_(draw.normal(*parameter.shape, std=0.5 if "embed" in key else 0.18))
    return model.eval()


def save(name: str, folder: Path) -> None:
    """Saves the model's folder; "llama-scaled" in shards, "llama-bias" with the config keys of transformers 4."""
    shutil.rmtree(folder, ignore_errors=True)
    build(name).save_pretrained(folder, max_shard_size="30KB" if name == "llama-scaled" else "1GB")
    (folder / "generation_config.json").unlink(missing_ok=True)
    if name == "llama-bias":
        path = folder / "config.json"
        config = json.loads(path.read_text())
        config["rope_theta"] = config.pop("rope_parameters")["rope_theta"]
        config["rope_scaling"] = None
        config["torch_dtype"] = config.pop("dtype")
        path.write_text(json.dumps(config, indent=2) + "\n")
