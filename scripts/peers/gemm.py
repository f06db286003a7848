"""The peer of scripts/bench/gemm.mjs: one matrix product of torch, driven line by line.

One JSON request a line on stdin, one JSON reply a line on stdout, so that rounds with another process can interleave:
  {"m", "n", "k", "form": "NT" | "NN" | "TN", "dtype", "seconds": how long to repeat it} → {"seconds": best time of one product}
Operands and result have the dtype; the result's memory is there before, as it is for the other side. torch's float32 products are its BLAS's, which on
some processors is far slower than oneDNN: there the better of both counts, oneDNN with a weight that it has packed before. With one thread the time is
the processor's own, which other programs hardly disturb.
"""

import json
import sys
import time
from collections.abc import Callable

import torch


def main() -> None:
    torch.set_num_threads(int(sys.argv[1]))
    torch.manual_seed(0)
    reply({"ready": True, "name": f"torch {torch.__version__}"})
    for line in sys.stdin:
        case = json.loads(line)
        with torch.no_grad():
            reply({"seconds": best(case)})


def best(case: dict) -> float:
    """The best time of one product, of all ways that there are to it."""
    m, n, k, form = case["m"], case["n"], case["k"], case["form"]
    dtype = getattr(torch, case["dtype"])
    a = (torch.rand(k, m).to(dtype).t() if form == "TN" else torch.rand(m, k).to(dtype))
    b = (torch.rand(n, k).to(dtype).t() if form == "NT" else torch.rand(k, n).to(dtype))
    y = torch.empty(m, n, dtype=dtype)
    ways = [lambda: torch.mm(a, b, out=y)]
    if dtype == torch.float32 and form != "TN":
        packed = torch.ops.mkldnn._reorder_linear_weight(b.t().contiguous(), m)
        ways.append(lambda: torch.ops.mkldnn._linear_pointwise(a, packed, None, "none", [], ""))
    return min(repeated(way, case["seconds"] / len(ways)) for way in ways)


def repeated(go: Callable[[], object], seconds: float) -> float:
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    go()
    begun = clock()
    go()
    least = max(clock() - begun, 1e-6)
    inner = max(1, min(200, round(0.002 / least)))
    end = time.perf_counter() + seconds
    while True:
        begun = clock()
        for _ in range(inner):
            go()
        least = min(least, (clock() - begun) / inner)
        if time.perf_counter() >= end:
            return least


def reply(message: dict) -> None:
    print(json.dumps(message), flush=True)


main()
