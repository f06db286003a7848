import type t from "typescript";
import type { Directive } from "../magics/directives.js";
import { analyze } from "./analyze.js";
import { type Emitted, emitOptions, setUp, syntaxFaults } from "./emit.js";
import { Mappings } from "./mappings.js";
import { parseModule } from "./print.js";
import { boxName, placeOf, type Surroundings } from "./rewrite.js";
import { ts } from "./typescript.js";

const MAX_LENGTH = 4_096;
/** Other ends of lines than the usual one, and octal numbers as strict code does not know them. */
const UNUSUAL = /[\r\u2028\u2029]|\b0\d/;

/** What is JavaScript already, and stays as it is except for its names. */
const plain = new Set([
  ts.SyntaxKind.Identifier,
  ts.SyntaxKind.NumericLiteral,
  ts.SyntaxKind.BigIntLiteral,
  ts.SyntaxKind.StringLiteral,
  ts.SyntaxKind.RegularExpressionLiteral,
  ts.SyntaxKind.NoSubstitutionTemplateLiteral,
  ts.SyntaxKind.TemplateExpression,
  ts.SyntaxKind.TemplateSpan,
  ts.SyntaxKind.TemplateHead,
  ts.SyntaxKind.TemplateMiddle,
  ts.SyntaxKind.TemplateTail,
  ts.SyntaxKind.TrueKeyword,
  ts.SyntaxKind.FalseKeyword,
  ts.SyntaxKind.NullKeyword,
  ts.SyntaxKind.ParenthesizedExpression,
  ts.SyntaxKind.PrefixUnaryExpression,
  ts.SyntaxKind.TypeOfExpression,
  ts.SyntaxKind.VoidExpression,
  ts.SyntaxKind.BinaryExpression,
  ts.SyntaxKind.ConditionalExpression,
  ts.SyntaxKind.QuestionToken,
  ts.SyntaxKind.ColonToken,
  ts.SyntaxKind.QuestionDotToken,
  ts.SyntaxKind.PropertyAccessExpression,
  ts.SyntaxKind.ElementAccessExpression,
  ts.SyntaxKind.CallExpression,
  ts.SyntaxKind.NewExpression,
  ts.SyntaxKind.ArrayLiteralExpression,
  ts.SyntaxKind.OmittedExpression,
  ts.SyntaxKind.SpreadElement,
  ts.SyntaxKind.ObjectLiteralExpression,
  ts.SyntaxKind.PropertyAssignment,
  ts.SyntaxKind.ShorthandPropertyAssignment,
  ts.SyntaxKind.SpreadAssignment,
  ts.SyntaxKind.ComputedPropertyName,
  ts.SyntaxKind.DotDotDotToken,
  ts.SyntaxKind.ArrowFunction,
  ts.SyntaxKind.EqualsGreaterThanToken,
  ts.SyntaxKind.Parameter,
]);

/** A part of the text, and what stands there instead. */
interface Edit {
  start: number;
  end: number;
  text: string;
  /** Belongs what follows to the name too? So it is with the parenthesis of a call, which an engine names as its place. */
  called: boolean;
}

/**
 * Turns a cell that is one expression, without types, into the body of an async function, by changing its names in the text: most of what a
 * notebook asks for, in a tenth of the time of the tree's rewriting, erasing and printing (`emitCell`), which this must agree with.
 *
 * @returns undefined for every other cell
 */
export function emitExpression(
  code: string,
  cell: string,
  around: Surroundings,
  magics: readonly Directive[],
): Emitted | undefined {
  if (magics.length > 0 || code.length > MAX_LENGTH || UNUSUAL.test(code)) return undefined;
  const file = parseModule(code, `${cell}.ts`, emitOptions);
  const [statement, ...others] = file.statements;
  if (statement === undefined || others.length > 0 || !ts.isExpressionStatement(statement)) return undefined;
  if (!isPlain(statement.expression) || syntaxFaults(file).length > 0) return undefined;
  const analysis = analyze(file);
  if (analysis.faults.length > 0) return undefined;
  const prologue = { boxes: new Set<string>(), functions: [], awaits: false };
  const edits: Edit[] = [];
  const marks: number[] = [];
  let able = true;
  const visit = (node: t.Node, parent: t.Node): void => {
    const start = node.getStart(file);
    marks.push(start, node.end);
    if (ts.isIdentifier(node) && analysis.references.has(node)) {
      const place = placeOf(node.text, around);
      if (place === "later") able = false;
      if (place !== "box" && place !== "cell") return;
      const called = ts.isCallExpression(parent) && parent.expression === node;
      if (place === "box") prologue.boxes.add(node.text);
      const value = place === "box" ? `${boxName(node.text)}.v` : `$cell.${node.text}`;
      const key = ts.isShorthandPropertyAssignment(parent) ? `${node.text}: ` : "";
      edits.push({ start, end: node.end, text: called ? `(0, ${value})` : key + value, called });
      return;
    }
    ts.forEachChild(node, (child) => visit(child, node));
  };
  visit(statement.expression, statement);
  if (!able) return undefined;
  const { text, mappings } = edited(file, statement.expression, edits, marks);
  const map = { version: 3, file: cell, sourceRoot: "", sources: [cell], names: [], mappings: `;${mappings}` };
  const js = `${setUp(prologue)}\n${BEFORE}${text} };\n`;
  return { js, map: JSON.stringify(map), analysis, faults: [], alone: true };
}

const BEFORE = "return { value: ";

/** Is it made of what needs no rewriting but that of names? */
function isPlain(node: t.Node): boolean {
  if (!plain.has(node.kind)) return false;
  if (ts.isBinaryExpression(node)) {
    const { kind } = node.operatorToken;
    const assigns = kind >= ts.SyntaxKind.FirstAssignment && kind <= ts.SyntaxKind.LastAssignment;
    return !assigns && isPlain(node.left) && isPlain(node.right);
  }
  if (ts.isPrefixUnaryExpression(node)) {
    const { operator } = node;
    if (operator === ts.SyntaxKind.PlusPlusToken || operator === ts.SyntaxKind.MinusMinusToken) return false;
  }
  if (ts.isCallExpression(node) || ts.isNewExpression(node)) {
    // The callee of `(f)()` is the box too.
    if (node.typeArguments || ts.isParenthesizedExpression(node.expression)) return false;
  }
  if (ts.isShorthandPropertyAssignment(node) && node.objectAssignmentInitializer) return false;
  if (ts.isArrowFunction(node) && (node.modifiers || node.typeParameters || node.type)) return false;
  if (ts.isParameter(node)) {
    const { modifiers, name, type, questionToken, initializer } = node;
    return !modifiers && !type && !questionToken && !initializer && ts.isIdentifier(name);
  }
  return ts.forEachChild(node, (child) => !isPlain(child)) !== true;
}

/** The expression's text with the edits, which are in order, and the source map of it. */
function edited(
  file: t.SourceFile,
  node: t.Expression,
  edits: readonly Edit[],
  marks: readonly number[],
): { text: string; mappings: string } {
  const places = [...new Set(marks)].sort((a, b) => a - b);
  const mappings = new Mappings();
  let text = "";
  let line = 0;
  let column = BEFORE.length;
  let from = node.getStart(file);
  const put = (part: string): void => {
    const breaks = part.split("\n").length - 1;
    text += part;
    line += breaks;
    column = breaks > 0 ? part.length - part.lastIndexOf("\n") - 1 : column + part.length;
  };
  const first = file.getLineAndCharacterOfPosition(from);
  mappings.add(0, 0, first.line, first.character);
  let next = 0;
  let silent = -1;
  for (const place of places) {
    put(file.text.slice(from, place));
    from = place;
    const { line: oldLine, character } = file.getLineAndCharacterOfPosition(place);
    if (place !== silent) mappings.add(line, column, oldLine, character);
    const edit = edits[next];
    if (edit?.start !== place) continue;
    next++;
    put(edit.text);
    from = edit.end;
    silent = edit.called ? edit.end : -1;
  }
  return { text, mappings: mappings.text };
}
