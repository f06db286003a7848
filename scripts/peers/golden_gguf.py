"""Random blocks of llama.cpp's K-quants as the gguf package restores them, and the bytes of its quantisers."""

from pathlib import Path

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Q

from common import Draw, Golden

ROWS = 24
# Where the halves that scale a block stand in its bytes.
HALVES = {Q.Q4_K: [0, 2], Q.Q5_K: [0, 2], Q.Q6_K: [208], Q.Q5_0: [0]}
WRITTEN = [Q.Q8_0, Q.Q4_0, Q.Q5_0]


def random_blocks(draw: Draw, kind: Q, rows: int) -> np.ndarray:
    """All codes and all 6-bit scales, behind scales of many sizes and both signs."""
    _, size = gguf.GGML_QUANT_SIZES[kind]
    raw = draw.state.randint(0, 256, (rows, size)).astype(np.uint8)
    for at in HALVES[kind]:
        scale = draw.state.standard_normal(rows) * 10.0 ** draw.state.randint(-7, 3, rows)
        raw[:, at : at + 2] = scale.astype(np.float16).reshape(rows, 1).view(np.uint8)
    return raw


def values(draw: Draw) -> torch.Tensor:
    """Rows of three blocks: as weights are, a row of zeros, ties between codes, and of very different sizes."""
    x = draw.normal(32, 96, std=0.05)
    x[3] = 0.0
    x[4, :32] = 0.0
    x[5] = torch.arange(96) - 48.0  # many lie halfway between codes
    x[6] = (torch.arange(96) - 48.0) / 127.0
    x[7] = -x[5]
    x[8] *= 1e4
    x[9] *= 1e-6
    x[10, 7] = 3.0
    x[11, ::2] = -0.0
    x[12] = 0.25
    x[13] = -0.25
    x[14, 1:] = 0.0
    return x


def make(out: Path) -> None:
    golden = Golden(out, "gguf-blocks")
    draw = Draw(21)
    for kind in HALVES:
        packed = random_blocks(draw, kind, ROWS)
        golden.array(f"{kind.name}.bytes", torch.from_numpy(packed.reshape(-1)))
        golden.array(f"{kind.name}.restored", torch.from_numpy(gguf.dequantize(packed, kind).astype(np.float32).reshape(-1)))
    x = values(draw)
    golden.array("input", x)
    for kind in WRITTEN:
        golden.array(f"{kind.name}.quantized", torch.from_numpy(gguf.quantize(x.numpy(), kind).reshape(-1)))
    golden.value(rows=list(x.shape))
    golden.save()
