/** How a preview of training rows looks: coloured tokens in notebooks, brackets on terminals. */
import { formatPercent, oneLine } from "../display/format.js";
import { defineDisplay } from "../display/host.js";
import { type Child, el, type HtmlNode, type Style } from "../display/html.js";
import { type Table, table, thinLine } from "../display/table.js";

/** One token. */
export interface Piece {
  id: number;
  text: string;
  kind: "trained" | "context" | "cut";
  /** BOS, EOS, roles …: no text of its own. */
  special: boolean;
}

/** One row of the data set. */
export interface PreviewExample {
  /** Its number in the data set. */
  index: number;
  /** Which answer of a pair. */
  answer?: "chosen" | "rejected";
  pieces: readonly Piece[];
  /** Tokens that are learnt. */
  trained: number;
  /** Tokens that go through the model. */
  total: number;
  /** Tokens beyond maxLength. */
  cut: number;
  /** What a run does with it: takes it whole, cuts it, leaves it out as too long or as never trained, or ends with an error. */
  state: "kept" | "cut" | "dropped" | "untrained" | "refused";
}

/** A row as it goes through the model: one example, or several with packing. */
export interface PreviewRow {
  examples: readonly PreviewExample[];
  /** Tokens that a packed row may hold. */
  capacity: number | undefined;
}

const NOTES: Record<PreviewExample["state"], string> = {
  kept: "",
  cut: "",
  dropped: "left out: longer than maxLength",
  untrained: "left out: no token of it is trained",
  refused: 'an error: longer than maxLength, and overlong is "error"',
};

// Colours that stand out on light and on dark pages and for all eyes; what is trained differs by its underline too.
const looks: Record<Piece["kind"], Style> = {
  trained: { background: "rgba(0,158,115,0.28)", borderBottom: "2px solid rgb(0,158,115)" },
  context: { background: "rgba(128,128,128,0.14)" },
  cut: { background: "rgba(213,94,0,0.18)", color: "rgb(213,94,0)", opacity: "0.75" },
};
const frame: Style = {
  border: "1px solid rgba(0,114,178,0.8)",
  borderRadius: "3px",
  padding: "0 2px",
  fontSize: "85%",
};

/** Rows of training data, token by token. Made by `data.preview(model)`. */
export class Preview {
  readonly rows: readonly PreviewRow[];
  readonly maxLength: number;
  readonly #maxTokens: number;

  /** Use `data.preview`. */
  constructor(rows: readonly PreviewRow[], maxLength: number, maxTokens: number) {
    this.rows = rows;
    this.maxLength = maxLength;
    this.#maxTokens = maxTokens;
  }

  /** Counts of each row of the data set. */
  toTable(): Table {
    const examples = this.rows.flatMap((row) => row.examples);
    const cells = examples.map((e) => [
      nameOf(e),
      e.trained,
      e.total,
      formatPercent(e.trained / e.total),
      e.cut,
      NOTES[e.state],
    ]);
    return table(["row", "trained", "tokens", "share", "cut", "note"], cells, { align: { share: "right" } });
  }

  /** Tokens by colour, with the counts of each row beside them. */
  toHtml(): HtmlNode {
    const side: Style = {
      padding: "4px 10px",
      verticalAlign: "top",
      whiteSpace: "nowrap",
      textAlign: "left",
      borderBottom: thinLine,
    };
    const wide: Style = {
      padding: "4px 10px",
      textAlign: "left",
      whiteSpace: "pre-wrap",
      lineHeight: "1.7",
      borderBottom: thinLine,
    };
    const head = (text: string): HtmlNode => el("th", { style: { ...side, fontWeight: "600" }, scope: "col" }, text);
    const body = this.rows.map((row) =>
      el("tr", {}, el("td", { style: side }, ...this.#counts(row)), el("td", { style: wide }, ...this.#tokens(row))),
    );
    const legend = (kind: Piece["kind"], text: string): Child[] => [
      el("span", { style: { ...looks[kind], padding: "0 4px" } }, text),
      " ",
    ];
    return el(
      "div",
      { style: { overflow: "auto", maxWidth: "100%" } },
      el(
        "div",
        { style: { margin: "0 0 6px 0" } },
        ...legend("trained", "trained"),
        ...legend("context", "read, not trained"),
        ...legend("cut", `cut (over ${this.maxLength} tokens) or left out`),
        el("span", { style: frame }, "special token"),
      ),
      el(
        "table",
        { style: { borderCollapse: "collapse", border: "none", color: "inherit", fontVariantNumeric: "tabular-nums" } },
        el("thead", {}, el("tr", {}, head("row"), head("tokens"))),
        el("tbody", {}, ...body),
      ),
    );
  }

  /** The rows as text: ⟦trained⟧, ‹special›, ✂cut✂. */
  toText(): string {
    const parts = this.rows.map((row) => {
      const text = row.examples.map((e) => this.#text(e, this.#share(row))).join(" ║ ");
      return `${counts(row).join(", ")}\n  ${text}`;
    });
    return [
      `⟦trained⟧ · read, not trained · ‹special› · ✂cut (over ${this.maxLength} tokens) or left out✂`,
      ...parts,
    ].join("\n");
  }

  #counts(row: PreviewRow): Child[] {
    return counts(row).flatMap((text, i): Child[] => [i === 0 ? el("b", {}, text) : el("small", {}, text), el("br")]);
  }

  #share(row: PreviewRow): number {
    return Math.max(2, Math.floor(this.#maxTokens / row.examples.length));
  }

  #tokens(row: PreviewRow): Child[] {
    const separator = el("b", { style: { padding: "0 6px", color: "rgb(0,114,178)" } }, "║");
    return row.examples.flatMap((e, i): Child[] => [
      ...(i === 0 ? [] : [separator]),
      ...shownRuns(e, this.#share(row)).map((run) => {
        if (typeof run === "number") return el("i", { style: { opacity: "0.6" } }, ` … ${run} more tokens … `);
        return el("span", { style: looks[kindOf(e, run[0]!)] }, ...run.map(tokenNode));
      }),
    ]);
  }

  #text(example: PreviewExample, most: number): string {
    let out = "";
    for (const run of shownRuns(example, most)) {
      if (typeof run === "number") {
        out += ` … ${run} more tokens … `;
        continue;
      }
      const text = run.map((piece) => (piece.special ? `‹${oneLine(piece.text)}›` : oneLine(piece.text))).join("");
      const kind = kindOf(example, run[0]!);
      out += kind === "trained" ? `⟦${text}⟧` : kind === "cut" ? `✂${text}✂` : text;
    }
    return out;
  }
}

// Of a row that is left out nothing is trained.
function kindOf(example: PreviewExample, piece: Piece): Piece["kind"] {
  return example.state === "kept" || example.state === "cut" ? piece.kind : "cut";
}

const nameOf = ({ index, answer }: PreviewExample): number | string =>
  answer === undefined ? index : `${index} ${answer}`;

function counts(row: PreviewRow): string[] {
  const sum = (pick: (e: PreviewExample) => number): number => row.examples.reduce((n, e) => n + pick(e), 0);
  const [trained, total, cut] = [sum((e) => e.trained), sum((e) => e.total), sum((e) => e.cut)];
  const numbers = row.examples.map(nameOf).join(" + ");
  const notes = row.examples.map((e) => NOTES[e.state]).filter((note) => note !== "");
  return [
    `row ${numbers}`,
    `${trained} of ${total} tokens trained`,
    ...(cut > 0 ? [`${cut} cut`] : []),
    ...(row.capacity === undefined
      ? []
      : [`packed into ${row.capacity}, ${formatPercent(total / row.capacity, 0)} full`]),
    ...notes,
  ];
}

/** Runs of tokens of one kind; in the middle, where something is left out, the number of tokens. */
function shownRuns(example: PreviewExample, most: number): (Piece[] | number)[] {
  const { pieces } = example;
  const skipped = Math.max(0, pieces.length - most);
  const begin = Math.ceil(most / 2);
  const runs: (Piece[] | number)[] = [];
  pieces.forEach((piece, i) => {
    if (skipped > 0 && i >= begin && i < begin + skipped) {
      if (i === begin) runs.push(skipped);
      return;
    }
    const last = runs.at(-1);
    if (Array.isArray(last) && last[0]!.kind === piece.kind) last.push(piece);
    else runs.push([piece]);
  });
  return runs;
}

function tokenNode(piece: Piece): Child {
  const title = `token ${piece.id}`;
  if (piece.special) return el("code", { style: frame, title }, oneLine(piece.text));
  const lines = piece.text.split("\n");
  const parts = lines.flatMap((text, i): Child[] => (i === 0 ? [oneLine(text)] : ["⏎", el("br"), oneLine(text)]));
  return el("span", { title }, ...parts);
}

defineDisplay(
  Preview,
  (shown) => ({ "text/html": shown.toHtml().toString(), "text/plain": shown.toText() }),
  (shown) => shown.toText(),
);
