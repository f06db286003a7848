"""Logits of the stories260K checkpoint (real weights, read from the shared folder, never copied) by transformers."""

import json
from pathlib import Path

import torch
from transformers import LlamaForCausalLM

from common import Golden


def make(out: Path, shared: Path) -> bool:
    folder = shared / "models" / "stories260K"
    if not folder.exists():
        print(f"stories260K: skipped, {folder} is absent")
        return False
    model = LlamaForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
    reference = json.loads((folder / "golden_greedy.json").read_text())["ids"]
    golden = Golden(out, "stories260K")
    prompts = [reference[:1], reference[:25], reference[:150]]
    positions = [[0], [0, 12, 24], [75, 149]]
    golden.value(prompts=prompts, positions=positions)
    for index, (ids, rows) in enumerate(zip(prompts, positions)):
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids])).logits[0]
        golden.array(f"logits.{index}", logits[rows])
        # Every id of the reference text is the model's first choice: two implementations agree before we copy one.
        assert logits.argmax(-1).tolist() == reference[1 : len(ids) + 1]
    with torch.no_grad():
        ids = torch.tensor([reference[:150]])
        golden.value(loss=model(input_ids=ids, labels=ids).loss.item())
    golden.save()
    return True
