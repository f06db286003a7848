"""Thirty steps each by TRL's trainers with PEFT: sft, orpo, dpo with three losses, label smoothing, every schedule."""

import random
import tempfile
from pathlib import Path

import torch
import transformers
from datasets import Dataset, disable_progress_bars
from peft import PeftModel
from tokenizers import Tokenizer, models, pre_tokenizers
from torch.utils.data import SequentialSampler
from transformers import PreTrainedTokenizerFast, PrinterCallback
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer
from trl.experimental.orpo import ORPOConfig, ORPOTrainer

from common import Draw, Golden
from golden_lora import BASE, with_lora
from golden_llama import VOCAB

STEPS = 30
EOS = 2
COMMON = {
    "lr": 1e-2,
    "schedule": "constant",
    "warmup": 0,
    "batch": 2,
    "accumulate": 1,
    "weightDecay": 0.0,
    "maxGradNorm": 1.0,
}
CASES = {
    "sft": {"method": "sft"},
    "sft-smoothing": {"method": "sft", "labelSmoothing": 0.1},
    "sft-linear": {"method": "sft", "schedule": "linear", "warmup": 4, "weightDecay": 0.1},
    "sft-cosine": {"method": "sft", "schedule": "cosine", "warmup": 0.15},
    "sft-constant": {"method": "sft", "schedule": "constant", "warmup": 0.1, "maxGradNorm": 0.3},
    "sft-accumulate": {"method": "sft", "batch": 1, "accumulate": 4},
    "orpo": {"method": "orpo", "beta": 0.1},
    "orpo-half": {"method": "orpo", "beta": 0.5, "schedule": "cosine", "warmup": 3},
    "dpo-sigmoid": {"method": "dpo", "loss": "sigmoid", "beta": 0.1},
    "dpo-hinge": {"method": "dpo", "loss": "hinge", "beta": 0.1},
    "dpo-ipo": {"method": "dpo", "loss": "ipo", "beta": 0.1},
    "dpo-accumulate": {"method": "dpo", "loss": "sigmoid", "beta": 0.1, "batch": 2, "accumulate": 2},
    "dpo-linear": {"method": "dpo", "loss": "sigmoid", "beta": 0.3, "schedule": "linear", "warmup": 5},
}
SCHEDULES = {"constant": "constant_with_warmup", "linear": "linear", "cosine": "cosine"}


def word(index: int) -> str:
    # No word is part of another: special tokens are found inside words, too.
    return f"<{index}>"


def tokenizer() -> PreTrainedTokenizerFast:
    """A word for each id, so that the ids of a text are known."""
    vocab = {word(i): i for i in range(VOCAB)}
    backend = Tokenizer(models.WordLevel(vocab, unk_token=word(0)))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = {"eos_token": word(EOS), "pad_token": word(0), "unk_token": word(0)}
    return PreTrainedTokenizerFast(tokenizer_object=backend, **special)


def pairs(draw: Draw) -> list[dict]:
    """Prompts with two completions of unequal length; the ids end with the end of sequence, which trainers add to texts."""
    rows = []
    lengths = [(5, 7, 4), (3, 6, 9), (8, 4, 4), (2, 9, 3), (6, 5, 8), (4, 3, 6), (7, 8, 5), (3, 4, 7)]
    for prompt, chosen, rejected in lengths:
        row = {"prompt": draw.ids(prompt, VOCAB)}
        for name, length in (("chosen", chosen), ("rejected", rejected)):
            row[name] = draw.ids(length, VOCAB) + [EOS]
        rows.append(row)
    return rows


ROWS = pairs(Draw(41))


def text(ids: list[int]) -> str:
    return " ".join(word(i) for i in ids)


def dataset(method: str) -> Dataset:
    rows = []
    for row in ROWS:
        # Without the end of sequence: the trainers put it there. A leading blank keeps words apart where texts are put together.
        prompt = text(row["prompt"])
        chosen, rejected = (" " + text(row[name][:-1]) + " " for name in ("chosen", "rejected"))
        if method == "sft":
            rows.append({"prompt": prompt, "completion": chosen})
        else:
            rows.append({"prompt": prompt, "chosen": chosen, "rejected": rejected})
    return Dataset.from_list(rows)


def in_order(base: type) -> type:
    """The trainer with the rows in their order."""

    class InOrder(base):
        def _get_train_sampler(self, *args, **kwargs):
            return SequentialSampler(self.train_dataset)

    return InOrder


def configured(case: dict, folder: str):
    common = {
        "output_dir": folder,
        "max_steps": STEPS,
        "per_device_train_batch_size": case["batch"],
        "gradient_accumulation_steps": case["accumulate"],
        "learning_rate": case["lr"],
        "lr_scheduler_type": SCHEDULES[case["schedule"]],
        "warmup_steps": case["warmup"],
        "weight_decay": case["weightDecay"],
        "max_grad_norm": case["maxGradNorm"],
        "adam_epsilon": 1e-8,
        "logging_steps": 1,
        "logging_first_step": True,
        "save_strategy": "no",
        "report_to": "none",
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "optim": "adamw_torch",
        "max_length": None if case["method"] != "orpo" else 128,
        "disable_tqdm": True,
        "label_smoothing_factor": case.get("labelSmoothing", 0.0),
    }
    if case["method"] == "sft":
        return SFTTrainer, SFTConfig(**common, loss_type="nll")
    if case["method"] == "orpo":
        return ORPOTrainer, ORPOConfig(**common, beta=case["beta"])
    return DPOTrainer, DPOConfig(**common, beta=case["beta"], loss_type=[case["loss"]])


def history(name: str) -> tuple[dict, list[dict]]:
    """The options of a case and what its trainer logged at every step."""
    case = COMMON | CASES[name]
    model: PeftModel = with_lora()
    torch.manual_seed(0)
    random.seed(0)
    with tempfile.TemporaryDirectory() as folder:
        trainer, config = configured(case, folder)
        rows = dataset(case["method"])
        run = in_order(trainer)(model=model, args=config, train_dataset=rows, processing_class=tokenizer())
        run.remove_callback(PrinterCallback)
        run.train()
    return case, [log for log in run.state.log_history if "loss" in log]


def short(value: float) -> float:
    """Seven digits, as many as float32 has."""
    return float(f"{value:.7g}")


def make(out: Path) -> None:
    transformers.utils.logging.set_verbosity_error()
    disable_progress_bars()
    golden = Golden(out, "trl")
    golden.value(base=BASE, rows=ROWS, steps=STEPS)
    for name in CASES:
        case, logs = history(name)
        assert len(logs) == STEPS, f"{name}: {len(logs)} steps were logged"
        keys = ["loss", "grad_norm", "learning_rate"] + sorted(
            key for key in logs[0] if key.startswith(("rewards/", "logps/", "nll", "log_odds"))
        )
        figures = {key: [short(log[key]) for log in logs] for key in keys if key != "learning_rate"}
        rates = [log["learning_rate"] for log in logs]
        golden.value(**{name: {"options": case, "rates": rates, "logs": figures}})
    golden.save()
