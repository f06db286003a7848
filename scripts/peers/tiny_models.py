"""Small random models, one or two of each architecture but Llama (tiny_llamas.py), in the layout of their checkpoints."""

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import (
    GemmaConfig,
    GemmaForCausalLM,
    GlmConfig,
    GlmForCausalLM,
    GPTBigCodeConfig,
    GPTBigCodeForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from chatglm import Chatglm
from common import Draw

VOCAB = 67
COMMON = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": None,
}
STARCODER = {
    "vocab_size": VOCAB,
    "n_embd": 32,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 96,
    "layer_norm_epsilon": 1e-5,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
CHATGLM = {
    "model_type": "chatglm",
    "architectures": ["ChatGLMModel"],
    "add_bias_linear": False,
    "add_qkv_bias": True,
    "apply_query_key_layer_scaling": True,
    "apply_residual_connection_post_layernorm": False,
    "attention_dropout": 0.0,
    "ffn_hidden_size": 48,
    "hidden_dropout": 0.0,
    "hidden_size": 32,
    "kv_channels": 16,
    "layernorm_epsilon": 1e-5,
    "multi_query_attention": True,
    "multi_query_group_num": 2,
    "num_attention_heads": 4,
    "num_layers": 2,
    "original_rope": True,
    "padded_vocab_size": VOCAB,
    "post_layer_norm": True,
    "rmsnorm": True,
    "seq_length": 128,
    "tie_word_embeddings": False,
    "torch_dtype": "float32",
    "eos_token_id": 2,
    "pad_token_id": 0,
}
# name: (classes, what differs from COMMON)
MODELS = {
    "qwen2": (Qwen2Config, Qwen2ForCausalLM, {"tie_word_embeddings": True, "rms_norm_eps": 1e-6}),
    "qwen2-window": (
        Qwen2Config,
        Qwen2ForCausalLM,
        {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1, "tie_word_embeddings": False},
    ),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM, {"head_dim": 12, "tie_word_embeddings": True}),
    "mistral": (MistralConfig, MistralForCausalLM, {"sliding_window": 8, "rms_norm_eps": 1e-5}),
    "gemma": (GemmaConfig, GemmaForCausalLM, {"head_dim": 16, "num_key_value_heads": 1}),
}
STARCODERS = {
    # One head of keys and values; the activation of the 1B model, which is the class's default.
    "gpt-bigcode": {"activation_function": "gelu_pytorch_tanh"},
    "gpt-bigcode-heads": {"multi_query": False, "activation_function": "gelu", "n_inner": 48},
}
CHATGLMS = {"chatglm": {}, "chatglm-ratio": {"rope_ratio": 50, "multi_query_group_num": 1, "add_bias_linear": True}}
NAMES = [*MODELS, *STARCODERS, *CHATGLMS]
# The model_type of each, by which PEFT knows its targets.
TYPES = {name: name.split("-")[0] for name in NAMES} | {name: "gpt_bigcode" for name in STARCODERS}


def chatglm_config(name: str) -> dict:
    return {**CHATGLM, **CHATGLMS[name]}


def empty(name: str) -> torch.nn.Module:
    if name in CHATGLMS:
        return Chatglm(chatglm_config(name))
    if name in STARCODERS:
        return GPTBigCodeForCausalLM(GPTBigCodeConfig(**STARCODER, **STARCODERS[name], attn_implementation="eager"))
    config, model, options = MODELS[name]
    return model(config(**{**COMMON, **options}, attn_implementation="eager"))


def build(name: str) -> torch.nn.Module:
    """The model of that name with its own fixed weights, in eval mode, fp32."""
    model = empty(name)
    draw = Draw(2000 + NAMES.index(name))
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            norm = "norm" in key or ".ln_" in key
            if norm and key.endswith("weight"):
                # Gemma's norms multiply by 1 + weight.
                parameter.copy_(draw.normal(*parameter.shape, std=0.2, mean=0.0 if name == "gemma" else 1.0))
            else:
                table = any(part in key for part in ("embed", "wte", "wpe"))
                # A tied head likes the token it has just read; strong layers keep it from writing that one for ever.
                std = (0.1 if table else 0.36) if name == "gemma" else (0.5 if table else 0.25)
                parameter.copy_(draw.normal(*parameter.shape, std=std))
    return model.eval()


def save(name: str, folder: Path) -> None:
    """Saves the model's folder."""
    shutil.rmtree(folder, ignore_errors=True)
    model = build(name)
    if name in CHATGLMS:
        folder.mkdir(parents=True)
        # Checkpoints of ChatGLM carry the frequencies too, though they follow from the config.
        half = CHATGLM["kv_channels"] // 2
        ratio = chatglm_config(name).get("rope_ratio", 1)
        frequencies = 1.0 / (10000 * ratio) ** (torch.arange(0, half, 2) / half)
        weights = {"transformer.rotary_pos_emb.inv_freq": frequencies, **model.state_dict()}
        save_file(weights, folder / "model.safetensors", {"format": "pt"})
        (folder / "config.json").write_text(json.dumps(chatglm_config(name), indent=2) + "\n")
        return
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    if name == "qwen2-window":  # as transformers 4 wrote it
        path = folder / "config.json"
        config = json.loads(path.read_text())
        config.pop("layer_types")
        config["sliding_window"] = 8
        config["rope_theta"] = config.pop("rope_parameters")["rope_theta"]
        config["torch_dtype"] = config.pop("dtype")
        path.write_text(json.dumps(config, indent=2) + "\n")


def as_glm(model: Chatglm, name: str) -> GlmForCausalLM:
    """The same weights in transformers' class for GLM-4, which is ChatGLM3 under other names: what the plain reference is checked by."""
    c = {"rope_ratio": 1, **chatglm_config(name)}
    heads, groups, dim = c["num_attention_heads"], c["multi_query_group_num"], c["kv_channels"]
    config = GlmConfig(
        vocab_size=VOCAB,
        hidden_size=c["hidden_size"],
        intermediate_size=c["ffn_hidden_size"],
        num_hidden_layers=c["num_layers"],
        num_attention_heads=heads,
        num_key_value_heads=groups,
        head_dim=dim,
        rms_norm_eps=c["layernorm_epsilon"],
        attention_bias=True,
        rope_parameters={
            "rope_type": "default",
            "rope_theta": 10000.0 * c["rope_ratio"],
            "partial_rotary_factor": 0.5,
        },
        tie_word_embeddings=False,
        pad_token_id=0,
        attn_implementation="eager",
    )
    glm = GlmForCausalLM(config).eval()
    own = model.state_dict()
    weights = {
        "model.embed_tokens.weight": own["transformer.embedding.word_embeddings.weight"],
        "model.norm.weight": own["transformer.encoder.final_layernorm.weight"],
        "lm_head.weight": own["transformer.output_layer.weight"],
    }
    for i in range(c["num_layers"]):
        ours, theirs = f"transformer.encoder.layers.{i}", f"model.layers.{i}"
        for kind in ("weight", "bias"):
            parts = own[f"{ours}.self_attention.query_key_value.{kind}"].split([heads * dim, groups * dim, groups * dim])
            for key, part in zip("qkv", parts):
                weights[f"{theirs}.self_attn.{key}_proj.{kind}"] = part
        for a, b in {
            "self_attention.dense": "self_attn.o_proj",
            "mlp.dense_h_to_4h": "mlp.gate_up_proj",
            "mlp.dense_4h_to_h": "mlp.down_proj",
            "input_layernorm": "input_layernorm",
            "post_attention_layernorm": "post_attention_layernorm",
        }.items():
            weights[f"{theirs}.{b}.weight"] = own[f"{ours}.{a}.weight"]
    missing, unexpected = glm.load_state_dict(weights, strict=False)
    assert not missing and not unexpected, (missing, unexpected)
    return glm
