"""ChatGLM2 and 3 in plain PyTorch, written from the architecture's description: the reference where transformers has no class.

Parameter names are those of the published checkpoints.
"""

from types import SimpleNamespace

import torch
from torch import nn
from torch.nn import functional


class Norm(nn.Module):
    """Root-mean-square norm."""

    def __init__(self, dim: int, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.weight * x / torch.sqrt((x * x).mean(-1, keepdim=True) + self.eps)


def turn(x: torch.Tensor, base: float) -> torch.Tensor:
    """Rotary embedding of x (length, heads, dim): the first half of the dims, neighbours (2i, 2i+1) being a pair."""
    length, _, dim = x.shape
    half = dim // 2
    out = x.clone()
    for i in range(half // 2):
        angle = torch.arange(length, dtype=torch.float64) * base ** (-2 * i / half)
        cos, sin = angle.cos().float()[:, None], angle.sin().float()[:, None]
        a, b = x[..., 2 * i], x[..., 2 * i + 1]
        out[..., 2 * i] = a * cos - b * sin
        out[..., 2 * i + 1] = a * sin + b * cos
    return out


class Attention(nn.Module):
    def __init__(self, c: SimpleNamespace):
        super().__init__()
        self.heads, self.groups, self.dim = c.num_attention_heads, c.multi_query_group_num, c.kv_channels
        self.base = 10000 * c.rope_ratio
        width = self.heads * self.dim
        self.query_key_value = nn.Linear(c.hidden_size, width + 2 * self.groups * self.dim, bias=c.add_qkv_bias)
        self.dense = nn.Linear(width, c.hidden_size, bias=c.add_bias_linear)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        length = x.shape[0]
        widths = [self.heads * self.dim, self.groups * self.dim, self.groups * self.dim]
        q, k, v = (part.view(length, -1, self.dim) for part in self.query_key_value(x).split(widths, dim=-1))
        q, k = turn(q, self.base), turn(k, self.base)
        each = self.heads // self.groups  # consecutive heads share a group's keys and values
        future = torch.ones(length, length, dtype=torch.bool).triu(1)
        out = []
        for head in range(self.heads):
            scores = q[:, head] @ k[:, head // each].T / self.dim**0.5
            out.append(scores.masked_fill(future, float("-inf")).softmax(-1) @ v[:, head // each])
        return self.dense(torch.cat(out, dim=-1))


class Mlp(nn.Module):
    def __init__(self, c: SimpleNamespace):
        super().__init__()
        self.dense_h_to_4h = nn.Linear(c.hidden_size, 2 * c.ffn_hidden_size, bias=c.add_bias_linear)
        self.dense_4h_to_h = nn.Linear(c.ffn_hidden_size, c.hidden_size, bias=c.add_bias_linear)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate, up = self.dense_h_to_4h(x).chunk(2, dim=-1)
        return self.dense_4h_to_h(functional.silu(gate) * up)


class Layer(nn.Module):
    def __init__(self, c: SimpleNamespace):
        super().__init__()
        self.input_layernorm = Norm(c.hidden_size, c.layernorm_epsilon)
        self.self_attention = Attention(c)
        self.post_attention_layernorm = Norm(c.hidden_size, c.layernorm_epsilon)
        self.mlp = Mlp(c)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.self_attention(self.input_layernorm(x))
        return x + self.mlp(self.post_attention_layernorm(x))


class Chatglm(nn.Module):
    def __init__(self, config: dict):
        super().__init__()
        c = SimpleNamespace(**{"rope_ratio": 1, **config})
        self.transformer = nn.Module()
        self.transformer.embedding = nn.Module()
        self.transformer.embedding.word_embeddings = nn.Embedding(c.padded_vocab_size, c.hidden_size)
        self.transformer.encoder = nn.Module()
        self.transformer.encoder.layers = nn.ModuleList(Layer(c) for _ in range(c.num_layers))
        self.transformer.encoder.final_layernorm = Norm(c.hidden_size, c.layernorm_epsilon)
        self.transformer.output_layer = nn.Linear(c.hidden_size, c.padded_vocab_size, bias=False)

    def forward(self, input_ids: torch.Tensor) -> SimpleNamespace:
        """Logits (1, length, vocab) of one row (1, length)."""
        x = self.transformer.embedding.word_embeddings(input_ids[0])
        for layer in self.transformer.encoder.layers:
            x = layer(x)
        x = self.transformer.encoder.final_layernorm(x)
        return SimpleNamespace(logits=self.transformer.output_layer(x)[None])
