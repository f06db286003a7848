"""Bytes of bitsandbytes' FP4 and of LLM.int8()'s weights on the CPU."""

from pathlib import Path

import bitsandbytes.functional as bnb
import torch

import nf4
from common import Draw, Golden


def inputs() -> dict[str, torch.Tensor]:
    draw = Draw(9)
    zero = draw.normal(6, 64, std=0.02)
    zero[2] = 0.0
    extremes = draw.normal(8, 64)
    extremes[0] *= 1e30
    extremes[1] *= 1e-30
    extremes[2, 5] = 1e4
    extremes[3] = 0.25
    extremes[4] = -0.25
    extremes[5, ::2] = -0.0
    extremes[6] = bnb.get_4bit_type("fp4", device="cpu").repeat(4) * 3.0  # exactly the codes
    extremes[7, 1:] = 0.0
    return {
        "rows64": draw.normal(32, 64, std=0.02),
        "rows48": draw.normal(48, 48, std=0.05),
        "ragged": draw.normal(7, 13),
        "zero": zero,
        "extremes": extremes,
        "many": draw.normal(300, 64, std=0.03) * draw.uniform(300, 1, low=0.2, high=3.0),
    }


def make(out: Path) -> None:
    golden = Golden(out, "quantized")
    golden.array("fp4.code", bnb.get_4bit_type("fp4", device="cpu"))
    shapes = {}
    for name, x in inputs().items():
        shapes[name] = list(x.shape)
        golden.array(f"{name}.input", x)
        packed, state = bnb.quantize_4bit(x, blocksize=nf4.BLOCK, quant_type="fp4")
        golden.array(f"{name}.fp4.q", packed.reshape(-1))
        golden.array(f"{name}.fp4.absmax", state.absmax)
        if name == "zero":
            x[2] = 1.0  # a row of zeros is undefined there (0 / 0 as an integer)
            golden.array("zero.int8.input", x)
        codes, absmax, _ = bnb.int8_vectorwise_quant(x)
        golden.array(f"{name}.int8.q", codes.view(torch.uint8).reshape(-1))
        golden.array(f"{name}.int8.absmax", absmax)
        golden.array(f"{name}.int8.restored", bnb.int8_vectorwise_dequant(codes, absmax))
    golden.value(block=nf4.BLOCK, shapes=shapes)
    golden.save()
