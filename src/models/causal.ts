import { discard } from "../autograd/checkpoint.js";
import { ConfigError } from "../errors.js";
import type { Sight, Tower } from "../images/patches.js";
import type { KvCache, Rows } from "../nn/cache.js";
import { Embedding, type EmbeddingLike, Linear, type LinearLike } from "../nn/layers.js";
import { Module, Parameter } from "../nn/module.js";
import { rowRoutes } from "../nn/routes.js";
import { FrozenLinear } from "../quantization/frozen.js";
import type { Device } from "../tensor/device.js";
import type { FloatDType } from "../tensor/dtype.js";
import { takesHalves } from "../tensor/native.js";
import { type FrozenWeight, linearFrozen } from "../tensor/ops/frozen.js";
import { crossEntropy, linearCrossEntropy, linearCrossEntropyRows } from "../tensor/ops/loss.js";
import { linear } from "../tensor/ops/matmul.js";
import { uniform } from "../tensor/ops/random.js";
import { noGrad } from "../tensor/record.js";
import { Tensor } from "../tensor/tensor.js";
import { SavedModule } from "./saved.js";

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
  /** The classes that its output layer chooses from; `undefined` for one over tokens. */
  readonly labels?: readonly string[];
  /** PEFT's default LoRA targets of this architecture. */
  abstract readonly defaultTargets: readonly string[];
  /** Full name of the table of its inputs. */
  abstract readonly tableName: string;
  /** Full name of the output layer, "" when it is tied to the embedding. */
  abstract readonly headName: string;
  /** How it takes images; undefined: it takes none. */
  sight: Sight | undefined = undefined;
  /** What its images cost. */
  readonly tower: Tower | undefined = undefined;
  /** Full names of parts of a vision tower, whose layers `quantize` leaves alone unless it is asked. */
  readonly leftDense: readonly string[] = [];
  /** Final hidden states (rows, hidden), after the last norm. With a cache, keys and values are appended to it. */
  abstract hidden(rows: Rows, cache?: KvCache): Tensor;
  /** Weight of the output layer (vocab, hidden), or undefined when something else than a plain layer stands there (an adapter, a user's module). */
  abstract headWeight(): Tensor | FrozenWeight | undefined;
  /** Gives a tied output layer a module of its own under its name, which shares the table; an adapter can stand there. */
  abstract separateHead(): void;
  /** The output layer has values of its own from now on. */
  abstract untied(): void;

  /** Names of the layers and parts that `quantize` leaves alone. */
  denseParts({ vision = false }: { vision?: boolean } = {}): string[] {
    return [this.headName, "lm_head", ...(vision ? [] : this.leftDense)];
  }

  /** What a tensor of this name is called in checkpoints: the first is written, all are read. */
  spellings(name: string): readonly string[] {
    return [name];
  }

  /** What a tensor is called here that checkpoints or adapters call so. */
  ownName(spelling: string): string {
    return spelling;
  }

  /** The field of its config file that says how many rows the table has. */
  get vocabField(): string {
    return "vocab_size";
  }

  /** Where it stands: rows, caches and labels for it are made there. */
  override get device(): Device {
    return super.device ?? "cpu";
  }

  /** Dtype of its activations, which is its embedding's; float32 where the device does not compute in 16 bits. */
  get activations(): FloatDType {
    if (!takesHalves(this.device === "cuda" ? 1 : 0)) return "float32";
    for (const [, m] of this.namedModules())
      if (m instanceof Embedding) return m.activations ?? (m.weight.dtype as FloatDType);
    return "float32";
  }

  /** Logits (rows, vocab) of hidden states. */
  logits(hidden: Tensor): Tensor {
    const weight = this.headWeight();
    if (!weight) return (this.module(this.headName) as LinearLike).forward(hidden);
    // A packed table is multiplied in bfloat16, as the other packed layers and as in `headLoss`.
    return weight instanceof Tensor ? linear(hidden, weight) : linearFrozen(hidden, weight, undefined, "bfloat16");
  }

  /** scale · Σ of the cross entropies of hidden states with int32 labels (-100: none), and each row's own; see `linearCrossEntropy`. */
  headLoss(hidden: Tensor, labels: Tensor, scale: number, smoothing = 0): { total: Tensor; rows: Tensor } {
    const fused = this.withHead((weight) => linearCrossEntropy(hidden, weight, labels, { scale, smoothing }));
    if (fused) return fused;
    const rows = crossEntropy(this.logits(hidden), labels, smoothing);
    return { total: rows.sum().mul(scale), rows };
  }

  /** Cross entropy of each hidden state with its int32 label (-100: 0), from which gradients go back row by row; see `linearCrossEntropyRows`. */
  headRows(hidden: Tensor, labels: Tensor): Tensor {
    const fused = this.withHead((weight) => linearCrossEntropyRows(hidden, weight, labels));
    return fused ?? crossEntropy(this.logits(hidden), labels);
  }

  /** Calls `use` with the output layer's weight; `undefined` where it is no plain matrix. */
  private withHead<T>(use: (weight: Tensor) => T): T | undefined {
    const weight = this.headWeight();
    if (!weight) return undefined;
    if (weight instanceof Tensor) return use(weight);
    // Restored for the call: its gradients are made in the same pass, so nothing needs it afterwards.
    const dense = noGrad(() => weight.restore());
    const half = noGrad(() => dense.to("bfloat16"));
    dense.dispose();
    const loss = use(half);
    half.dispose();
    return loss;
  }
}

/** Embeddings (rows, hidden) with uniform noise of up to ±size (rows, 1) (NEFTune: Jain et al. 2023); without a size as they are. */
export function noisy(embedded: Tensor, size: Tensor | undefined): Tensor {
  if (!size) return embedded;
  const noise = noGrad(() => uniform(embedded.shape, -1, 1, embedded.device).mul(size).to(embedded.dtype));
  const y = embedded.add(noise);
  discard([embedded, noise], [y]);
  return y;
}

/** A model whose output layer is called `lm_head`, or is the table of its inputs. */
export abstract class LmHeadModel extends CausalLM {
  abstract lm_head: LinearLike | undefined;

  private get table(): EmbeddingLike {
    return this.module(this.tableName) as EmbeddingLike;
  }

  get headName(): string {
    return this.lm_head ? "lm_head" : "";
  }

  headWeight(): Tensor | FrozenWeight | undefined {
    return this.lm_head ? plainWeight(this.lm_head) : this.table.table();
  }

  separateHead(): void {
    if (this.lm_head) return;
    const weight = tiedWeight(this.table);
    if (!weight)
      throw new ConfigError(
        "The output layer is tied to a packed table and cannot be adapted; load the model with another dtype.",
      );
    const head = new Linear(this.config.hiddenSize, this.config.vocabSize, { bias: false });
    head.weight = weight;
    this.lm_head = head;
  }

  untied(): void {
    Object.assign(this.config, { tied: false, raw: { ...this.config.raw, tie_word_embeddings: false } });
  }
}

/** The weight of an output layer that adds no bias. */
export function plainWeight(head: Module): Tensor | FrozenWeight | undefined {
  if (head instanceof SavedModule) return rowRoutes() ? undefined : plainWeight(head.current);
  if (head instanceof Linear) return head.bias ? undefined : head.weight;
  if (head instanceof FrozenLinear) return head.bias ? undefined : head.quantized;
  return undefined;
}

/** The weight of a table of which an output layer can be another place. */
function tiedWeight(table: EmbeddingLike): Parameter | undefined {
  const weight = table.table();
  return weight instanceof Parameter ? weight : undefined;
}
