"""Golden values of classification: scikit-learn's counts, rates and averages on drawn answers."""

import warnings
from importlib.metadata import version
from pathlib import Path

import numpy as np
from sklearn.metrics import accuracy_score, confusion_matrix, precision_recall_fscore_support

from common import Golden, versions

OTHER = -1


def drawn(seed: int, rows: int, labels: int, right: float, other: float) -> tuple[list[int], list[int]]:
    """Labels of unequal share; predictions that are right with some probability, or no label at all."""
    draw = np.random.RandomState(seed)
    share = np.arange(1, labels + 1, dtype=float)
    truth = draw.choice(labels, rows, p=share / share.sum())
    guess = draw.randint(0, labels, rows)
    predicted = np.where(draw.rand(rows) < right, truth, guess)
    predicted = np.where(draw.rand(rows) < other, OTHER, predicted)
    return truth.tolist(), predicted.tolist()


CASES = {
    "binary": (2, *drawn(1, 500, 2, 0.8, 0)),
    "binaryOther": (2, *drawn(2, 300, 2, 0.7, 0.1)),
    "five": (5, *drawn(3, 800, 5, 0.6, 0)),
    "fiveOther": (5, *drawn(4, 400, 5, 0.5, 0.2)),
    "neverClaimed": (3, [0, 1, 2, 2, 1], [0, 0, 0, 0, 0]),
    "neverTrue": (3, [0, 0, 1], [0, 2, 1]),
    "allOther": (2, [0, 1], [OTHER, OTHER]),
    "oneRow": (2, [1], [1]),
}


def make(out: Path) -> None:
    golden = Golden(out, "classification")
    golden.value(versions={**versions(), "scikit-learn": version("scikit-learn")})
    warnings.filterwarnings("ignore")
    for name, (count, truth, predicted) in CASES.items():
        labels = list(range(count))
        rates = precision_recall_fscore_support(truth, predicted, labels=labels, zero_division=0)
        averages = {
            average: list(
                map(float, precision_recall_fscore_support(truth, predicted, labels=labels, average=average, zero_division=0)[:3])
            )
            for average in ("macro", "micro", "weighted")
        }
        golden.value(
            **{
                name: {
                    "labels": count,
                    "truth": truth,
                    "predicted": predicted,
                    "matrix": confusion_matrix(truth, predicted, labels=[*labels, OTHER]).tolist(),
                    "accuracy": float(accuracy_score(truth, predicted)),
                    "perLabel": np.stack(rates[:3], axis=1).tolist(),
                    "support": rates[3].tolist(),
                    **averages,
                }
            }
        )
    golden.save()
