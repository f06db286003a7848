import {
  type FourBitParts,
  type FourBitShape,
  type FourBitSource,
  hasFourBits,
  type WeightBlocks,
  type WeightEntry,
  type WeightPlace,
  type WeightSource,
} from "../hub/weight-source.js";
import type { CausalLM } from "./causal.js";
import { checkpointTargets } from "./load.js";

/** Weights under the names that a model gives them, where their files have them under others (see `CausalLM.spellings`). */
class Respelled<S extends WeightSource> implements WeightSource {
  protected readonly source: S;
  /** From the model's name to the source's. */
  private readonly theirs: ReadonlyMap<string, string>;
  /** From the source's name to the model's. */
  private readonly ours: ReadonlyMap<string, string>;

  constructor(source: S, theirs: ReadonlyMap<string, string>) {
    this.source = source;
    this.theirs = theirs;
    this.ours = new Map([...theirs].map(([own, other]) => [other, own]));
    const { locate, locateBlocks } = source;
    if (locate) this.locate = (name) => locate.call(source, this.of(name));
    if (locateBlocks) this.locateBlocks = (name) => locateBlocks.call(source, this.of(name));
  }

  locate?: (name: string) => WeightPlace | undefined;
  locateBlocks?: (name: string) => WeightBlocks | undefined;

  protected of(name: string): string {
    return this.theirs.get(name) ?? name;
  }

  protected own(name: string): string {
    return this.ours.get(name) ?? name;
  }

  get where(): string {
    return this.source.where;
  }

  get described(): string {
    return this.source.described;
  }

  names(): string[] {
    return this.source.names().map((name) => this.own(name));
  }

  has(name: string): boolean {
    return this.source.has(this.of(name));
  }

  entry(name: string): WeightEntry {
    return this.source.entry(this.of(name));
  }

  readFloat32(name: string): Promise<Float32Array> {
    return this.source.readFloat32(this.of(name));
  }

  close(): Promise<void> {
    return this.source.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

/** The same where matrices are in 4 bits. */
class RespelledFourBits extends Respelled<FourBitSource> implements FourBitSource {
  fourBitNames(): string[] {
    return this.source.fourBitNames().map((name) => this.own(name));
  }

  isFourBit(name: string): boolean {
    return this.source.isFourBit(this.of(name));
  }

  fourBitShape(name: string): Promise<FourBitShape> {
    return this.source.fourBitShape(this.of(name));
  }

  fourBit(name: string): Promise<FourBitParts> {
    return this.source.fourBit(this.of(name));
  }
}

/** The weights of a model under its own names, however their files spell them. */
export function respelled(model: CausalLM, source: WeightSource): WeightSource {
  const theirs = new Map<string, string>();
  for (const name of checkpointTargets(model).keys()) {
    const other = source.has(name) ? undefined : model.spellings(name).find((spelling) => source.has(spelling));
    if (other !== undefined) theirs.set(name, other);
  }
  if (theirs.size === 0) return source;
  return hasFourBits(source) ? new RespelledFourBits(source, theirs) : new Respelled(source, theirs);
}
