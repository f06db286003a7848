import type { Json } from "../protocol/message.js";
import type { Report } from "./channel.js";

type StreamName = "stdout" | "stderr";
type Extra = { metadata?: Json; buffers?: Uint8Array[] };
type Publish = (type: string, content: Json, parent: Uint8Array | undefined, extra?: Extra) => void;

interface Segment {
  cell: string;
  name: StreamName;
  pieces: string[];
}

const WINDOW_MS = 50;
const MAX_CHARS = 512 * 1_024;
// Alternating stdout and stderr keeps its order up to so many turns a window; beyond, each stream is put together.
const MAX_SEGMENTS = 16;
const REMEMBERED_CELLS = 10_000;
const REMEMBERED_EVENTS = 256;

/**
 * What cells show, on its way to IOPub: stream text is gathered for about 50 ms, everything else goes at once, after
 * the text before it. Each message has the header of its own cell's request as parent, however late it comes.
 */
export class OutputPublisher {
  readonly #publish: Publish;
  readonly #parents = new Map<string, Uint8Array | undefined>();
  // A slider sends hundreds of messages: they must not push out the cells.
  readonly #events: string[] = [];
  #segments: Segment[] = [];
  #chars = 0;
  #timer: NodeJS.Timeout | undefined;
  #last = "";

  constructor(publish: Publish) {
    this.#publish = publish;
  }

  /** Makes `parent` the parent header of all that the cell shows; unattributed text is its own from now on. */
  begin(cell: string, parent: Uint8Array | undefined): void {
    this.#last = cell;
    this.#parents.set(cell, parent);
    if (this.#parents.size <= REMEMBERED_CELLS) return;
    for (const oldest of this.#parents.keys()) {
      this.#parents.delete(oldest);
      break;
    }
  }

  /** A message of a comm shows things under its own header; what nobody owns is the last cell's again afterwards. */
  event(cell: string, parent: Uint8Array): () => void {
    const before = this.#last;
    this.#last = cell;
    this.#parents.set(cell, parent);
    this.#events.push(cell);
    if (this.#events.length > REMEMBERED_EVENTS) this.#parents.delete(this.#events.shift()!);
    return () => {
      if (this.#last === cell) this.#last = before;
    };
  }

  /** A quiet cell's raw output is not shown. */
  mute(cell: string): void {
    this.#last = cell;
  }

  /** Text of a cell, or of nobody known: then it is the last cell's. */
  stream(name: StreamName, text: string, cell: string = this.#last): void {
    if (!this.#parents.has(cell)) return;
    const last = this.#segments.at(-1);
    if (last?.cell === cell && last.name === name) last.pieces.push(text);
    else this.#segments.push({ cell, name, pieces: [text] });
    this.#chars += text.length;
    if (this.#chars >= MAX_CHARS) this.flush();
    else this.#timer ??= setTimeout(() => this.flush(), WINDOW_MS);
  }

  /** A message of a comm, in its place among the output. */
  comm({ cell, event }: Extract<Report, { type: "comm" }>): void {
    this.flush();
    const { action, comm, target, data, metadata, buffers } = event;
    const content = { comm_id: comm, ...(action === "open" ? { target_name: target } : {}), data };
    this.#publish(`comm_${action}`, content, cell === undefined ? undefined : this.#parents.get(cell), {
      metadata,
      buffers,
    });
  }

  /** A report of the executor that shows something. */
  show(report: Extract<Report, { type: "display" | "clear" }>): void {
    this.flush();
    const parent = this.#parents.get(report.cell);
    if (report.type === "clear") {
      this.#publish("clear_output", { wait: report.wait }, parent);
      return;
    }
    const { data, metadata, id, update } = report;
    const transient = id === undefined ? {} : { display_id: id };
    this.#publish(update ? "update_display_data" : "display_data", { data, metadata, transient }, parent);
  }

  /** Publishes the text gathered so far. */
  flush(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    const segments = this.#segments.length > MAX_SEGMENTS ? merged(this.#segments) : this.#segments;
    this.#segments = [];
    this.#chars = 0;
    for (const { cell, name, pieces } of segments) {
      this.#publish("stream", { name, text: pieces.join("") }, this.#parents.get(cell));
    }
  }
}

function merged(segments: Segment[]): Segment[] {
  const byStream = new Map<string, Segment>();
  for (const segment of segments) {
    const key = `${segment.name} ${segment.cell}`;
    const known = byStream.get(key);
    if (known === undefined) byStream.set(key, segment);
    else for (const piece of segment.pieces) known.pieces.push(piece);
  }
  return [...byStream.values()];
}
