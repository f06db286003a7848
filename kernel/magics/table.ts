/** A magic: what its line and its cell form look like, and what it does. The implementations stand in execute/child/magics. */
export interface Magic {
  name: string;
  /** How the line form is written (`%name …`); without it there is none. */
  line?: string;
  /** How the cell form is written (`%%name …`, the first line of a cell). */
  cell?: string;
  /** One sentence. */
  summary: string;
  /** More, where there is more to say. */
  details?: string;
  examples?: readonly string[];
  /** The rest of the line or cell is TypeScript: checked and completed like any other code. */
  code?: true;
  /** What its first argument may be. */
  choices?: readonly string[];
  /** Its arguments are paths of files or folders. */
  files?: true;
}

const text = "The cell's text is shown as it is: it is not TypeScript.";

/** Every magic, in the order in which `%lsmagic` lists them. */
export const magics: readonly Magic[] = [
  {
    name: "time",
    line: "%time STATEMENT",
    cell: "%%time",
    summary: "Tells how long a statement, or the whole cell, takes.",
    details:
      "Names that it declares are the notebook's, and a last expression is shown, as without the magic. The CPU times are those of all threads of the process, native ones too.",
    examples: ["%time const rows = await load()", "%%time"],
    code: true,
  },
  {
    name: "timeit",
    line: "%timeit [-n LOOPS] [-r RUNS] STATEMENT",
    cell: "%%timeit [-n LOOPS] [-r RUNS]",
    summary: "Runs code many times and tells the mean time of a loop.",
    details:
      "Without `-n`, as many loops as take about a fifth of a second; without `-r`, 7 runs. The value is not shown.",
    examples: ["%timeit rows.map((row) => row.length)", "%timeit -n 100 await fetchOne()"],
    code: true,
  },
  {
    name: "typecheck",
    line: "%typecheck error|warn|off",
    summary: "Says what type errors do, from this cell on: stop the cell, be told and ignored, or not be looked for.",
    examples: ["%typecheck warn"],
    choices: ["error", "warn", "off"],
  },
  {
    name: "run",
    line: "%run FILE.ts|FILE.ipynb",
    summary: "Runs a TypeScript file, or every code cell of a notebook, as if it stood in a cell here.",
    details:
      "Its top-level names are the notebook's from the next cell on, with their types. What it shows is shown here; its own imports are resolved from its own folder.",
    examples: ["%run helpers.ts", "%run ../setup.ipynb"],
    files: true,
  },
  {
    name: "npm",
    line: "%npm COMMAND [ARGUMENTS]",
    summary:
      "Runs npm for the notebook: `%npm install NAME` makes a package importable in the next cell, with its types.",
    details:
      "It works in the nearest folder with a package.json, from the notebook's folder upwards; without one it makes one beside the notebook. A package that was imported before keeps its old version until the kernel is restarted.",
    examples: ["%npm install lodash-es @types/lodash-es", "%npm ls"],
    choices: ["install", "uninstall", "ls", "update", "outdated", "view"],
  },
  {
    name: "cd",
    line: "%cd [FOLDER|-]",
    summary:
      "Changes the working folder of cells and commands; without a folder to the home folder, with `-` to the one before.",
    details: "Imports are still resolved from the notebook's folder.",
    examples: ["%cd data", "%cd -"],
    files: true,
  },
  { name: "pwd", line: "%pwd", summary: "Prints the working folder." },
  {
    name: "env",
    line: "%env [NAME[=VALUE]]",
    summary: "Lists the environment variables, prints one, or sets one for cells and the programs that they start.",
    details: "The list hides values whose names look like keys, tokens, passwords or secrets.",
    examples: ["%env HF_HOME", "%env OMP_NUM_THREADS=2"],
  },
  {
    name: "who",
    line: "%who [TYPE]",
    summary: "Lists the notebook's top-level names with the types and values that they have now.",
    examples: ["%who", "%who number"],
  },
  {
    name: "reset",
    line: "%reset [NAME…]",
    summary: "Forgets every top-level name of the notebook, or the named ones, and frees what they held.",
    details: "It does not ask. Imported modules stay loaded; a restart of the kernel drops those too.",
    examples: ["%reset", "%reset model data"],
  },
  {
    name: "lsmagic",
    line: "%lsmagic",
    summary: "Lists all magics. `%NAME?` tells more about one.",
  },
  {
    name: "writefile",
    cell: "%%writefile [-a] FILE",
    summary: "Writes the rest of the cell to a file; with `-a` it is added to the end.",
    examples: ["%%writefile helpers.ts"],
    files: true,
  },
  {
    name: "bash",
    cell: "%%bash [ARGUMENTS]",
    summary: "Runs the rest of the cell as a bash script; a failing script fails the cell.",
    details:
      "Output appears while it runs, and an interrupt ends it with all that it has started. `$1`, `$2` … are the arguments.",
    examples: ["%%bash"],
  },
  { name: "sh", cell: "%%sh [ARGUMENTS]", summary: "As %%bash, with the system's `sh`." },
  { name: "html", cell: "%%html", summary: "Shows the rest of the cell as HTML.", details: text },
  { name: "markdown", cell: "%%markdown", summary: "Shows the rest of the cell as Markdown.", details: text },
  { name: "latex", cell: "%%latex", summary: "Shows the rest of the cell as LaTeX.", details: text },
  { name: "svg", cell: "%%svg", summary: "Shows the rest of the cell as an SVG picture.", details: text },
];

/** `!command`, which is no magic by its name but is explained beside them. */
export const shellMagic: Magic = {
  name: "!",
  line: "!COMMAND",
  summary: "Runs a command of the shell; its output appears while it runs, its exit code when it is not 0.",
  details:
    "`{expression}` puts in a value of the notebook, quoted as one word (an array as several); `{{` is a plain `{`. A backslash at the end of a line goes on with the next. An interrupt ends the command. For its output as a value use the function `sh`.",
  examples: ["!ls -l data", "!grep -c {word} {file}"],
};

const byName = new Map(magics.map((magic) => [magic.name, magic]));

/** The magic of that name; `!` is one too. */
export function findMagic(name: string): Magic | undefined {
  return name === "!" ? shellMagic : byName.get(name);
}

/** The forms of a magic: how it is written. */
export function usage({ line, cell }: Magic): string {
  return [line, cell].filter(Boolean).join("  or  ");
}

/** All that is known of a magic, as text and as Markdown. */
export function describeMagic(magic: Magic): { text: string; markdown: string } {
  const { summary, details, examples = [] } = magic;
  const forms = [magic.line, magic.cell].filter((form) => form !== undefined);
  const paragraphs = details === undefined ? [summary] : [summary, details];
  const shown = examples.map((one) => `    ${one}`);
  return {
    text: [
      forms.join("\n"),
      ...paragraphs.map((one) => one.replaceAll("`", "")),
      ...(shown.length ? [shown.join("\n")] : []),
    ].join("\n\n"),
    markdown: [
      `\`\`\`text\n${forms.join("\n")}\n\`\`\``,
      ...paragraphs,
      ...(examples.length ? [`\`\`\`text\n${examples.join("\n")}\n\`\`\``] : []),
    ].join("\n\n"),
  };
}

/** The error of a name that is no magic: with the nearest that is. */
export function unknownMagic(name: string, cell: boolean): string {
  const sign = cell ? "%%" : "%";
  const magic = byName.get(name);
  if (magic !== undefined) {
    const other = cell
      ? `${magic.line} stands on a line of its own`
      : `${magic.cell} stands on the first line of a cell, and the rest of the cell is its text`;
    return `'${sign}${name}' is not known: ${other}.`;
  }
  const near = nearest(
    name,
    magics.filter((one) => (cell ? one.cell : one.line)).map((one) => one.name),
  );
  const hint = near === undefined ? "" : ` Did you mean ${sign}${near}?`;
  return `There is no magic '${sign}${name}'.${hint} %lsmagic lists them all.`;
}

/** The word that needs the fewest changes, if they are few. */
export function nearest(word: string, among: readonly string[]): string | undefined {
  let best: string | undefined;
  let least = Math.max(1, Math.ceil(word.length / 3)) + 1;
  for (const candidate of among) {
    const distance = candidate.startsWith(word) && word.length > 1 ? 0.5 : edits(word.toLowerCase(), candidate);
    if (distance < least) [best, least] = [candidate, distance];
  }
  return best;
}

/** Insertions, deletions, replacements and swaps of neighbours that turn one word into the other. */
function edits(a: string, b: string): number {
  const rows = [...Array(a.length + 1)].map((_, i) => [i, ...Array<number>(b.length).fill(0)]);
  for (let j = 1; j <= b.length; j++) rows[0]![j] = j;
  for (let i = 1; i <= a.length; i++) {
    for (let j = 1; j <= b.length; j++) {
      const same = a[i - 1] === b[j - 1];
      let cost = Math.min(rows[i - 1]![j]! + 1, rows[i]![j - 1]! + 1, rows[i - 1]![j - 1]! + (same ? 0 : 1));
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1])
        cost = Math.min(cost, rows[i - 2]![j - 2]! + 1);
      rows[i]![j] = cost;
    }
  }
  return rows[a.length]![b.length]!;
}
