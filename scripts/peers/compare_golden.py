"""Compares two folders of golden files:  python scripts/peers/compare_golden.py COMMITTED FRESH

Floating numbers by relative error max|a-b| / max|b|; integers, texts and structure exactly. Prints one line a
file and ends with "N passed, N failed".
"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

LIMIT = 1e-4
# Twenty or thirty optimizer steps carry the rounding of another processor or release along.
TRAINING_LIMIT = 1e-3
# What may differ: the versions that made the file.
IGNORED = {"versions", "peft_version", "transformers_version"}


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    a, b = a.double(), b.double()
    scale = b.abs().max().item() if b.numel() else 0.0
    worst = (a - b).abs().max().item() if b.numel() else 0.0
    return worst / scale if scale > 0 else worst


def differences(a, b, where: str, limit: float) -> list[str]:
    """Each place where two JSON values differ by more than rounding."""
    if isinstance(a, bool) or isinstance(b, bool) or a is None or b is None or isinstance(a, str):
        return [] if a == b else [f"{where}: {a!r} and {b!r}"]
    if isinstance(a, dict) and isinstance(b, dict):
        keys = (set(a) | set(b)) - IGNORED
        missing = [f"{where}.{key}: only on one side" for key in keys if key not in a or key not in b]
        return missing + [d for k in keys if k in a and k in b for d in differences(a[k], b[k], f"{where}.{k}", limit)]
    if isinstance(a, list) and isinstance(b, list):
        if len(a) != len(b):
            return [f"{where}: {len(a)} and {len(b)} entries"]
        return [d for i, (x, y) in enumerate(zip(a, b)) for d in differences(x, y, f"{where}[{i}]", limit)]
    if isinstance(a, int) and isinstance(b, int):
        return [] if a == b else [f"{where}: {a} and {b}"]
    if isinstance(a, (int, float)) and isinstance(b, (int, float)):
        # A lead over the second choice is a difference of two logits: an absolute error is what it has.
        return [] if abs(a - b) <= limit * max(abs(b), 1.0) else [f"{where}: {a} and {b}"]
    return [f"{where}: {type(a).__name__} and {type(b).__name__}"]


def special(t: torch.Tensor) -> torch.Tensor:
    """1 for NaN, 2 and 3 for the infinities, 0 for every other number."""
    return t.isnan().int() + 2 * t.isposinf().int() + 3 * t.isneginf().int()


def compare(committed: Path, fresh: Path) -> tuple[list[str], str]:
    trained = committed.stem == "trl" or any("lora" in parent.name for parent in list(committed.parents)[:2])
    limit = TRAINING_LIMIT if trained else LIMIT
    if committed.suffix == ".json":
        return differences(json.loads(committed.read_text()), json.loads(fresh.read_text()), "", limit), ""
    if committed.suffix != ".safetensors":
        return ([] if committed.read_bytes() == fresh.read_bytes() else ["other bytes"]), ""
    ours, theirs = load_file(committed), load_file(fresh)
    found = [f"{key}: only on one side" for key in sorted(set(ours) ^ set(theirs))]
    worst = 0.0
    for key in sorted(set(ours) & set(theirs)):
        a, b = ours[key], theirs[key]
        if a.shape != b.shape or a.dtype != b.dtype:
            found.append(f"{key}: {a.dtype} {tuple(a.shape)} and {b.dtype} {tuple(b.shape)}")
        elif not a.is_floating_point():
            if not torch.equal(a, b):
                found.append(f"{key}: {int((a != b).sum())} of {a.numel()} integers differ")
        elif not torch.equal(special(a), special(b)):
            found.append(f"{key}: NaN or infinities at other places")
        else:
            error = relative(a[a.isfinite()], b[b.isfinite()]) if a.isfinite().any() else 0.0
            worst = max(worst, error)
            if not error <= limit:
                found.append(f"{key}: relative error {error:.2e}")
    return found, f"relative error {worst:.1e}"


def main() -> int:
    left, right = Path(sys.argv[1]), Path(sys.argv[2])
    names = sorted({str(p.relative_to(side)) for side in (left, right) for p in side.rglob("*") if p.is_file()})
    passed = failed = 0
    for name in names:
        if not (left / name).exists() or not (right / name).exists():
            # Without the shared folder its golden file is not made anew; that is no failure.
            if name.startswith("stories260K") and (left / name).exists():
                print(f"- {name}: not made anew here")
                continue
            found, note = [f"only in {left if (left / name).exists() else right}"], ""
        else:
            found, note = compare(left / name, right / name)
        print(f"{'not ok' if found else 'ok'} {name} {note}".rstrip())
        for line in found[:5]:
            print(f"    {line}")
        passed, failed = passed + (not found), failed + bool(found)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
