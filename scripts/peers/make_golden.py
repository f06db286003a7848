"""Makes every golden file:  python scripts/peers/make_golden.py OUT [--shared DIR] [--only PART…]

The committed ones stand in test/fixtures/golden; `npm run test:peers` makes them anew and compares.
"""

import argparse
import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
import transformers

import golden_adapters
import golden_bnb
import golden_bnb_qwen2_vl
import golden_classification
import golden_fp8
import golden_gguf
import golden_images
import golden_llama
import golden_lora
import golden_models
import golden_nf4
import golden_ops
import golden_optimizer
import golden_quantized
import golden_qwen2_vl
import golden_rouge
import golden_sampling
import golden_sequence
import golden_stories
import golden_trl

REPOSITORY = Path(__file__).resolve().parents[2]
PARTS = {
    "llama": lambda out, shared: golden_llama.make(out),
    "models": lambda out, shared: golden_models.make(out),
    "stories": golden_stories.make,
    "nf4": lambda out, shared: golden_nf4.make(out),
    "lora": lambda out, shared: golden_lora.make(out),
    "adapters": lambda out, shared: golden_adapters.make(out),
    "optimizer": lambda out, shared: golden_optimizer.make(out),
    "quantized": lambda out, shared: golden_quantized.make(out),
    "bnb": lambda out, shared: golden_bnb.make(out),
    "bnb-qwen2-vl": lambda out, shared: golden_bnb_qwen2_vl.make(out),
    "fp8": lambda out, shared: golden_fp8.make(out),
    "gguf": lambda out, shared: golden_gguf.make(out),
    "ops": lambda out, shared: golden_ops.make(out),
    "sampling": lambda out, shared: golden_sampling.make(out),
    "rouge": lambda out, shared: golden_rouge.make(out),
    "classification": lambda out, shared: golden_classification.make(out),
    "images": lambda out, shared: golden_images.make(out),
    "qwen2-vl": lambda out, shared: golden_qwen2_vl.make(out),
    "sequence": lambda out, shared: golden_sequence.make(out),
    "trl": lambda out, shared: golden_trl.make(out),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    default = os.environ.get("TUNEBOOK_SHARED", REPOSITORY.parent / "shared")
    parser.add_argument("--shared", type=Path, default=Path(default))
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    options = parser.parse_args()
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    torch.set_num_threads(1)  # sums in one order
    for name in options.only:
        PARTS[name](options.out, options.shared)
        print(f"made {name}", flush=True)
    for path in options.out.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)


main()
