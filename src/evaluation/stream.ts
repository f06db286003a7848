import type { Prompt } from "../data/images.js";
import { throwIfInterrupted } from "../display/host.js";
import type { Tokenizer } from "../hub/tokenizer.js";
import type { Picture } from "../images/patches.js";
import type { CausalLM } from "../models/causal.js";
import { generateIds, type SamplingOptions, samplingSettings } from "./generate.js";
import { StopText, stopsOf } from "./stop-text.js";

/** The text that follows a prompt, piece by piece, in whole characters. @param stopIds ids at which it ends, besides the options' own */
export async function* streamText(
  model: CausalLM,
  tokenizer: Tokenizer,
  { ids, pictures }: Prompt,
  options: SamplingOptions,
  stopIds: readonly number[],
): AsyncGenerator<string, void> {
  const settings = samplingSettings(options);
  const stops = stopsOf(options.stop, [...stopIds]);
  const text = new StopText(tokenizer.streamDecoder({ skipSpecialTokens: true, after: ids }), stops.strings);
  for await (const id of generateIds(model, ids, settings, stops.ids, pictures)) {
    throwIfInterrupted("Generation", options.signal);
    const ready = text.push(id);
    if (ready !== "") yield ready;
    if (text.ended) return;
  }
  const rest = text.end();
  if (rest !== "") yield rest;
}

/** What else is known of prompts given as ids. */
export interface GeneratedRows {
  /** The pictures that each prompt shows. */
  pictures?: readonly (readonly Picture[])[] | undefined;
  /** Called as each prompt is done, with the number of those that are. */
  onDone?: (done: number) => void;
}
