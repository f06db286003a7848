"""Loading a folder into NF4 with transformers + bitsandbytes: the peer of the part "load" of `npm run bench:gpu`. Prints one JSON line."""

import argparse
import gc
import json
import resource
import time

import torch
import transformers
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

p = argparse.ArgumentParser()
p.add_argument("folder")
p.add_argument("--repeats", type=int, default=2)
a = p.parse_args()

quantization = BitsAndBytesConfig(
    load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=torch.bfloat16
)
torch.zeros(1, device="cuda")  # the context is made before the clock starts
seconds, peak = [], 0.0
for _ in range(a.repeats):
    torch.cuda.reset_peak_memory_stats()
    begun = time.perf_counter()
    model = AutoModelForCausalLM.from_pretrained(
        a.folder, dtype=torch.bfloat16, quantization_config=quantization, device_map={"": 0}
    )
    torch.cuda.synchronize()
    seconds.append(time.perf_counter() - begun)
    peak = max(peak, torch.cuda.max_memory_allocated() / 2**30)
    del model
    gc.collect()
    torch.cuda.empty_cache()
print(
    json.dumps(
        {
            "peer": f"transformers {transformers.__version__} + bitsandbytes",
            "seconds": seconds,
            "peak_gib": peak,
            "host_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        }
    )
)
