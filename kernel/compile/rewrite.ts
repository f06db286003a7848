import type t from "typescript";
import type { Directive } from "../magics/directives.js";
import { type Analysis, isAmbient } from "./analyze.js";
import { Arranger } from "./arrange.js";
import { ts } from "./typescript.js";

/** What the rewriter has to know about the notebook beside the cell itself. */
export interface Surroundings {
  /** Is the name a top-level value of an earlier cell? */
  boxed(name: string): boolean;
  /** Is it one that cannot be assigned to? */
  constant(name: string): boolean;
  /** Imported names of this cell that stand for types alone. */
  typeOnly: ReadonlySet<string>;
}

/** A rewritten cell's needs: what its first line has to set up. */
export interface Prologue {
  boxes: Set<string>;
  /** Hoisted functions, put into their boxes before anything runs. */
  functions: string[];
  /** Does the cell itself await something? */
  awaits: boolean;
}

/** Names of the cell's own that are no globals. */
const cellNames = new Set(["console", "display", "input", "prompt", "confirm", "comms", "sh"]);
/** Globals that exist in the executor; any other undeclared name may be declared by a later cell. */
const globalNames = new Set([
  ...Object.getOwnPropertyNames(globalThis),
  ...["require", "module", "exports", "__dirname", "__filename", "process", "window", "NaN", "Infinity"],
]);

/** The local constant that holds the box of a name. */
export function boxName(name: string): string {
  return `$$${name}`;
}

/** Where the value of a name is that a cell mentions and does not declare. */
export function placeOf(name: string, around: Surroundings): "box" | "cell" | "global" | "later" {
  if (around.boxed(name)) return "box";
  if (cellNames.has(name)) return "cell";
  return globalNames.has(name) ? "global" : "later";
}

/**
 * Turns a cell's top-level bindings into boxes of the live scope, static imports into awaited ones at the top, and the
 * last expression into the result. Works on the TypeScript tree; types are erased afterwards.
 */
export function rewriter(
  analysis: Analysis,
  around: Surroundings,
  prologue: Prologue,
  magics: readonly Directive[],
): t.TransformerFactory<t.SourceFile> {
  return (context) => (file) => new Rewriter(context, file, analysis, around, prologue).file(magics);
}

class Rewriter {
  private readonly make: t.NodeFactory;
  private readonly context: t.TransformationContext;
  private readonly source: t.SourceFile;
  private readonly analysis: Analysis;
  private readonly around: Surroundings;
  private readonly prologue: Prologue;
  private functions = 0;
  private modules = 0;

  constructor(
    context: t.TransformationContext,
    file: t.SourceFile,
    analysis: Analysis,
    around: Surroundings,
    prologue: Prologue,
  ) {
    this.context = context;
    this.make = context.factory;
    this.source = file;
    this.analysis = analysis;
    this.around = around;
    this.prologue = prologue;
  }

  file(magics: readonly Directive[]): t.SourceFile {
    const arranged = new Arranger(this.make, this.source, magics, {
      statement: (statement, last, measured) => this.statement(statement, last, measured),
      expression: (expression) => this.expression(expression),
      names: [...this.analysis.declared].filter(([, { value }]) => value).map(([name]) => name),
    }).file();
    const statements = ts.setTextRange(this.make.createNodeArray(arranged), this.source.statements);
    return this.make.updateSourceFile(this.source, statements);
  }

  /** A new node that stands where `old` stood, for the source map. */
  private at<T extends t.Node>(node: T, old: t.Node): T {
    ts.setSourceMapRange(node, { pos: old.getStart(this.source), end: old.end });
    return node;
  }

  private run(expression: t.Expression, old: t.Node): t.Statement {
    return this.at(this.make.createExpressionStatement(expression), old);
  }

  private name(text: string): t.Identifier {
    return this.make.createIdentifier(text);
  }

  private box(name: string, old: t.Node): t.Expression {
    this.prologue.boxes.add(name);
    return this.at(this.make.createPropertyAccessExpression(this.name(boxName(name)), "v"), old);
  }

  private owns(name: string): boolean {
    const own = this.analysis.declared.get(name);
    return own ? own.value && !(own.imported && this.around.typeOnly.has(name)) : this.around.boxed(name);
  }

  /** @param measured - is it in a function that runs many times? Then nothing of it can be hoisted */
  private statement(node: t.Statement, last: boolean, measured: boolean): t.Statement[] {
    if (ts.isImportDeclaration(node)) return this.importDeclaration(node);
    if (ts.isImportEqualsDeclaration(node)) return this.importEquals(node);
    if (ts.isExportDeclaration(node)) {
      const { moduleSpecifier } = node;
      return moduleSpecifier && !node.isTypeOnly ? [this.run(this.awaited(moduleSpecifier, undefined), node)] : [];
    }
    if (isAmbient(node) || ts.isInterfaceDeclaration(node) || ts.isTypeAliasDeclaration(node)) return [];
    if (ts.isExpressionStatement(node) || ts.isExportAssignment(node)) {
      const expression = this.expression(node.expression);
      if (!last) return [this.run(expression, node)];
      const value = this.make.createObjectLiteralExpression([this.make.createPropertyAssignment("value", expression)]);
      return [this.at(this.make.createReturnStatement(value), node)];
    }
    if (ts.isVariableStatement(node)) return this.variables(node.declarationList, node);
    if (ts.isFunctionDeclaration(node)) {
      if (!node.name) return [];
      if (node.body && measured) {
        const { text } = node.name;
        return [
          this.unexported(node),
          this.run(this.make.createAssignment(this.box(text, node), this.name(text)), node),
        ];
      }
      if (node.body) {
        this.prologue.functions.push(node.name.text);
        this.prologue.boxes.add(node.name.text);
      }
      return [this.unexported(node)];
    }
    if (ts.isClassDeclaration(node) || ts.isEnumDeclaration(node) || ts.isModuleDeclaration(node)) {
      const name = node.name?.text;
      const statement = this.unexported(node);
      if (name === undefined || !this.analysis.declared.get(name)?.value) return name === undefined ? [] : [statement];
      return [statement, this.run(this.make.createAssignment(this.box(name, node), this.name(name)), node)];
    }
    return [ts.visitNode(node, this.visit) as t.Statement];
  }

  private unexported<T extends t.FunctionDeclaration | t.ClassDeclaration | t.EnumDeclaration | t.ModuleDeclaration>(
    node: T,
  ): T {
    const visited = ts.visitNode(node, this.visit) as T;
    const kept = visited.modifiers?.filter(
      ({ kind }) => kind !== ts.SyntaxKind.ExportKeyword && kind !== ts.SyntaxKind.DefaultKeyword,
    );
    if (kept?.length === visited.modifiers?.length) return visited;
    const make = this.make;
    let plain: t.Node;
    if (ts.isFunctionDeclaration(visited)) {
      const { asteriskToken, name, typeParameters, parameters, type, body } = visited;
      plain = make.updateFunctionDeclaration(
        visited,
        kept,
        asteriskToken,
        name,
        typeParameters,
        parameters,
        type,
        body,
      );
    } else if (ts.isClassDeclaration(visited)) {
      const { name, typeParameters, heritageClauses, members } = visited;
      plain = make.updateClassDeclaration(visited, kept, name, typeParameters, heritageClauses, members);
    } else if (ts.isEnumDeclaration(visited))
      plain = make.updateEnumDeclaration(visited, kept as t.Modifier[], visited.name, visited.members);
    else plain = make.updateModuleDeclaration(visited, kept as t.Modifier[], visited.name, visited.body);
    return plain as T;
  }

  // Imports

  private awaited(specifier: t.Expression, attributes: t.ImportAttributes | undefined): t.Expression {
    const given = attributes?.elements.map(({ name, value }) => this.make.createPropertyAssignment(name.text, value));
    const options = given && [
      this.make.createObjectLiteralExpression([
        this.make.createPropertyAssignment("with", this.make.createObjectLiteralExpression(given)),
      ]),
    ];
    const call = this.make.createCallExpression(this.name("$import"), undefined, [specifier, ...(options ?? [])]);
    return this.make.createAwaitExpression(this.at(call, specifier));
  }

  private importDeclaration(node: t.ImportDeclaration): t.Statement[] {
    const { importClause: clause, moduleSpecifier, attributes } = node;
    if (clause?.isTypeOnly) return [];
    const all = clause ? [...(clause.name ? [clause.name] : []), ...namesOf(clause.namedBindings)] : [];
    const values = all.filter(({ text }) => this.owns(text));
    // Names of types alone: the module may not even exist at run time.
    if (clause && values.length === 0 && all.length > 0) return [];
    const call = this.awaited(moduleSpecifier, attributes);
    if (values.length === 0) return [this.run(call, node)];
    const module = this.name(`$module${this.modules++}`);
    const pick = (name: string): t.Expression =>
      this.make.createCallExpression(
        this.make.createElementAccessExpression(this.name("$scope"), this.make.createStringLiteral("pick()")),
        undefined,
        [module, this.make.createStringLiteral(name)],
      );
    const bindings = clause?.namedBindings;
    const values_ = values.map((local) => {
      let value: t.Expression = module;
      if (local === clause?.name) value = pick("default");
      else if (bindings && ts.isNamedImports(bindings)) {
        const specifier = bindings.elements.find((element) => element.name === local)!;
        value = pick((specifier.propertyName ?? local).text);
      }
      return this.run(this.make.createAssignment(this.box(local.text, local), value), local);
    });
    const declaration = this.make.createVariableDeclaration(module, undefined, undefined, call);
    const list = this.make.createVariableDeclarationList([declaration], ts.NodeFlags.Const);
    return [this.at(this.make.createVariableStatement(undefined, list), node), ...values_];
  }

  private importEquals(node: t.ImportEqualsDeclaration): t.Statement[] {
    const { moduleReference, name, isTypeOnly } = node;
    if (isTypeOnly || !this.owns(name.text)) return [];
    let value: t.Expression;
    if (ts.isExternalModuleReference(moduleReference)) {
      value = this.make.createCallExpression(this.name("require"), undefined, [moduleReference.expression]);
    } else value = this.entity(moduleReference);
    return [this.run(this.make.createAssignment(this.box(name.text, name), value), node)];
  }

  private entity(name: t.EntityName): t.Expression {
    if (ts.isIdentifier(name)) return this.expression(name);
    const question = this.make.createToken(ts.SyntaxKind.QuestionDotToken);
    return this.make.createPropertyAccessChain(this.entity(name.left), question, name.right.text);
  }

  // Declarations of variables

  private variables(list: t.VariableDeclarationList, old: t.Node): t.Statement[] {
    const block = (list.flags & ts.NodeFlags.BlockScoped) !== 0;
    return list.declarations.flatMap((declaration) => {
      const { name, initializer } = declaration;
      if (initializer)
        return [
          this.run(this.assign(name, initializer, declaration), list.declarations.length > 1 ? declaration : old),
        ];
      // `let x;` is undefined from here on; `var x;` keeps what it has, as in a script.
      if (!block || !ts.isIdentifier(name)) return [];
      return [this.run(this.make.createAssignment(this.box(name.text, name), this.make.createVoidZero()), declaration)];
    });
  }

  private assign(name: t.BindingName, initializer: t.Expression, old: t.Node): t.Expression {
    return this.at(this.make.createAssignment(this.target(name), this.named(name, initializer)), old);
  }

  private assignments(parts: readonly t.VariableDeclaration[]): t.Expression {
    return parts
      .map((part) => this.assign(part.name, part.initializer!, part))
      .reduce((left, right) => this.make.createComma(left, right));
  }

  /** A function or class without a name takes the variable's, as a declaration would give it. */
  private named(name: t.BindingName | t.Expression, initializer: t.Expression): t.Expression {
    const value = this.expression(initializer);
    if (!ts.isIdentifier(name) || !isAnonymousFunction(initializer)) return value;
    const literal = this.make.createObjectLiteralExpression([
      this.make.createPropertyAssignment(this.make.createIdentifier(name.text), value),
    ]);
    return this.make.createPropertyAccessExpression(this.make.createParenthesizedExpression(literal), name.text);
  }

  /** A binding pattern as the target of an assignment. */
  private target(name: t.BindingName): t.Expression {
    if (ts.isIdentifier(name)) return this.box(name.text, name);
    const make = this.make;
    const full = ({ name: inner, initializer }: t.BindingElement): t.Expression =>
      initializer ? make.createAssignment(this.target(inner), this.named(inner, initializer)) : this.target(inner);
    if (ts.isArrayBindingPattern(name)) {
      return make.createArrayLiteralExpression(
        name.elements.map((element) => {
          if (ts.isOmittedExpression(element)) return make.createOmittedExpression();
          return element.dotDotDotToken ? make.createSpreadElement(this.target(element.name)) : full(element);
        }),
      );
    }
    return make.createObjectLiteralExpression(
      name.elements.map((element) => {
        if (element.dotDotDotToken) return make.createSpreadAssignment(this.target(element.name));
        const key = element.propertyName ?? make.createIdentifier((element.name as t.Identifier).text);
        return make.createPropertyAssignment(ts.visitNode(key, this.visit) as t.PropertyName, full(element));
      }),
    );
  }

  // Everything below a statement

  private expression(node: t.Expression): t.Expression {
    return ts.visitNode(node, this.visit) as t.Expression;
  }

  private visit = (node: t.Node): t.Node | undefined => {
    if (ts.isIdentifier(node)) return this.identifier(node);
    if (ts.isTypeNode(node) && !ts.isExpressionWithTypeArguments(node)) return node;
    if (ts.isFunctionLike(node) || ts.isClassStaticBlockDeclaration(node)) {
      this.functions++;
      const visited = this.children(node);
      this.functions--;
      return visited;
    }
    if (ts.isModuleDeclaration(node)) {
      this.functions++; // variables of a namespace are its own
      const visited = this.children(node);
      this.functions--;
      return visited;
    }
    switch (node.kind) {
      case ts.SyntaxKind.ShorthandPropertyAssignment:
        return this.shorthand(node as t.ShorthandPropertyAssignment);
      case ts.SyntaxKind.CallExpression:
        return this.call(node as t.CallExpression);
      case ts.SyntaxKind.TaggedTemplateExpression: {
        const { tag, typeArguments, template } = node as t.TaggedTemplateExpression;
        const parts = ts.visitNode(template, this.visit) as t.TemplateLiteral;
        return this.make.updateTaggedTemplateExpression(
          node as t.TaggedTemplateExpression,
          this.callee(tag),
          typeArguments,
          parts,
        );
      }
      case ts.SyntaxKind.MetaProperty:
        if ((node as t.MetaProperty).keywordToken !== ts.SyntaxKind.ImportKeyword) return node;
        return this.at(this.make.createPropertyAccessExpression(this.name("$cell"), "meta"), node);
      case ts.SyntaxKind.BinaryExpression: {
        const { left, operatorToken, right } = node as t.BinaryExpression;
        if (!isNaming(operatorToken.kind) || !ts.isIdentifier(left) || !isAnonymousFunction(right)) break;
        if (this.identifier(left) === left) break;
        return this.make.updateBinaryExpression(
          node as t.BinaryExpression,
          this.expression(left),
          operatorToken,
          this.named(left, right),
        );
      }
      case ts.SyntaxKind.VariableStatement: {
        const { declarationList } = node as t.VariableStatement;
        if (!this.hoists(declarationList)) break;
        const parts = declarationList.declarations.filter(({ initializer }) => initializer);
        return parts.length === 0 ? this.make.createEmptyStatement() : this.run(this.assignments(parts), node);
      }
      case ts.SyntaxKind.ForStatement: {
        const { initializer, condition, incrementor, statement } = node as t.ForStatement;
        if (!initializer || !ts.isVariableDeclarationList(initializer) || !this.hoists(initializer)) break;
        const parts = initializer.declarations.filter((part) => part.initializer);
        const first = parts.length ? this.assignments(parts) : undefined;
        const visitOptional = (each: t.Expression | undefined): t.Expression | undefined =>
          each && this.expression(each);
        const body = ts.visitNode(statement, this.visit) as t.Statement;
        return this.make.updateForStatement(
          node as t.ForStatement,
          first,
          visitOptional(condition),
          visitOptional(incrementor),
          body,
        );
      }
      case ts.SyntaxKind.ForInStatement:
      case ts.SyntaxKind.ForOfStatement: {
        const loop = node as t.ForInOrOfStatement;
        if (!ts.isVariableDeclarationList(loop.initializer) || !this.hoists(loop.initializer)) break;
        const target = this.target(loop.initializer.declarations[0]!.name);
        const over = this.expression(loop.expression);
        const body = ts.visitNode(loop.statement, this.visit) as t.Statement;
        return ts.isForInStatement(loop)
          ? this.make.updateForInStatement(loop, target, over, body)
          : this.make.updateForOfStatement(loop, loop.awaitModifier, target, over, body);
      }
    }
    return this.children(node);
  };

  private children(node: t.Node): t.Node {
    return ts.visitEachChild(node, this.visit, this.context);
  }

  /** A `var` outside of functions belongs to the cell, however deep it stands. */
  private hoists(list: t.VariableDeclarationList): boolean {
    return this.functions === 0 && (list.flags & ts.NodeFlags.BlockScoped) === 0;
  }

  private identifier(node: t.Identifier): t.Expression {
    const reference = this.analysis.references.get(node);
    if (reference === undefined) return node;
    const { name, deferred, write } = reference;
    const own = this.analysis.declared.get(name);
    if (this.owns(name)) {
      const early = own && !deferred && node.pos < own.end && ["let", "const", "class", "enum"].includes(own.kind);
      return early && !write ? this.tooEarly(name, node) : this.box(name, node);
    }
    if (own) return node;
    if (cellNames.has(name)) return this.at(this.make.createPropertyAccessExpression(this.name("$cell"), name), node);
    if (globalNames.has(name) || write) return node;
    return this.late(name, node);
  }

  /** Reading a name above its declaration: the error that JavaScript would throw. */
  private tooEarly(name: string, old: t.Node): t.Expression {
    return this.helper("early()", [this.make.createStringLiteral(name)], old);
  }

  /** A name that nobody has declared yet: a later cell may, before this is run. */
  private late(name: string, old: t.Node): t.Expression {
    const global = this.make.createConditionalExpression(
      this.make.createStrictEquality(
        this.make.createTypeOfExpression(this.name(name)),
        this.make.createStringLiteral("undefined"),
      ),
      undefined,
      ts.isTypeOfExpression(old.parent) ? this.make.createVoidZero() : this.name(name),
      undefined,
      this.name(name),
    );
    const otherwise = this.make.createArrowFunction(undefined, undefined, [], undefined, undefined, global);
    return this.helper("late()", [this.make.createStringLiteral(name), otherwise], old);
  }

  private helper(name: string, parameters: t.Expression[], old: t.Node): t.Expression {
    const helper = this.make.createElementAccessExpression(this.name("$scope"), this.make.createStringLiteral(name));
    return this.at(this.make.createCallExpression(helper, undefined, parameters), old);
  }

  private shorthand(node: t.ShorthandPropertyAssignment): t.Node {
    const value = this.identifier(node.name);
    const fallback = node.objectAssignmentInitializer;
    if (value === node.name) return fallback ? this.children(node) : node;
    const full = fallback ? this.make.createAssignment(value, this.named(node.name, fallback)) : value;
    return this.at(this.make.createPropertyAssignment(this.make.createIdentifier(node.name.text), full), node);
  }

  private call(node: t.CallExpression): t.Node {
    const parameters = node.arguments.map((each) => this.expression(each));
    if (node.expression.kind === ts.SyntaxKind.ImportKeyword) {
      return this.at(this.make.createCallExpression(this.name("$import"), undefined, parameters), node);
    }
    const callee = this.callee(node.expression);
    return node.questionDotToken
      ? this.make.updateCallChain(node as t.CallChain, callee, node.questionDotToken, undefined, parameters)
      : this.make.updateCallExpression(node, callee, undefined, parameters);
  }

  /** `f()` must not make the box its `this`. */
  private callee(node: t.Expression): t.Expression {
    let bare = node;
    while (ts.isParenthesizedExpression(bare) || ts.isNonNullExpression(bare) || ts.isAsExpression(bare))
      bare = bare.expression;
    const visited = this.expression(node);
    if (!ts.isIdentifier(bare) || visited === node || !this.analysis.references.has(bare)) return visited;
    if (!this.owns(bare.text) && !cellNames.has(bare.text)) return visited;
    const comma = this.make.createComma(this.make.createNumericLiteral(0), visited);
    // An engine names the closing parenthesis as the place of a failed call: it must map to the name's start.
    for (const part of [visited, comma]) ts.setEmitFlags(part, ts.EmitFlags.NoTrailingSourceMap);
    return ts.setEmitFlags(
      this.at(this.make.createParenthesizedExpression(comma), node),
      ts.EmitFlags.NoTrailingSourceMap,
    );
  }
}

function namesOf(bindings: t.NamedImportBindings | undefined): t.Identifier[] {
  if (!bindings) return [];
  if (ts.isNamespaceImport(bindings)) return [bindings.name];
  return bindings.elements.filter(({ isTypeOnly }) => !isTypeOnly).map(({ name }) => name);
}

function isAnonymousFunction(node: t.Expression): boolean {
  if (ts.isParenthesizedExpression(node)) return isAnonymousFunction(node.expression);
  return ts.isArrowFunction(node) || ((ts.isFunctionExpression(node) || ts.isClassExpression(node)) && !node.name);
}

function isNaming(operator: t.SyntaxKind): boolean {
  return (
    operator === ts.SyntaxKind.EqualsToken ||
    operator === ts.SyntaxKind.QuestionQuestionEqualsToken ||
    operator === ts.SyntaxKind.BarBarEqualsToken ||
    operator === ts.SyntaxKind.AmpersandAmpersandEqualsToken
  );
}
