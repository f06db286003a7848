/** What every cell has for showing things, as TypeScript declarations. */
export const displayDeclarations = `
/** Something shown that can be replaced. */
interface DisplayHandle {
  readonly id: string;
  /** Shows another value in its place. */
  update(value: unknown): void;
}
interface DisplayOptions {
  /** A name for the display, under which it can be updated; \`true\` chooses one. With it a handle is returned. */
  id?: string | true;
  /** Replace what was shown with this \`id\` instead of adding to it. */
  update?: boolean;
  metadata?: Record<string, unknown>;
}
type DisplayResult<O> = O extends { id: string | true } ? DisplayHandle : DisplayHandle | undefined;
interface Display {
  /**
   * Shows a value under the cell, as its last expression would be: by its \`Symbol.for("Jupyter.display")\` method where it has one,
   * pictures for the bytes of PNG, JPEG, GIF and WebP files, tables for those of Arrow, else text.
   * @example const bar = display("0 %", { id: true }); bar.update("50 %");
   */
  <O extends DisplayOptions>(value: unknown, options?: O): DisplayResult<O>;
  /** Shows HTML. It is not escaped: put no text of others into it. */
  html<O extends DisplayOptions>(markup: string, options?: O): DisplayResult<O>;
  /** Shows Markdown. */
  markdown<O extends DisplayOptions>(text: string, options?: O): DisplayResult<O>;
  /** Shows LaTeX, such as \`$\\\\\\\\frac{1}{2}$\`. */
  latex<O extends DisplayOptions>(text: string, options?: O): DisplayResult<O>;
  /** Shows the text of an SVG picture. */
  svg<O extends DisplayOptions>(markup: string, options?: O): DisplayResult<O>;
  /** Shows a picture: the bytes of a PNG, JPEG, GIF, WebP or SVG file, their base64 text, or the text of an SVG. */
  image<O extends DisplayOptions>(picture: Uint8Array | ArrayBuffer | string, options?: O): DisplayResult<O>;
  /** Shows a value as a tree of JSON. */
  json<O extends DisplayOptions>(value: unknown, options?: O): DisplayResult<O>;
  /** Shows a plotly figure, \`{ data, layout }\`, where the front end draws those. \`plot\` of tunebook adds a picture for all others. */
  plotly<O extends DisplayOptions>(figure: object, options?: O): DisplayResult<O>;
  /** Shows a chart of Vega-Lite (version 5). */
  vega<O extends DisplayOptions>(specification: object, options?: O): DisplayResult<O>;
  /** Shows rows (objects, arrays or single values) as a table; the first 100 unless \`maxRows\` says otherwise. */
  table<O extends DisplayOptions & { maxRows?: number }>(rows: Iterable<unknown>, options?: O): DisplayResult<O>;
  /** Shows a bundle of MIME types of one's own making. */
  raw<O extends DisplayOptions>(bundle: Record<string, unknown>, options?: O): DisplayResult<O>;
  /** Empties the cell's output; with \`wait\`, when the next output comes. */
  clear(options?: boolean | { wait?: boolean }): void;
}
/**
 * Shows a value under the cell, as its last expression would be: \`display(value, { id })\`. Text as what it is: \`display.html\`, \`.markdown\`,
 * \`.latex\`, \`.svg\`; \`.image\`, \`.json\`, \`.table\`, \`.plotly\`, \`.vega\`; \`display.clear()\` empties the cell's output.
 */
declare const display: Display;
`;

/** The declarations of \`sh\`. */
export const shellDeclarations = `
/** What a command has printed. */
interface ShellOutput {
  readonly stdout: string;
  readonly stderr: string;
  /** Its exit code. */
  readonly code: number;
  /** The lines of its standard output. */
  readonly lines: string[];
  /** Its standard output without the line end at its end. */
  toString(): string;
}
interface ShellOptions {
  /** Show what the command prints while it runs. */
  live?: boolean;
  /** \`false\`: another exit code than 0 is no error. */
  check?: boolean;
  /** The folder that it runs in. */
  cwd?: string;
  /** Environment variables beside those of the kernel; \`undefined\` takes one away. */
  env?: Record<string, string | undefined>;
  /** What it reads from its standard input. */
  input?: string | Uint8Array;
  /** Ends the command when it is aborted, as an interrupt does. */
  signal?: AbortSignal;
}
interface Shell {
  /**
   * Runs a command of the shell. Values are put in as one word each, quoted (an array as several words), so their text is never run.
   * Rejects with a ShellError, which has \`code\`, \`stdout\` and \`stderr\`, when the exit code is not 0.
   * @example const { stdout, lines } = await sh\\\`ls -l \\\${folder}\\\`;
   */
  (texts: TemplateStringsArray, ...values: unknown[]): Promise<ShellOutput>;
  /**
   * The same with options.
   * @example await sh({ live: true, cwd: "data" })\\\`make \\\${target}\\\`;
   */
  (options: ShellOptions): (texts: TemplateStringsArray, ...values: unknown[]) => Promise<ShellOutput>;
}
/** Runs a command of the shell and gives back what it prints: \`await sh\\\`ls \\\${folder}\\\`\`. With options: \`sh({ live: true })\\\`make\\\`\`. */
declare const sh: Shell;
`;
