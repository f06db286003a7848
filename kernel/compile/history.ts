import type { Analysis, Declaration } from "./analyze.js";
import { CELL_PREFIX } from "./project.js";

interface Entry {
  cell: string;
  declaration: Declaration;
}

/** A name may stand for a value of one cell and a type of another. */
interface Meaning {
  value?: Entry;
  type?: Entry;
}

/** The top-level names of the cells that have run, each with its newest declaration. */
export class History {
  private readonly names = new Map<string, Meaning>();
  /** Cells that add to the global scope or to other modules. */
  private readonly augmenting = new Set<string>();

  get size(): number {
    return this.names.size;
  }

  clear(): void {
    this.names.clear();
    this.augmenting.clear();
  }

  /** Is it a name of an earlier cell? */
  has(name: string): boolean {
    return this.names.has(name);
  }

  delete(name: string): void {
    this.names.delete(name);
  }

  commit(cell: string, { declared, augments }: Analysis): void {
    if (augments) this.augmenting.add(cell);
    for (const [name, declaration] of declared) {
      const entry = { cell, declaration };
      const { value, type } = declaration;
      const known = this.names.get(name);
      // A type does not hide a value of the same name, nor the other way round, unless one of them is both.
      if (known && value !== type && !(known.value && known.value === known.type)) {
        if (declaration.kind === "ambient" || value) known.value = entry;
        else known.type = entry;
      } else {
        this.names.set(name, {
          ...(value || declaration.kind === "ambient" ? { value: entry } : {}),
          ...(type ? { type: entry } : {}),
        });
      }
    }
  }

  /** Is the name a value that lives in the scope? */
  boxed(name: string): boolean {
    return this.names.get(name)?.value?.declaration.value === true;
  }

  constant(name: string): boolean {
    const kind = this.names.get(name)?.value?.declaration.kind;
    return kind === "const" || kind === "import";
  }

  /** Names that start so, with their kinds. */
  *startingWith(prefix: string): Iterable<[string, Declaration]> {
    for (const [name, { value, type }] of this.names) {
      if (name.startsWith(prefix)) yield [name, (value ?? type)!.declaration];
    }
  }

  /**
   * One line that stands above a cell while its types are looked at: the newest declarations of the names that it
   * mentions and does not declare, and its own names exported for later cells.
   */
  header({ mentioned, declared, exported }: Pick<Analysis, "mentioned" | "declared" | "exported">): string {
    const parts = ["export {};"];
    for (const cell of this.augmenting) parts.push(`import ${specifier(cell)};`);
    for (const name of mentioned) {
      const meaning = declared.has(name) ? undefined : this.names.get(name);
      if (meaning === undefined) continue;
      const { value, type } = meaning;
      // A function comes as an import, so that it is shown as one, unless a type of that name needs the name too.
      if (value)
        parts.push(bring(name, value, value.declaration.kind === "function" ? type !== undefined : type !== value));
      if (type && type !== value) parts.push(bring(name, type, false));
    }
    const own: string[] = [];
    for (const [name, { kind }] of declared) if (kind !== "import" && !exported.has(name)) own.push(name);
    if (own.length > 0) parts.push(`export { ${own.join(", ")} };`);
    return `${parts.join(" ")}\n`;
  }
}

function specifier(cell: string): string {
  return JSON.stringify(`./${CELL_PREFIX}${cell}`);
}

/** @param variable - has the name no meaning as a type, so that a plain variable can stand for it? */
function bring(name: string, { cell, declaration }: Entry, variable: boolean): string {
  const { kind, imported } = declaration;
  if (imported) {
    const from = JSON.stringify(imported.specifier);
    const only = imported.typeOnly ? "import type" : "import";
    if (imported.name === "=") return `${only} ${name} = require(${from});`;
    if (imported.name === "*") return `${only} * as ${name} from ${from};`;
    if (imported.name === "default") return `${only} ${name} from ${from};`;
    return `${only} { ${imported.name} as ${name} } from ${from};`;
  }
  // An imported variable could not be assigned to, and would be shown as an alias.
  if (variable && (kind === "let" || kind === "var"))
    return `declare let ${name}: typeof import(${specifier(cell)}).${name};`;
  if (variable && (kind === "const" || kind === "function"))
    return `declare const ${name}: typeof import(${specifier(cell)}).${name};`;
  return `import { ${name} } from ${specifier(cell)};`;
}
