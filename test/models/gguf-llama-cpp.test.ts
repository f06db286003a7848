/** Exported files of every architecture in llama.cpp itself: the same probabilities, the same greedy ids, the same ids of texts. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { Tokenizer } from "../../src/hub/tokenizer.js";
import { Model } from "../../src/model.js";
import type { GgufDType } from "../../src/models/export-options.js";
import { loadModel } from "../../src/plan.js";
import { relativeError } from "../golden.js";
import { shared } from "../shared.js";
import { characters, WIDE, wideModel } from "./gguf-models.js";

const root = new URL("../../../", import.meta.url).pathname;
const llamaCpp = join(root, ".cache", "llama-cpp");
const tokenizers = join(shared, "tokenizers");
const quiet = { progress: false } as const;
const noLlamaCpp: string | false = existsSync(join(llamaCpp, "node_modules"))
  ? false
  : "node-llama-cpp is not installed: npm run bench -- decode does so";
const noTokenizers: string | false = existsSync(tokenizers)
  ? false
  : `no real tokenizers in ${tokenizers} (TUNEBOOK_SHARED names another place)`;
let folder: string;
before(async () => {
  folder = await mkdtemp(join(tmpdir(), "tunebook-llama-cpp-"));
});
after(() => rm(folder, { recursive: true, force: true }));

interface Answer {
  greedy: number[][];
  probabilities: number[][];
  tokens: [text: number[], special: number[]][];
}

async function ask(requests: readonly object[]): Promise<Answer[]> {
  const file = join(folder, "requests.json");
  await writeFile(file, JSON.stringify(requests));
  const worker = join(root, "scripts", "bench", "llama-cpp-ids.mjs");
  const options = { encoding: "utf8", timeout: 120_000, maxBuffer: 2 ** 28 } as const;
  const { stdout, stderr, status } = spawnSync(process.execPath, [worker, llamaCpp, file], options);
  assert.equal(status, 0, stderr);
  return JSON.parse(stdout) as Answer[];
}

async function exported(model: Model, dtype: GgufDType): Promise<string> {
  const out = await mkdtemp(join(folder, "out-"));
  await model.export(out, { format: "gguf", dtype });
  return join(out, (await readdir(out))[0]!);
}

/** Probabilities of all tokens behind a row. */
async function behind(model: Model, row: readonly number[]): Promise<number[]> {
  const logits = (await model.logits([[...row]])).slice(-model.config.vocabSize);
  const most = logits.reduce((a, b) => Math.max(a, b));
  const powers = Array.from(logits, (logit) => Math.exp(logit - most));
  const sum = powers.reduce((a, b) => a + b);
  return powers.map((power) => power / sum);
}

const rows = [[3, 1, 4, 1, 5], Array.from({ length: 40 }, (_, i) => (i * 7 + 2) % 330)];
// llama.cpp keeps keys and values in 16 bits, and rounds activations to 8 bits where weights are in blocks.
const TYPES = [
  { dtype: "F32", limit: 5e-3, count: 16 },
  { dtype: "F16", limit: 1e-2, count: 16 },
  { dtype: "Q8_0", limit: 5e-2, count: 1 },
  { dtype: "Q4_0", limit: 0.15, count: 1 },
  { dtype: "Q4_K_M", limit: 0.15, count: 1 },
] as const;

describe("every architecture in llama.cpp", { skip: noLlamaCpp }, () => {
  for (const type of Object.keys(WIDE)) {
    it(`${type}: the same probabilities and greedy ids`, async () => {
      using model = await wideModel(type, characters(340));
      const requests: { path: string; rows: number[][]; count: number }[] = [];
      for (const { dtype, count } of TYPES) requests.push({ path: await exported(model, dtype), rows, count });
      const answers = await ask(requests);
      for (const [file, { dtype, limit }] of TYPES.entries()) {
        using again = await loadModel(requests[file]!.path, { ...quiet, dtype: "float32" });
        const { probabilities, greedy } = answers[file]!;
        for (const [i, row] of rows.entries()) {
          const error = relativeError(probabilities[i]!, await behind(again, row));
          assert.ok(error < limit, `${dtype}, row ${i}: relative error ${error}`);
          const ids = [...row];
          for (const [at, id] of greedy[i]!.entries()) {
            const each = await behind(again, ids);
            // The highest, or as high as roundings let it be.
            const highest = each.reduce((a, b) => Math.max(a, b));
            assert.ok(
              each[id]! >= highest * (1 - limit),
              `${dtype}, row ${i}: token ${at} has ${each[id]}, not ${highest}`,
            );
            ids.push(id);
          }
        }
      }
    });
  }

  it("Mistral's window: llama.cpp does not look at it, beyond it the two differ", async () => {
    using model = await wideModel("mistral", characters(340));
    const long = Array.from({ length: 150 }, (_, i) => (i * 11) % 330); // the window is 96
    const [answer] = await ask([{ path: await exported(model, "F32"), rows: [long], count: 1 }]);
    assert.ok(relativeError(answer!.probabilities[0]!, await behind(model, long)) > 0.05);
  });

  it("StarCoder's exact GELU, which llama.cpp takes by its approximation: nearly the same", async () => {
    using model = await wideModel("gpt_bigcode", characters(340), undefined, { activation_function: "gelu" });
    const [answer] = await ask([{ path: await exported(model, "F32"), rows, count: 1 }]);
    for (const [i, row] of rows.entries()) {
      const error = relativeError(answer!.probabilities[i]!, await behind(model, row));
      assert.ok(error < 2e-2, `row ${i}: relative error ${error}`);
    }
  });
});

const VECTORS = ["gpt-2", "llama-bpe", "llama-spm", "qwen2", "refact", "starcoder"];

const COMMANDS = "(sop) eop";

async function texts(): Promise<string[]> {
  const found = new Set([
    "philosophy",
    COMMANDS,
    "<|user|> hi [gMASK] there",
    "中文字符 and 日本語",
    "a  b   c\n\n d\t",
  ]);
  for (const name of VECTORS)
    for (const text of (await readFile(join(tokenizers, "vectors", `${name}.inp`), "utf8")).split(
      "\n__ggml_vocab_test__\n",
    ))
      if (text !== "") found.add(text);
  return [...found];
}

describe("exported tokenizers in llama.cpp", { skip: noLlamaCpp || noTokenizers }, () => {
  for (const [name, type] of [
    ["llama2", "llama"],
    ["mistral-7b-v0.1", "mistral"],
    ["llama3", "llama"],
    ["qwen2", "qwen2"],
    ["smollm2", "llama"],
    ["starcoder", "gpt_bigcode"],
    ["chatglm3", "chatglm"],
  ] as const) {
    it(`${name}: the ids of the test strings, and of special tokens`, async () => {
      const tokenizer = await Tokenizer.fromFolder(join(tokenizers, name));
      const small = { vocab_size: tokenizer.vocabSize, padded_vocab_size: tokenizer.vocabSize };
      using random = await loadModel({ ...WIDE[type], ...small, ...SMALL[type] }, { weights: "random", ...quiet });
      const network = random.module;
      using model = new Model({ network, tokenizer, generation: undefined, base: "", name });
      const strings = await texts();
      const [answer] = await ask([{ path: await exported(model, "F16"), texts: strings }]);
      const { tokens } = answer!;
      const special = { addSpecialTokens: false, parseSpecial: true };
      for (const [i, text] of strings.entries()) {
        // llama.cpp joins letters to a command where these stand beside each other as words of their own.
        if (name === "chatglm3" && text === COMMANDS) continue;
        const plain = tokenizer.encode(text, { ...special, parseSpecial: false });
        assert.deepEqual(tokens[i]![0], plain, JSON.stringify(text));
        assert.deepEqual(tokens[i]![1], tokenizer.encode(text, special), JSON.stringify(text));
      }
    });
  }
});

// Large vocabularies with little else.
const TINY = {
  hidden_size: 32,
  intermediate_size: 32,
  num_hidden_layers: 1,
  num_attention_heads: 2,
  num_key_value_heads: 2,
};
const SMALL: Readonly<Record<string, object>> = {
  llama: TINY,
  mistral: TINY,
  qwen2: TINY,
  gpt_bigcode: { n_embd: 32, n_inner: 32, n_layer: 1, n_head: 2 },
  chatglm: { ...TINY, ffn_hidden_size: 32, num_layers: 1, kv_channels: 16 },
};
