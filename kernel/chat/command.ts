import { text } from "node:stream/consumers";
import { type Command, InvalidArgumentError, Option } from "commander";
import { loadLibrary } from "../library.js";
import { Conversation } from "./conversation.js";
import type { ChatModel, Library } from "./library.js";
import { chatInTerminal } from "./terminal.js";

interface ChatFlags {
  model: string;
  adapter?: string;
  quantize?: string;
  doubleQuant?: boolean;
  dtype?: string;
  device?: string;
  revision?: string;
  system?: string;
  plain?: boolean;
  image: string[];
  maxPixels?: number;
  maxTokens: number;
  temperature?: number;
  topP?: number;
  topK?: number;
  repetitionPenalty?: number;
  seed?: number;
  prompt?: string;
}

/** Adds `tunebook chat`. */
export function addChat(program: Command): void {
  program
    .command("chat")
    .description("talk to a model: in a terminal turn by turn, with --prompt or a pipe one answer on standard output")
    .requiredOption("--model <model>", "a folder with config.json, a .gguf file, or a name on the hub")
    .option("--adapter <adapter>", "an adapter over it: a folder in PEFT's layout, or a name on the hub")
    .addOption(
      new Option("--quantize <type>", "load the weights in 4 or 8 bits").choices(["nf4", "fp4", "int8", "fp8"]),
    )
    .option("--double-quant", "with --quantize nf4 or fp4: quantise the scales too")
    .addOption(
      new Option("--dtype <dtype>", "dtype of the weights (default: the checkpoint's)").choices([
        "auto",
        "float32",
        "bfloat16",
        "float16",
        "packed",
      ]),
    )
    .option("--device <device>", "auto, cpu, cuda or cuda:N", "auto")
    .option("--revision <revision>", "branch, tag or commit of a model on the hub")
    .option("--prompt <text>", "ask this, print the answer, and end")
    .option("--system <text>", "what the model is told before the first question")
    .option("--image <file>", "a picture that the first question shows; may be repeated", gather, [])
    .option("--max-pixels <n>", "look at no more pixels of a picture (fewer are faster)", whole)
    .option("--plain", "continue texts as they stand, without the chat template")
    .option("--max-tokens <n>", "longest answer", whole, 512)
    .option("--temperature <t>", "0 (the default) takes the likeliest token each time", number)
    .option("--top-p <p>", "draw from the likeliest tokens that together reach this probability", number)
    .option("--top-k <k>", "draw from the k likeliest tokens", whole)
    .option("--repetition-penalty <x>", "make tokens that occurred less likely", number)
    .option("--seed <n>", "seed of what is drawn", integer)
    .action(chat);
}

async function chat(flags: ChatFlags): Promise<void> {
  const { input, output } = { input: process.stdin, output: process.stdout };
  const live = flags.prompt === undefined && input.isTTY === true && output.isTTY === true;
  // Before the model is loaded, which may take minutes.
  const question = live ? undefined : (flags.prompt ?? (await text(input)));
  if (question?.trim() === "")
    throw new Error(
      'chat: there is nothing to answer. Give --prompt "…", send a text through a pipe, or call it in a terminal.',
    );
  const model = await load(flags);
  try {
    const { system, plain, maxPixels } = flags;
    const conversation = new Conversation(model, { system, plain, maxPixels, ...sampling(flags) });
    for (const image of flags.image) conversation.show(image);
    if (question !== undefined) {
      await answerOnce(conversation, question);
      return;
    }
    console.error(`${model.name} on ${model.device}. /help lists the commands, Ctrl-D leaves.\n`);
    await chatInTerminal(conversation, { input, output, colors: output.hasColors() });
  } finally {
    model.dispose();
  }
}

/** One answer on standard output; Ctrl-C ends it. */
async function answerOnce(conversation: Conversation, question: string): Promise<void> {
  const control = new AbortController();
  const stop = (): void => control.abort();
  process.once("SIGINT", stop);
  // Who reads may go before the end (`| head -1`).
  process.stdout.on("error", stop);
  try {
    for await (const piece of conversation.ask(question, control.signal)) process.stdout.write(piece);
    process.stdout.write("\n");
  } catch (error) {
    if (!control.signal.aborted) throw error;
    process.exitCode = 130;
  } finally {
    process.removeListener("SIGINT", stop);
  }
}

async function load(flags: ChatFlags): Promise<ChatModel> {
  const { adapter, quantize, doubleQuant, device, dtype, revision } = flags;
  const { loadModel } = await loadLibrary<Library>();
  const options = {
    ...(device === undefined ? {} : { device }),
    ...(dtype === undefined ? {} : { dtype }),
    ...(revision === undefined ? {} : { revision }),
  };
  let plan = loadModel(flags.model, options);
  if (doubleQuant && quantize === undefined) throw new Error("chat: --double-quant goes with --quantize nf4 or fp4.");
  if (quantize !== undefined) plan = plan.quantize({ type: quantize, ...(doubleQuant ? { doubleQuant } : {}) });
  if (adapter !== undefined) plan = plan.loadAdapter(adapter);
  return plan;
}

function sampling(flags: ChatFlags): Record<string, number> {
  const { maxTokens: maxNewTokens, temperature, topP, topK, repetitionPenalty, seed } = flags;
  const all = { maxNewTokens, temperature, topP, topK, repetitionPenalty, seed };
  return Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined)) as Record<string, number>;
}

function gather(file: string, before: string[]): string[] {
  return [...before, file];
}

function number(text: string): number {
  const value = Number(text);
  if (text.trim() === "" || !Number.isFinite(value)) throw new InvalidArgumentError("expected a number.");
  return value;
}

function integer(text: string): number {
  const value = number(text);
  if (!Number.isSafeInteger(value)) throw new InvalidArgumentError("expected a whole number.");
  return value;
}

function whole(text: string): number {
  const value = integer(text);
  if (value < 1) throw new InvalidArgumentError("expected a whole number from 1.");
  return value;
}
