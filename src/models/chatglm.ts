import { discard, rest } from "../autograd/checkpoint.js";
import { ConfigError } from "../errors.js";
import type { ConfigFields } from "../hub/config.js";
import type { KvCache, Rows } from "../nn/cache.js";
import { Dropout, Embedding, type EmbeddingLike, Linear, type LinearLike, RMSNorm } from "../nn/layers.js";
import { Module } from "../nn/module.js";
import { swigluHalves } from "../tensor/ops/activation.js";
import { attention, type RopeTables, rope } from "../tensor/ops/attention.js";
import type { FrozenWeight } from "../tensor/ops/frozen.js";
import { split } from "../tensor/ops/layout.js";
import type { Tensor } from "../tensor/tensor.js";
import { byRows } from "./by-rows.js";
import { type CausalConfig, CausalLM, noisy, plainWeight } from "./causal.js";
import { residualStream } from "./residual.js";
import { RopeCache } from "./rope.js";

/** ChatGLM2 and 3 and GLM-4 (Zeng et al. 2024): RoPE on neighbouring pairs of the first half of each head, few groups of keys, SwiGLU in one matrix. */
export interface ChatglmConfig extends CausalConfig {
  readonly rmsNormEps: number;
  readonly ropeTheta: number;
  readonly qkvBias: boolean;
  readonly linearBias: boolean;
  /** Shares that are dropped while training: of the attention's weights, and of what each half of a block adds. */
  readonly attentionDropout: number;
  readonly dropout: number;
}

/** Reads config.json of `model_type: "chatglm"`, with the defaults of ChatGLM's own class for absent keys. */
export function chatglmConfig(c: ConfigFields): ChatglmConfig {
  if (c.has("position_encoding_2d") || c.has("inner_hidden_size"))
    throw new ConfigError(
      `${c.where}: this is the first ChatGLM, another architecture; ChatGLM2, ChatGLM3 and GLM-4 are supported.`,
    );
  const must = (name: string, value: boolean, otherwise: boolean): void => {
    if (c.boolean(name, { default: otherwise }) !== value) throw c.wrong(name, String(value));
  };
  must("rmsnorm", true, true);
  must("post_layer_norm", true, true);
  must("apply_residual_connection_post_layernorm", false, false);
  must("multi_query_attention", true, false);
  if (c.given("pre_seq_len")) throw c.wrong("pre_seq_len", "none: prefix tuning is not supported");
  const heads = c.integer("num_attention_heads", { default: 32, min: 1 });
  const kvHeads = c.integer("multi_query_group_num", { default: 1, min: 1 });
  const headDim = c.integer("kv_channels", { default: 128, min: 1 });
  if (heads % kvHeads !== 0) throw c.wrong("multi_query_group_num", `a divisor of num_attention_heads, ${heads}`);
  if (headDim % 4 !== 0) throw c.wrong("kv_channels", "a multiple of 4, half of which are turned in pairs");
  return {
    modelType: "chatglm",
    vocabSize: c.integer("padded_vocab_size", { default: 65024, min: 1 }),
    hiddenSize: c.integer("hidden_size", { default: 4096, min: 1 }),
    layers: c.integer("num_layers", { default: 28, min: 1 }),
    heads,
    kvHeads,
    headDim,
    intermediateSize: c.integer("ffn_hidden_size", { default: 13696, min: 1 }),
    maxPositions: c.integer("seq_length", { default: 2048, min: 1 }),
    tied: false,
    rmsNormEps: c.number("layernorm_epsilon", { default: 1e-5 }),
    ropeTheta: 10000 * c.number("rope_ratio", { default: 1 }),
    qkvBias: c.boolean("add_qkv_bias", { default: false }),
    linearBias: c.boolean("add_bias_linear", { default: false }),
    attentionDropout: c.number("attention_dropout", { default: 0, min: 0, max: 0.999 }),
    dropout: c.number("hidden_dropout", { default: 0, min: 0, max: 0.999 }),
    raw: c.values,
  };
}

const STD = 0.02; // of random weights

class SelfAttention extends Module {
  query_key_value: LinearLike;
  dense: LinearLike;
  readonly config: ChatglmConfig;

  constructor(config: ChatglmConfig) {
    super();
    const { hiddenSize, heads, kvHeads, headDim, qkvBias, linearBias } = config;
    const width = (heads + 2 * kvHeads) * headDim;
    this.query_key_value = new Linear(hiddenSize, width, { bias: qkvBias || linearBias, std: STD });
    this.dense = new Linear(heads * headDim, hiddenSize, { bias: linearBias, std: STD });
    this.config = config;
  }

  forward(x: Tensor, rows: Rows, tables: RopeTables, layer: number, cache?: KvCache): Tensor {
    const { heads, kvHeads, headDim } = this.config;
    const dropout = this.training ? this.config.attentionDropout : 0;
    const half = { headDim, rotaryDim: headDim / 2, interleaved: true };
    const all = this.query_key_value.forward(x);
    const widths = [heads * headDim, kvHeads * headDim, kvHeads * headDim];
    const [flatQ, flatK, v] = split(all, widths) as [Tensor, Tensor, Tensor];
    const q = rope(flatQ, rows.positions, tables, { heads, ...half });
    const k = rope(flatK, rows.positions, tables, { heads: kvHeads, ...half });
    discard([all, flatQ, flatK], [x, q, k, v]);
    const [keys, values] = cache ? cache.append(layer, k, v) : [k, v];
    const o = attention(q, keys, values, rows.segments, { heads, kvHeads, headDim, dropout });
    rest(x);
    const y = this.dense.forward(o);
    discard([q, k, v, o], [x, y]);
    return y;
  }
}

class Mlp extends Module {
  dense_h_to_4h: LinearLike;
  dense_4h_to_h: LinearLike;

  constructor(config: ChatglmConfig) {
    super();
    const { hiddenSize, intermediateSize, linearBias } = config;
    const options = { bias: linearBias, std: STD };
    this.dense_h_to_4h = new Linear(hiddenSize, 2 * intermediateSize, options);
    this.dense_4h_to_h = new Linear(intermediateSize, hiddenSize, options);
  }

  forward(given: Tensor): Tensor {
    return byRows(this, given, (x) => {
      const both = this.dense_h_to_4h.forward(x); // (rows, gate | up)
      const product = swigluHalves(both);
      rest(x);
      const y = this.dense_4h_to_h.forward(product);
      discard([both, product], [x, y]);
      return y;
    });
  }
}

class Layer extends Module {
  input_layernorm: RMSNorm;
  self_attention: SelfAttention;
  post_attention_layernorm: RMSNorm;
  mlp: Mlp;
  dropout: Dropout;

  constructor(config: ChatglmConfig) {
    super();
    this.input_layernorm = new RMSNorm(config.hiddenSize, { eps: config.rmsNormEps });
    this.self_attention = new SelfAttention(config);
    this.post_attention_layernorm = new RMSNorm(config.hiddenSize, { eps: config.rmsNormEps });
    this.mlp = new Mlp(config);
    this.dropout = new Dropout(config.dropout);
  }

  /** From the residual stream and its norm to what is to be added to the stream after attention, and that stream. */
  forward(h: Tensor, normed: Tensor, attend: (x: Tensor) => Tensor): [Tensor, Tensor] {
    const attended = this.dropped(attend(normed), h, normed);
    const [middle, middleNormed] = this.post_attention_layernorm.forwardAdd(attended, h);
    discard([attended], [h, normed, middle, middleNormed]);
    const x = this.dropped(this.mlp.forward(middleNormed), h, middle, middleNormed);
    discard([middleNormed], [h, normed, middle, x]);
    return [x, middle];
  }

  private dropped(x: Tensor, ...keep: Tensor[]): Tensor {
    const y = this.dropout.forward(x);
    discard([x], [...keep, y]);
    return y;
  }
}

class TokenTable extends Module {
  word_embeddings: EmbeddingLike;

  constructor(config: ChatglmConfig) {
    super();
    this.word_embeddings = new Embedding(config.vocabSize, config.hiddenSize, { std: STD });
  }
}

class Encoder extends Module {
  layers: Layer[];
  final_layernorm: RMSNorm;

  constructor(config: ChatglmConfig) {
    super();
    this.layers = Array.from({ length: config.layers }, () => new Layer(config));
    this.final_layernorm = new RMSNorm(config.hiddenSize, { eps: config.rmsNormEps });
  }
}

class Transformer extends Module {
  embedding: TokenTable;
  encoder: Encoder;
  output_layer: LinearLike;

  constructor(config: ChatglmConfig) {
    super();
    this.embedding = new TokenTable(config);
    this.encoder = new Encoder(config);
    this.output_layer = new Linear(config.hiddenSize, config.vocabSize, { bias: false, std: STD });
  }
}

/** The whole model; parameter names are the checkpoint's. */
export class ChatGLMForConditionalGeneration extends CausalLM {
  transformer: Transformer;
  readonly config: ChatglmConfig;
  readonly defaultTargets: readonly string[] = ["query_key_value"];
  readonly tableName = "transformer.embedding.word_embeddings";
  readonly headName = "transformer.output_layer";
  private readonly ropeCache: RopeCache;

  constructor(config: ChatglmConfig) {
    super();
    this.config = config;
    this.transformer = new Transformer(config);
    this.ropeCache = new RopeCache({ theta: config.ropeTheta, dim: config.headDim / 2 });
  }

  override get vocabField(): string {
    return "padded_vocab_size";
  }

  headWeight(): Tensor | FrozenWeight | undefined {
    return plainWeight(this.transformer.output_layer);
  }

  // The output layer always has a weight of its own.
  separateHead(): void {}

  untied(): void {}

  hidden(rows: Rows, cache?: KvCache): Tensor {
    const tables = this.ropeCache.upTo(rows.maxPosition, rows.ids.device);
    const { embedding, encoder } = this.transformer;
    const { layers, final_layernorm } = encoder;
    const norms = [...layers.map((layer) => layer.input_layernorm), final_layernorm];
    const normed = residualStream(
      noisy(embedding.word_embeddings.forward(rows.ids), rows.noise),
      norms,
      (i, h, normed) => {
        const { self_attention } = layers[i]!;
        return layers[i]!.forward(h, normed, (x) => self_attention.forward(x, rows, tables, i, cache));
      },
    );
    cache?.advance();
    return normed;
  }

  protected override release(): void {
    super.release();
    this.ropeCache.dispose();
  }
}
