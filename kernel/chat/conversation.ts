import type { AnswerOptions, ChatModel, Message, Part } from "./library.js";

export interface ConversationOptions extends Omit<AnswerOptions, "signal" | "images"> {
  /** What stands before the first question. */
  system?: string | undefined;
  /** Texts are continued as they stand, each by itself: for models without a chat template. */
  plain?: boolean | undefined;
  /** At most so many pixels of an image are looked at. */
  maxPixels?: number | undefined;
}

/** What was said so far, and how the model goes on. */
export class Conversation {
  readonly #model: ChatModel;
  readonly #system: string | undefined;
  readonly #plain: boolean;
  readonly #maxPixels: number | undefined;
  readonly #options: AnswerOptions;
  #messages: Message[] = [];
  #images: string[] = [];

  /** @throws Error when the model has no chat template and texts are not to be continued as they stand. */
  constructor(model: ChatModel, { system, plain = false, maxPixels, ...options }: ConversationOptions) {
    if (!plain && model.tokenizer.chatTemplate === undefined)
      throw new Error(
        `${model.name} has no chat template: it was not made for conversations. Give --plain to continue texts as they stand, or choose a model made for chats (often called "instruct").`,
      );
    if (plain && system !== undefined)
      throw new Error("--system belongs to conversations, and --plain continues texts as they stand; leave one out.");
    this.#model = model;
    this.#system = system;
    this.#plain = plain;
    this.#maxPixels = maxPixels;
    this.#options = options;
    this.reset();
  }

  /** What was said, with the system's words first. */
  get messages(): readonly Message[] {
    return this.#messages;
  }

  /** Images that the next question shows. */
  get images(): readonly string[] {
    return this.#images;
  }

  /** Adds an image to the next question. @throws Error for a model that takes text alone. */
  show(image: string): void {
    if (this.#model.module.sight === undefined)
      throw new Error(
        `${this.#model.name} takes text alone, and an image was given. Load a model that sees, such as Qwen2-VL.`,
      );
    if (this.#plain)
      throw new Error("Images belong to conversations, and --plain continues texts as they stand; leave one out.");
    this.#images.push(image);
  }

  /** Takes back the images that were added to the next question. */
  hide(): void {
    this.#images = [];
  }

  /** Forgets what was said, but for the system's words. */
  reset(): void {
    this.#messages = this.#system === undefined ? [] : [{ role: "system", content: this.#system }];
    this.#images = [];
  }

  /**
   * The model's answer piece by piece. What of it had come when it was stopped or failed stays in the conversation with its question; a question
   * without any answer is taken back, and its images wait for the next one, or are dropped where it failed.
   */
  async *ask(text: string, signal?: AbortSignal): AsyncGenerator<string, void> {
    const options = { ...this.#options, ...(signal === undefined ? {} : { signal }) };
    if (this.#plain) {
      yield* this.#model.stream(text, options);
      return;
    }
    const question: Message = { role: "user", content: this.#content(text) };
    const images = this.#images;
    this.#messages.push(question);
    this.#images = [];
    let answer = "";
    let failed = false;
    try {
      for await (const piece of this.#model.stream(this.#messages, options)) {
        const shown = answer === "" ? piece.trimStart() : piece;
        answer += shown;
        if (shown !== "") yield shown;
      }
    } catch (error) {
      failed = signal?.aborted !== true;
      throw error;
    } finally {
      if (answer !== "") this.#messages.push({ role: "assistant", content: answer.trimEnd() });
      else if (this.#messages.at(-1) === question) {
        this.#messages.pop();
        this.#images = failed ? [] : images; // one that cannot be read would make every question fail
      }
    }
  }

  #content(text: string): string | Part[] {
    if (this.#images.length === 0) return text;
    const limit = this.#maxPixels === undefined ? {} : { maxPixels: this.#maxPixels };
    const shown = this.#images.map((image): Part => ({ type: "image", image, ...limit }));
    return [...shown, { type: "text", text }];
  }
}
