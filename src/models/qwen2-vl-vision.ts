import { discard } from "../autograd/checkpoint.js";
import type { ConfigFields } from "../hub/config.js";
import { type Picture, type PictureSettings, patchesOf, patchGrid, patchWidth } from "../images/patches.js";
import { normalInit } from "../nn/init.js";
import { LayerNorm, Linear, type LinearLike } from "../nn/layers.js";
import { Module, Parameter } from "../nn/module.js";
import type { Device } from "../tensor/device.js";
import type { FloatDType } from "../tensor/dtype.js";
import { gelu } from "../tensor/ops/activation.js";
import { attention, type RopeTables, rope, type Segments } from "../tensor/ops/attention.js";
import { split } from "../tensor/ops/layout.js";
import { linear } from "../tensor/ops/matmul.js";
import { type Tensor, tensor } from "../tensor/tensor.js";
import { residualStream } from "./residual.js";
import { inverseFrequencies } from "./rope.js";

/** What config.json says of the vision tower. */
export interface VisionConfig {
  readonly depth: number;
  readonly dim: number;
  readonly heads: number;
  readonly mlpDim: number;
  readonly activation: "quick_gelu" | "gelu";
  readonly patchSize: number;
  readonly temporalPatchSize: number;
  readonly mergeSize: number;
  readonly initializerRange: number;
}

/** Reads `vision_config`, with transformers' defaults for absent keys. @param hidden width of the text model, which it must give. */
export function visionConfig(c: ConfigFields, hidden: number): VisionConfig {
  const dim = c.integer("embed_dim", { default: 1280, min: 1, max: 2 ** 20 });
  const heads = c.integer("num_heads", { default: 16, min: 1, max: 2 ** 16 });
  if (dim % (heads * 4) !== 0) throw c.wrong("embed_dim", `a multiple of four times num_heads, ${heads}`);
  if (c.integer("hidden_size", { default: 3584 }) !== hidden)
    throw c.wrong("hidden_size", `the text model's hidden_size, ${hidden}`);
  const channels = c.has("in_channels") ? "in_channels" : "in_chans";
  c.integer(channels, { default: 3, min: 3, max: 3 });
  return {
    depth: c.integer("depth", { default: 32, min: 1, max: 1024 }),
    dim,
    heads,
    mlpDim: Math.trunc(dim * c.number("mlp_ratio", { default: 4, min: 0, max: 64 })),
    activation: c.string("hidden_act", { default: "quick_gelu", oneOf: ["quick_gelu", "gelu"] }) as "quick_gelu",
    patchSize: c.integer("patch_size", { default: 14, min: 1, max: 1024 }),
    temporalPatchSize: c.integer("temporal_patch_size", { default: 2, min: 1, max: 64 }),
    mergeSize: c.integer("spatial_merge_size", { default: 2, min: 1, max: 64 }),
    initializerRange: c.number("initializer_range", { default: 0.02 }),
  };
}

/** A convolution whose steps are as wide as it is: a product with each patch. The weight has a convolution's shape (dim, channels, frames, side, side). */
class PatchProjection extends Module {
  weight: Parameter;

  constructor({ dim, temporalPatchSize, patchSize, initializerRange }: VisionConfig) {
    super();
    this.weight = new Parameter([dim, 3, temporalPatchSize, patchSize, patchSize], normalInit(initializerRange));
  }

  forward(patches: Tensor): Tensor {
    return linear(patches, this.weight.reshape(this.weight.dim(0), -1)); // (patches, dim)
  }
}

class PatchEmbed extends Module {
  proj: PatchProjection;

  constructor(config: VisionConfig) {
    super();
    this.proj = new PatchProjection(config);
  }
}

class Attention extends Module {
  qkv: LinearLike;
  proj: LinearLike;
  readonly config: VisionConfig;

  constructor(config: VisionConfig) {
    super();
    const { dim, initializerRange: std } = config;
    this.qkv = new Linear(dim, 3 * dim, { std });
    this.proj = new Linear(dim, dim, { std });
    this.config = config;
  }

  forward(x: Tensor, places: Places): Tensor {
    const { dim, heads } = this.config;
    const shape = { heads, headDim: dim / heads };
    const all = this.qkv.forward(x);
    const [flatQ, flatK, v] = split(all, [dim, dim, dim]) as [Tensor, Tensor, Tensor]; // (patches, dim) each
    discard([all], [x, flatQ, flatK, v]);
    const q = rope(flatQ, places.numbers, places.tables, shape);
    const k = rope(flatK, places.numbers, places.tables, shape);
    discard([flatQ, flatK], [x, q, k]);
    const o = attention(q, k, v, places.segments, { ...shape, kvHeads: heads, causal: false });
    const y = this.proj.forward(o);
    discard([q, k, v, o], [x, y]);
    return y;
  }
}

class Mlp extends Module {
  fc1: LinearLike;
  fc2: LinearLike;
  readonly activation: "quick_gelu" | "gelu";

  constructor({ dim, mlpDim, activation, initializerRange: std }: VisionConfig) {
    super();
    this.fc1 = new Linear(dim, mlpDim, { std });
    this.fc2 = new Linear(mlpDim, dim, { std });
    this.activation = activation;
  }

  forward(x: Tensor): Tensor {
    const wide = this.fc1.forward(x);
    const active = gelu(wide, this.activation);
    const y = this.fc2.forward(active);
    discard([wide, active], [x, y]);
    return y;
  }
}

class Block extends Module {
  norm1: LayerNorm;
  norm2: LayerNorm;
  attn: Attention;
  mlp: Mlp;

  constructor(config: VisionConfig) {
    super();
    this.norm1 = new LayerNorm(config.dim, { eps: 1e-6 });
    this.norm2 = new LayerNorm(config.dim, { eps: 1e-6 });
    this.attn = new Attention(config);
    this.mlp = new Mlp(config);
  }

  /** From the residual stream and its norm to what is to be added to the stream after attention, and that stream. */
  forward(h: Tensor, normed: Tensor, places: Places): [Tensor, Tensor] {
    const attended = this.attn.forward(normed, places);
    const [middle, middleNormed] = this.norm2.forwardAdd(attended, h);
    discard([attended], [h, normed, middle, middleNormed]);
    const x = this.mlp.forward(middleNormed);
    discard([middleNormed], [h, normed, middle, x]);
    return [x, middle];
  }
}

/** Four patches that stand together become a token of the text model. */
class Merger extends Module {
  ln_q: LayerNorm;
  mlp: Record<"0" | "2", LinearLike>;

  constructor({ dim, mergeSize, initializerRange: std }: VisionConfig, hidden: number) {
    super();
    const wide = dim * mergeSize ** 2;
    this.ln_q = new LayerNorm(dim, { eps: 1e-6 });
    this.mlp = { 0: new Linear(wide, wide, { std }), 2: new Linear(wide, hidden, { std }) };
  }

  /** @param normed by `ln_q` (patches, dim) */
  forward(normed: Tensor): Tensor {
    const wide = this.mlp[0].forward(normed.reshape(-1, this.mlp[0].inFeatures));
    const active = gelu(wide, "gelu");
    const y = this.mlp[2].forward(active); // (tokens, hidden)
    discard([wide, active], [normed, y]);
    return y;
  }
}

/** Where patches stand, and which of them see each other: those of an image. */
interface Places {
  /** 0, 1, 2 …: the rows of the tables */
  readonly numbers: Tensor;
  readonly tables: RopeTables;
  readonly segments: Segments;
}

/** Qwen2-VL's vision tower: images in, tokens for the text model out. */
export class VisionTower extends Module {
  patch_embed: PatchEmbed;
  blocks: Block[];
  merger: Merger;
  readonly config: VisionConfig;

  constructor(config: VisionConfig, hidden: number) {
    super();
    this.config = config;
    this.patch_embed = new PatchEmbed(config);
    this.blocks = Array.from({ length: config.depth }, () => new Block(config));
    this.merger = new Merger(config, hidden);
  }

  /** Tokens (tokens, hidden) of images, one after another. @param activations dtype in which it computes. */
  forward(pictures: readonly Picture[], settings: PictureSettings, activations: FloatDType): Tensor {
    const device = this.device!;
    const given = patchesOf(pictures, settings);
    const patches = tensor(given, { shape: [given.length / patchWidth(settings), patchWidth(settings)], device });
    const places = this.places(pictures, settings, device);
    const made = this.patch_embed.proj.forward(patches);
    const embedded = made.dtype === activations ? made : made.to(activations);
    const norms = [...this.blocks.map((block) => block.norm1), this.merger.ln_q];
    const normed = residualStream(embedded, norms, (i, h, normed) => this.blocks[i]!.forward(h, normed, places));
    const tokens = this.merger.forward(normed);
    discard([normed], [tokens]);
    return tokens;
  }

  // The first half of a head's pairs turns by the place down, the second by that across, in the order in which patches become tokens.
  private places(pictures: readonly Picture[], settings: PictureSettings, device: Device): Places {
    const { dim, heads, mergeSize: merge } = this.config;
    const frequencies = inverseFrequencies({ theta: 10000, dim: dim / heads / 2 });
    const half = 2 * frequencies.length;
    const lengths = pictures.map((picture) => picture.tokens * merge ** 2);
    const begins = lengths.map((_, i) => lengths.slice(0, i).reduce((sum, n) => sum + n, 0));
    const count = lengths.reduce((sum, n) => sum + n, 0);
    const cos = new Float32Array(count * half);
    const sin = new Float32Array(count * half);
    let row = 0;
    for (const picture of pictures) {
      const [down, across] = patchGrid(picture, settings);
      const turns = Float32Array.from({ length: Math.max(down, across) * frequencies.length }, (_, i) =>
        Math.fround(Math.floor(i / frequencies.length) * frequencies[i % frequencies.length]!),
      );
      const [cosines, sines] = [turns.map(Math.cos), turns.map(Math.sin)];
      const copy = (place: number, to: number): void => {
        const from = place * frequencies.length;
        cos.set(cosines.subarray(from, from + frequencies.length), to);
        sin.set(sines.subarray(from, from + frequencies.length), to);
      };
      for (let by = 0; by < down; by += merge)
        for (let bx = 0; bx < across; bx += merge)
          for (let i = 0; i < merge * merge; i++, row++) {
            copy(by + Math.floor(i / merge), row * half);
            copy(bx + (i % merge), row * half + frequencies.length);
          }
    }
    const shape = [count, half];
    const begin = tensor(Int32Array.from(begins), { device });
    const length = tensor(Int32Array.from(lengths), { device });
    return {
      numbers: tensor(Int32Array.from({ length: count }, (_, i) => i), { device }), // biome-ignore format: one thought
      tables: { cos: tensor(cos, { shape, device }), sin: tensor(sin, { shape, device }) },
      segments: { count: lengths.length, queryBegin: begin, queryLength: length, keyBegin: begin, keyLength: length },
    };
  }
}
