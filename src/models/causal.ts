import type { KvCache, Rows } from "../nn/cache.js";
import { LinearLike } from "../nn/layers.js";
import { Module } from "../nn/module.js";
import { linear } from "../tensor/ops/matmul.js";
import type { Tensor } from "../tensor/tensor.js";

/** What every architecture's config has, under one name; the file's own fields stay in `raw`. */
export interface CausalConfig {
  readonly modelType: string;
  readonly vocabSize: number;
  readonly hiddenSize: number;
  readonly layers: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly intermediateSize: number;
  /** Longest row the model was made for. */
  readonly maxPositions: number;
  readonly tied: boolean;
  /** The config file as it was read. */
  readonly raw: Readonly<Record<string, unknown>>;
}

/** A causal language model: rows of tokens in, final hidden states out; the head is applied by whoever needs logits or a loss. */
export abstract class CausalLM extends Module {
  abstract readonly config: CausalConfig;
  /** PEFT's default LoRA targets of this architecture. */
  abstract readonly defaultTargets: readonly string[];
  /** Full name of the output layer, "" when it is tied to the embedding. */
  abstract readonly headName: string;
  /** Final hidden states (rows, hidden), after the last norm. With a cache, keys and values are appended to it. */
  abstract hidden(rows: Rows, cache?: KvCache): Tensor;
  /** Weight of the output layer (vocab, hidden). */
  abstract headWeight(): Tensor;

  /** Logits (rows, vocab) of hidden states. */
  logits(hidden: Tensor): Tensor {
    const head = this.headName === "" ? undefined : this.module(this.headName);
    return head instanceof LinearLike ? head.forward(hidden) : linear(hidden, this.headWeight());
  }
}
