"""Logits, greedy tokens, loss and gradients of the small Llamas, by transformers."""

import tempfile
from pathlib import Path

import torch
from transformers import LlamaForCausalLM

import tiny_llamas
from common import Draw, Golden

VOCAB = tiny_llamas.COMMON["vocab_size"]


def rows_with_labels(draw: Draw, lengths: list[int]) -> list[dict]:
    """Rows of ids with labels as transformers takes them (same length, not shifted): the prompt part is -100."""
    rows = []
    for length in lengths:
        ids = draw.ids(length, VOCAB)
        prompt = length // 3
        labels = [-100] * prompt + ids[prompt:]
        if length > 8:
            labels[length - 3] = -100  # a hole in the middle of the trained part
        rows.append({"ids": ids, "labels": labels})
    return rows


def collate(rows: list[dict], left: bool = False) -> dict[str, torch.Tensor]:
    """Pads rows to the longest one, by a mask and not by an id; positions count real tokens."""
    width = max(len(row["ids"]) for row in rows)

    def pad(values: list[int], fill: int) -> list[int]:
        gap = [fill] * (width - len(values))
        return gap + values if left else values + gap

    mask = torch.tensor([pad([1] * len(row["ids"]), 0) for row in rows])
    return {
        "input_ids": torch.tensor([pad(row["ids"], 0) for row in rows]),
        "labels": torch.tensor([pad(row["labels"], -100) for row in rows]),
        "attention_mask": mask,
        "position_ids": (mask.cumsum(-1) - 1).clamp(min=0),
    }


def greedy(model, prompt: list[int], count: int) -> tuple[list[int], float]:
    """The most likely next id, `count` times, and the smallest lead that it had over the second one."""
    ids, lead = list(prompt), float("inf")
    for _ in range(count):
        with torch.no_grad():
            top = model(input_ids=torch.tensor([ids])).logits[0, -1].topk(2)
        lead = min(lead, float(top.values[0] - top.values[1]))
        ids.append(int(top.indices[0]))
    return ids, lead


def make(out: Path) -> None:
    for name in tiny_llamas.CONFIGS:
        tiny_llamas.save(name, out / name)
        with tempfile.TemporaryDirectory() as temporary:
            # What is checked is the folder as it is read back, not the object in memory.
            tiny_llamas.save(name, Path(temporary) / name)
            model = LlamaForCausalLM.from_pretrained(Path(temporary) / name, attn_implementation="eager").eval()
        golden = Golden(out / name, "golden")
        draw = Draw(17)
        sequences = [draw.ids(length, VOCAB) for length in (1, 7, 40)]
        golden.value(sequences=sequences)
        for index, ids in enumerate(sequences):
            with torch.no_grad():
                golden.array(f"logits.{index}", model(input_ids=torch.tensor([ids])).logits[0])

        prompt = [1, *draw.ids(4, VOCAB)]
        ids, lead = greedy(model, prompt, 32)
        assert lead > 1e-3, f"{name}: two ids are nearly as likely ({lead}); choose another prompt"
        golden.value(greedy={"prompt": prompt, "ids": ids, "lead": lead})

        rows = rows_with_labels(draw, [12, 5, 9])
        model.zero_grad()
        loss = model(**collate(rows)).loss
        loss.backward()
        with torch.no_grad():
            left = model(**collate(rows, left=True)).loss
        assert abs(loss.item() - left.item()) < 1e-5, f"{name}: the padding side changes the loss"
        golden.value(rows=rows, loss=loss.item())
        for key, parameter in model.named_parameters():
            golden.array(f"gradient.{key}", parameter.grad)
        golden.save()
