/** Precision, recall and F1 of one label, or averaged over the labels; 0 where a rate has nothing to count. */
export interface Rates {
  precision: number;
  recall: number;
  f1: number;
}

/** Rates of one label, and the rows that have it. */
export interface LabelRates extends Rates {
  label: string;
  support: number;
}

/** Counts and rates of a classification; with two labels those of the positive one, otherwise means over the labels. */
export interface ClassificationResult extends Rates {
  /** The labels, and a last name for answers that are none of them where there were such. */
  labels: readonly string[];
  /** matrix[true][predicted], counts. */
  matrix: readonly (readonly number[])[];
  /** Of the positive label (two labels only). */
  tn?: number;
  fp?: number;
  fn?: number;
  tp?: number;
  accuracy: number;
  perLabel: readonly LabelRates[];
  /** Means over the labels; over all rows at once; means weighted by the rows of each label. As scikit-learn names them. */
  averages: { macro: Rates; micro: Rates; weighted: Rates };
}

/**
 * Rates from numbers of true and predicted labels, as scikit-learn's precision_recall_fscore_support gives them for these labels.
 *
 * @param predicted -1 for an answer that is no label: it counts against recall and accuracy, and for no label.
 * @param other What such answers are called in the matrix.
 */
export function classificationResult(
  labels: readonly string[],
  truth: readonly number[],
  predicted: readonly number[],
  positive: number = labels.length - 1,
  other = "(other)",
): ClassificationResult {
  const names = predicted.includes(-1) ? [...labels, other] : labels;
  const matrix = names.map(() => names.map(() => 0));
  truth.forEach((t, i) => {
    matrix[t]![predicted[i]! < 0 ? labels.length : predicted[i]!]! += 1;
  });
  const counts = labels.map((_, k) => ({
    tp: matrix[k]![k]!,
    claimed: matrix.reduce((n, row) => n + row[k]!, 0),
    actual: matrix[k]!.reduce((a, b) => a + b, 0),
  }));
  const total = counts.reduce((a, b) => ({
    tp: a.tp + b.tp,
    claimed: a.claimed + b.claimed,
    actual: a.actual + b.actual,
  }));
  const perLabel = counts.map((c, k) => ({ label: labels[k]!, ...rates(c), support: c.actual }));
  const macro = mean(perLabel, () => 1);
  const shared = {
    labels: names,
    matrix,
    accuracy: truth.length === 0 ? 0 : total.tp / truth.length,
    perLabel,
    averages: { macro, micro: rates(total), weighted: mean(perLabel, (r) => r.support) },
  };
  if (labels.length !== 2) return { ...shared, ...macro };
  const negative = 1 - positive;
  const { precision, recall, f1 } = perLabel[positive]!;
  // An answer that is no label is no claim of the positive one.
  const missed = (k: number): number => matrix[k]![labels.length] ?? 0;
  return {
    ...shared,
    tn: matrix[negative]![negative]! + missed(negative),
    fp: matrix[negative]![positive]!,
    fn: matrix[positive]![negative]! + missed(positive),
    tp: matrix[positive]![positive]!,
    precision,
    recall,
    f1,
  };
}

function rates({ tp, claimed, actual }: { tp: number; claimed: number; actual: number }): Rates {
  const share = (part: number, whole: number): number => (whole === 0 ? 0 : part / whole);
  return { precision: share(tp, claimed), recall: share(tp, actual), f1: share(2 * tp, claimed + actual) };
}

function mean(all: readonly LabelRates[], weight: (r: LabelRates) => number): Rates {
  const sum = all.reduce((n, r) => n + weight(r), 0);
  const of = (pick: (r: Rates) => number): number =>
    sum === 0 ? 0 : all.reduce((n, r) => n + weight(r) * pick(r), 0) / sum;
  return { precision: of((r) => r.precision), recall: of((r) => r.recall), f1: of((r) => r.f1) };
}
