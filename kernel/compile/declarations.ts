import type t from "typescript";
import type { Declaration, ImportedName, Kind } from "./analyze.js";
import { ts } from "./typescript.js";

export type Names = Set<string>;

/** Collects the names that statements declare. */
export class Collector {
  readonly names: Names = new Set();
  /** Does a statement add to the global scope or to another module? */
  augments = false;
  readonly exported: Names = new Set();

  binding(name: t.BindingName): void {
    if (ts.isIdentifier(name)) this.names.add(name.text);
    else for (const element of name.elements) if (!ts.isOmittedExpression(element)) this.binding(element.name);
  }

  /** Names of a block: let, const, using, class, function, enum, namespace, import aliases. */
  lexical(statements: readonly t.Statement[]): Names {
    for (let statement of statements) {
      while (ts.isLabeledStatement(statement)) statement = statement.statement;
      if (ts.isVariableStatement(statement)) {
        if (statement.declarationList.flags & ts.NodeFlags.BlockScoped) {
          for (const { name } of statement.declarationList.declarations) this.binding(name);
        }
      } else if (
        ts.isFunctionDeclaration(statement) ||
        ts.isClassDeclaration(statement) ||
        ts.isEnumDeclaration(statement) ||
        ts.isModuleDeclaration(statement) ||
        ts.isImportEqualsDeclaration(statement)
      ) {
        if (statement.name) this.names.add(statement.name.text);
      }
    }
    return this.names;
  }

  /** Names of `var` declarations anywhere below, up to the next function. */
  vars(node: t.Node): Names {
    ts.forEachChild(node, (child) => {
      if (ts.isVariableDeclarationList(child) && !(child.flags & ts.NodeFlags.BlockScoped)) {
        for (const { name } of child.declarations) this.binding(name);
      }
      if (!ts.isFunctionLike(child) && !ts.isClassLike(child) && !ts.isModuleBlock(child) && !ts.isTypeNode(child))
        this.vars(child);
    });
    return this.names;
  }

  private exports(statement: t.Statement): void {
    if (ts.isExportDeclaration(statement) && statement.exportClause && ts.isNamedExports(statement.exportClause)) {
      for (const { name } of statement.exportClause.elements) this.exported.add(name.text);
    }
    const kinds = ts.canHaveModifiers(statement) ? (statement.modifiers ?? []).map(({ kind }) => kind) : [];
    if (!kinds.includes(ts.SyntaxKind.ExportKeyword) || kinds.includes(ts.SyntaxKind.DefaultKeyword)) return;
    const names = new Collector();
    if (ts.isVariableStatement(statement)) {
      for (const { name } of statement.declarationList.declarations) names.binding(name);
    } else if ("name" in statement) names.names.add((statement.name as t.Identifier).text);
    for (const name of names.names) this.exported.add(name);
  }

  /** The top-level names of a cell. */
  declared(file: t.SourceFile): Map<string, Declaration> {
    const found = new Map<string, Declaration>();
    const add = (
      name: string,
      kind: Kind,
      end: number,
      value: boolean,
      type: boolean,
      imported?: ImportedName,
    ): void => {
      const known = found.get(name);
      if (known === undefined) found.set(name, { kind, value, type, end, ...(imported ? { imported } : {}) });
      else {
        if (value && (!known.value || (known.kind === "namespace" && kind !== "namespace"))) known.kind = kind;
        known.value ||= value;
        known.type ||= type;
      }
    };
    const pattern = (name: t.BindingName, kind: Kind, end: number): void => {
      const inner = new Collector();
      inner.binding(name);
      for (const each of inner.names) add(each, kind, end, kind !== "ambient", false);
    };
    for (const statement of file.statements) {
      this.exports(statement);
      const ambient =
        ts.canHaveModifiers(statement) && !!statement.modifiers?.some((m) => m.kind === ts.SyntaxKind.DeclareKeyword);
      const kindOf = (kind: Kind): Kind => (ambient ? "ambient" : kind);
      const { end } = statement;
      if (ts.isVariableStatement(statement)) {
        const { flags, declarations } = statement.declarationList;
        const kind = flags & ts.NodeFlags.Const ? "const" : flags & ts.NodeFlags.Let ? "let" : "var";
        for (const declaration of declarations) pattern(declaration.name, kindOf(kind), declaration.end);
      } else if (ts.isFunctionDeclaration(statement)) {
        if (statement.name) add(statement.name.text, kindOf("function"), 0, !ambient, false);
      } else if (ts.isClassDeclaration(statement)) {
        if (statement.name) add(statement.name.text, kindOf("class"), end, !ambient, true);
      } else if (ts.isEnumDeclaration(statement)) add(statement.name.text, kindOf("enum"), end, !ambient, true);
      else if (ts.isInterfaceDeclaration(statement) || ts.isTypeAliasDeclaration(statement)) {
        add(statement.name.text, "type", end, false, true);
      } else if (ts.isModuleDeclaration(statement)) {
        if (ts.isStringLiteral(statement.name) || statement.flags & ts.NodeFlags.GlobalAugmentation)
          this.augments = true;
        else add(statement.name.text, kindOf("namespace"), end, !ambient && instantiated(statement), true);
      } else if (ts.isImportDeclaration(statement)) imports(statement, add);
      else if (ts.isImportEqualsDeclaration(statement)) {
        const { moduleReference, name, isTypeOnly } = statement;
        if (ts.isExternalModuleReference(moduleReference)) {
          if (ts.isStringLiteral(moduleReference.expression)) {
            const imported = { specifier: moduleReference.expression.text, name: "=", typeOnly: isTypeOnly };
            add(name.text, "import", 0, !isTypeOnly, true, imported);
          }
        } else add(name.text, "namespace", end, !isTypeOnly, true);
      }
    }
    for (const statement of file.statements) {
      if (ts.isVariableStatement(statement) && !(statement.declarationList.flags & ts.NodeFlags.BlockScoped)) continue;
      if (ts.isFunctionLike(statement) || ts.isClassLike(statement) || ts.isModuleDeclaration(statement)) continue;
      for (const name of new Collector().vars(statement)) add(name, "var", 0, true, false);
    }
    return found;
  }
}

type Add = (name: string, kind: Kind, end: number, value: boolean, type: boolean, imported?: ImportedName) => void;

function imports(statement: t.ImportDeclaration, add: Add): void {
  const { importClause: clause, moduleSpecifier } = statement;
  if (!clause || !ts.isStringLiteral(moduleSpecifier)) return;
  const one = (local: t.Identifier, name: string, typeOnly: boolean): void =>
    add(local.text, "import", 0, !typeOnly, true, { specifier: moduleSpecifier.text, name, typeOnly });
  if (clause.name) one(clause.name, "default", clause.isTypeOnly);
  const bindings = clause.namedBindings;
  if (bindings && ts.isNamespaceImport(bindings)) one(bindings.name, "*", clause.isTypeOnly);
  else if (bindings) {
    for (const { name, propertyName, isTypeOnly } of bindings.elements) {
      one(name, (propertyName ?? name).text, clause.isTypeOnly || isTypeOnly);
    }
  }
}

/** Has the namespace anything at run time? */
function instantiated(node: t.ModuleDeclaration): boolean {
  const { body } = node;
  if (!body) return false;
  if (ts.isModuleDeclaration(body)) return instantiated(body);
  if (!ts.isModuleBlock(body)) return true;
  return body.statements.some((statement) => {
    if (ts.isInterfaceDeclaration(statement) || ts.isTypeAliasDeclaration(statement)) return false;
    return !ts.isModuleDeclaration(statement) || instantiated(statement);
  });
}
