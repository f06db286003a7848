import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, relative, resolve } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

const root = resolve(dirname(fileURLToPath(import.meta.url)), "../..");

const BELOW: readonly string[] = [
  "tensor",
  "autograd",
  "nn",
  "hub",
  "quantization",
  "lora",
  "models",
  "images",
  "data",
  "display",
  "plot",
];

/** Each folder of src and what it may import, besides itself and errors.ts. */
const ALLOWED: Record<string, readonly string[]> = {
  tensor: [],
  autograd: ["tensor"],
  nn: ["tensor", "autograd", "images"],
  hub: ["tensor"],
  display: [],
  images: [],
  plot: ["display"],
  data: ["hub", "display", "images"],
  quantization: ["tensor", "autograd", "nn", "hub"],
  models: ["tensor", "autograd", "nn", "hub", "quantization", "images"],
  lora: ["tensor", "autograd", "nn", "hub", "quantization", "display", "models"],
  evaluation: BELOW,
  training: [...BELOW, "evaluation"],
};

function sources(folder: string): string[] {
  return readdirSync(folder, { withFileTypes: true, recursive: true })
    .filter((e) => e.isFile() && e.name.endsWith(".ts"))
    .map((e) => join(e.parentPath, e.name));
}

function imports(file: string): string[] {
  const text = readFileSync(file, "utf8");
  return [...text.matchAll(/(?:from|import)\s*\(?\s*"([^"]+)"/g)].map((m) => m[1]!);
}

test("each layer imports only what stands before it", () => {
  const src = join(root, "src");
  const wrong: string[] = [];
  for (const file of sources(src)) {
    const from = relative(src, file).split("/");
    const layer = from.length > 1 ? from[0]! : undefined;
    for (const specifier of imports(file)) {
      if (!specifier.startsWith(".")) continue;
      const to = relative(src, resolve(dirname(file), specifier)).split("/");
      if (to[0] === "..") wrong.push(`${from.join("/")} imports ${specifier} outside src`);
      if (layer === undefined || to[0] === layer || (to.length === 1 && to[0] === "errors.js")) continue;
      assert.ok(ALLOWED[layer], `src/${layer} is a layer that this test does not know`);
      if (!ALLOWED[layer].includes(to[0]!)) wrong.push(`${from.join("/")} imports ${specifier}`);
    }
  }
  assert.deepEqual(wrong, []);
});

test("kernel and src never import each other, and only native.ts opens the addon", () => {
  const wrong: string[] = [];
  for (const file of sources(join(root, "kernel"))) {
    if (imports(file).some((s) => s.startsWith(".") && relative(root, resolve(dirname(file), s)).startsWith("src")))
      wrong.push(file);
  }
  for (const file of sources(join(root, "src"))) {
    if (imports(file).some((s) => s.startsWith(".") && relative(root, resolve(dirname(file), s)).startsWith("kernel")))
      wrong.push(file);
    if (!file.endsWith("tensor/native.ts") && readFileSync(file, "utf8").includes("tunebook.node")) wrong.push(file);
  }
  assert.deepEqual(wrong, []);
});

test("no source file is longer than 500 lines", () => {
  const long = ["src", "kernel", "native", "scripts"]
    .flatMap((d) => readdirSync(join(root, d), { withFileTypes: true, recursive: true }))
    .filter((e) => e.isFile() && /\.(ts|mjs|cc|h|cu|py)$/.test(e.name) && e.name !== "calls.ts")
    .map((e) => join(e.parentPath, e.name))
    .filter((f) => readFileSync(f, "utf8").split("\n").length > 501);
  assert.deepEqual(long, []);
});
