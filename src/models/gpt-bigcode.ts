import { discard, rest } from "../autograd/checkpoint.js";
import { ConfigError } from "../errors.js";
import type { ConfigFields } from "../hub/config.js";
import type { KvCache, Rows } from "../nn/cache.js";
import { Dropout, Embedding, type EmbeddingLike, LayerNorm, Linear, type LinearLike } from "../nn/layers.js";
import { Module } from "../nn/module.js";
import { gelu } from "../tensor/ops/activation.js";
import { attention, attentionOfOne } from "../tensor/ops/attention.js";
import { inDType, reshape, split } from "../tensor/ops/layout.js";
import type { Tensor } from "../tensor/tensor.js";
import { byRows } from "./by-rows.js";
import { type CausalConfig, LmHeadModel, noisy } from "./causal.js";
import { residualStream } from "./residual.js";

/** GPTBigCode, the first StarCoder (Li et al. 2023): GPT-2 with one head of keys and values for all queries, learned positions, LayerNorm, biases. */
export interface GptBigcodeConfig extends CausalConfig {
  readonly layerNormEps: number;
  readonly activation: "gelu" | "gelu_tanh";
  /** Whether all heads share one of keys and values; else `c_attn` has queries, keys and values of each head side by side. */
  readonly multiQuery: boolean;
  /** Factor of the scores. */
  readonly scale: number;
  /** Shares that are dropped while training: of the embeddings, of the attention, of what each half of a block adds. */
  readonly dropout: { readonly embedding: number; readonly attention: number; readonly residual: number };
  readonly initializerRange: number;
}

const ACTIVATIONS = {
  gelu: "gelu",
  gelu_pytorch_tanh: "gelu_tanh",
  gelu_new: "gelu_tanh",
  gelu_fast: "gelu_tanh",
} as const;

/** Reads config.json of `model_type: "gpt_bigcode"`, with transformers' defaults for absent keys. */
export function gptBigcodeConfig(c: ConfigFields): GptBigcodeConfig {
  const hiddenSize = c.integer("n_embd", { default: 768, min: 1 });
  const heads = c.integer("n_head", { default: 12, min: 1 });
  if (hiddenSize % heads !== 0) throw c.wrong("n_embd", `a multiple of n_head, ${heads}`);
  if (c.boolean("add_cross_attention", { default: false })) throw c.wrong("add_cross_attention", "false");
  const names = Object.keys(ACTIVATIONS) as (keyof typeof ACTIVATIONS)[];
  const activation = c.string("activation_function", { default: "gelu_pytorch_tanh", oneOf: names });
  const multiQuery = c.boolean("multi_query", { default: true });
  const headDim = hiddenSize / heads;
  const share = (name: string): number => c.number(name, { default: 0.1, min: 0, max: 0.999 });
  return {
    modelType: "gpt_bigcode",
    vocabSize: c.integer("vocab_size", { default: 50257, min: 1 }),
    hiddenSize,
    layers: c.integer("n_layer", { default: 12, min: 1 }),
    heads,
    kvHeads: multiQuery ? 1 : heads,
    headDim,
    intermediateSize: c.given("n_inner") ? c.integer("n_inner", { min: 1 }) : 4 * hiddenSize,
    maxPositions: c.integer("n_positions", { default: 1024, min: 1 }),
    tied: c.boolean("tie_word_embeddings", { default: true }),
    layerNormEps: c.number("layer_norm_epsilon", { default: 1e-5 }),
    activation: ACTIVATIONS[activation as keyof typeof ACTIVATIONS],
    multiQuery,
    scale: c.boolean("scale_attn_weights", { default: true }) ? 1 / Math.sqrt(headDim) : 1,
    dropout: { embedding: share("embd_pdrop"), attention: share("attn_pdrop"), residual: share("resid_pdrop") },
    initializerRange: c.number("initializer_range", { default: 0.02 }),
    raw: c.values,
  };
}

// What adds to the residual stream begins smaller, the more layers there are (Radford et al. 2019).
const residualStd = ({ initializerRange, layers }: GptBigcodeConfig): number =>
  initializerRange / Math.sqrt(2 * layers);

class Attention extends Module {
  c_attn: LinearLike;
  c_proj: LinearLike;
  /** Of what it adds to the residual stream; drawn where that is done. */
  resid_dropout: Dropout;
  readonly config: GptBigcodeConfig;

  constructor(config: GptBigcodeConfig) {
    super();
    const { hiddenSize, kvHeads, headDim } = config;
    this.c_attn = new Linear(hiddenSize, hiddenSize + 2 * kvHeads * headDim, { std: config.initializerRange });
    this.c_proj = new Linear(hiddenSize, hiddenSize, { std: residualStd(config) });
    this.resid_dropout = new Dropout(config.dropout.residual);
    this.config = config;
  }

  forward(x: Tensor, rows: Rows, layer: number, cache?: KvCache): Tensor {
    const { heads, kvHeads, headDim, scale, multiQuery } = this.config;
    const dropout = this.training ? this.config.dropout.attention : 0;
    const options = { heads, kvHeads, headDim, scale, dropout };
    const all = this.c_attn.forward(x);
    let o: Tensor;
    if (cache || !multiQuery) {
      const [q, k, v] = this.split(all);
      discard([all], [x, q, k, v]);
      const [keys, values] = cache ? cache.append(layer, k, v) : [k, v];
      o = attention(q, keys, values, rows.segments, options);
      discard([q, k, v], [x, o]);
    } else {
      o = attentionOfOne(all, rows.segments, options);
      discard([all], [x, o]);
    }
    rest(x);
    const y = this.c_proj.forward(o);
    discard([o], [x, y]);
    return y;
  }

  /** q (rows, hidden), k and v (rows, kvHeads·headDim). */
  private split(all: Tensor): [Tensor, Tensor, Tensor] {
    const { hiddenSize, headDim, multiQuery } = this.config;
    if (multiQuery) return split(all, [hiddenSize, headDim, headDim]) as [Tensor, Tensor, Tensor];
    const each = reshape(all, [-1, 3 * headDim]); // (rows·heads, q|k|v)
    const parts = split(each, [headDim, headDim, headDim]);
    const joined = parts.map((part) => reshape(part, [-1, hiddenSize])) as [Tensor, Tensor, Tensor];
    discard([each, ...parts], [all, ...joined]);
    return joined;
  }
}

class Mlp extends Module {
  c_fc: LinearLike;
  c_proj: LinearLike;
  /** As `resid_dropout`. */
  dropout: Dropout;
  readonly activation: "gelu" | "gelu_tanh";

  constructor(config: GptBigcodeConfig) {
    super();
    const { hiddenSize, intermediateSize } = config;
    this.c_fc = new Linear(hiddenSize, intermediateSize, { std: config.initializerRange });
    this.c_proj = new Linear(intermediateSize, hiddenSize, { std: residualStd(config) });
    this.dropout = new Dropout(config.dropout.residual);
    this.activation = config.activation;
  }

  forward(given: Tensor): Tensor {
    return byRows(this, given, (x) => {
      const wide = this.c_fc.forward(x);
      const active = gelu(wide, this.activation);
      rest(x);
      const y = this.c_proj.forward(active);
      discard([wide, active], [x, y]);
      return y;
    });
  }
}

class Block extends Module {
  ln_1: LayerNorm;
  attn: Attention;
  ln_2: LayerNorm;
  mlp: Mlp;

  constructor(config: GptBigcodeConfig) {
    super();
    this.ln_1 = new LayerNorm(config.hiddenSize, { eps: config.layerNormEps });
    this.attn = new Attention(config);
    this.ln_2 = new LayerNorm(config.hiddenSize, { eps: config.layerNormEps });
    this.mlp = new Mlp(config);
  }

  /** From the residual stream and its norm to what is to be added to the stream after attention, and that stream. */
  forward(h: Tensor, normed: Tensor, attend: (x: Tensor) => Tensor): [Tensor, Tensor] {
    const attended = attend(normed);
    const [middle, middleNormed] = this.ln_2.forwardAdd(attended, h, this.attn.resid_dropout.share);
    discard([attended], [h, normed, middle, middleNormed]);
    const x = this.mlp.forward(middleNormed);
    discard([middleNormed], [h, normed, middle, x]);
    return [x, middle];
  }
}

class Transformer extends Module {
  wte: EmbeddingLike;
  wpe: EmbeddingLike;
  drop: Dropout;
  h: Block[];
  ln_f: LayerNorm;

  constructor(config: GptBigcodeConfig) {
    super();
    const { vocabSize, maxPositions, hiddenSize, layers, initializerRange: std } = config;
    this.wte = new Embedding(vocabSize, hiddenSize, { std });
    this.wpe = new Embedding(maxPositions, hiddenSize, { std });
    this.drop = new Dropout(config.dropout.embedding);
    this.h = Array.from({ length: layers }, () => new Block(config));
    this.ln_f = new LayerNorm(hiddenSize, { eps: config.layerNormEps });
  }

  /** Tokens and their places (rows, hidden). */
  embed(rows: Rows): Tensor {
    const tokens = noisy(this.wte.forward(rows.ids), rows.noise);
    const places = inDType(this.wpe.forward(rows.positions), tokens.dtype);
    const sum = tokens.add(places);
    const embedded = this.drop.forward(sum);
    discard([tokens, places, sum], [embedded]);
    return embedded;
  }
}

/** The whole model; parameter names are the checkpoint's. */
export class GPTBigCodeForCausalLM extends LmHeadModel {
  transformer: Transformer;
  lm_head: LinearLike | undefined;
  readonly config: GptBigcodeConfig;
  readonly defaultTargets: readonly string[] = ["c_attn"];
  readonly tableName = "transformer.wte";

  constructor(config: GptBigcodeConfig) {
    super();
    this.config = config;
    this.transformer = new Transformer(config);
    this.lm_head = config.tied
      ? undefined
      : new Linear(config.hiddenSize, config.vocabSize, { bias: false, std: config.initializerRange });
  }

  hidden(rows: Rows, cache?: KvCache): Tensor {
    const { maxPositions } = this.config;
    if (!cache && rows.maxPosition > maxPositions)
      throw new ConfigError(
        `A row has ${rows.maxPosition} tokens, and the model has learned positions for ${maxPositions}; give shorter rows (maxLength).`,
      );
    const { h: blocks, ln_f } = this.transformer;
    const norms = [...blocks.map((block) => block.ln_1), ln_f];
    const forward = (i: number, h: Tensor, normed: Tensor): [Tensor, Tensor] => {
      const { attn } = blocks[i]!;
      return blocks[i]!.forward(h, normed, (x) => attn.forward(x, rows, i, cache));
    };
    const normed = residualStream(this.transformer.embed(rows), norms, forward, (i) => blocks[i]!.mlp.dropout.share);
    cache?.advance();
    return normed;
  }
}
