// Turns native/ops.def into build/ops.gen.h (argument structs), build/ops.list.gen.h (the list), build/ops.decode.gen.h
// (from the shared command buffer to a struct) and src/tensor/calls.ts (one typed function an op).
import { createHash } from "node:crypto";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";

/** Ops that can fail because of their data: their call remembers where it was recorded. */
const FALLIBLE = new Set([
  "embedding",
  "embedding_backward",
  "embedding_blocks",
  "pick",
  "pick_backward",
  "cross_entropy",
  "cross_entropy_backward",
  "linear_cross_entropy",
  "attention",
  "attention_backward",
  "rope",
  "sample",
  "cache_append",
  "cache_append_8",
  "attention_cached",
  "repetition_penalty",
]);

/** Words that neither C++ nor TypeScript take as a name get a trailing underscore. */
const RESERVED = new Set([
  "do",
  "default",
  "switch",
  "case",
  "new",
  "delete",
  "in",
  "this",
  "var",
  "function",
  "class",
]);
const safe = (name) => (RESERVED.has(name) ? `${name}_` : name);
const camel = (name) => safe(name.replace(/_+$/, "").replace(/_([a-z0-9])/g, (_, c) => c.toUpperCase()));

/**
 * Reads ops.def: `name inputs -> outputs | integers | floats`.
 * @returns {{name: string, tensors: {name: string, optional: boolean, list: boolean, output: boolean}[], ints: string[], floats: string[], doc: string[]}[]}
 */
export function parseOps(text) {
  const ops = [];
  let doc = [];
  for (const [index, raw] of text.split("\n").entries()) {
    const line = raw.trim();
    if (line === "") {
      doc = [];
      continue;
    }
    if (line.startsWith("#")) {
      if (!line.startsWith("# ----")) doc.push(line.replace(/^#\s?/, ""));
      continue;
    }
    const where = `native/ops.def:${index + 1}`;
    const parts = line.split("|").map((p) => p.trim());
    if (parts.length !== 3)
      throw new Error(`${where}: expected "name inputs -> outputs | integers | floats", got "${line}"`);
    const words = (s) => s.split(/\s+/).filter((w) => w !== "");
    const [left, right] = parts[0].split("->");
    if (right === undefined) throw new Error(`${where}: "->" is missing in "${line}"`);
    const [name, ...inputs] = words(left);
    const tensor = (w, output) => ({
      name: w.replace(/^\*|\?$/g, ""),
      optional: w.endsWith("?"),
      list: w.startsWith("*"),
      output,
    });
    const tensors = [
      ...inputs.map((w) => tensor(w.replace(/\?$/, "") + (w.endsWith("?") ? "?" : ""), false)),
      ...words(right).map((w) => tensor(w, true)),
    ];
    for (const t of tensors) t.name = t.name.replace(/\?$/, "");
    const op = { name, tensors, ints: words(parts[1]), floats: words(parts[2]), doc };
    const all = [...tensors.map((t) => t.name), ...op.ints, ...op.floats];
    if (new Set(all).size !== all.length) throw new Error(`${where}: a name occurs twice in "${line}"`);
    if (ops.some((o) => o.name === name)) throw new Error(`${where}: op ${name} is listed twice`);
    ops.push(op);
    doc = [];
  }
  return ops;
}

/** C++: one struct an op. Tensors are Ref or RefList; integers are int64_t (so that products do not overflow), floats float. */
function structs(ops) {
  const body = ops.map((op) => {
    const lines = [
      ...op.tensors.map(
        (t) => `  ${t.list ? "RefList" : "Ref"} ${safe(t.name)};${t.optional ? "  // may be absent" : ""}`,
      ),
      ...op.ints.map((n) => `  int64_t ${safe(n)};`),
      ...op.floats.map((n) => `  float ${safe(n)};`),
    ];
    return `struct ${op.name}_args {\n${lines.join("\n")}\n};\n`;
  });
  return `// Generated from native/ops.def.\n#pragma once\n#include "tensor.h"\n\nnamespace tunebook {\n\n${body.join("\n")}\n}  // namespace tunebook\n`;
}

function list(ops) {
  return `// Generated from native/ops.def.\n${ops.map((op) => `OP(${op.name})`).join("\n")}\n`;
}

/** C++: decoding and describing, included by native/queue.cc. */
function decode(ops) {
  const decoders = ops.map((op) => {
    const lines = [
      ...op.tensors.map((t) =>
        t.list
          ? `  a.${safe(t.name)} = in.list("${t.name}", ${t.output});`
          : `  a.${safe(t.name)} = in.ref("${t.name}", ${t.output}, ${t.optional});`,
      ),
      ...op.ints.map((n) => `  a.${safe(n)} = in.integer();`),
      ...op.floats.map((n) => `  a.${safe(n)} = in.real();`),
    ];
    return `template <class In> inline void decode_${op.name}(In& in, ${op.name}_args& a) {\n${lines.join("\n")}\n}\n`;
  });
  const describers = ops.map((op) => {
    const words = [...op.ints, ...op.floats];
    const format = words.map((n) => (op.ints.includes(n) ? `${n} %lld` : `${n} %g`)).join(", ");
    const values = words.map((n) => (op.ints.includes(n) ? `(long long)a.${safe(n)}` : `(double)a.${safe(n)}`));
    return words.length === 0
      ? `inline void describe_${op.name}(const ${op.name}_args&, char* to, size_t size) {\n  snprintf(to, size, "%s", "");\n}\n`
      : `inline void describe_${op.name}(const ${op.name}_args& a, char* to, size_t size) {\n  snprintf(to, size, "${format}", ${values.join(", ")});\n}\n`;
  });
  const visitors = ops.map((op) => {
    const lines = op.tensors.map((t) => `  v.${t.list ? "list" : "ref"}(a.${safe(t.name)}, ${t.output});`);
    return `template <class V> inline void visit_${op.name}(V& v, ${op.name}_args& a) {\n${lines.join("\n")}\n}\n`;
  });
  const lists = ops.filter((op) => op.tensors.some((t) => t.list));
  const leading = lists.map((op) => {
    const count = op.tensors.filter((t) => t.list).length;
    if (op.tensors.slice(0, count).some((t) => !t.list))
      throw new Error(`${op.name}: lists must come before single tensors`);
    return `    case op_${op.name}: return ${count};`;
  });
  describers.push(
    `// How many lists an op's command begins with.\ninline int leading_lists(int opcode) {\n  switch (opcode) {\n${leading.join("\n")}\n    default: return 0;\n  }\n}\n`,
  );
  const singles = ops.map((op) => op.tensors.filter((t) => !t.list).length);
  describers.push(
    `// How many single tensors follow the lists.\ninline int single_tensors(int opcode) {\n  static const unsigned char counts[] = {${singles.join(", ")}};\n  return counts[opcode];\n}\n`,
  );
  return `// Generated from native/ops.def.\n#pragma once\n#include <cstdio>\n#include "opcodes.h"\n#include "ops.gen.h"\n\nnamespace tunebook {\n\n${decoders.join("\n")}\n// v.ref(tensor, whether it is an output) and v.list(…) for each of an op's tensors.\n${visitors.join("\n")}\n${describers.join("\n")}\n}  // namespace tunebook\n`;
}

/** TypeScript: writes the command into the shared buffer and calls `run`. */
function calls(ops) {
  const functions = ops.map((op, opcode) => {
    const parameters = [
      ...op.tensors.map((t) => `${camel(t.name)}: ${t.list ? "readonly Handle[]" : "Handle"}`),
      ...op.ints.map((n) => `${camel(n)}: number`),
      ...op.floats.map((n) => `${camel(n)}: number`),
    ];
    const hasList = op.tensors.some((t) => t.list);
    const lines = [`  I[0] = ${opcode};`];
    const checks = [];
    let at = 1;
    const put = (array, value) =>
      lines.push(hasList ? `  ${array}[i++] = ${value};` : `  ${array}[${at++}] = ${value};`);
    if (hasList) {
      lines.push("  let i = 1;");
      for (const t of op.tensors) {
        if (t.list) lines.push(`  i = putList("${op.name}", i, ${camel(t.name)});`);
        else put("I", camel(t.name));
      }
    } else {
      for (const t of op.tensors) put("I", camel(t.name));
    }
    for (const n of op.ints) {
      checks.push(hasList ? `(${camel(n)} | 0) !== ${camel(n)}` : `I[${at}] !== ${camel(n)}`);
      put("I", camel(n));
    }
    for (const n of op.floats) put("F", camel(n));
    if (checks.length > 0) {
      lines.push(`  if (${checks.join(" || ")}) badInteger("${op.name}", { ${op.ints.map(camel).join(", ")} });`);
    }
    lines.push(FALLIBLE.has(op.name) ? "  runTraced();" : "  run();");
    const doc = op.doc.map((d) => ` * ${d.replace(/\*\//g, "* /")}`);
    return `${doc.length > 0 ? `/**\n${doc.join("\n")}\n */\n` : ""}export function ${camel(op.name)}(${parameters.join(", ")}): void {\n${lines.join("\n")}\n}\n`;
  });
  const body = functions.join("\n");
  const names = ["F", "type Handle", "I", "badInteger", "putList", "run", "runTraced"].filter((n) =>
    new RegExp(`\\b${n.replace("type ", "")}\\b`).test(body),
  );
  return `// Generated from native/ops.def by scripts/build.mjs.\nimport { ${names.join(", ")} } from "./native.js";\n\n${body}`;
}

/** C++: tells libraries built from different sources apart (build/tunebook.node and build/tunebook_cuda.so share these structs). */
function layout(root, ops) {
  const texts = ["tensor.h", "backend.h", "copies.h"].map((file) => readFileSync(`${root}/native/${file}`, "utf8"));
  const sum = createHash("sha256")
    .update([structs(ops), list(ops), ...texts].join("\0"))
    .digest("hex")
    .slice(0, 16);
  return `// Generated from native/ops.def, tensor.h, backend.h and copies.h.\n#pragma once\n#define TUNEBOOK_LAYOUT "${sum}"\n`;
}

/** Writes the generated files; a file whose text did not change keeps its time. */
export function generateOps(root) {
  const ops = parseOps(readFileSync(`${root}/native/ops.def`, "utf8"));
  writeChanged(`${root}/build/ops.gen.h`, structs(ops));
  writeChanged(`${root}/build/ops.list.gen.h`, list(ops));
  writeChanged(`${root}/build/ops.decode.gen.h`, decode(ops));
  writeChanged(`${root}/build/layout.gen.h`, layout(root, ops));
  writeChanged(`${root}/src/tensor/calls.ts`, calls(ops));
  return ops;
}

/** Writes a file only where its text differs, so that incremental builds see no change. */
export function writeChanged(path, text) {
  let before;
  try {
    before = readFileSync(path, "utf8");
  } catch {
    mkdirSync(dirname(path), { recursive: true });
  }
  if (before !== text) writeFileSync(path, text);
}
