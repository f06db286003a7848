import { defineDisplay } from "../display/host.js";
import { type Table, table } from "../display/table.js";

/** What `Model.merge` did, with the proof that it changed nothing but the form. */
export class MergeReport {
  /** What the adapter was merged into: the base model, and in which form. */
  readonly base: string;
  readonly adapter: string;
  /** Names of the layers that changed. */
  readonly layers: readonly string[];
  /** max|after - before| / max|before| of the logits of a probe. */
  readonly difference: number;

  constructor(base: string, adapter: string, layers: readonly string[], difference: number) {
    this.base = base;
    this.adapter = adapter;
    this.layers = layers;
    this.difference = difference;
  }

  toTable(): Table {
    const rows = [
      ["base", this.base],
      ["adapter", this.adapter],
      ["merged layers", this.layers.length],
      ["relative change of the logits", this.difference.toExponential(1)],
    ];
    return table(["merge", "value"], rows, { maxTextCell: 120 });
  }
}

defineDisplay(
  MergeReport,
  (report) => ({ "text/html": report.toTable().toHtml().toString(), "text/plain": report.toTable().toText() }),
  (report) => report.toTable().toText(),
);
