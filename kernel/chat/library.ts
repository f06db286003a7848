// What the command needs of the library.

/** A part of a message's content. */
export type Part = { type: "text"; text: string } | { type: "image"; image: string; maxPixels?: number };

export interface Message {
  role: "system" | "user" | "assistant";
  content: string | readonly Part[];
}

/** Options of one answer, those of the library's `stream`. */
export interface AnswerOptions {
  maxNewTokens?: number;
  temperature?: number;
  topK?: number;
  topP?: number;
  repetitionPenalty?: number;
  seed?: number;
  images?: readonly string[];
  signal?: AbortSignal;
}

/** A language model, as far as a chat goes. */
export interface ChatModel {
  readonly name: string;
  readonly device: string;
  /** `sight` is undefined for a model that takes text alone. */
  readonly module: { readonly sight: unknown };
  readonly tokenizer: { readonly chatTemplate: string | undefined };
  stream(prompt: string | readonly Message[], options: AnswerOptions): AsyncIterable<string>;
  dispose(): void;
}

interface Plan extends PromiseLike<ChatModel> {
  quantize(options: { type: string; doubleQuant?: boolean }): Plan;
  loadAdapter(folderOrId: string): Plan;
}

export interface Library {
  loadModel(idOrPath: string, options: { device?: string; dtype?: string; revision?: string }): Plan;
}
