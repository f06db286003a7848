"""Codes and scales of E4M3 by torch.float8_e4m3fn, a scale a row."""

from pathlib import Path

import torch

from common import Draw, Golden

MOST = 448.0
LEAST = 2.0**-100


def quantize(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes (as bytes) and scales: rows below LEAST are zeros, rows that are not finite become NaN."""
    most = x.abs().amax(1, keepdim=True)
    finite = most.isfinite()
    small = most < LEAST
    ones = torch.ones_like(most)
    safe = torch.where(finite & ~small, most, ones)
    to = torch.where(small, torch.zeros_like(most), MOST / safe)
    to = torch.where(finite, to, torch.full_like(most, torch.nan))
    scale = torch.where(small, torch.zeros_like(most), safe / MOST)
    scale = torch.where(finite, scale, torch.full_like(most, torch.nan))
    scaled = x * to  # torch's conversion gives NaN beyond 464: it does not saturate
    codes = scaled.clamp(-MOST, MOST).to(torch.float8_e4m3fn).view(torch.uint8)
    codes = torch.where(scaled.isnan(), torch.full_like(codes, 0x7F), codes)
    return codes, scale.reshape(-1)


def inputs() -> dict[str, torch.Tensor]:
    draw = Draw(31)
    values = torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn).float()
    values = values[~values.isnan()]
    sorted_values = values[values >= 0].sort().values
    ties = (sorted_values[1:] + sorted_values[:-1]) / 2  # half way between neighbours, subnormal ones too
    step = torch.tensor(2.0**-20)
    edges = torch.cat([values, ties, -ties, ties * (1 + step), ties * (1 - step), values.new_tensor([MOST])])
    # A largest value of 448 makes the factor 1, so that these meet the rounding as they are; powers of two keep them exact.
    zeros = draw.normal(6, 40)
    zeros[1] = 0.0
    zeros[2] = zeros[2] * 1e-36
    zeros[3] = -0.0
    zeros[4] = zeros[4] * 2.0**-95
    bad = draw.normal(5, 33)
    bad[0, 7] = torch.nan
    bad[1, 32] = torch.inf
    bad[2, 0] = -torch.inf
    bad[4] *= 1e37
    spread = draw.normal(24, 96) * torch.exp(draw.normal(24, 96, std=3.0))  # most of a row far below its largest
    return {
        "rows64": draw.normal(32, 64, std=0.02),
        "ragged": draw.normal(7, 13),
        "wide": draw.normal(3, 1030, std=0.02),
        "edges": torch.stack([edges, edges * 2.0**-30, edges * 2.0**40, -edges]),
        "zeros": zeros,
        "bad": bad,
        "spread": spread,
    }


def make(out: Path) -> None:
    golden = Golden(out, "fp8")
    every = torch.arange(256, dtype=torch.uint8)
    golden.array("values", every.view(torch.float8_e4m3fn).float())
    shapes = {}
    for name, x in inputs().items():
        shapes[name] = list(x.shape)
        codes, scale = quantize(x)
        golden.array(f"{name}.input", x)
        golden.array(f"{name}.q", codes.reshape(-1))
        golden.array(f"{name}.scale", scale)
        golden.array(f"{name}.restored", codes.view(torch.float8_e4m3fn).float() * scale[:, None])
    golden.value(shapes=shapes)
    golden.save()
