import type { Message } from "../protocol/message.js";
import type { KernelSockets } from "../protocol/sockets.js";
import type { Report } from "./channel.js";
import type { Executor } from "./executor.js";

type Question = Extract<Report, { type: "input" }>;

// What a terminal front end sends for Ctrl-D.
const END_OF_INPUT = "\x04";

/** Questions to the front ends' users, one at a time: each goes to the client whose cell asks, and to no other. */
export class Questions {
  readonly #sockets: KernelSockets;
  readonly #executor: Executor;
  /** The request of a running cell that may ask. */
  readonly #clientOf: (cell: string) => Message | undefined;
  #waiting: Question[] = [];
  #open: { question: Question; client: Message; request: string } | undefined;
  #asking = false;

  constructor(sockets: KernelSockets, executor: Executor, clientOf: (cell: string) => Message | undefined) {
    this.#sockets = sockets;
    this.#executor = executor;
    this.#clientOf = clientOf;
  }

  ask(question: Question): void {
    this.#waiting.push(question);
    void this.#next();
  }

  /** An `input_reply`. One that nobody waits for, or that answers an older question, is dropped. */
  answer(message: Message): void {
    const open = this.#open;
    if (open === undefined) return;
    const answered = message.parent.msg_id;
    // Some clients give no parent; then it is the question that is open.
    if (typeof answered === "string" && answered !== open.request) return;
    if (!sameRoute(message, open.client)) return;
    this.#open = undefined;
    const { value, status } = message.content;
    const { id } = open.question;
    const ended = typeof value !== "string" || value === END_OF_INPUT || status === "error";
    this.#executor.send(
      ended ? { type: "input", id, refused: "end of input" } : { type: "input", id, value: value as string },
    );
    void this.#next();
  }

  /** The cell has ended: its questions are not asked any more, and their answers not taken. */
  ended(cell: string): void {
    for (const { id } of this.#waiting.filter((one) => one.cell === cell)) {
      this.#executor.send({ type: "input", id, refused: "nobody" });
    }
    this.#waiting = this.#waiting.filter((one) => one.cell !== cell);
    if (this.#open?.question.cell !== cell) return;
    this.#executor.send({ type: "input", id: this.#open.question.id, refused: "nobody" });
    this.#open = undefined;
    void this.#next();
  }

  async #next(): Promise<void> {
    if (this.#asking || this.#open !== undefined || this.#waiting.length === 0) return;
    this.#asking = true;
    // Answers that have arrived by now belong to no question: they are read, and dropped, before this one is asked.
    await new Promise((resolve) => setImmediate(resolve));
    this.#asking = false;
    const question = this.#waiting.shift();
    if (question === undefined) return;
    const client = this.#clientOf(question.cell);
    if (client === undefined) {
      this.#executor.send({ type: "input", id: question.id, refused: "nobody" });
      return this.#next();
    }
    const { prompt, password } = question;
    const request = this.#sockets.send("stdin", client, "input_request", { prompt, password });
    this.#open = { question, client, request };
  }
}

// A client's sockets share one routing id, so only the client that was asked can answer.
function sameRoute(a: Message, b: Message): boolean {
  const [left, right] = [a.identities, b.identities];
  return left.length === right.length && left.every((part, i) => Buffer.compare(part, right[i]!) === 0);
}
