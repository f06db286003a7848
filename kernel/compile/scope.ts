/** One top-level name of the notebook: every closure that mentions the name holds the same box. */
export interface Box {
  v: unknown;
}

/**
 * The live scope of a notebook: an object without a prototype whose own enumerable properties are the top-level names.
 * Compiled cells do not go through the properties; they take each name's box once, so that a loop at top level costs a
 * field access and a redeclared name is seen by the closures of earlier cells.
 */
export interface Scope {
  [name: string]: unknown;
}

type Namespace = Record<string, unknown>;

/** @returns a new, empty scope. The keys of its helpers are no identifiers, so no cell's name can meet them. */
export function createScope(): Scope {
  const scope: Scope = Object.create(null);
  const boxes = new Map<string, Box>();
  const forgotten = new Set<string>();
  const ref = (name: string): Box => {
    let box = boxes.get(name);
    if (box === undefined || forgotten.has(name)) {
      const made: Box = box ?? { v: undefined };
      box = made;
      boxes.set(name, made);
      forgotten.delete(name);
      Object.defineProperty(scope, name, {
        enumerable: true,
        configurable: true,
        get: () => made.v,
        set: (value: unknown) => {
          made.v = value;
        },
      });
    }
    return box;
  };
  Object.defineProperty(scope, "ref()", { value: ref });
  const late = (name: string, otherwise: () => unknown): unknown =>
    boxes.has(name) && !forgotten.has(name) ? boxes.get(name)!.v : otherwise();
  const early = (name: string): never => {
    throw new ReferenceError(`Cannot access '${name}' before initialization`);
  };
  Object.defineProperty(scope, "late()", { value: late });
  Object.defineProperty(scope, "early()", { value: early });
  Object.defineProperty(scope, "pick()", { value: pick });
  // Closures and the running cell hold boxes: these stay, without their values, and come back when the name is declared anew.
  const forget = (names: readonly string[] = [...boxes.keys()]): void => {
    for (const name of names) {
      const box = boxes.get(name);
      if (box === undefined) continue;
      box.v = undefined;
      forgotten.add(name);
      delete scope[name];
    }
  };
  Object.defineProperty(scope, "forget()", { value: forget });
  return scope;
}

/**
 * One import out of a module's namespace. A CommonJS module's names that Node's lexer did not find are taken from
 * `module.exports`; the default of one that was compiled from ES modules is its `exports.default`, as bundlers do it.
 */
function pick(namespace: Namespace, name: string): unknown {
  const main = namespace.default as Namespace | null | undefined;
  const object = main !== null && (typeof main === "object" || typeof main === "function") ? main : undefined;
  if (name === "default") return object?.__esModule === true && "default" in object ? object.default : main;
  if (name in namespace) return namespace[name];
  return object?.[name];
}

/**
 * An engine's message ("$$f.v is not a function") in the cell's own words ("f is not a function").
 * @param message - the message of an error that a cell threw
 */
export function cleanMessage(message: string): string {
  return message
    .replace(/\(0 ?, ?(\$\$[\p{ID_Continue}$]+\.v)\)/gu, "$1")
    .replace(/\$\$([\p{ID_Continue}$]+)\.v\b/gu, "$1")
    .replace(/\$cell\.(console|display|input|prompt|confirm|comms|sh)\b/g, "$1");
}
