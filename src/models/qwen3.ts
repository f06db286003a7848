import { discard, rest } from "../autograd/checkpoint.js";
import type { ConfigFields } from "../hub/config.js";
import type { KvCache, Rows } from "../nn/cache.js";
import { Embedding, type EmbeddingLike, Linear, type LinearLike, linears, RMSNorm } from "../nn/layers.js";
import { Module } from "../nn/module.js";
import { swiglu } from "../tensor/ops/activation.js";
import { attention, type RopeTables, rope } from "../tensor/ops/attention.js";
import { reshape } from "../tensor/ops/layout.js";
import type { Tensor } from "../tensor/tensor.js";
import { gatedRows } from "./by-rows.js";
import { type CausalConfig, LmHeadModel, noisy } from "./causal.js";
import { residualStream } from "./residual.js";
import { RopeCache, type RopeConfig, ropeConfig } from "./rope.js";
import { windows } from "./window.js";

/** Qwen3 (Yang et al. 2025): as Llama, with a norm over each head of queries and keys before they are turned, and heads of a width of their own. */
export interface Qwen3Config extends CausalConfig {
  readonly rmsNormEps: number;
  readonly rope: RopeConfig;
  /** Share of the attention's weights that is dropped while training. */
  readonly attentionDropout: number;
  readonly attentionBias: boolean;
  /** Keys that a query of each layer sees, itself included; 0: all. */
  readonly windows: readonly number[];
  readonly initializerRange: number;
}

/** Reads config.json of `model_type: "qwen3"`, with transformers' defaults for absent keys. */
export function qwen3Config(c: ConfigFields): Qwen3Config {
  const heads = c.integer("num_attention_heads", { default: 32, min: 1 });
  const headDim = c.integer("head_dim", { default: 128, min: 1 });
  const kvHeads =
    c.get("num_key_value_heads") === null ? heads : c.integer("num_key_value_heads", { default: 32, min: 1 });
  c.string("hidden_act", { default: "silu", oneOf: ["silu"] });
  if (heads % kvHeads !== 0) throw c.wrong("num_key_value_heads", `a divisor of num_attention_heads, ${heads}`);
  const layers = c.integer("num_hidden_layers", { default: 32, min: 1 });
  return {
    modelType: "qwen3",
    vocabSize: c.integer("vocab_size", { default: 151936, min: 1 }),
    hiddenSize: c.integer("hidden_size", { default: 4096, min: 1 }),
    layers,
    heads,
    kvHeads,
    headDim,
    intermediateSize: c.integer("intermediate_size", { default: 22016, min: 1 }),
    maxPositions: c.integer("max_position_embeddings", { default: 32768, min: 1 }),
    tied: c.boolean("tie_word_embeddings", { default: false }),
    rmsNormEps: c.number("rms_norm_eps", { default: 1e-6 }),
    rope: ropeConfig(c, headDim),
    attentionDropout: c.number("attention_dropout", { default: 0, min: 0, max: 0.999 }),
    attentionBias: c.boolean("attention_bias", { default: false }),
    windows: windows(c, layers),
    initializerRange: c.number("initializer_range", { default: 0.02 }),
    raw: c.values,
  };
}

class Attention extends Module {
  q_proj: LinearLike;
  k_proj: LinearLike;
  v_proj: LinearLike;
  o_proj: LinearLike;
  q_norm: RMSNorm;
  k_norm: RMSNorm;
  readonly config: Qwen3Config;

  constructor(config: Qwen3Config) {
    super();
    const { hiddenSize, heads, kvHeads, headDim } = config;
    const options = { bias: config.attentionBias, std: config.initializerRange };
    this.q_proj = new Linear(hiddenSize, heads * headDim, options);
    this.k_proj = new Linear(hiddenSize, kvHeads * headDim, options);
    this.v_proj = new Linear(hiddenSize, kvHeads * headDim, options);
    this.o_proj = new Linear(heads * headDim, hiddenSize, options);
    this.q_norm = new RMSNorm(headDim, { eps: config.rmsNormEps });
    this.k_norm = new RMSNorm(headDim, { eps: config.rmsNormEps });
    this.config = config;
  }

  forward(x: Tensor, rows: Rows, tables: RopeTables, layer: number, cache?: KvCache): Tensor {
    const { heads, kvHeads, headDim } = this.config;
    const dropout = this.training ? this.config.attentionDropout : 0;
    const limit = this.config.windows[layer]!;
    const window = rows.maxPosition > limit ? limit : 0; // shorter rows see all of their keys
    const [flatQ, flatK, v] = linears([this.q_proj, this.k_proj, this.v_proj], x);
    const q = this.turned(flatQ, this.q_norm, x, rows, tables, heads);
    const k = this.turned(flatK, this.k_norm, x, rows, tables, kvHeads);
    const [keys, values] = cache ? cache.append(layer, k, v) : [k, v];
    const o = attention(q, keys, values, rows.segments, { heads, kvHeads, headDim, window, dropout });
    rest(x);
    const y = this.o_proj.forward(o);
    discard([q, k, v, o], [x, y]);
    return y;
  }

  /** Queries or keys (rows, heads·headDim): each head normed by itself, then turned. */
  private turned(flat: Tensor, norm: RMSNorm, x: Tensor, rows: Rows, tables: RopeTables, heads: number): Tensor {
    const { headDim } = this.config;
    const each = reshape(flat, [-1, headDim]); // (rows·heads, headDim)
    const normed = norm.forward(each);
    const joined = reshape(normed, flat.shape);
    const y = rope(joined, rows.positions, tables, { heads, headDim });
    discard([flat, each, joined, normed], [x, y]);
    return y;
  }
}

class Mlp extends Module {
  gate_proj: LinearLike;
  up_proj: LinearLike;
  down_proj: LinearLike;

  constructor(config: Qwen3Config) {
    super();
    const { hiddenSize, intermediateSize } = config;
    const options = { bias: false, std: config.initializerRange };
    this.gate_proj = new Linear(hiddenSize, intermediateSize, options);
    this.up_proj = new Linear(hiddenSize, intermediateSize, options);
    this.down_proj = new Linear(intermediateSize, hiddenSize, options);
  }

  forward(x: Tensor): Tensor {
    return gatedRows(this, x, swiglu);
  }
}

class Block extends Module {
  self_attn: Attention;
  mlp: Mlp;
  input_layernorm: RMSNorm;
  post_attention_layernorm: RMSNorm;

  constructor(config: Qwen3Config) {
    super();
    this.self_attn = new Attention(config);
    this.mlp = new Mlp(config);
    this.input_layernorm = new RMSNorm(config.hiddenSize, { eps: config.rmsNormEps });
    this.post_attention_layernorm = new RMSNorm(config.hiddenSize, { eps: config.rmsNormEps });
  }

  /** From the residual stream and its norm to what is to be added to the stream after attention, and that stream. */
  forward(h: Tensor, normed: Tensor, attend: (x: Tensor) => Tensor): [Tensor, Tensor] {
    const attended = attend(normed);
    const [middle, middleNormed] = this.post_attention_layernorm.forwardAdd(attended, h);
    discard([attended], [h, normed, middle, middleNormed]);
    const x = this.mlp.forward(middleNormed);
    discard([middleNormed], [h, normed, middle, x]);
    return [x, middle];
  }
}

class Qwen3Model extends Module {
  embed_tokens: EmbeddingLike;
  layers: Block[];
  norm: RMSNorm;

  constructor(config: Qwen3Config) {
    super();
    this.embed_tokens = new Embedding(config.vocabSize, config.hiddenSize, { std: config.initializerRange });
    this.layers = Array.from({ length: config.layers }, () => new Block(config));
    this.norm = new RMSNorm(config.hiddenSize, { eps: config.rmsNormEps });
  }
}

/** The whole model; parameter names are the checkpoint's. */
export class Qwen3ForCausalLM extends LmHeadModel {
  model: Qwen3Model;
  lm_head: LinearLike | undefined;
  readonly config: Qwen3Config;
  readonly defaultTargets: readonly string[] = ["q_proj", "v_proj"];
  readonly tableName = "model.embed_tokens";
  private readonly ropeCache: RopeCache;

  constructor(config: Qwen3Config) {
    super();
    this.config = config;
    this.model = new Qwen3Model(config);
    this.lm_head = config.tied
      ? undefined
      : new Linear(config.hiddenSize, config.vocabSize, { bias: false, std: config.initializerRange });
    this.ropeCache = new RopeCache(config.rope);
  }

  hidden(rows: Rows, cache?: KvCache): Tensor {
    const tables = this.ropeCache.upTo(rows.maxPosition, rows.ids.device);
    const { embed_tokens, layers, norm } = this.model;
    const norms = [...layers.map((block) => block.input_layernorm), norm];
    const normed = residualStream(noisy(embed_tokens.forward(rows.ids), rows.noise), norms, (i, h, normed) => {
      const { self_attn } = layers[i]!;
      return layers[i]!.forward(h, normed, (x) => self_attn.forward(x, rows, tables, i, cache));
    });
    cache?.advance();
    return normed;
  }

  protected override release(): void {
    super.release();
    this.ropeCache.dispose();
  }
}
