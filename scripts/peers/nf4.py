"""NF4 restored by its definition: code * absmax in fp32, even element in the high nibble.

bitsandbytes 0.50's own CPU dequantise is wrong for rows that are a multiple of 16 but not of 64, so no reference uses it.
"""

import bitsandbytes.functional as bnb
import torch

CODE = bnb.get_4bit_type("nf4", device="cpu")
BLOCK = 64


def restore_absmax(state) -> torch.Tensor:
    """The blocks' absmax, doubly quantised or not."""
    if not state.nested:
        return state.absmax
    nested = state.state2.absmax.repeat_interleave(state.state2.blocksize)[: state.absmax.numel()]
    return state.state2.code[state.absmax.long()] * nested + state.offset


def dequantize(packed: torch.Tensor, state) -> torch.Tensor:
    pairs = packed.reshape(-1).long()
    codes = torch.stack([pairs >> 4, pairs & 15], dim=1).reshape(-1)[: state.shape.numel()]
    absmax = restore_absmax(state).repeat_interleave(BLOCK)[: codes.numel()]
    return (CODE[codes] * absmax).reshape(state.shape)


def round_trip(weight: torch.Tensor, double: bool = False) -> torch.Tensor:
    packed, state = bnb.quantize_4bit(weight.contiguous(), blocksize=BLOCK, quant_type="nf4", compress_statistics=double)
    return dequantize(packed, state)


def quantize_linears(model: torch.nn.Module, double: bool = False, heads: tuple[str, ...] = ("lm_head",)) -> None:
    """Replaces the weight of every linear layer but the head by its NF4 round trip, as a 4-bit base computes."""
    with torch.no_grad():
        for name, module in model.named_modules():
            if isinstance(module, torch.nn.Linear) and not name.endswith(heads):
                module.weight.copy_(round_trip(module.weight, double))
