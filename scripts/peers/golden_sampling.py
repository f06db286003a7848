"""The distributions that transformers' logits processors leave of random logits: repetition penalty, temperature, top-k, top-p, min-p."""

from pathlib import Path

import torch
from common import Draw, Golden
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

VOCAB = 61
OPTIONS = [
    {},
    {"temperature": 0.5},
    {"temperature": 1.7},
    {"topK": 1},
    {"topK": 7, "temperature": 0.8},
    {"topK": 60},
    {"topK": 500},
    {"topP": 0.9},
    {"topP": 0.3, "temperature": 1.4},
    {"topP": 0.999},
    {"topP": 0.05},
    {"minP": 0.1},
    {"minP": 0.5, "temperature": 2.0},
    {"minP": 0.001},
    {"topK": 20, "topP": 0.7},
    {"topK": 12, "topP": 0.95, "minP": 0.05},
    {"topP": 0.6, "minP": 0.2, "temperature": 1.3},
    {"repetitionPenalty": 1.3},
    {"repetitionPenalty": 0.7, "temperature": 0.9},
    {"repetitionPenalty": 2.0, "topK": 10, "topP": 0.8, "minP": 0.02, "temperature": 0.7},
]


def processors(o: dict) -> LogitsProcessorList:
    """In the order of transformers' generate()."""
    found = LogitsProcessorList()
    if "repetitionPenalty" in o:
        found.append(RepetitionPenaltyLogitsProcessor(o["repetitionPenalty"]))
    if "temperature" in o:
        found.append(TemperatureLogitsWarper(o["temperature"]))
    if "topK" in o:
        found.append(TopKLogitsWarper(o["topK"]))
    if "topP" in o:
        found.append(TopPLogitsWarper(o["topP"]))
    if "minP" in o:
        found.append(MinPLogitsWarper(o["minP"]))
    return found


def make(out: Path) -> None:
    golden = Golden(out, "sampling")
    draw = Draw(23)
    cases = []
    for i, options in enumerate(OPTIONS):
        # Multiples of 1/64 are the same numbers in the file; every third case has equal logits among them, but for top-p: which of equal tokens it cuts
        # follows from torch's order of sorting.
        logits = torch.round(draw.normal(VOCAB, std=2.5) * 64) / 64
        if "topP" in options:
            logits += torch.arange(VOCAB) / 4096
        if i % 3 == 2 and "topP" not in options:
            logits = torch.round(logits * 2) / 2
        seen = draw.ids(9, VOCAB)
        scores = processors(options)(torch.tensor([seen]), logits[None].clone())
        probabilities = torch.softmax(scores.double(), -1)[0]
        cases.append({"options": options, "seen": seen, "logits": logits.tolist(), "probabilities": [round(p, 10) for p in probabilities.tolist()]})
    golden.value(cases=cases)
    golden.save()
