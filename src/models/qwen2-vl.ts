import { discard, rest, withCheckpointing } from "../autograd/checkpoint.js";
import { StateError } from "../errors.js";
import { ConfigFields } from "../hub/config.js";
import { QWEN2_VL_PICTURES, type Sight, type Tower } from "../images/patches.js";
import type { KvCache, RowPictures, Rows } from "../nn/cache.js";
import { Embedding, type EmbeddingLike, Linear, type LinearLike, linears, RMSNorm } from "../nn/layers.js";
import { Module } from "../nn/module.js";
import { swiglu } from "../tensor/ops/activation.js";
import { attention, type RopeTables, rope } from "../tensor/ops/attention.js";
import { noGrad } from "../tensor/record.js";
import { type Tensor, tensor } from "../tensor/tensor.js";
import { gatedRows } from "./by-rows.js";
import { type CausalConfig, LmHeadModel, noisy } from "./causal.js";
import { type Shown, shownImages, spliced } from "./image-rows.js";
import { CachedAngles, flatPositions, MropeAngles, type MropeConfig, mropeConfig, positionsOf } from "./mrope.js";
import { type VisionConfig, VisionTower, visionConfig } from "./qwen2-vl-vision.js";
import { residualStream } from "./residual.js";
import { RopeCache } from "./rope.js";

/** Qwen2-VL (Wang et al. 2024): Qwen2's text model, in which the tokens of images stand for what a vision tower saw. */
export interface Qwen2VLConfig extends CausalConfig {
  readonly rmsNormEps: number;
  readonly mrope: MropeConfig;
  readonly attentionDropout: number;
  readonly vision: VisionConfig;
  /** The token whose places images take. */
  readonly imageToken: number;
  readonly initializerRange: number;
}

/** Reads config.json of `model_type: "qwen2_vl"`: the text model's fields stand in `text_config`, or in older files beside `vision_config`. */
export function qwen2VLConfig(c: ConfigFields): Qwen2VLConfig {
  const t = c.object("text_config") ?? c;
  const hiddenSize = t.integer("hidden_size", { default: 8192, min: 1, max: 2 ** 20 });
  const heads = t.integer("num_attention_heads", { default: 64, min: 1, max: 2 ** 16 });
  const kvHeads =
    t.get("num_key_value_heads") === null ? heads : t.integer("num_key_value_heads", { default: 8, min: 1 });
  t.string("hidden_act", { default: "silu", oneOf: ["silu"] });
  if (hiddenSize % heads !== 0) throw t.wrong("hidden_size", `a multiple of num_attention_heads, ${heads}`);
  if (heads % kvHeads !== 0) throw t.wrong("num_key_value_heads", `a divisor of num_attention_heads, ${heads}`);
  if (t.boolean("use_sliding_window", { default: false })) throw t.wrong("use_sliding_window", "false");
  const tied = (fields: ConfigFields): boolean => fields.boolean("tie_word_embeddings", { default: false });
  return {
    modelType: "qwen2_vl",
    vocabSize: t.integer("vocab_size", { default: 152064, min: 1, max: 2 ** 24 }),
    hiddenSize,
    layers: t.integer("num_hidden_layers", { default: 80, min: 1, max: 1024 }),
    heads,
    kvHeads,
    headDim: hiddenSize / heads,
    intermediateSize: t.integer("intermediate_size", { default: 29568, min: 1, max: 2 ** 20 }),
    maxPositions: t.integer("max_position_embeddings", { default: 32768, min: 1, max: 2 ** 24 }),
    tied: tied(c) || tied(t),
    rmsNormEps: t.number("rms_norm_eps", { default: 1e-5 }),
    mrope: mropeConfig(t, hiddenSize / heads),
    attentionDropout: t.number("attention_dropout", { default: 0, min: 0, max: 1 }),
    vision: visionConfig(
      c.object("vision_config") ?? new ConfigFields({}, `${c.where} without "vision_config"`),
      hiddenSize,
    ),
    imageToken: c.integer("image_token_id", { default: 151655, min: 0 }),
    initializerRange: t.number("initializer_range", { default: 0.02 }),
    raw: flat(c),
  };
}

/** The config as the checkpoints of the hub have it: the text model's fields beside the others. */
function flat(c: ConfigFields): Record<string, unknown> {
  const { text_config: text, ...others } = c.values;
  return { ...(text as object | undefined), ...others };
}

class Attention extends Module {
  q_proj: LinearLike;
  k_proj: LinearLike;
  v_proj: LinearLike;
  o_proj: LinearLike;
  readonly config: Qwen2VLConfig;

  constructor(config: Qwen2VLConfig) {
    super();
    const { hiddenSize, heads, kvHeads, headDim, initializerRange: std } = config;
    this.q_proj = new Linear(hiddenSize, heads * headDim, { bias: true, std });
    this.k_proj = new Linear(hiddenSize, kvHeads * headDim, { bias: true, std });
    this.v_proj = new Linear(hiddenSize, kvHeads * headDim, { bias: true, std });
    this.o_proj = new Linear(heads * headDim, hiddenSize, { bias: false, std });
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

  constructor(config: Qwen2VLConfig) {
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

  constructor(config: Qwen2VLConfig) {
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

class TextModel extends Module {
  embed_tokens: EmbeddingLike;
  layers: Block[];
  norm: RMSNorm;

  constructor(config: Qwen2VLConfig) {
    super();
    this.embed_tokens = new Embedding(config.vocabSize, config.hiddenSize, { std: config.initializerRange });
    this.layers = Array.from({ length: config.layers }, () => new Block(config));
    this.norm = new RMSNorm(config.hiddenSize, { eps: config.rmsNormEps });
  }
}

class Qwen2VLModel extends Module {
  visual: VisionTower;
  language_model: TextModel;

  constructor(config: Qwen2VLConfig) {
    super();
    this.visual = new VisionTower(config.vision, config.hiddenSize);
    this.language_model = new TextModel(config);
  }
}

/** The whole model; parameter names are transformers', which reads and writes checkpoints under older ones. */
export class Qwen2VLForConditionalGeneration extends LmHeadModel {
  model: Qwen2VLModel;
  lm_head: LinearLike | undefined;
  readonly config: Qwen2VLConfig;
  /** Of the language layers alone. */
  readonly defaultTargets: readonly string[] = ["q_proj", "v_proj"];
  readonly tableName = "model.language_model.embed_tokens";
  override readonly leftDense: readonly string[] = ["model.visual"];
  override sight: Sight;
  override readonly tower: Tower;
  private readonly ropeCache: RopeCache;
  private readonly angles: MropeAngles;

  constructor(config: Qwen2VLConfig) {
    super();
    this.config = config;
    this.model = new Qwen2VLModel(config);
    this.lm_head = config.tied
      ? undefined
      : new Linear(config.hiddenSize, config.vocabSize, { bias: false, std: config.initializerRange });
    const { patchSize, mergeSize, temporalPatchSize, depth, dim } = config.vision;
    const settings = { ...QWEN2_VL_PICTURES, patchSize, mergeSize, temporalPatchSize };
    const rowsPerToken = (name: string): number => (name.startsWith("model.visual.merger.mlp.") ? 1 : mergeSize ** 2);
    this.tower = { prefix: "model.visual.", blocks: "model.visual.blocks.", depth, dim, rowsPerToken };
    this.sight = { imageToken: config.imageToken, settings };
    this.ropeCache = new RopeCache(config.mrope);
    this.angles = new MropeAngles(config.mrope);
  }

  override spellings(name: string): readonly string[] {
    const older = name.replace(/^model\.visual\./, "visual.").replace(/^model\.language_model\./, "model.");
    return older === name ? [name] : [older, name];
  }

  override ownName(spelling: string): string {
    return spelling
      .replace(/^visual\./, "model.visual.")
      .replace(/^model\.(?!visual\.|language_model\.)/, "model.language_model.");
  }

  hidden(given: Rows, cache?: KvCache): Tensor {
    const { embed_tokens, layers, norm } = this.model.language_model;
    const { pictures } = given;
    const goesOn = (s: number): boolean => cache !== undefined && cache.lengths[s]! > 0;
    const shown = pictures?.of.map((_, s) => (goesOn(s) ? [] : shownImages(pictures, s, this.sight)));
    const { rows, tables } = shown ? this.turned(given, shown, cache) : this.plain(given, cache);
    const text = noisy(embed_tokens.forward(rows.ids), rows.noise);
    const flat = shown?.flat() ?? [];
    const embedded = flat.length > 0 ? spliced(text, this.seen(pictures!), flat) : text;
    const norms = [...layers.map((block) => block.input_layernorm), norm];
    const normed = residualStream(embedded, norms, (i, h, normed) => {
      const { self_attn } = layers[i]!;
      return layers[i]!.forward(h, normed, (x) => self_attn.forward(x, rows, tables, i, cache));
    });
    cache?.advance();
    return normed;
  }

  /** Text alone turns by its place, or goes on behind images as its sequence does. */
  private plain(rows: Rows, cache: KvCache | undefined): { rows: Rows; tables: RopeTables } {
    const { device } = rows.ids;
    if (cache?.beside instanceof CachedAngles) return this.besideCache(rows, cache, cache.beside);
    return { rows, tables: this.ropeCache.upTo(rows.maxPosition, device) };
  }

  /** Each row turns as the tables say of its place in the cache. */
  private besideCache(rows: Rows, cache: KvCache, angles: CachedAngles): { rows: Rows; tables: RopeTables } {
    return { rows: { ...rows, positions: cache.rowPlaces }, tables: angles.upTo(cache.capacity, rows.ids.device) };
  }

  /** Rows with images turn by tables of their own, which stay beside a cache. */
  private turned(rows: Rows, shown: Shown[][], cache: KvCache | undefined): { rows: Rows; tables: RopeTables } {
    const { ids, begin, length } = rows.pictures!;
    const { device } = rows.ids;
    const positions = shown.map(
      (images, s) =>
      positionsOf(length[s]!, images.map((image) => ({ ...image, at: image.at - begin[s]! }))), // biome-ignore format: one thought
    );
    if (cache) {
      const { beside } = cache;
      const angles = beside instanceof CachedAngles ? beside : new CachedAngles(this.angles, cache.sequences);
      cache.beside = angles;
      for (const [s, p] of positions.entries()) {
        if (cache.lengths[s] === 0 && length[s]! > 0) angles.begin(s, p);
        else if (rows.pictures!.of[s]!.length > 0)
          throw new StateError("A key-value cache takes the images of a sequence at its beginning.");
      }
      return this.besideCache(rows, cache, angles);
    }
    const numbers = tensor(Int32Array.from(ids.keys()), { device });
    return {
      rows: { ...rows, positions: numbers },
      tables: this.angles.tables(flatPositions(positions, begin, ids.length), device),
    };
  }

  /** What the vision tower sees in the images of all sequences (tokens, hidden). A frozen tower keeps nothing, whatever the text model keeps. */
  private seen({ of }: RowPictures): Tensor {
    const { visual } = this.model;
    const see = (): Tensor => visual.forward(of.flat(), this.sight.settings, this.activations);
    return visual.trainableParameters().length > 0 ? see() : withCheckpointing("selective", () => noGrad(see));
  }

  protected override release(): void {
    super.release();
    this.ropeCache.dispose();
  }
}
