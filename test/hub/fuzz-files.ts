/** Loads damaged files and looks for anything but an error of the library's classes or a right load. */
import { cp, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { TunebookError } from "../../src/errors.js";
import { Tokenizer } from "../../src/hub/tokenizer.js";
import type { Model } from "../../src/model.js";
import { loadModel } from "../../src/plan.js";
import { goldenPath } from "../golden.js";
import { mutateBytes, mutateJson, mutateSafetensors, Random } from "./mutate.js";

const HUB = new URL("../../../test/fixtures/hub/", import.meta.url).pathname;
const SLOWEST_MS = 1000; // of the processor
const MEMORY = 64 * 2 ** 20;

/** What became of the files of one kind. */
export interface FuzzResult {
  kind: string;
  runs: number;
  refused: number;
  loaded: number;
  slowestMs: number;
  mostBytes: number;
  /** Seeds and what happened: crashes of JavaScript, slow ones, large ones. */
  findings: string[];
}

interface Target {
  kind: string;
  /** Damages a file in the folder and gives its size. */
  damage(random: Random): Promise<number>;
  /** Loads it; throws what the library throws. */
  load(): Promise<void>;
  close?(): void;
}

const GGUFS = [
  "llama-gqa",
  "llama-bias",
  "blocks",
  "mistral",
  "qwen2",
  "qwen3",
  "gemma",
  "gpt-bigcode",
  "chatglm",
  "chatglm-parts",
];
const CONFIGS = [
  "llama-gqa",
  "llama-scaled",
  "llama-bias",
  "mistral",
  "qwen2",
  "qwen3",
  "gemma",
  "chatglm",
  "gpt-bigcode",
  "bnb-nf4-nested",
];

/** The kinds of files, each with a folder of its own. */
async function targets(folder: string): Promise<Target[]> {
  const copied = async (name: string, from: string): Promise<string> => {
    const to = join(folder, name);
    await cp(from, to, { recursive: true });
    return to;
  };
  const write = async (path: string, bytes: Uint8Array | string): Promise<number> => {
    await writeFile(path, bytes);
    return Buffer.byteLength(bytes as string);
  };
  const use = async (model: PromiseLike<Model>): Promise<void> => {
    using loaded = await model;
    await loaded.logits([[1, 2, 3]]);
  };
  const silent = { progress: false, device: "cpu" } as const;

  const safetensors = await Promise.all(
    ["llama-gqa", "bnb-nf4-nested"].map(async (name) => {
      const to = await copied(`safetensors-${name}`, goldenPath(name));
      return { to, bytes: await readFile(join(to, "model.safetensors")) };
    }),
  );
  let shard = safetensors[0]!;
  const ggufs = await Promise.all(GGUFS.map((name) => readFile(join(HUB, "gguf", `${name}.gguf`))));
  const gguf = join(folder, "model.gguf");
  const tokenizers = await Promise.all(
    ["chatml", "llama"].map(async (name) => ({
      to: await copied(`tokenizer-${name}`, join(HUB, name)),
      text: await readFile(join(HUB, name, "tokenizer.json"), "utf8"),
      config: await readFile(join(HUB, name, "tokenizer_config.json"), "utf8"),
    })),
  );
  let tokenizer = tokenizers[0]!;
  const configs = await Promise.all(
    CONFIGS.map(async (name) => ({
      to: await copied(`config-${name}`, goldenPath(name)),
      text: await readFile(join(goldenPath(name), "config.json"), "utf8"),
    })),
  );
  let config = configs[0]!;
  let whole = false;
  const base = await loadModel(goldenPath("llama-gqa"), silent);
  const adapters = await Promise.all(
    ["adapter-rslora", "adapter-patterns", "adapter-dora", "adapter-saved"].map(async (name) => {
      const to = await copied(name, join(goldenPath(name), "adapter"));
      const text = await readFile(join(to, "adapter_config.json"), "utf8");
      return { to, text, bytes: await readFile(join(to, "adapter_model.safetensors")) };
    }),
  );
  let adapter = adapters[0]!;
  return [
    {
      kind: "safetensors",
      damage: (random) => {
        shard = random.of(safetensors);
        return write(join(shard.to, "model.safetensors"), mutateSafetensors(shard.bytes, random));
      },
      load: () => use(loadModel(shard.to, silent)),
    },
    {
      kind: "gguf",
      damage: (random) => {
        const bytes = random.of(ggufs);
        return write(gguf, mutateBytes(bytes, random, random.below(4) === 0 ? bytes.length : 2048));
      },
      load: () => use(loadModel(gguf, silent)),
    },
    {
      kind: "tokenizer.json",
      damage: async (random) => {
        tokenizer = random.of(tokenizers);
        const { to, text, config: other } = tokenizer;
        const both = random.below(4) === 0;
        await write(join(to, "tokenizer_config.json"), both ? mutateJson(other, random) : other);
        return write(join(to, "tokenizer.json"), mutateJson(text, random));
      },
      load: async () => {
        const made = await Tokenizer.fromFolder(tokenizer.to);
        made.decode(made.encode("The sun rose in 2024, naïve 日本\n"));
        if (made.chatTemplate !== undefined) made.encodeChat([{ role: "user", content: "Hi <s>" }]);
      },
    },
    {
      kind: "config.json",
      damage: (random) => {
        config = random.of(configs);
        whole = random.below(8) === 0;
        return write(join(config.to, "config.json"), mutateJson(config.text, random));
      },
      load: async () => {
        if (whole) return use(loadModel(config.to, silent));
        using model = await loadModel(config.to, { ...silent, weights: "none" });
        model.summary();
      },
    },
    {
      kind: "adapter files",
      damage: async (random) => {
        adapter = random.of(adapters);
        const which = random.below(3);
        const bytes = which === 0 ? adapter.bytes : mutateSafetensors(adapter.bytes, random);
        await write(
          join(adapter.to, "adapter_config.json"),
          which === 1 ? adapter.text : mutateJson(adapter.text, random),
        );
        return write(join(adapter.to, "adapter_model.safetensors"), bytes);
      },
      load: async () => {
        await base.loadAdapter(adapter.to, { name: "damaged" });
        try {
          await base.logits([[1, 2, 3]]);
        } finally {
          base.removeAdapter("damaged");
        }
      },
      close: () => base.dispose(),
    },
  ];
}

/** Runs `count` damaged files, as many of each kind. @param onKind called as a kind is done */
export async function fuzzFiles(
  count: number,
  seed: number,
  options: { only?: string; onKind?: (result: FuzzResult) => void } = {},
): Promise<FuzzResult[]> {
  const folder = await mkdtemp(join(tmpdir(), "tunebook-fuzz-"));
  const results: FuzzResult[] = [];
  const all = await targets(folder);
  let current: FuzzResult | undefined;
  // Descriptors that nobody closed are found when they are collected.
  const leak = (warning: Error): void => void current?.findings.push(`${warning.name}: ${warning.message}`);
  process.on("warning", leak);
  try {
    for (const target of all) {
      if (options.only !== undefined && target.kind !== options.only) continue;
      const result: FuzzResult = {
        kind: target.kind,
        runs: 0,
        refused: 0,
        loaded: 0,
        slowestMs: 0,
        mostBytes: 0,
        findings: [],
      };
      current = result;
      for (let i = 0; i < Math.ceil(count / 5); i++) await once(target, seed + i, result);
      results.push(result);
      options.onKind?.(result);
    }
  } finally {
    process.off("warning", leak);
    for (const target of all) target.close?.();
    await rm(folder, { recursive: true, force: true });
  }
  return results;
}

let peak = 0;

async function once(target: Target, seed: number, result: FuzzResult): Promise<void> {
  const size = await target.damage(new Random(seed));
  const before = process.memoryUsage.rss();
  const timed = async (): Promise<{ error?: unknown; ms: number }> => {
    const begun = process.cpuUsage(); // other programs of a busy machine do not count
    const failed = await target.load().then(
      () => ({}),
      (error: unknown) => ({ error }),
    );
    const { user, system } = process.cpuUsage(begun);
    return { ...failed, ms: (user + system) / 1000 };
  };
  const first = await timed();
  if ("error" in first) {
    result.refused++;
    if (!(first.error instanceof TunebookError)) result.findings.push(`seed ${seed}: ${(first.error as Error).stack}`);
  } else result.loaded++;
  // Collecting what earlier files have left counts for whichever file it falls on; one that is slow by itself is so every time.
  let took = first.ms;
  for (let i = 0; i < 2 && took > SLOWEST_MS; i++) took = Math.min(took, (await timed()).ms);
  // What is kept from one file to the next (compiled code, freed memory that is used again) is no file's own.
  const after = process.memoryUsage.rss();
  const grown = after > peak ? after - Math.max(before, peak) : 0;
  peak = Math.max(peak, after);
  result.runs++;
  result.slowestMs = Math.max(result.slowestMs, took);
  result.mostBytes = Math.max(result.mostBytes, grown);
  if (took > SLOWEST_MS) result.findings.push(`seed ${seed}: took ${took.toFixed(0)} ms`);
  if (result.runs > 20 && grown > size + MEMORY)
    result.findings.push(`seed ${seed}: took ${grown} bytes for a file of ${size}`);
}
