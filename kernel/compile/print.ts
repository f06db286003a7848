import type t from "typescript";
import { ts } from "./typescript.js";

/** JavaScript, and its source map as JSON. */
export interface Printed {
  js: string;
  map: string;
}

/** The parts of TypeScript's emitter that `transpileModule` is made of, without the program and the checker that it makes for each call. */
interface Emitter {
  bindSourceFile(file: t.SourceFile, options: t.CompilerOptions): void;
  getSetExternalModuleIndicator(options: t.CompilerOptions): (file: t.SourceFile) => void;
  getTransformers(options: t.CompilerOptions, custom: t.CustomTransformers): { scriptTransformers: readonly unknown[] };
  transformNodes(
    resolver: object,
    host: object,
    factory: t.NodeFactory,
    options: t.CompilerOptions,
    nodes: readonly t.SourceFile[],
    transformers: readonly unknown[],
    allowDtsFiles: boolean,
  ): Transformed;
  createTextWriter(newLine: string): { getText(): string };
  createSourceMapGenerator(
    host: object,
    file: string,
    sourceRoot: string,
    folder: string,
    options: t.CompilerOptions,
  ): { toString(): string };
  createPrinter(
    options: t.PrinterOptions & t.CompilerOptions,
    handlers: object,
  ): { writeFile(file: t.SourceFile, writer: object, map: object): void };
}

interface Transformed {
  transformed: readonly t.SourceFile[];
  emitNodeWithNotification: unknown;
  isEmitNotificationEnabled: unknown;
  substituteNode: unknown;
  dispose(): void;
}

const emitter = ts as unknown as Partial<Emitter>;
const needed = [
  "bindSourceFile",
  "getSetExternalModuleIndicator",
  "getTransformers",
  "transformNodes",
  "createTextWriter",
  "createSourceMapGenerator",
  "createPrinter",
] as const;

/** Thrown where the emitter asks what only a program or its checker knows. */
class NeedsProgram extends Error {}

/** Answers what needs no checker in a file alone, and refuses all else. */
function only(known: object): object {
  return new Proxy(known, {
    get: (target, name) =>
      Reflect.get(target, name) ??
      (() => {
        throw new NeedsProgram(String(name));
      }),
  });
}

const host = only({
  getCurrentDirectory: () => "",
  getCanonicalFileName: (path: string) => path,
  getEmitModuleFormatOfFile: () => ts.ModuleKind.ESNext,
});

// NodeCheckFlags of TypeScript 6.
const CONTAINS_CONSTRUCTOR_REFERENCE = 262_144;
const BLOCK_SCOPED_BINDING_IN_LOOP = 32_768;

/** What the checker notes about nodes, as far as the tree alone rules it out. */
function hasNodeCheckFlag(node: t.Node, flag: number): boolean {
  const original = ts.getOriginalNode(node);
  const away =
    flag === CONTAINS_CONSTRUCTOR_REFERENCE
      ? !mentionsItself(original)
      : flag === BLOCK_SCOPED_BINDING_IN_LOOP && !isInLoop(original);
  if (!away) throw new NeedsProgram(`hasNodeCheckFlag ${flag}`);
  return false;
}

/** Does the class that a node is, or is a member of, name itself anywhere inside? */
function mentionsItself(node: t.Node): boolean {
  const owner = ts.isClassLike(node) ? node : node.parent;
  if (owner === undefined || !ts.isClassLike(owner)) return true;
  const { name } = owner;
  if (name === undefined) return false;
  const within = (each: t.Node): boolean =>
    (ts.isIdentifier(each) && each !== name && each.text === name.text) || ts.forEachChild(each, within) === true;
  return ts.forEachChild(owner, within) === true;
}

function isInLoop(node: t.Node): boolean {
  let inside = node;
  while (!ts.isSourceFile(inside)) {
    if (inside.parent === undefined || ts.isIterationStatement(inside, true)) return true;
    inside = inside.parent;
  }
  return false;
}

/** Parses a file that is a module, whatever it contains. */
export function parseModule(code: string, fileName: string, options: t.CompilerOptions): t.SourceFile {
  const setExternalModuleIndicator = emitter.getSetExternalModuleIndicator?.(options);
  return ts.createSourceFile(fileName, code, {
    languageVersion: options.target!,
    ...(setExternalModuleIndicator && { setExternalModuleIndicator }),
  });
}

/**
 * Prints one file as `ts.transpileModule` does, in less than half of its time: that makes a program and a checker for every call, which
 * ordinary code never asks anything.
 *
 * @returns undefined for code that needs them (enums and decorators among others), or where TypeScript has no such parts
 */
export function printAlone(
  code: string,
  fileName: string,
  options: t.CompilerOptions,
  before: t.TransformerFactory<t.SourceFile>[],
): Printed | undefined {
  if (!needed.every((name) => typeof emitter[name] === "function")) return undefined;
  const { bindSourceFile, getTransformers, transformNodes, createPrinter } = emitter as Emitter;
  const { createTextWriter, createSourceMapGenerator } = emitter as Emitter;
  const file = parseModule(code, fileName, options);
  bindSourceFile(file, options);
  // Nothing is global in a module that stands alone, so a name that the printer makes up meets no global.
  const hasGlobalName = (): boolean => false;
  const resolver = only({ hasGlobalName, hasNodeCheckFlag });
  const { scriptTransformers } = getTransformers(options, { before });
  try {
    const made = transformNodes(resolver, host, ts.factory, options, [file], scriptTransformers, false);
    const { emitNodeWithNotification: onEmitNode, isEmitNotificationEnabled, substituteNode } = made;
    const printer = createPrinter(options, { hasGlobalName, onEmitNode, isEmitNotificationEnabled, substituteNode });
    const writer = createTextWriter("\n");
    const map = createSourceMapGenerator(host, fileName.replace(/\.ts$/, ".js"), "", "", options);
    printer.writeFile(made.transformed[0]!, writer, map);
    made.dispose();
    return { js: writer.getText(), map: map.toString() };
  } catch (error) {
    if (error instanceof NeedsProgram) return undefined;
    throw error;
  }
}
