import type t from "typescript";
import { Collector, type Names } from "./declarations.js";
import { ts } from "./typescript.js";

/** What a top-level name of a cell is. */
export type Kind =
  | "var"
  | "let"
  | "const"
  | "function"
  | "class"
  | "enum"
  | "namespace"
  | "import"
  | "type"
  | "ambient";

/** Where an imported name comes from. */
export interface ImportedName {
  specifier: string;
  /** The exported name, `*` for the namespace, `=` for `import x = require()`. */
  name: string;
  typeOnly: boolean;
}

export interface Declaration {
  kind: Kind;
  /** Is there something at run time? (A class is both a type and a value.) */
  value: boolean;
  type: boolean;
  /** Where its value is known: the end of its declaration. */
  end: number;
  imported?: ImportedName;
}

/** A mention of a name that no inner scope declares. */
export interface Reference {
  name: string;
  /** In a function or class: it runs later, perhaps after another cell has redeclared the name. */
  deferred: boolean;
  write: boolean;
}

/** A fault that the kernel itself finds, at an offset of the cell. */
export interface Fault {
  start: number;
  length: number;
  code: number;
  message: string;
}

export interface Analysis {
  declared: Map<string, Declaration>;
  references: Map<t.Identifier, Reference>;
  /** Every name that the cell mentions in a value or a type, declared here or not. */
  mentioned: Set<string>;
  /** Names in types. */
  typeNames: Set<string>;
  /** Names read or written as values that the cell does not declare. */
  free: Set<string>;
  faults: Fault[];
  /** Names that the cell itself exports, as a module would. */
  exported: Set<string>;
  /** Has it `declare global` or `declare module`? Then it belongs to every later cell. */
  augments: boolean;
}

interface Frame {
  names: Names;
  parent: Frame | undefined;
}

const reserved = new Set(["$scope", "$import", "$cell", "$here"]);

/** Resolves the names of a cell by lexical scope, without types. */
export function analyze(file: t.SourceFile): Analysis {
  return new Analyzer(file).run();
}

class Analyzer {
  private readonly file: t.SourceFile;
  private readonly result: Analysis;
  private functions = 0;
  private classes = 0;
  private frame: Frame | undefined;

  constructor(file: t.SourceFile) {
    this.file = file;
    const top = new Collector();
    this.result = {
      declared: top.declared(file),
      references: new Map(),
      mentioned: new Set(),
      typeNames: new Set(),
      free: new Set(),
      faults: [],
      exported: top.exported,
      augments: top.augments,
    };
  }

  run(): Analysis {
    for (const statement of this.file.statements) this.topLevel(statement);
    for (const { name } of this.result.references.values())
      if (!this.result.declared.has(name)) this.result.free.add(name);
    return this.result;
  }

  private fault(node: t.Node, code: number, message: string): void {
    const start = node.getStart(this.file);
    this.result.faults.push({ start, length: Math.max(1, node.end - start), code, message });
  }

  private topLevel(statement: t.Statement): void {
    if (
      ts.isVariableStatement(statement) &&
      (statement.declarationList.flags & ts.NodeFlags.BlockScoped) >= ts.NodeFlags.Using
    ) {
      this.fault(
        statement.declarationList,
        0,
        "'using' at the top level of a cell would dispose of the value when the cell ends, while later cells can still see the name. Use 'const', or put it into a block: { using … }.",
      );
    }
    this.visit(statement);
  }

  private within(names: Names, body: () => void): void {
    this.frame = { names, parent: this.frame };
    for (const name of names) {
      if (reserved.has(name)) this.fault(this.file, 0, `'${name}' is a name of the kernel's own. Choose another.`);
    }
    body();
    this.frame = this.frame.parent;
  }

  private local(name: string): boolean {
    for (let frame = this.frame; frame; frame = frame.parent) if (frame.names.has(name)) return true;
    return false;
  }

  private refer(node: t.Identifier, write = false): void {
    const name = node.text;
    if (name === "" || name === "undefined") return;
    this.result.mentioned.add(name);
    if (this.local(name)) return;
    if (name === "arguments") {
      this.fault(node, 2304, "'arguments' belongs to a function; a cell has none.");
      return;
    }
    const known = this.result.references.get(node);
    if (known) known.write ||= write;
    else this.result.references.set(node, { name, deferred: this.functions + this.classes > 0, write });
  }

  private each = (node: t.Node): void => {
    this.visit(node);
  };

  private children(node: t.Node): void {
    ts.forEachChild(node, this.each);
  }

  private visitAll(nodes: readonly t.Node[] | undefined): void {
    for (const node of nodes ?? []) this.visit(node);
  }

  private types = (node: t.Node): void => {
    if (ts.isIdentifier(node)) {
      this.result.mentioned.add(node.text);
      this.result.typeNames.add(node.text);
    } else ts.forEachChild(node, this.types);
  };

  private visit(node: t.Node | undefined): void {
    if (node === undefined) return;
    if (ts.isIdentifier(node)) this.refer(node);
    else if (ts.isFunctionLike(node)) this.functionLike(node);
    else if (ts.isClassLike(node)) this.classLike(node);
    else if (ts.isExpressionWithTypeArguments(node)) {
      this.visit(node.expression);
      for (const type of node.typeArguments ?? []) this.types(type);
    } else if (ts.isTypeNode(node) || ts.isTypeParameterDeclaration(node)) this.types(node);
    else (this.handlers[node.kind] ?? this.children).call(this, node as never);
  }

  /** Nodes whose children are not simply visited one after the other. */
  private readonly handlers: { [kind: number]: (node: never) => void } = {
    [ts.SyntaxKind.InterfaceDeclaration]: this.types,
    [ts.SyntaxKind.TypeAliasDeclaration]: this.types,
    [ts.SyntaxKind.BreakStatement]: () => {},
    [ts.SyntaxKind.ContinueStatement]: () => {},
    [ts.SyntaxKind.MetaProperty]: () => {},
    [ts.SyntaxKind.ImportDeclaration]: () => {},
    [ts.SyntaxKind.ExportDeclaration]: () => {},
    [ts.SyntaxKind.PropertyAccessExpression]: (node: t.PropertyAccessExpression) => this.visit(node.expression),
    [ts.SyntaxKind.PropertyAssignment]: (node: t.PropertyAssignment) => {
      this.propertyName(node.name);
      this.visit(node.initializer);
    },
    [ts.SyntaxKind.ShorthandPropertyAssignment]: (node: t.ShorthandPropertyAssignment) => {
      this.refer(node.name);
      this.visit(node.objectAssignmentInitializer);
    },
    [ts.SyntaxKind.BinaryExpression]: (node: t.BinaryExpression) => {
      const operator = node.operatorToken.kind;
      if (operator >= ts.SyntaxKind.FirstAssignment && operator <= ts.SyntaxKind.LastAssignment) this.writes(node.left);
      this.visit(node.left);
      this.visit(node.right);
    },
    [ts.SyntaxKind.PrefixUnaryExpression]: this.unary,
    [ts.SyntaxKind.PostfixUnaryExpression]: this.unary,
    [ts.SyntaxKind.VariableStatement]: (node: t.VariableStatement) => {
      if (isAmbient(node)) this.types(node);
      else this.children(node);
    },
    [ts.SyntaxKind.VariableDeclaration]: ({ name, type, initializer }: t.VariableDeclaration) => {
      this.binding(name);
      if (type) this.types(type);
      this.visit(initializer);
    },
    [ts.SyntaxKind.Block]: (node: t.Block) => {
      this.within(new Collector().lexical(node.statements), () => this.children(node));
    },
    [ts.SyntaxKind.CaseBlock]: (node: t.CaseBlock) => {
      const statements = node.clauses.flatMap((clause) => [...clause.statements]);
      this.within(new Collector().lexical(statements), () => this.children(node));
    },
    [ts.SyntaxKind.ForStatement]: this.loop,
    [ts.SyntaxKind.ForInStatement]: this.loop,
    [ts.SyntaxKind.ForOfStatement]: this.loop,
    [ts.SyntaxKind.CatchClause]: ({ variableDeclaration, block }: t.CatchClause) => {
      const names = new Collector();
      if (variableDeclaration) names.binding(variableDeclaration.name);
      this.within(names.names, () => {
        this.visit(variableDeclaration);
        this.visit(block);
      });
    },
    [ts.SyntaxKind.LabeledStatement]: (node: t.LabeledStatement) => this.visit(node.statement),
    [ts.SyntaxKind.ImportEqualsDeclaration]: (node: t.ImportEqualsDeclaration) => {
      let left: t.Node = node.moduleReference;
      while (ts.isQualifiedName(left)) left = left.left;
      if (ts.isIdentifier(left)) this.refer(left);
    },
    [ts.SyntaxKind.ReturnStatement]: (node: t.ReturnStatement) => {
      if (this.functions === 0) {
        this.fault(node, 1108, "A 'return' statement can only be used within a function body.");
      }
      this.visit(node.expression);
    },
    [ts.SyntaxKind.EnumDeclaration]: ({ name, members }: t.EnumDeclaration) => {
      const names = new Set([name.text]);
      for (const member of members) if (!ts.isComputedPropertyName(member.name)) names.add(member.name.text);
      this.within(names, () => {
        for (const { initializer } of members) this.visit(initializer);
      });
    },
    [ts.SyntaxKind.ModuleDeclaration]: this.namespace,
  };

  private unary(node: t.PrefixUnaryExpression | t.PostfixUnaryExpression): void {
    const { operator, operand } = node;
    if (operator === ts.SyntaxKind.PlusPlusToken || operator === ts.SyntaxKind.MinusMinusToken) this.writes(operand);
    this.visit(operand);
  }

  private propertyName(name: t.PropertyName | undefined): void {
    if (name && ts.isComputedPropertyName(name)) this.visit(name.expression);
  }

  /** Default values and computed keys in a pattern; names at cell level are recorded for the rewriter. */
  private binding(name: t.BindingName): void {
    if (ts.isIdentifier(name)) {
      this.result.mentioned.add(name.text);
      return;
    }
    for (const element of name.elements) {
      if (ts.isOmittedExpression(element)) continue;
      this.propertyName(element.propertyName);
      this.binding(element.name);
      this.visit(element.initializer);
    }
  }

  private writes(target: t.Node): void {
    if (ts.isIdentifier(target)) this.refer(target, true);
    else if (ts.isParenthesizedExpression(target) || ts.isNonNullExpression(target) || ts.isAsExpression(target)) {
      this.writes(target.expression);
    } else if (ts.isArrayLiteralExpression(target)) for (const element of target.elements) this.writes(element);
    else if (ts.isSpreadElement(target) || ts.isSpreadAssignment(target)) this.writes(target.expression);
    else if (ts.isObjectLiteralExpression(target)) for (const property of target.properties) this.writes(property);
    else if (ts.isPropertyAssignment(target)) this.writes(target.initializer);
    else if (ts.isShorthandPropertyAssignment(target)) this.refer(target.name, true);
    else if (ts.isBinaryExpression(target) && target.operatorToken.kind === ts.SyntaxKind.EqualsToken)
      this.writes(target.left);
  }

  private loop(node: t.ForStatement | t.ForInOrOfStatement): void {
    const { initializer } = node;
    const names = new Collector();
    if (initializer && ts.isVariableDeclarationList(initializer)) {
      if (initializer.flags & ts.NodeFlags.BlockScoped)
        for (const { name } of initializer.declarations) names.binding(name);
    } else if (initializer && !ts.isForStatement(node)) this.writes(initializer);
    this.within(names.names, () => this.children(node));
  }

  private functionLike(node: t.SignatureDeclaration): void {
    if (!("body" in node) || node.body === undefined) {
      this.types(node);
      return;
    }
    const inner = new Collector();
    if (ts.isFunctionExpression(node) && node.name) inner.names.add(node.name.text);
    if (!ts.isArrowFunction(node)) inner.names.add("arguments");
    for (const parameter of node.parameters) inner.binding(parameter.name);
    const body = node.body as t.Node;
    if (ts.isBlock(body)) {
      inner.lexical(body.statements);
      inner.vars(body);
    }
    for (const modifier of ("modifiers" in node && node.modifiers) || []) this.visit(modifier as t.Node);
    if (node.name && !ts.isIdentifier(node.name)) this.propertyName(node.name as t.PropertyName);
    this.functions++;
    this.within(inner.names, () => {
      for (const type of node.typeParameters ?? []) this.types(type);
      if (node.type) this.types(node.type);
      for (const parameter of node.parameters) {
        this.visitAll(parameter.modifiers);
        this.binding(parameter.name);
        if (parameter.type) this.types(parameter.type);
        this.visit(parameter.initializer);
      }
      if (ts.isBlock(body)) this.visitAll(body.statements);
      else this.visit(body);
    });
    this.functions--;
  }

  private classLike(node: t.ClassLikeDeclaration): void {
    if (isAmbient(node)) {
      this.types(node);
      return;
    }
    this.visitAll(node.modifiers);
    const names = new Set(node.name ? [node.name.text] : []);
    this.within(names, () => {
      for (const type of node.typeParameters ?? []) this.types(type);
      for (const { token, types } of node.heritageClauses ?? []) {
        for (const type of types) token === ts.SyntaxKind.ExtendsKeyword ? this.visit(type) : this.types(type);
      }
      for (const member of node.members) {
        if (ts.isPropertyDeclaration(member)) {
          this.visitAll(member.modifiers);
          this.propertyName(member.name);
          if (member.type) this.types(member.type);
          this.classes++;
          this.visit(member.initializer);
          this.classes--;
        } else if (ts.isClassStaticBlockDeclaration(member)) {
          const inner = new Collector();
          inner.lexical(member.body.statements);
          inner.vars(member.body);
          this.classes++;
          this.within(inner.names, () => this.visitAll(member.body.statements));
          this.classes--;
        } else if (!ts.isIndexSignatureDeclaration(member)) this.visit(member);
        else this.types(member);
      }
    });
  }

  private namespace(node: t.ModuleDeclaration): void {
    if (isAmbient(node) || !node.body) {
      this.types(node);
      return;
    }
    const names = new Set(ts.isIdentifier(node.name) ? [node.name.text] : []);
    // Blocks of one namespace see each other's exports.
    for (const other of this.file.statements) {
      if (
        ts.isModuleDeclaration(other) &&
        other.name.text === node.name.text &&
        other.body &&
        ts.isModuleBlock(other.body)
      ) {
        for (const name of new Collector().lexical(other.body.statements)) names.add(name);
      }
    }
    this.within(names, () => {
      const body = node.body!;
      if (ts.isModuleBlock(body)) {
        const inner = new Collector();
        inner.lexical(body.statements);
        for (const statement of body.statements) inner.vars(statement);
        this.functions++; // nothing of a namespace's body is at cell level
        this.within(inner.names, () => this.visitAll(body.statements));
        this.functions--;
      } else this.visit(body);
    });
  }
}

/** @returns whether the statement only tells of something that exists elsewhere (`declare …`) */
export function isAmbient(node: t.Node): boolean {
  return (
    ts.canHaveModifiers(node) && !!node.modifiers?.some((modifier) => modifier.kind === ts.SyntaxKind.DeclareKeyword)
  );
}
