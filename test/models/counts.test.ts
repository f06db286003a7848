// Parameters and memory of published shapes, from their configs alone; docs/models.md says the same.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { loadModel } from "../../src/index.js";
import { SHAPES } from "./shapes.js";

const docs = readFileSync(fileURLToPath(new URL("../../../docs/models.md", import.meta.url)), "utf8");

/** Numbers of a shape's row in the table below a heading. */
function row(heading: string, name: string): number[] {
  const part = docs.split(`## ${heading}`)[1]!.split("\n## ")[0]!;
  const line = part.split("\n").find((l) => l.startsWith(`| ${name} |`));
  assert.ok(line, `docs/models.md has no row "${name}" below "${heading}"`);
  return line.split("|").slice(2, -1).map((cell) => Number(cell.replaceAll(",", "").replace("%", ""))); // biome-ignore format: one thought
}

const described = (config: object) =>
  loadModel(config as Record<string, unknown>, { weights: "none", dtype: "bfloat16" });

for (const { name, config, total } of SHAPES) {
  test(`${name}: parameters, and those that adapters train`, async () => {
    const counted: number[] = [];
    using base = await described(config);
    counted.push(base.trainable().total);
    assert.equal(counted[0], total);
    for (const options of [{ rank: 8 }, { rank: 16, target: "all-linear" as const }]) {
      using model = await described(config);
      const { trainable, total: all, percent } = model.addLora(options).trainable();
      assert.equal(all, total + trainable);
      counted.push(trainable, Number(percent.toFixed(4)));
    }
    assert.deepEqual(row("Parameters", name), counted);
  });

  test(`${name}: memory as the document says`, async () => {
    using dense = await described(config);
    const plan = described(config).quantize({ type: "nf4", doubleQuant: true, compute: "bf16" });
    using model = await plan.addLora({ rank: 16, target: "all-linear" });
    const step = { length: 2048, device: "cuda", optimizer: "adamw8bit" } as const;
    const bytes = [
      dense.addLora({ rank: 8 }).estimate({ batch: 1, length: 8, device: "cuda" }).weights,
      model.estimate({ ...step, batch: 1 }).weights,
      ...[1, 4].flatMap((batch) =>
        (["selective", "full"] as const).map((checkpointing) => model.estimate({ ...step, batch, checkpointing }).peak),
      ),
    ];
    const written = row("Memory", name);
    assert.equal(written.length, bytes.length);
    for (const [i, gibibytes] of written.entries()) {
      const now = bytes[i]! / 2 ** 30;
      assert.ok(Math.abs(gibibytes - now) < 0.05 + 0.03 * now, `column ${i}: ${gibibytes} written, ${now} predicted`);
    }
  });
}

test("ChatGLM3-6B and Llama-2-7B train what the walkthroughs say", async () => {
  const shape = (name: string) => SHAPES.find((s) => s.name === name)!.config;
  using glm = await described(shape("ChatGLM3-6B"));
  const { trainable, total, percent } = glm.addLora({ rank: 8, alpha: 8, target: ["query_key_value"] }).trainable();
  assert.deepEqual([trainable, total, percent.toFixed(4)], [1_949_696, 6_245_533_696, "0.0312"]);
  using llama = await described(shape("Llama-2-7B"));
  assert.equal(llama.addLora({ rank: 8, target: ["q_proj", "v_proj"] }).trainable().trainable, 4_194_304);
});
