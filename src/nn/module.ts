import { ConfigError, StateError } from "../errors.js";
import { type Device, defaultDevice } from "../tensor/device.js";
import { DTYPE_BYTES, type DType } from "../tensor/dtype.js";
import { dryMemory } from "../tensor/native.js";
import { move } from "../tensor/ops/layout.js";
import { noGrad } from "../tensor/record.js";
import { outsideScope } from "../tensor/scope.js";
import { shapeText } from "../tensor/shape.js";
import { empty, Tensor } from "../tensor/tensor.js";

/** What a parameter without memory gives to operations that are not run. */
const NO_VALUES = 1;

/** Fills a new parameter: called when the parameter is first used and nothing was loaded into it. */
export type Initializer = (parameter: Tensor) => void;

/**
 * A tensor that belongs to a module. It has a shape from the start and memory only from its first use, so that a model can be described
 * without its weights; loading sets the memory before anything is initialised.
 */
export class Parameter extends Tensor {
  private init: Initializer | undefined;
  private starting = false;

  /**
   * @param init how to fill it at first use; without one it must be loaded.
   * @param device where it will stand; the default device by default.
   */
  constructor(
    shape: readonly number[],
    init?: Initializer,
    dtype: DType = "float32",
    device: Device = defaultDevice(),
  ) {
    super(0, shape, dtype);
    this.place = device === "cuda" ? 1 : 0;
    this.init = init;
    this.requiresGrad = true;
  }

  /** Whether it has memory. */
  get materialized(): boolean {
    return this.id !== 0;
  }

  /** Whether it is a shape alone: the model was made with `weights: "none"`. */
  get valueless(): boolean {
    return this.id === 0 && this.init === undefined;
  }

  /** A parameter of the same shape and initial values in another dtype, for a module that has no memory yet. */
  inDType(dtype: DType, convert: (init: Initializer) => Initializer): Parameter {
    const made = new Parameter(this.shape, this.init && convert(this.init), dtype, this.device);
    made.requiresGrad = this.requiresGrad;
    return made;
  }

  override get disposed(): boolean {
    return false;
  }

  override get handle(): number {
    if (this.id === 0) {
      if (dryMemory()) return NO_VALUES;
      this.materialize();
    }
    return this.id;
  }

  /** Gives it memory and its initial values. @throws StateError when there are none: the model was made with `weights: "none"`. */
  materialize(): this {
    if (this.id !== 0) return this;
    if (!this.init) {
      throw new StateError(
        `A parameter of shape ${shapeText(this.shape)} has no values: the model was made without weights (weights: "none"); load weights, or use weights: "random".`,
      );
    }
    if (this.starting) throw new StateError("A parameter's initialiser used the parameter before setting it.");
    this.starting = true;
    this.adopt(outsideScope(() => empty(this.shape, this.dtype, this.device)));
    this.init(this);
    this.starting = false;
    return this;
  }

  /** Forgets how to initialise it: it stays a shape until something is loaded. */
  withoutValues(): this {
    this.init = undefined;
    return this;
  }

  /** Takes over the memory of a tensor of the same shape. */
  adopt(source: Tensor): this {
    if (source.size !== this.size || source.dtype !== this.dtype) {
      throw new ConfigError(
        `A parameter ${shapeText(this.shape)} ${this.dtype} cannot take a tensor ${shapeText(source.shape)} ${source.dtype}.`,
      );
    }
    super.dispose();
    this.id = source.surrender();
    this.place = source.place;
    // A parameter outlives the scope in which it is first used: otherwise a step's end would take its values and gradient along.
    outsideScope(() => this.rescope());
    return this;
  }

  /** Puts it on a device: its values move along when it has any, and a gradient is dropped. */
  placeOn(device: Device): this {
    if (device === this.device) return this;
    if (this.id === 0) this.place = device === "cuda" ? 1 : 0;
    else this.adopt(outsideScope(() => noGrad(() => move(this, device))));
    return this;
  }

  /** Bytes it takes when it has memory. */
  get reservedBytes(): number {
    return this.size * DTYPE_BYTES[this.dtype];
  }
}

/** What a module may hold under a name: parameters, modules, and arrays or plain objects of modules. */
type Child = Parameter | Module;

/**
 * A part of a model. Its properties are its parameters and children, and their names are the checkpoint's names: `layers[0].mlp.up_proj.weight`
 * is called "layers.0.mlp.up_proj.weight". Assigning another module to a property replaces it.
 */
export abstract class Module {
  /** Whether dropout and noise are on. */
  training = false;

  /** Children in the order of their properties: [name, parameter or module]. */
  *children(): Generator<[string, Child]> {
    for (const [key, value] of Object.entries(this)) {
      if (value instanceof Parameter || value instanceof Module) yield [key, value];
      else if (isContainer(value)) {
        for (const [index, item] of Object.entries(value)) {
          if (item instanceof Parameter || item instanceof Module) yield [`${key}.${index}`, item];
        }
      }
    }
  }

  /** Every parameter with its full name; one that stands in two places (tied weights) comes once, under its first name. */
  *namedParameters(prefix = "", seen: Set<Parameter> = new Set()): Generator<[string, Parameter]> {
    for (const [name, child] of this.children()) {
      const full = prefix === "" ? name : `${prefix}.${name}`;
      if (child instanceof Module) yield* child.namedParameters(full, seen);
      else if (!seen.has(child)) {
        seen.add(child);
        yield [full, child];
      }
    }
  }

  /** Every module below this one with its full name, this one first (""). */
  *namedModules(prefix = ""): Generator<[string, Module]> {
    yield [prefix, this];
    for (const [name, child] of this.children()) {
      if (child instanceof Module) yield* child.namedModules(prefix === "" ? name : `${prefix}.${name}`);
    }
  }

  /** Parameters that need gradients. */
  trainableParameters(): Parameter[] {
    return [...this.namedParameters()].map(([, p]) => p).filter((p) => p.requiresGrad);
  }

  /** The module of a full name. @throws ConfigError naming what exists there. */
  module(path: string): Module {
    let at: Module = this;
    if (path === "") return at;
    const parts = path.split(".");
    for (let i = 0; i < parts.length; ) {
      const next = at.step(parts, i);
      if (!next) {
        const known = [...at.children()].map(([n]) => n).join(", ");
        throw new ConfigError(
          `There is no module "${path}": at "${parts.slice(0, i).join(".")}" stand ${known || "no children"}.`,
        );
      }
      at = next.module;
      i = next.index;
    }
    return at;
  }

  private step(parts: readonly string[], i: number): { module: Module; index: number } | undefined {
    const value = own(this, parts[i]!);
    if (value instanceof Module) return { module: value, index: i + 1 };
    const item = isContainer(value) && parts[i + 1] !== undefined ? own(value, parts[i + 1]!) : undefined;
    return item instanceof Module ? { module: item, index: i + 2 } : undefined;
  }

  /** Puts another module in the place of a full name, and on the device of what stood there. */
  replace(path: string, replacement: Module): void {
    const current = this.module(path);
    if (current.device !== undefined) replacement.to(current.device);
    const parts = path.split(".");
    for (const depth of [1, 2]) {
      if (parts.length < depth) break;
      const parent = parts.slice(0, parts.length - depth).join(".");
      let holder: object;
      try {
        holder = this.module(parent);
      } catch {
        continue;
      }
      if (depth === 2) {
        const container = own(holder, parts[parts.length - 2]!);
        if (!isContainer(container)) continue;
        holder = container;
      }
      const key = parts[parts.length - 1]!;
      if (own(holder, key) === current) {
        (holder as Record<string, unknown>)[key] = replacement;
        return;
      }
    }
    throw new ConfigError(`"${path}" cannot be replaced.`);
  }

  /** Switches every parameter's need of a gradient. */
  setRequiresGrad(on: boolean): this {
    for (const [, p] of this.namedParameters()) p.requiresGrad = on;
    return this;
  }

  /** The device of its first parameter, and so of all of them unless somebody mixed devices; `undefined` without parameters. */
  get device(): Device | undefined {
    for (const [, child] of this.children()) {
      const device = child.device;
      if (device !== undefined) return device;
    }
    return undefined;
  }

  /** Puts everything below this module on a device. */
  to(device: Device): this {
    for (const [, m] of this.namedModules()) m.relocate(device);
    return this;
  }

  /** Moves what this module itself holds; a module with memory that is no parameter moves that too. */
  protected relocate(device: Device): void {
    for (const [, child] of this.children()) if (child instanceof Parameter) child.placeOn(device);
  }

  /** Turns training behaviour (dropout, noise) on or off below this module. */
  train(on = true): this {
    for (const [, m] of this.namedModules()) m.training = on;
    return this;
  }

  /** Frees accumulated gradients. */
  zeroGrad(): void {
    for (const [, p] of this.namedParameters()) {
      p.grad?.dispose();
      p.grad = undefined;
    }
  }

  /** Frees every parameter. */
  dispose(): void {
    for (const [, m] of this.namedModules()) m.release();
  }

  /** Frees what this module itself holds; a module with memory that is no parameter adds to it. */
  protected release(): void {
    for (const [, child] of this.children()) if (child instanceof Parameter) child.dispose();
  }

  /** Bytes of this module's own frozen memory that is no parameter (quantised weights). */
  ownBytes(): number {
    return 0;
  }

  /** Number of elements of this module's own memory that is no parameter. */
  ownElements(): number {
    return 0;
  }
}

function isContainer(value: unknown): value is object {
  return (
    Array.isArray(value) ||
    (typeof value === "object" && value !== null && Object.getPrototypeOf(value) === Object.prototype)
  );
}

function own(holder: object, key: string): unknown {
  return Object.hasOwn(holder, key) ? (holder as Record<string, unknown>)[key] : undefined;
}
