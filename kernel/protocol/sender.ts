/** The part of a zeromq socket that a sender needs. */
export interface Writable {
  send(frames: Uint8Array[]): Promise<void>;
}

/**
 * One sender for a socket: zeromq.js refuses a send while another waits, and drops beyond its high-water mark. Here
 * sends wait in order for each other; the socket's own mark must be 0 (none).
 */
export class Sender {
  readonly #socket: Writable;
  readonly #log: (text: string) => void;
  #queue: Uint8Array[][] = [];
  #pumping: Promise<void> | undefined;

  constructor(socket: Writable, log: (text: string) => void) {
    this.#socket = socket;
    this.#log = log;
  }

  /** Queues a message; never throws. */
  send(frames: Uint8Array[]): void {
    this.#queue.push(frames);
    this.#pumping ??= this.#pump();
  }

  /** Resolves when all that was queued until now has been handed to zeromq. */
  async flushed(): Promise<void> {
    while (this.#pumping !== undefined) await this.#pumping;
  }

  async #pump(): Promise<void> {
    // A whole batch is taken at a time: shifting a long array element by element is quadratic.
    while (this.#queue.length > 0) {
      const batch = this.#queue;
      this.#queue = [];
      for (const frames of batch) {
        try {
          await this.#socket.send(frames);
        } catch (error) {
          this.#log(`a message could not be sent: ${(error as Error).message}`);
        }
      }
    }
    this.#pumping = undefined;
  }
}
