import type t from "typescript";
import { ts } from "./typescript.js";

/** The local constant that says under which cell an asynchronous function shows what it shows. */
export const HERE = "$here";

/**
 * Keeps account of which cell's work runs, without async hooks (with which an interrupted Node 20 aborts): every
 * asynchronous function takes note of the cell that calls it, and says so again each time it goes on after an `await`.
 * What it calls then, functions of other cells too, shows its output under that cell.
 *
 *     async function f() { await g(); }
 *     async function f() { const $here = $cell.enter(); try { $here.on(await $here.off(g())); } finally { $here.leave(); } }
 *
 * Runs over the rewritten cell.
 */
export function contexts(found: { awaits: boolean }): t.TransformerFactory<t.SourceFile> {
  return (context) => (file) => {
    const inserter = new Inserter(context);
    const changed = ts.visitEachChild(file, inserter.visit, context);
    found.awaits = inserter.awaits;
    return changed;
  };
}

class Inserter {
  /** Does the function that is being visited, at first the cell, await something? */
  awaits = false;
  private readonly context: t.TransformationContext;
  private readonly make: t.NodeFactory;

  constructor(context: t.TransformationContext) {
    this.context = context;
    this.make = context.factory;
  }

  readonly visit = (node: t.Node): t.Node | t.Node[] | undefined => {
    if (ts.isTypeNode(node)) return node;
    if (ts.isFunctionLike(node) || ts.isClassStaticBlockDeclaration(node)) return this.functionLike(node);
    if (ts.isAwaitExpression(node)) {
      this.awaits = true;
      const waiting = this.make.updateAwaitExpression(
        node,
        this.call("off", this.inner(node.expression) as t.Expression, node),
      );
      return this.call("on", waiting, node);
    }
    if (ts.isForOfStatement(node) && node.awaitModifier) return [this.loop(node), this.say("again")];
    // A label belongs to its loop, so nothing can come between.
    if (ts.isLabeledStatement(node) && ts.isForOfStatement(node.statement) && node.statement.awaitModifier) {
      return [this.make.updateLabeledStatement(node, node.label, this.loop(node.statement)), this.say("again")];
    }
    if (ts.isTryStatement(node)) return this.tried(node);
    return ts.visitEachChild(node, this.visit, this.context);
  };

  private inner<T extends t.Node>(node: T): T {
    return ts.visitNode(node, this.visit) as T;
  }

  private call(method: string, argument: t.Expression | undefined, old?: t.Node): t.Expression {
    const { make } = this;
    const callee = make.createPropertyAccessExpression(make.createIdentifier(HERE), method);
    const call = make.createCallExpression(callee, undefined, argument ? [argument] : []);
    return old ? ts.setSourceMapRange(call, ts.getSourceMapRange(old)) : call;
  }

  private say(method: string): t.Statement {
    return this.make.createExpressionStatement(this.call(method, undefined));
  }

  private loop(node: t.ForOfStatement): t.ForOfStatement {
    this.awaits = true;
    const { initializer, expression, statement } = node;
    const body = this.inner(statement);
    const statements = ts.isBlock(body) ? [this.say("again"), ...body.statements] : [this.say("again"), body];
    return this.make.updateForOfStatement(
      node,
      node.awaitModifier,
      this.inner(initializer),
      this.call("each", this.inner(expression)),
      this.make.createBlock(statements, true),
    );
  }

  /** An error may come from an `await`, after which nobody has said anything. */
  private tried(node: t.TryStatement): t.TryStatement {
    const outside = this.awaits;
    this.awaits = false;
    const block = this.inner(node.tryBlock);
    const resumed = this.awaits;
    const clause = node.catchClause && this.inner(node.catchClause);
    const last = node.finallyBlock && this.inner(node.finallyBlock);
    this.awaits ||= outside;
    if (!resumed) return this.make.updateTryStatement(node, block, clause, last);
    const begin = (old: t.Block): t.Block => this.make.updateBlock(old, [this.say("on"), ...old.statements]);
    return this.make.updateTryStatement(
      node,
      block,
      clause && this.make.updateCatchClause(clause, clause.variableDeclaration, begin(clause.block)),
      last && begin(last),
    );
  }

  private functionLike(node: t.Node): t.Node {
    const outside = this.awaits;
    this.awaits = false;
    const visited = ts.visitEachChild(node, this.visit, this.context);
    const own = this.awaits;
    this.awaits = outside;
    if (!own) return visited;
    const { make } = this;
    const body = (visited as t.FunctionLikeDeclaration).body as t.ConciseBody;
    const inside = ts.isBlock(body) ? body : make.createBlock([this.returning(body)], true);
    const enter = make.createCallExpression(
      make.createPropertyAccessExpression(make.createIdentifier("$cell"), "enter"),
      undefined,
      [],
    );
    const declaration = make.createVariableDeclaration(HERE, undefined, undefined, enter);
    const list = make.createVariableDeclarationList([declaration], ts.NodeFlags.Const);
    const whole = make.createBlock(
      [
        make.createVariableStatement(undefined, list),
        make.createTryStatement(inside, undefined, make.createBlock([this.say("leave")], true)),
      ],
      true,
    );
    return this.withBody(visited, whole);
  }

  private returning(value: t.Expression): t.Statement {
    return ts.setSourceMapRange(this.make.createReturnStatement(value), ts.getSourceMapRange(value));
  }

  private withBody(node: t.Node, body: t.Block): t.Node {
    const { make } = this;
    if (ts.isFunctionDeclaration(node)) {
      const { modifiers, asteriskToken, name, parameters } = node;
      return make.updateFunctionDeclaration(
        node,
        modifiers,
        asteriskToken,
        name,
        undefined,
        parameters,
        undefined,
        body,
      );
    }
    if (ts.isFunctionExpression(node)) {
      const { modifiers, asteriskToken, name, parameters } = node;
      return make.updateFunctionExpression(
        node,
        modifiers,
        asteriskToken,
        name,
        undefined,
        parameters,
        undefined,
        body,
      );
    }
    if (ts.isArrowFunction(node)) {
      return make.updateArrowFunction(
        node,
        node.modifiers,
        undefined,
        node.parameters,
        undefined,
        node.equalsGreaterThanToken,
        body,
      );
    }
    if (ts.isMethodDeclaration(node)) {
      const { modifiers, asteriskToken, name, parameters } = node;
      return make.updateMethodDeclaration(
        node,
        modifiers,
        asteriskToken,
        name,
        undefined,
        undefined,
        parameters,
        undefined,
        body,
      );
    }
    return node;
  }
}
