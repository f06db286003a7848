"""A few ops of torch and transformers with their gradients; `dy` is what flows back into each output."""

from pathlib import Path

import torch
import torch.nn.functional as F
from transformers.models.llama.modeling_llama import LlamaRMSNorm, apply_rotary_pos_emb

from common import Draw, Golden


def leaf(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.clone().requires_grad_()


def rms_norm(golden: Golden, draw: Draw) -> None:
    rows, cols, eps = 5, 36, 1e-5
    x, residual = leaf(draw.normal(rows, cols)), leaf(draw.normal(rows, cols, std=3.0))
    norm = LlamaRMSNorm(cols, eps)
    norm.weight.data = draw.normal(cols, std=0.3, mean=1.0)
    dy, dh = draw.normal(rows, cols), draw.normal(rows, cols)
    h = x + residual
    y = norm(h)
    torch.autograd.backward([y, h], [dy, dh])
    entries = {"x": x, "residual": residual, "weight": norm.weight, "y": y, "h": h, "dy": dy, "dh": dh}
    entries |= {"dx": x.grad, "dweight": norm.weight.grad}
    for name, value in entries.items():
        golden.array(f"rms_norm.{name}", value)
    golden.value(rms_norm={"rows": rows, "cols": cols, "eps": eps})


def rope(golden: Golden, draw: Draw) -> None:
    rows, heads, dim, theta = 9, 3, 8, 100.0
    x = draw.normal(rows, heads, dim)
    positions = torch.tensor([0, 1, 2, 3, 40, 0, 1, 2, 500])
    angles = positions[:, None].float() / theta ** (torch.arange(0, dim, 2).float() / dim)
    both = torch.cat([angles, angles], -1)
    y, _ = apply_rotary_pos_emb(x, x, both.cos(), both.sin())  # one row's table serves all of its heads
    for name, value in {"x": x, "positions": positions.int(), "y": y}.items():
        golden.array(f"rope.{name}", value)
    golden.value(rope={"rows": rows, "heads": heads, "headDim": dim, "theta": theta})


def attention(golden: Golden, draw: Draw) -> None:
    """Packed rows: sequences of 1, 6 and 11 rows that do not see each other; grouped key heads; causal, and a window."""
    lengths, heads, groups, dim = [1, 6, 11], 4, 2, 8
    total = sum(lengths)
    q, dy = draw.normal(total, heads, dim), draw.normal(total, heads, dim)
    k, v = draw.normal(total, groups, dim), draw.normal(total, groups, dim)
    for name, value in {"q": q, "k": k, "v": v, "dy": dy}.items():
        golden.array(f"attention.{name}", value)
    cases = {"causal": (True, 0), "full": (False, 0), "window": (True, 4)}
    for title, (causal, window) in cases.items():
        ql, kl, vl = leaf(q), leaf(k), leaf(v)
        segment = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
        place = torch.cat([torch.arange(length) for length in lengths])
        seen = segment[:, None] == segment[None, :]
        if causal:
            seen &= place[:, None] >= place[None, :]
        if window:
            seen &= place[:, None] - place[None, :] < window
        y = F.scaled_dot_product_attention(
            ql.transpose(0, 1),
            kl.transpose(0, 1).repeat_interleave(heads // groups, 0),
            vl.transpose(0, 1).repeat_interleave(heads // groups, 0),
            attn_mask=seen,
        ).transpose(0, 1)
        y.backward(dy)
        for name, value in {"y": y, "dq": ql.grad, "dk": kl.grad, "dv": vl.grad}.items():
            golden.array(f"attention.{title}.{name}", value)
    golden.value(attention={"lengths": lengths, "heads": heads, "kvHeads": groups, "headDim": dim, "cases": cases})


def swiglu(golden: Golden, draw: Draw) -> None:
    gate, up, dy = leaf(draw.normal(4, 20, std=3.0)), leaf(draw.normal(4, 20)), draw.normal(4, 20)
    y = F.silu(gate) * up
    y.backward(dy)
    entries = {"gate": gate, "up": up, "dy": dy, "y": y, "dgate": gate.grad, "dup": up.grad}
    for name, value in entries.items():
        golden.array(f"swiglu.{name}", value)


def cross_entropy(golden: Golden, draw: Draw) -> None:
    rows, vocab = 6, 50
    logits = draw.normal(rows, vocab, std=4.0)
    labels = torch.tensor([3, -100, 49, 0, 17, -100])
    dy = draw.normal(rows)
    for name, value in {"logits": logits, "labels": labels.int(), "dy": dy}.items():
        golden.array(f"cross_entropy.{name}", value)
    for title, smoothing in {"plain": 0.0, "smooth": 0.1}.items():
        x = leaf(logits)
        loss = F.cross_entropy(x, labels, ignore_index=-100, reduction="none", label_smoothing=smoothing)
        loss.backward(dy)
        golden.array(f"cross_entropy.{title}.loss", loss)
        golden.array(f"cross_entropy.{title}.dlogits", x.grad)
    golden.value(cross_entropy={"rows": rows, "vocab": vocab, "smoothing": {"plain": 0.0, "smooth": 0.1}})


def activations(golden: Golden, draw: Draw) -> None:
    x, dy = draw.normal(40, std=3.0), draw.normal(40)
    golden.array("unary.x", x)
    golden.array("unary.dy", dy)
    kinds = {
        "tanh": torch.tanh,
        "sigmoid": torch.sigmoid,
        "silu": F.silu,
        "gelu": F.gelu,
        "gelu_tanh": lambda t: F.gelu(t, approximate="tanh"),
        "relu": F.relu,
        "log_sigmoid": F.logsigmoid,
        "quick_gelu": lambda t: t * torch.sigmoid(1.702 * t),
    }
    for name, function in kinds.items():
        t = leaf(x)
        y = function(t)
        y.backward(dy)
        golden.array(f"unary.{name}.y", y)
        golden.array(f"unary.{name}.dx", t.grad)


def make(out: Path) -> None:
    golden = Golden(out, "ops")
    for number, part in enumerate([rms_norm, rope, attention, swiglu, cross_entropy, activations]):
        part(golden, Draw(100 + number))
    golden.save()
