import { discard, rest } from "../autograd/checkpoint.js";
import type { ConfigFields } from "../hub/config.js";
import { bfloat16ToFloat32, float16ToFloat32, float32ToBfloat16, float32ToFloat16 } from "../hub/float16.js";
import type { KvCache, Rows } from "../nn/cache.js";
import { Embedding, type EmbeddingLike, Linear, type LinearLike, linears, RMSNorm } from "../nn/layers.js";
import { Module } from "../nn/module.js";
import type { DType } from "../tensor/dtype.js";
import { geglu } from "../tensor/ops/activation.js";
import { attention, type RopeTables, rope } from "../tensor/ops/attention.js";
import type { Tensor } from "../tensor/tensor.js";
import { gatedRows } from "./by-rows.js";
import { type CausalConfig, LmHeadModel, noisy } from "./causal.js";
import { residualStream } from "./residual.js";
import { RopeCache, type RopeConfig, ropeConfig } from "./rope.js";

/** Gemma (Gemma Team 2024): as Llama, with norms that multiply by 1 + weight, wide heads, GELU for SiLU, and a table that is scaled up where it is read. */
export interface GemmaConfig extends CausalConfig {
  readonly rmsNormEps: number;
  readonly rope: RopeConfig;
  /** Share of the attention's weights that is dropped while training. */
  readonly attentionDropout: number;
  readonly attentionBias: boolean;
  readonly initializerRange: number;
}

/** Reads config.json of `model_type: "gemma"`, with transformers' defaults for absent keys. */
export function gemmaConfig(c: ConfigFields): GemmaConfig {
  const heads = c.integer("num_attention_heads", { default: 16, min: 1 });
  const kvHeads = c.integer("num_key_value_heads", { default: 16, min: 1 });
  const headDim = c.integer("head_dim", { default: 256, min: 1 });
  // Early files say "gelu" and mean its approximation by tanh all the same.
  c.string("hidden_act", { default: "gelu_pytorch_tanh", oneOf: ["gelu_pytorch_tanh", "gelu"] });
  if (c.given("use_bidirectional_attention") && c.boolean("use_bidirectional_attention"))
    throw c.wrong("use_bidirectional_attention", "false: this is no model that sees what follows");
  if (heads % kvHeads !== 0) throw c.wrong("num_key_value_heads", `a divisor of num_attention_heads, ${heads}`);
  return {
    modelType: "gemma",
    vocabSize: c.integer("vocab_size", { default: 256000, min: 1 }),
    hiddenSize: c.integer("hidden_size", { default: 3072, min: 1 }),
    layers: c.integer("num_hidden_layers", { default: 28, min: 1 }),
    heads,
    kvHeads,
    headDim,
    intermediateSize: c.integer("intermediate_size", { default: 24576, min: 1 }),
    maxPositions: c.integer("max_position_embeddings", { default: 8192, min: 1 }),
    tied: c.boolean("tie_word_embeddings", { default: true }),
    rmsNormEps: c.number("rms_norm_eps", { default: 1e-6 }),
    rope: ropeConfig(c, headDim),
    attentionDropout: c.number("attention_dropout", { default: 0, min: 0, max: 0.999 }),
    attentionBias: c.boolean("attention_bias", { default: false }),
    initializerRange: c.number("initializer_range", { default: 0.02 }),
    raw: c.values,
  };
}

// The reference rounds the root to the dtype of the activations, and models were trained so.
function embeddingFactor(width: number, dtype: DType): number {
  const root = Float32Array.of(Math.sqrt(width));
  if (dtype === "bfloat16") return bfloat16ToFloat32(float32ToBfloat16(root))[0]!;
  return dtype === "float16" ? float16ToFloat32(float32ToFloat16(root))[0]! : root[0]!;
}

class Attention extends Module {
  q_proj: LinearLike;
  k_proj: LinearLike;
  v_proj: LinearLike;
  o_proj: LinearLike;
  readonly config: GemmaConfig;

  constructor(config: GemmaConfig) {
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

  constructor(config: GemmaConfig) {
    super();
    const { hiddenSize, intermediateSize } = config;
    const options = { bias: false, std: config.initializerRange };
    this.gate_proj = new Linear(hiddenSize, intermediateSize, options);
    this.up_proj = new Linear(hiddenSize, intermediateSize, options);
    this.down_proj = new Linear(intermediateSize, hiddenSize, options);
  }

  forward(x: Tensor): Tensor {
    return gatedRows(this, x, geglu);
  }
}

class Block extends Module {
  self_attn: Attention;
  mlp: Mlp;
  input_layernorm: RMSNorm;
  post_attention_layernorm: RMSNorm;

  constructor(config: GemmaConfig) {
    super();
    this.self_attn = new Attention(config);
    this.mlp = new Mlp(config);
    this.input_layernorm = new RMSNorm(config.hiddenSize, { eps: config.rmsNormEps, offset: 1 });
    this.post_attention_layernorm = new RMSNorm(config.hiddenSize, { eps: config.rmsNormEps, offset: 1 });
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

class GemmaModel extends Module {
  embed_tokens: EmbeddingLike;
  layers: Block[];
  norm: RMSNorm;

  constructor(config: GemmaConfig) {
    super();
    this.embed_tokens = new Embedding(config.vocabSize, config.hiddenSize, { std: config.initializerRange });
    this.layers = Array.from({ length: config.layers }, () => new Block(config));
    this.norm = new RMSNorm(config.hiddenSize, { eps: config.rmsNormEps, offset: 1 });
  }

  /** Rows of the table, multiplied by the root of their width (rows, hidden). */
  embed(rows: Rows): Tensor {
    const row = noisy(this.embed_tokens.forward(rows.ids), rows.noise);
    const h = row.mul(embeddingFactor(row.dim(-1), row.dtype));
    discard([row], [h]);
    return h;
  }
}

/** The whole model; parameter names are the checkpoint's. */
export class GemmaForCausalLM extends LmHeadModel {
  model: GemmaModel;
  lm_head: LinearLike | undefined;
  readonly config: GemmaConfig;
  readonly defaultTargets: readonly string[] = ["q_proj", "v_proj"];
  readonly tableName = "model.embed_tokens";
  private readonly ropeCache: RopeCache;

  constructor(config: GemmaConfig) {
    super();
    this.config = config;
    this.model = new GemmaModel(config);
    this.lm_head = config.tied
      ? undefined
      : new Linear(config.hiddenSize, config.vocabSize, { bias: false, std: config.initializerRange });
    this.ropeCache = new RopeCache(config.rope);
  }

  hidden(rows: Rows, cache?: KvCache): Tensor {
    const tables = this.ropeCache.upTo(rows.maxPosition, rows.ids.device);
    const { layers, norm } = this.model;
    const norms = [...layers.map((block) => block.input_layernorm), norm];
    const normed = residualStream(this.model.embed(rows), norms, (i, h, normed) => {
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
