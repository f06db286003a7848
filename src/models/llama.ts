import { discard, rest } from "../autograd/checkpoint.js";
import { ConfigError } from "../errors.js";
import type { ConfigFields } from "../hub/config.js";
import type { KvCache, Rows } from "../nn/cache.js";
import { Embedding, type EmbeddingLike, Linear, type LinearLike, linears, RMSNorm } from "../nn/layers.js";
import { Module } from "../nn/module.js";
import { swiglu } from "../tensor/ops/activation.js";
import { attention, type RopeTables, rope } from "../tensor/ops/attention.js";
import type { Tensor } from "../tensor/tensor.js";
import { gatedRows } from "./by-rows.js";
import { type CausalConfig, LmHeadModel, noisy } from "./causal.js";
import { residualStream } from "./residual.js";
import { RopeCache, type RopeConfig, ropeConfig } from "./rope.js";

/** Llama 1 to 3.x (Touvron et al. 2023): RMSNorm before, rotate-half RoPE, grouped queries, SwiGLU. */
export interface LlamaConfig extends CausalConfig {
  readonly rmsNormEps: number;
  readonly rope: RopeConfig;
  /** Share of the attention's weights that is dropped while training. */
  readonly attentionDropout: number;
  readonly attentionBias: boolean;
  readonly mlpBias: boolean;
  /** Standard deviation of random weights. */
  readonly initializerRange: number;
}

/** Reads config.json of `model_type: "llama"`, with transformers' defaults for absent keys. */
export function llamaConfig(c: ConfigFields): LlamaConfig {
  const hiddenSize = c.integer("hidden_size", { default: 4096, min: 1 });
  const heads = c.integer("num_attention_heads", { default: 32, min: 1 });
  c.string("hidden_act", { default: "silu", oneOf: ["silu"] });
  if (hiddenSize % heads !== 0 && !c.given("head_dim")) {
    throw new ConfigError(
      `${c.where}: hidden_size ${hiddenSize} is not a multiple of num_attention_heads ${heads}, and head_dim is not given.`,
    );
  }
  const headDim = c.given("head_dim") ? c.integer("head_dim", { min: 1 }) : hiddenSize / heads;
  const kvHeads = c.given("num_key_value_heads") ? c.integer("num_key_value_heads", { min: 1 }) : heads;
  if (heads % kvHeads !== 0)
    throw new ConfigError(
      `${c.where}: num_attention_heads ${heads} is not a multiple of num_key_value_heads ${kvHeads}.`,
    );
  return {
    modelType: "llama",
    vocabSize: c.integer("vocab_size", { default: 32000, min: 1 }),
    hiddenSize,
    layers: c.integer("num_hidden_layers", { default: 32, min: 1 }),
    heads,
    kvHeads,
    headDim,
    intermediateSize: c.integer("intermediate_size", { default: 11008, min: 1 }),
    maxPositions: c.integer("max_position_embeddings", { default: 2048, min: 1 }),
    tied: c.boolean("tie_word_embeddings", { default: false }),
    rmsNormEps: c.number("rms_norm_eps", { default: 1e-6 }),
    rope: ropeConfig(c, headDim),
    attentionDropout: c.number("attention_dropout", { default: 0, min: 0, max: 0.999 }),
    attentionBias: c.boolean("attention_bias", { default: false }),
    mlpBias: c.boolean("mlp_bias", { default: false }),
    initializerRange: c.number("initializer_range", { default: 0.02 }),
    raw: c.values,
  };
}

class Attention extends Module {
  q_proj: LinearLike;
  k_proj: LinearLike;
  v_proj: LinearLike;
  o_proj: LinearLike;
  readonly config: LlamaConfig;

  constructor(config: LlamaConfig) {
    super();
    const { hiddenSize, heads, kvHeads, headDim } = config;
    const options = { bias: config.attentionBias, std: config.initializerRange };
    this.q_proj = new Linear(hiddenSize, heads * headDim, options);
    this.k_proj = new Linear(hiddenSize, kvHeads * headDim, options);
    this.v_proj = new Linear(hiddenSize, kvHeads * headDim, options);
    this.o_proj = new Linear(heads * headDim, hiddenSize, options);
    this.config = config;
  }

  forward(x: Tensor, rows: Rows, tables: RopeTables, layer: number, cache?: KvCache): Tensor {
    const { heads, kvHeads, headDim } = this.config;
    const dropout = this.training ? this.config.attentionDropout : 0;
    // (rows, heads·headDim), (rows, kvHeads·headDim) twice
    const [flatQ, flatK, v] = linears([this.q_proj, this.k_proj, this.v_proj], x);
    const q = rope(flatQ, rows.positions, tables, { heads, headDim });
    discard([flatQ], [x, q]);
    const k = rope(flatK, rows.positions, tables, { heads: kvHeads, headDim });
    discard([flatK], [x, k]);
    const [keys, values] = cache ? cache.append(layer, k, v) : [k, v];
    const o = attention(q, keys, values, rows.segments, { heads, kvHeads, headDim, dropout });
    rest(x);
    const y = this.o_proj.forward(o);
    discard([q, k, v, o], [x, y]);
    return y;
  }
}

class Mlp extends Module {
  gate_proj: LinearLike;
  up_proj: LinearLike;
  down_proj: LinearLike;

  constructor(config: LlamaConfig) {
    super();
    const { hiddenSize, intermediateSize } = config;
    const options = { bias: config.mlpBias, std: config.initializerRange };
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

  constructor(config: LlamaConfig) {
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

class LlamaModel extends Module {
  embed_tokens: EmbeddingLike;
  layers: Block[];
  norm: RMSNorm;

  constructor(config: LlamaConfig) {
    super();
    this.embed_tokens = new Embedding(config.vocabSize, config.hiddenSize, { std: config.initializerRange });
    this.layers = Array.from({ length: config.layers }, () => new Block(config));
    this.norm = new RMSNorm(config.hiddenSize, { eps: config.rmsNormEps });
  }
}

/** The whole model; parameter names are the checkpoint's. */
export class LlamaForCausalLM extends LmHeadModel {
  model: LlamaModel;
  lm_head: LinearLike | undefined;
  readonly config: LlamaConfig;
  readonly defaultTargets: readonly string[] = ["q_proj", "v_proj"];
  readonly tableName = "model.embed_tokens";
  private readonly ropeCache: RopeCache;

  constructor(config: LlamaConfig) {
    super();
    this.config = config;
    this.model = new LlamaModel(config);
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
