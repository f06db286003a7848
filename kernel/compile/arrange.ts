import type t from "typescript";
import type { Directive } from "../magics/directives.js";
import { ts } from "./typescript.js";

/** How single statements and expressions of a cell are rewritten. */
export interface Rewriting {
  /** @param last - its value is the cell's; @param measured - it stands in a function that runs many times */
  statement(node: t.Statement, last: boolean, measured: boolean): t.Statement[];
  expression(node: t.Expression): t.Expression;
  /** The cell's own top-level names. */
  names: readonly string[];
}

type Call = Extract<Directive, { kind: "call" }>;
type Measured = Exclude<Directive, Call>;

/**
 * Puts a cell's statements and its magics in order: imports first, with the magics above them, then each magic where it
 * stood, and statements that are measured between the calls that measure them.
 */
export class Arranger {
  private readonly make: t.NodeFactory;
  private readonly source: t.SourceFile;
  private readonly rewriting: Rewriting;
  private readonly statements: t.Statement[];
  private readonly magics: Directive[];
  private readonly imports: t.Statement[] = [];
  /** Wraps the value of the cell: `%time` is told after it is there. */
  private readonly timers: string[] = [];
  private last: t.Statement | undefined;
  private count = 0;

  constructor(make: t.NodeFactory, source: t.SourceFile, magics: readonly Directive[], rewriting: Rewriting) {
    this.make = make;
    this.source = source;
    this.rewriting = rewriting;
    this.magics = [...magics];
    this.statements = source.statements.filter((statement) => !ts.isEmptyStatement(statement));
  }

  file(): t.Statement[] {
    const last = this.statements.at(-1);
    const end = Math.max(-1, ...this.magics.filter(({ kind }) => kind !== "time").map((magic) => magic.end));
    // A magic below it is done after it, so it cannot be returned.
    if (last && this.start(last) >= end) this.last = last;
    const rest = this.part(Number.POSITIVE_INFINITY, false);
    return [...this.imports, ...rest];
  }

  private start(node: t.Node): number {
    return node.getStart(this.source);
  }

  /** Statements and magics that begin before an offset. */
  private part(end: number, measured: boolean): t.Statement[] {
    const out: t.Statement[] = [];
    for (;;) {
      const magic = this.magics[0];
      const statement = this.statements[0];
      const at = statement ? this.start(statement) : Number.POSITIVE_INFINITY;
      if (magic && magic.start < end && magic.start <= at) {
        this.magics.shift();
        const done = magic.kind === "call" ? this.call(magic) : this.measured(magic, measured);
        // `%cd` or `%env` above an import is meant to come before it.
        const early = magic.kind === "call" && out.length === 0 && !measured && this.timers.length === 0;
        (early && this.statements.some(ts.isImportDeclaration) ? this.imports : out).push(...done);
      } else if (statement && at < end) {
        this.statements.shift();
        this.place(statement, out, measured);
      } else return out;
    }
  }

  private place(statement: t.Statement, out: t.Statement[], measured: boolean): void {
    if (ts.isImportDeclaration(statement)) {
      this.imports.push(...this.rewriting.statement(statement, false, false));
      return;
    }
    for (const made of this.rewriting.statement(statement, statement === this.last, measured)) {
      out.push(ts.isReturnStatement(made) && this.timers.length > 0 ? this.told(made) : made);
    }
  }

  /** `return { value: $time1($time0(x)) }`. */
  private told(node: t.ReturnStatement): t.Statement {
    const { make } = this;
    const [property] = (node.expression as t.ObjectLiteralExpression).properties as unknown as [t.PropertyAssignment];
    const value = [...this.timers]
      .reverse()
      .reduce(
        (inner: t.Expression, timer) => make.createCallExpression(make.createIdentifier(timer), undefined, [inner]),
        property.initializer,
      );
    const result = make.createObjectLiteralExpression([make.createPropertyAssignment("value", value)]);
    return make.updateReturnStatement(node, result);
  }

  private call(magic: Call): t.Statement[] {
    const { make } = this;
    const values: t.Expression[] = [];
    const [first] = this.statements;
    if (
      magic.texts.length > 1 &&
      first &&
      ts.isExpressionStatement(first) &&
      ts.isArrayLiteralExpression(first.expression)
    ) {
      this.statements.shift();
      for (const element of first.expression.elements) values.push(this.rewriting.expression(element));
    }
    const text = (one: string): t.Expression => make.createStringLiteral(one);
    const call = this.kernel("magic", [
      text(magic.name),
      make.createArrayLiteralExpression(magic.texts.map(text)),
      make.createArrayLiteralExpression(values),
      ...(magic.body === undefined ? [] : [text(magic.body)]),
    ]);
    const done = this.at(make.createExpressionStatement(make.createAwaitExpression(this.at(call, magic))), magic);
    return magic.name === "reset" ? [done, ...this.rewriting.names.map((name) => this.kept(name))] : [done];
  }

  /** After a `%reset` the cell's own names are there again. */
  private kept(name: string): t.Statement {
    const { make } = this;
    const ref = make.createElementAccessExpression(make.createIdentifier("$scope"), make.createStringLiteral("ref()"));
    return make.createExpressionStatement(make.createCallExpression(ref, undefined, [make.createStringLiteral(name)]));
  }

  private measured(magic: Measured, inside: boolean): t.Statement[] {
    const { make } = this;
    const end = magic.end;
    if (magic.kind === "time") {
      const timer = `$time${this.count++}`;
      this.timers.push(timer);
      const inner = this.part(end, inside);
      this.timers.pop();
      const declaration = make.createVariableDeclaration(timer, undefined, undefined, this.kernel("time", []));
      const list = make.createVariableDeclarationList([declaration], ts.NodeFlags.Const);
      const stop = make.createCallExpression(make.createIdentifier(timer), undefined, []);
      const ended = inner.at(-1) && ts.isReturnStatement(inner.at(-1)!);
      return [
        make.createVariableStatement(undefined, list),
        ...inner,
        ...(ended ? [] : [make.createExpressionStatement(stop)]),
      ];
    }
    const statements = this.part(end, true);
    const last = statements.at(-1);
    // The value is given back so that the engine cannot leave out what makes it.
    if (last && ts.isExpressionStatement(last))
      statements[statements.length - 1] = make.createReturnStatement(last.expression);
    const waits = statements.some(awaits);
    const loops = make.createArrowFunction(
      waits ? [make.createModifier(ts.SyntaxKind.AsyncKeyword)] : undefined,
      undefined,
      [],
      undefined,
      undefined,
      make.createBlock(statements, true),
    );
    const counts = [magic.loops, magic.runs].map((count) =>
      count === undefined ? make.createVoidZero() : make.createNumericLiteral(count),
    );
    const call = this.kernel("timeit", [loops, waits ? make.createTrue() : make.createFalse(), ...counts]);
    return [this.at(make.createExpressionStatement(make.createAwaitExpression(this.at(call, magic))), magic)];
  }

  private kernel(name: string, parameters: t.Expression[]): t.Expression {
    const { make } = this;
    const callee = make.createPropertyAccessExpression(make.createIdentifier("$cell"), name);
    return make.createCallExpression(callee, undefined, parameters);
  }

  private at<T extends t.Node>(node: T, { start, end }: Directive): T {
    return ts.setSourceMapRange(node, { pos: start, end });
  }
}

/** Is there an `await` outside of inner functions? */
function awaits(node: t.Node): boolean {
  if (ts.isAwaitExpression(node) || (ts.isForOfStatement(node) && node.awaitModifier)) return true;
  if (ts.isFunctionLike(node)) return false;
  return ts.forEachChild(node, awaits) ?? false;
}
