"""Bytes of bitsandbytes' NF4 on the CPU, with and without double quantisation."""

from pathlib import Path

import bitsandbytes.functional as bnb
import torch

import nf4
from common import Draw, Golden


def inputs() -> dict[str, torch.Tensor]:
    draw = Draw(4)
    zero = draw.normal(6, 64, std=0.02)
    zero[2] = 0.0
    extremes = draw.normal(8, 64)
    extremes[0] *= 1e30
    extremes[1] *= 1e-30
    extremes[2, 5] = 1e4  # one outlier: all others become the smallest codes
    extremes[3] = 0.25  # all equal and largest
    extremes[4] = -0.25
    extremes[5, ::2] = -0.0
    extremes[6] = nf4.CODE.repeat(4) * 3.0  # exactly the codes
    extremes[7, 1:] = 0.0  # one element of its block alone
    return {
        "rows64": draw.normal(32, 64, std=0.02),
        "rows48": draw.normal(48, 48, std=0.05),  # blocks run across rows
        "rows16": draw.normal(12, 16),
        "ragged": draw.normal(7, 13),  # the last block is short, the count odd
        "zero": zero,
        "extremes": extremes,
        "many": draw.normal(300, 64, std=0.03) * draw.uniform(300, 1, low=0.2, high=3.0),  # two blocks of absmax
    }


def make(out: Path) -> None:
    golden = Golden(out, "nf4")
    golden.array("code", nf4.CODE)
    for name, x in inputs().items():
        golden.array(f"{name}.input", x)
        packed, state = bnb.quantize_4bit(x, blocksize=nf4.BLOCK, quant_type="nf4")
        golden.array(f"{name}.q", packed.reshape(-1))
        golden.array(f"{name}.absmax", state.absmax)
        if name in ("ragged", "extremes"):
            continue  # statistics so far apart say nothing about double quantisation
        packed, state = bnb.quantize_4bit(x, blocksize=nf4.BLOCK, quant_type="nf4", compress_statistics=True)
        golden.array(f"{name}.nested.q", state.absmax)
        golden.array(f"{name}.nested.absmax2", state.state2.absmax)
        golden.array(f"{name}.nested.offset", state.offset.reshape(1))
        golden.array(f"{name}.nested.absmax", nf4.restore_absmax(state))
        golden.arrays.setdefault("nested.map", state.state2.code.clone())
    golden.value(block=nf4.BLOCK, nestedBlock=256, shapes={name: list(x.shape) for name, x in inputs().items()})
    golden.save()
