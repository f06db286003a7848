import type t from "typescript";
import type { Compiler } from "../compile/compiler.js";
import { clean } from "../compile/diagnostics.js";
import type { Inspection } from "../compile/types.js";
import { ts } from "../compile/typescript.js";
import { inspectMagic } from "./magics.js";
import { read } from "./read.js";

const name = /[\p{ID_Continue}$\u200c\u200d]/u;

/** The type and the documentation of what stands at the cursor, before it, or of the function that is being called there. */
export function inspect(compiler: Compiler, text: string, cursor: number, detail: 0 | 1): Inspection {
  const at = Math.max(0, Math.min(cursor, text.length));
  const { code, names, ends } = read(text, (name) => compiler.history.has(name), at);
  const magic = ends ? inspectMagic(text, at) : undefined;
  if (magic) return magic;
  const offset = compiler.show(code, names);
  const { service, current } = compiler.project;
  for (const place of places(code, at)) {
    const info = service.getQuickInfoAtPosition(current, offset + place);
    if (!info || info.kind === ts.ScriptElementKind.unknown) continue;
    const signature = clean(ts.displayPartsToString(info.displayParts))
      .replace(/^\(alias\) /, "")
      .replace(/\nimport .*$/s, "");
    const written = documentation(info) || fromText(service, current, offset + place);
    const docs = detail === 1 ? written : written.split(/\n\s*\n@/)[0]!;
    const plain = docs ? `${signature}\n\n${docs}` : signature;
    const markdown = `\`\`\`typescript\n${signature}\n\`\`\`${docs ? `\n\n${docs}` : ""}`;
    return { found: true, data: { "text/plain": plain, "text/markdown": markdown } };
  }
  return { found: false, data: {} };
}

/** Offsets to ask at: the token at or before the cursor, then the callee whose parentheses hold the cursor. */
function* places(code: string, cursor: number): Iterable<number> {
  if (name.test(code[cursor] ?? "")) yield cursor;
  if (cursor > 0 && name.test(code[cursor - 1]!)) yield cursor - 1;
  let depth = 0;
  for (let at = cursor - 1; at >= 0; at--) {
    const letter = code[at]!;
    if (")]}".includes(letter)) depth++;
    else if ("([{".includes(letter)) {
      if (depth > 0) depth--;
      else if (letter === "(") {
        const before = code.slice(0, at).trimEnd().length - 1;
        if (before >= 0 && name.test(code[before]!)) yield before;
      }
    }
  }
  const before = code.slice(0, cursor).trimEnd().length - 1;
  if (before >= 0 && name.test(code[before]!)) yield before;
}

function documentation({ documentation: text, tags }: t.QuickInfo): string {
  const lines = [ts.displayPartsToString(text)];
  for (const tag of tags ?? []) lines.push(`@${tag.name} ${ts.displayPartsToString(tag.text)}`.trim());
  return lines.filter(Boolean).join("\n\n");
}

/** The comment above the declaration: declaration files are parsed without their comments. */
function fromText(service: t.LanguageService, file: string, at: number): string {
  for (const { fileName, textSpan } of service.getDefinitionAtPosition(file, at) ?? []) {
    const source = service.getProgram()?.getSourceFile(fileName);
    if (!source) continue;
    let found: t.Node | undefined;
    const search = (node: t.Node): void => {
      if (node.pos > textSpan.start || node.end < textSpan.start + textSpan.length) return;
      if (isDocumented(node)) found = node;
      ts.forEachChild(node, search);
    };
    search(source);
    const ranges = found && ts.getLeadingCommentRanges(source.text, found.pos);
    const last = ranges?.findLast(({ pos }) => source.text.startsWith("/**", pos));
    if (last) return plain(source.text.slice(last.pos, last.end));
  }
  return "";
}

function isDocumented(node: t.Node): boolean {
  return ts.isStatement(node) || ts.isClassElement(node) || ts.isTypeElement(node) || ts.isEnumMember(node);
}

function plain(comment: string): string {
  const lines = comment.slice(3, -2).split("\n");
  return lines
    .map((line) => line.replace(/^\s*\* ?/, ""))
    .join("\n")
    .trim()
    .replace(/\n(?=@)/g, "\n\n");
}
