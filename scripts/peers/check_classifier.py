"""The Python half: a head for classes that tunebook trained gives the same logits in transformers, and its adapters in PEFT.

  python scripts/peers/check_classifier.py BASE FOLDER    FOLDER holds cases.json and one folder a case
"""

import json
import os
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from peft import AutoPeftModelForSequenceClassification, PeftModel
from transformers import AutoModelForSequenceClassification
from transformers.utils import logging

from compare_golden import relative

LIMIT = 1e-4


def whole(folder: Path, labels: list[str]):
    model, info = AutoModelForSequenceClassification.from_pretrained(folder, output_loading_info=True)
    left = {key: value for key, value in info.items() if value}
    assert not left, f"transformers reports {left}"
    assert list(model.config.id2label.values()) == labels, model.config.id2label
    return model


def adapter(base: Path, folder: Path, labels: list[str]):
    return PeftModel.from_pretrained(AutoModelForSequenceClassification.from_pretrained(base, num_labels=len(labels)), folder)


def auto(base: Path, folder: Path, labels: list[str]):
    """By the base model that the adapter's config names."""
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(base), config["base_model_name_or_path"]
    assert config["task_type"] == "SEQ_CLS"
    return AutoPeftModelForSequenceClassification.from_pretrained(folder, num_labels=len(labels))


def padded(sequences: list[list[int]]) -> dict:
    longest = max(map(len, sequences))
    rows = [row + [0] * (longest - len(row)) for row in sequences]
    mask = [[1] * len(row) + [0] * (longest - len(row)) for row in sequences]
    return {"input_ids": torch.tensor(rows), "attention_mask": torch.tensor(mask)}


def main() -> int:
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    base, folder = Path(sys.argv[1]), Path(sys.argv[2])
    content = json.loads((folder / "cases.json").read_text())
    labels, sequences = content["labels"], content["sequences"]
    passed = failed = 0
    for case in content["cases"]:
        at = folder / case["name"]
        if case["lora"]:
            ways = {"PEFT loads": lambda: adapter(base, at, labels), "PEFT's auto class loads": lambda: auto(base, at, labels)}
        else:
            ways = {"transformers loads": lambda: whole(at, labels)}
        for what, load in ways.items():
            try:
                model = load().eval()
                model.config.pad_token_id = 0
                with torch.no_grad():
                    theirs = model(**padded(sequences)).logits
                error = relative(torch.tensor(case["logits"]), theirs)
                good, note = error <= LIMIT, f"relative error of the logits {error:.1e}"
            except Exception as problem:  # one case's failure is reported beside the others
                good, note = False, f"{type(problem).__name__}: {problem}"
            print(f"{'ok' if good else 'not ok'} {what} {case['name']}: {note}")
            passed, failed = passed + good, failed + (not good)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


sys.exit(main())
