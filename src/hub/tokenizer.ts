/** The tokenizer of a model: text to ids and back, chats to ids, and its files saved beside what was trained with it. */
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { TokenizerError } from "../errors.js";
import { ChatTemplate, checkMessages, type Message } from "./chat.js";
import { CHATGLM_STOPS, isChatGlm } from "./chatglm-tokenizer.js";
import { isObject, type JsonObject, own } from "./json.js";
import { breakSpecials, freeMark } from "./literal.js";
import { replaceFile } from "./safetensors-write.js";
import { StreamDecoder } from "./stream-decoder.js";
import { TokenPipeline } from "./token-pipeline.js";
import { checkTokenizerConfig } from "./tokenizer-check.js";
import { readTokenizerFiles, type TokenizerFiles } from "./tokenizer-files.js";

/** Options of {@link Tokenizer.encode}. */
export interface EncodeOptions {
  /**
   * Put around the text what the tokenizer declares (the BOS, mostly); default true. "before" leaves out what belongs after a whole
   * text, for a prompt. A BOS that the text itself spells is not doubled.
   */
  addSpecialTokens?: boolean | "before";
  /** Special tokens spelled in the text become tokens, or stay the text they are; default true, for ChatGLM false: its commands cannot be typed. */
  parseSpecial?: boolean;
  /**
   * Ids that the text goes on from, as a completion does from its prompt: no special tokens are put around it, and no space before
   * its first word. The boundary is exact: no token spans it, so the prompt's ids are those that it has alone.
   */
  after?: readonly number[];
}

/** Options of {@link Tokenizer.applyChatTemplate}. */
export interface ChatOptions {
  /** End with the beginning of an assistant's turn, for it to be generated; default false. */
  addGenerationPrompt?: boolean;
  /** Tools as JSON schemas, for templates that know them. */
  tools?: readonly object[];
  /** Further variables of the template. */
  variables?: Readonly<Record<string, unknown>>;
}

/** A tokenizer as `tokenizer.json` and its companions describe it. */
export class Tokenizer {
  /** Begins a text, where the model has such a token. */
  readonly bosId: number | undefined;
  /** Ends a text. */
  readonly eosId: number | undefined;
  /** Fills rows of a batch. Often the same as another token: padding is masked by length, never by this id. */
  readonly padId: number | undefined;
  /** The highest id + 1: the rows that an embedding needs at least. */
  readonly vocabSize: number;
  /** The source of the chat template, if there is one. */
  readonly chatTemplate: string | undefined;
  readonly #files: TokenizerFiles;
  readonly #pipeline: TokenPipeline;
  readonly #templates = new Map<string, ChatTemplate>();
  #stops: number[] | undefined;

  private constructor(files: TokenizerFiles) {
    this.#files = files;
    checkTokenizerConfig(files.config, join(files.folder, "tokenizer_config.json"));
    checkTokenizerConfig(files.specialTokens, join(files.folder, "special_tokens_map.json"));
    const where = join(files.folder, "tokenizer.json");
    this.#pipeline = new TokenPipeline(files.tokenizer, files.config, where, files.vocabulary);
    this.bosId = this.#specialId("bos_token");
    this.eosId = this.#specialId("eos_token");
    this.padId = this.#specialId("pad_token");
    this.vocabSize = this.#pipeline.size;
    this.chatTemplate = files.chatTemplate;
  }

  /**
   * Reads a folder's tokenizer.json (without one sentencepiece's tokenizer.model), tokenizer_config.json, special_tokens_map.json and chat_template.jinja
   * (each may be gzipped as `.gz`).
   *
   * @throws TokenizerError when there is none, saying which files were looked for and where, or when one is damaged.
   */
  static async fromFolder(folder: string): Promise<Tokenizer> {
    return new Tokenizer(await readTokenizerFiles(folder));
  }

  /** A tokenizer from the contents of tokenizer.json and tokenizer_config.json. @throws TokenizerError */
  static fromJson(tokenizer: object, config: object = {}): Tokenizer {
    const copy = (value: object): JsonObject => JSON.parse(JSON.stringify(value)) as JsonObject;
    return Tokenizer.fromParsed(copy(tokenizer), copy(config));
  }

  /**
   * As `fromJson`, with plain data that nobody else changes; its text is made when it is saved.
   * @param vocabulary That of the tokenizer's model, where the caller has it as a map: the model's own is not looked at then. @internal
   */
  static fromParsed(tokenizer: JsonObject, config: JsonObject, vocabulary?: ReadonlyMap<string, number>): Tokenizer {
    const template = own(config, "chat_template");
    return new Tokenizer({
      folder: "",
      tokenizer,
      config,
      ...(vocabulary && { vocabulary }),
      specialTokens: {},
      chatTemplate: typeof template === "string" ? template : undefined,
      namedTemplates: new Map(typeof template === "string" ? [["default", template]] : []),
      get bytes() {
        return new Map([
          ["tokenizer.json", Buffer.from(JSON.stringify(tokenizer))],
          ["tokenizer_config.json", Buffer.from(JSON.stringify(config, null, 2))],
        ]);
      },
    });
  }

  /**
   * A tokenizer with further tokens, found in a text before it is split; those that it has already stay as they are.
   * @param special left out of decoded text when special tokens are skipped.
   */
  withTokens(tokens: readonly string[], special = true): Tokenizer {
    if (!Array.isArray(tokens) || !tokens.every((t) => typeof t === "string" && t !== ""))
      throw new TokenizerError("Tokens to add must be a list of strings, none of them empty.");
    const fresh = [...new Set(tokens)].filter((token) => this.idOf(token) === undefined);
    if (fresh.length === 0) return this;
    const shape = { single_word: false, lstrip: false, rstrip: false, normalized: !special, special };
    const added = fresh.map((content, i) => ({ id: this.vocabSize + i, content, ...shape }));
    const { tokenizer, config, bytes } = this.#files;
    const before = own(tokenizer, "added_tokens");
    const changed = { ...tokenizer, added_tokens: [...(Array.isArray(before) ? before : []), ...added] };
    const files = new Map(bytes).set("tokenizer.json", Buffer.from(JSON.stringify(changed, null, 2)));
    const decoder = own(config, "added_tokens_decoder");
    let configured = config;
    if (isObject(decoder)) {
      const more = Object.fromEntries(added.map(({ id, ...token }) => [String(id), token]));
      configured = { ...config, added_tokens_decoder: { ...decoder, ...more } };
      files.set("tokenizer_config.json", Buffer.from(JSON.stringify(configured, null, 2)));
    }
    return new Tokenizer({ ...this.#files, tokenizer: changed as JsonObject, config: configured, bytes: files });
  }

  /** What tokenizer.json says. @internal */
  get source(): JsonObject {
    return this.#files.tokenizer;
  }

  /** The ids of a text. */
  encode(text: string, options: EncodeOptions = {}): number[] {
    if (typeof text !== "string") throw new TokenizerError(`encode() takes a string, got ${typeof text}.`);
    const { addSpecialTokens = true, parseSpecial = !isChatGlm(this.#files.config), after = [] } = options;
    const ids = this.#pipeline.encode(text, { special: parseSpecial, after });
    if (addSpecialTokens === false || after.length > 0) return ids;
    const { prefix, suffix } = this.#pipeline;
    const hasPrefix = prefix.every((id, i) => ids[i] === id);
    const tail = ids.length - suffix.length;
    const hasSuffix = addSpecialTokens === "before" || (tail >= 0 && suffix.every((id, i) => ids[tail + i] === id));
    return [...(hasPrefix ? [] : prefix), ...ids, ...(hasSuffix ? [] : suffix)];
  }

  /** Ids at which an answer ends: the end of text, and what the chat template writes behind an assistant's turn. */
  get stopIds(): readonly number[] {
    this.#stops ??= [...new Set([this.eosId, ...this.#turnEnds()])].filter((id) => id !== undefined);
    return this.#stops;
  }

  /** What ends an answer although the chat template does not write it, as with ChatGLM. @internal */
  get unwrittenEnd(): number | undefined {
    return isChatGlm(this.#files.config) ? this.eosId : undefined;
  }

  /** What the tokenizer puts before a text: the BOS, or nothing. */
  get prefixIds(): readonly number[] {
    return this.#pipeline.prefix;
  }

  /** The text of ids; special tokens are spelled out unless they are skipped. */
  decode(ids: Iterable<number>, options: { skipSpecialTokens?: boolean } = {}): string {
    return this.#pipeline.decode([...ids], options.skipSpecialTokens ?? false);
  }

  /**
   * Decodes ids one by one, giving out whole characters only.
   *
   * @param options.after Ids that the new ones go on from: a first word then keeps the space before it.
   */
  streamDecoder(options: { skipSpecialTokens?: boolean; after?: readonly number[] } = {}): StreamDecoder {
    const skip = options.skipSpecialTokens ?? false;
    return new StreamDecoder((ids) => this.#pipeline.decode(ids, skip), options.after);
  }

  /** The vocabulary's spelling of an id ("▁the", "Ġthe"), or undefined. */
  tokenOf(id: number): string | undefined {
    return this.#pipeline.tokenOf(id);
  }

  /** The id of a spelling, or undefined. */
  idOf(token: string): number | undefined {
    return this.#pipeline.idOf(token);
  }

  /** True for ids that are no text of their own: BOS, EOS, roles … */
  isSpecial(id: number): boolean {
    return this.#pipeline.added.get(id)?.special === true;
  }

  /**
   * The text of a chat as the model's template writes it.
   *
   * @throws TokenizerError when there is no template, or it refuses the messages.
   */
  applyChatTemplate(messages: readonly Message[], options: ChatOptions = {}): string {
    checkMessages(messages);
    const variables: Record<string, unknown> = {
      ...this.#specialTokens(),
      tools: options.tools ?? null,
      documents: null,
      ...options.variables,
      messages,
      add_generation_prompt: options.addGenerationPrompt ?? false,
    };
    return this.#template(options.tools !== undefined).render(variables);
  }

  /**
   * The ids of a chat: exactly the tokens that the template writes, so a BOS only where the template has one. Special tokens that
   * a message spells stay text.
   *
   * @throws TokenizerError when there is no template, or it refuses the messages.
   */
  encodeChat(messages: readonly Message[], options: ChatOptions = {}): number[] {
    const { messages: broken, mark } = this.protectMessages(messages);
    return this.encodeProtected(this.applyChatTemplate(broken, options), mark);
  }

  /** Messages whose special tokens are broken by a mark, so that they go through the template as text. For {@link encodeProtected}. */
  protectMessages(messages: readonly Message[]): { messages: Message[]; mark: string } {
    checkMessages(messages);
    const mark = freeMark(messages);
    return { messages: breakSpecials([...messages], this.#pipeline.specialSpellings, mark), mark };
  }

  /**
   * The ids of a rendered text, with the marks of {@link protectMessages} taken out.
   *
   * @param after Ids that the text goes on from.
   */
  encodeProtected(text: string, mark: string, after: readonly number[] = []): number[] {
    return this.#pipeline.encode(text, { mark, after });
  }

  /** Writes the tokenizer's files and its template into a folder, which is made if need be. */
  async save(folder: string): Promise<void> {
    await mkdir(folder, { recursive: true });
    for (const [name, bytes] of this.#files.bytes) {
      await replaceFile(join(folder, name), async (file) => {
        await file.writeFile(bytes);
      });
    }
  }

  static {
    // Printed as one line. A computed method name could not be declared under isolatedDeclarations.
    const value = function (this: Tokenizer): string {
      return this.toString();
    };
    Object.defineProperty(Tokenizer.prototype, Symbol.for("nodejs.util.inspect.custom"), { value });
  }

  /** One line for a printout. */
  toString(): string {
    const special = (name: string, id: number | undefined) =>
      `${name} ${id === undefined ? "none" : `${JSON.stringify(this.tokenOf(id))} (${id})`}`;
    const declared = own(this.#files.config, "tokenizer_class");
    const name = typeof declared === "string" ? declared : "Tokenizer";
    const template = this.chatTemplate === undefined ? "no chat template" : "with chat template";
    const tokens = [special("bos", this.bosId), special("eos", this.eosId), special("pad", this.padId)].join(", ");
    return `${name} { vocabulary ${this.vocabSize}, ${tokens}, ${template} }`;
  }

  #turnEnds(): (number | undefined)[] {
    if (isChatGlm(this.#files.config)) return CHATGLM_STOPS.map((token) => this.idOf(token));
    if (this.chatTemplate === undefined) return [];
    const answer = "an-answer";
    let text: string;
    try {
      text = this.applyChatTemplate([
        { role: "user", content: "a-question" },
        { role: "assistant", content: answer },
      ]);
    } catch {
      return []; // a template that takes other messages
    }
    const behind = text.slice(text.lastIndexOf(answer) + answer.length).trimStart();
    const [first] = this.#pipeline.encode(behind);
    return first !== undefined && this.isSpecial(first) && behind.startsWith(this.tokenOf(first)!) ? [first] : [];
  }

  #template(tools: boolean): ChatTemplate {
    const { namedTemplates } = this.#files;
    const name = tools && namedTemplates.has("tool_use") ? "tool_use" : "default";
    let template = this.#templates.get(name);
    if (template === undefined) {
      const source = namedTemplates.get(name);
      if (source === undefined)
        throw new TokenizerError(
          `This tokenizer has no chat template: neither chat_template.jinja nor "chat_template" in tokenizer_config.json${this.#files.folder === "" ? "" : ` in ${this.#files.folder}`}. Use generate() with plain text, train with a format that gives text, or put the template there.`,
        );
      template = new ChatTemplate(source);
      this.#templates.set(name, template);
    }
    return template;
  }

  #specialTokens(): Record<string, string> {
    const names = ["bos_token", "eos_token", "pad_token", "unk_token", "sep_token", "cls_token", "mask_token"];
    const spelled = names.map((name) => [name, this.#spelling(name)] as const);
    return Object.fromEntries(spelled.filter((pair): pair is [string, string] => pair[1] !== undefined));
  }

  #specialId(name: string): number | undefined {
    const spelling = this.#spelling(name);
    return spelling === undefined ? undefined : this.#pipeline.idOf(spelling);
  }

  #spelling(name: string): string | undefined {
    const { config, specialTokens } = this.#files;
    // null in the config means none; only what it does not mention is looked up in the older file.
    const declared = own(Object.hasOwn(config, name) ? config : specialTokens, name);
    if (typeof declared === "string") return declared;
    const content = isObject(declared) ? own(declared as JsonObject, "content") : undefined;
    return typeof content === "string" ? content : undefined;
  }
}
