import type { WeightBlocks, WeightEntry, WeightPlace, WeightSource } from "../hub/weight-source.js";
import type { CausalLM } from "./causal.js";
import { checkpointTargets } from "./load.js";

/** Weights under the names that a model gives them, where their files have them under others (see `CausalLM.spellings`). */
class Respelled implements WeightSource {
  private readonly source: WeightSource;
  /** From the model's name to the source's. */
  private readonly theirs: ReadonlyMap<string, string>;

  constructor(source: WeightSource, theirs: ReadonlyMap<string, string>) {
    this.source = source;
    this.theirs = theirs;
    const { locate, locateBlocks } = source;
    if (locate) this.locate = (name) => locate.call(source, this.of(name));
    if (locateBlocks) this.locateBlocks = (name) => locateBlocks.call(source, this.of(name));
  }

  locate?: (name: string) => WeightPlace | undefined;
  locateBlocks?: (name: string) => WeightBlocks | undefined;

  private of(name: string): string {
    return this.theirs.get(name) ?? name;
  }

  get where(): string {
    return this.source.where;
  }

  get described(): string {
    return this.source.described;
  }

  names(): string[] {
    const ours = new Map([...this.theirs].map(([own, other]) => [other, own]));
    return this.source.names().map((name) => ours.get(name) ?? name);
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

/** The weights of a model under its own names, however their files spell them. */
export function respelled(model: CausalLM, source: WeightSource): WeightSource {
  const theirs = new Map<string, string>();
  for (const name of checkpointTargets(model).keys()) {
    const other = source.has(name) ? undefined : model.spellings(name).find((spelling) => source.has(spelling));
    if (other !== undefined) theirs.set(name, other);
  }
  return theirs.size === 0 ? source : new Respelled(source, theirs);
}
