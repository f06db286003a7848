"""The Python half: adapters saved by tunebook load in PEFT, merged and exported models in transformers, with the same logits.

  python scripts/peers/check_adapters.py BASE FOLDER      FOLDER holds cases.json and one adapter folder a case
"""

import json
import os
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from peft import PeftModel
from transformers import LlamaForCausalLM
from transformers.utils import logging

import nf4
from compare_golden import relative

LIMIT = 1e-4


def compared(model: torch.nn.Module, case: dict) -> tuple[float, torch.Tensor]:
    """The worst relative error of the case's logits, and the last of the model's."""
    worst = 0.0
    for ids, logits in zip(case["sequences"], case["logits"]):
        with torch.no_grad():
            theirs = model(input_ids=torch.tensor([ids])).logits[0]
        worst = max(worst, relative(torch.tensor(logits).reshape(theirs.shape), theirs))
    return worst, theirs


def check_merged(base: Path, folder: Path, case: dict) -> float:
    merged = folder / f"{case['name']}-merged"
    model, info = LlamaForCausalLM.from_pretrained(merged, attn_implementation="eager", output_loading_info=True)
    left = {key: value for key, value in info.items() if value}
    assert not left, f"transformers reports {left}"
    assert model.dtype == torch.float32, model.dtype
    return compared(model.eval(), case)[0]


def check_adapter(base: Path, folder: Path, case: dict) -> float:
    model = LlamaForCausalLM.from_pretrained(base, attn_implementation="eager").eval()
    if case["quantize"]:
        nf4.quantize_linears(model, double=case["quantize"].get("doubleQuant", False))
    plain = model(input_ids=torch.tensor([case["sequences"][-1]])).logits[0].detach().clone()
    model = PeftModel.from_pretrained(model, folder / case["name"]).eval()
    worst, theirs = compared(model, case)
    assert relative(theirs, plain) > 1e-2, "the adapter changes nothing, so agreement would say nothing"
    return worst


def main() -> int:
    logging.disable_progress_bar()
    base, folder = Path(sys.argv[1]), Path(sys.argv[2])
    passed = failed = 0
    cases = json.loads((folder / "cases.json").read_text())
    parts = [("PEFT loads", check_adapter), ("transformers loads, merged,", check_merged)]
    for case, (what, check) in [(case, part) for case in cases for part in parts[: 1 + case["merge"]]]:
        try:
            error = check(base, folder, case)
            good, note = error <= LIMIT, f"relative error of the logits {error:.1e}"
        except Exception as problem:  # one case's failure is reported beside the others
            good, note = False, f"{type(problem).__name__}: {problem}"
        print(f"{'ok' if good else 'not ok'} {what} {case['name']}: {note}")
        passed, failed = passed + good, failed + (not good)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


sys.exit(main())
