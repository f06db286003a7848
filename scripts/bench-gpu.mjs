// npm run bench:gpu, on a machine with an NVIDIA GPU: every op against the CPU backend, then QLoRA steps and decoding of the Llama-3-8B
// shape beside transformers + PEFT + bitsandbytes in the same run; loading a checkpoint of that shape from memory (16 GB of /dev/shm).
//   node scripts/bench-gpu.mjs [--parts ops,load,train,decode,profile,peers; also packed,cache,context] [--modes selective,full,offload] [--steps 4] [--weights nf4|fp8|bf16] [--shape 8B|1B|tiny|mistral-7b|qwen2-1.5b|chatglm3-6b|starcoder-15b] [--report FOLDER]
// packed: short rows packed into long ones; cache: decoding with keys and values in 16 and in 8 bits; context [--tokens N,…] [--layers L] [--compare]: a step on
// one row of N tokens within 80 GB, or its gradients in tiles beside those of all rows at once (bench/gpu-context.mjs).
// It builds nothing: on a machine without Node use what "npm run pack:gpu" made.
import { spawn } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { bytesOfModel } from "./bench/checkpoint.mjs";
import { benchContext } from "./bench/gpu-context.mjs";
import { benchLoad, memoryFolder } from "./bench/gpu-load.mjs";

const root = fileURLToPath(new URL("..", import.meta.url));
const { values: options } = parseArgs({
  options: {
    parts: { type: "string", default: "ops,load,train,decode,profile,peers" },
    modes: { type: "string", default: "selective,full,offload" },
    peerModes: { type: "string", default: "none,full" },
    steps: { type: "string", default: "4" },
    shape: { type: "string", default: "8B" },
    tokens: { type: "string", default: "350208" },
    layers: { type: "string" },
    weights: { type: "string", default: "nf4" },
    compare: { type: "boolean", default: false },
    report: { type: "string" },
    python: { type: "string", default: process.env.TUNEBOOK_PYTHON ?? "python3" },
  },
});

const llama3 = {
  model_type: "llama",
  max_position_embeddings: 8192,
  rope_theta: 500000,
  rms_norm_eps: 1e-5,
  tie_word_embeddings: false,
};
/** What --weights says of the frozen matrices. */
const WEIGHTS = { nf4: "NF4 + double quantisation", fp8: "FP8 (E4M3)", bf16: "bfloat16 weights" };
/** Shapes of Llama 3 and of other models; only sizes matter, the weights are random. `work` stands beside the config. */
const SHAPES = {
  "8B": {
    ...llama3,
    hidden_size: 4096,
    intermediate_size: 14336,
    num_hidden_layers: 32,
    num_attention_heads: 32,
    num_key_value_heads: 8,
    vocab_size: 128256,
  },
  "1B": {
    ...llama3,
    hidden_size: 2048,
    intermediate_size: 8192,
    num_hidden_layers: 16,
    num_attention_heads: 32,
    num_key_value_heads: 8,
    vocab_size: 128256,
  },
  tiny: {
    ...llama3,
    hidden_size: 512,
    intermediate_size: 1536,
    num_hidden_layers: 4,
    num_attention_heads: 8,
    num_key_value_heads: 4,
    vocab_size: 8192,
  },
  "mistral-7b": {
    ...llama3,
    model_type: "mistral",
    hidden_size: 4096,
    intermediate_size: 14336,
    num_hidden_layers: 32,
    num_attention_heads: 32,
    num_key_value_heads: 8,
    vocab_size: 32000,
    max_position_embeddings: 32768,
    sliding_window: 4096,
  },
  "qwen2-1.5b": {
    model_type: "qwen2",
    hidden_size: 1536,
    intermediate_size: 8960,
    num_hidden_layers: 28,
    num_attention_heads: 12,
    num_key_value_heads: 2,
    vocab_size: 151936,
    max_position_embeddings: 32768,
    tie_word_embeddings: true,
  },
  "chatglm3-6b": {
    model_type: "chatglm",
    hidden_size: 4096,
    ffn_hidden_size: 13696,
    num_layers: 28,
    num_attention_heads: 32,
    kv_channels: 128,
    multi_query_attention: true,
    multi_query_group_num: 2,
    padded_vocab_size: 65024,
    seq_length: 8192,
    layernorm_epsilon: 1e-5,
    add_qkv_bias: true,
  },
  "starcoder-15b": {
    model_type: "gpt_bigcode",
    n_embd: 6144,
    n_inner: 24576,
    n_layer: 40,
    n_head: 48,
    n_positions: 8192,
    vocab_size: 49152,
    activation_function: "gelu",
    multi_query: true,
  },
};
const WORK = { "qwen2-1.5b": { batch: 16, length: 512 } };
const shape = SHAPES[options.shape];
if (!shape) throw new Error(`--shape must be one of ${Object.keys(SHAPES).join(", ")}, received "${options.shape}"`);
const model = shape;
const work = { batch: 4, length: 2048, rank: 16, steps: Number(options.steps), ...WORK[options.shape] };
const parts = new Set(options.parts.split(","));
const report = { shape: options.shape, work, rows: [] };

/** Runs a command, shows what it prints, and returns the JSON lines of its output. */
function run(command, args, { env = {}, quiet = false } = {}) {
  return new Promise((resolve) => {
    const child = spawn(command, args, {
      cwd: root,
      env: { ...process.env, ...env },
      stdio: ["ignore", "pipe", "pipe"],
    });
    let out = "";
    let errors = "";
    child.stdout.on("data", (d) => {
      out += d;
      if (!quiet) process.stdout.write(d);
    });
    child.stderr.on("data", (d) => {
      errors = (errors + d).slice(-3000);
    });
    child.on("error", (error) => resolve({ code: -1, lines: [], errors: String(error) }));
    child.on("close", (code) => {
      const lines = out.split("\n").filter((l) => l.startsWith("{"));
      resolve({ code, errors, lines: lines.map((l) => JSON.parse(l)) });
    });
  });
}

async function measure(name, request, env = {}) {
  const { code, lines, errors } = await run(
    process.execPath,
    [
      join(root, "scripts/bench-gpu-worker.mjs"),
      JSON.stringify({ model, weights: options.weights, ...work, ...request }),
    ],
    { quiet: true, env },
  );
  const result = lines.at(-1);
  if (code !== 0 || !result) console.error(`${name} failed (${code}):\n${errors}`);
  return result;
}

const round = (x, digits = 0) => (x === undefined ? undefined : Number(x.toFixed(digits)));
function add(system, what, r) {
  if (!r) {
    report.rows.push({ system, what, failed: true });
    return;
  }
  report.rows.push({
    system,
    what,
    "ms/step": round(r.ms, 1),
    "tok/s": round(r.tokensPerSecond ?? r.tokens_per_second, 1),
    "peak GiB": round(r.peakGib ?? r.peak_gib, 2),
    "predicted GiB": round(r.predictedGib, 2),
    loss: round(r.loss, 4),
  });
}

if (parts.has("ops")) {
  console.log("==> every op against the CPU backend");
  await run(process.execPath, [
    "--test",
    "--test-reporter=spec",
    "dist/test/cuda/ops.test.js",
    "dist/test/cuda/model.test.js",
  ]);
}
if (parts.has("load") && model.model_type !== "llama")
  console.log("left out: only checkpoints of Llama are written for loading");
else if (parts.has("load")) {
  console.log("==> loading bfloat16 safetensors from memory into NF4");
  const { folder, reason } = memoryFolder(bytesOfModel(model));
  if (folder === undefined) {
    console.error(`left out: ${reason}`);
    report.rows.push({ system: "tunebook", what: "load", failed: true });
  } else {
    const python = parts.has("peers") ? options.python : undefined;
    const rows = await benchLoad(model, { folder, device: "cuda", python, repeats: 2 });
    report.rows.push(...rows);
    console.table(rows);
  }
}
if (parts.has("train")) {
  for (const checkpointing of options.modes.split(",")) {
    console.log(`==> QLoRA steps, checkpointing ${checkpointing}`);
    add("tunebook", `train, ${checkpointing}`, await measure(checkpointing, { checkpointing }));
    console.log(report.rows.at(-1));
  }
}
if (parts.has("profile")) {
  console.log("==> one step, op by op (each op waited for, so the sum is above a step's time)");
  const r = await measure("profile", { checkpointing: "selective", steps: 1 }, { TUNEBOOK_PROFILE: "1" });
  if (r) {
    report.profile = r.ops;
    console.table(
      r.ops.slice(0, 24).map((o) => ({
        op: o.op,
        calls: round(o.calls, 1),
        ms: round(o.ms, 2),
        "% of ops": round((100 * o.ms) / r.ops.reduce((n, p) => n + p.ms, 0), 1),
      })),
    );
  }
}
if (parts.has("decode")) {
  console.log("==> greedy decoding, batch 1");
  add("tunebook", "decode", await measure("decode", { work: "decode", decode: 128 }));
  console.log(report.rows.at(-1));
}
if (parts.has("decode")) {
  const small = { hidden_size: 576, intermediate_size: 1536, num_hidden_layers: 30, num_attention_heads: 9 };
  const shapes = [
    [`${options.shape}, NF4`, { rank: 0 }],
    ["135M, bf16", { rank: 0, dense: true, model: { ...llama3, ...small, num_key_value_heads: 3, vocab_size: 49152 } }],
  ];
  report.decode = [];
  for (const [what, more] of shapes) {
    console.log(`==> greedy decoding of several sequences, as graphs and op by op: ${what}`);
    const request = { work: "grid", decode: 64, batches: [1, 8, 32, 64], contexts: [128, 2048], ...more };
    const r = await measure(what, request);
    if (r?.captureError) console.log(`a capture failed: ${r.captureError}`);
    for (const row of r?.rows ?? []) report.decode.push({ what, ...row });
    console.table(
      (r?.rows ?? []).map((row) => ({ ...row, ms: round(row.ms, 2), tokensPerSecond: round(row.tokensPerSecond) })),
    );
  }
}
if (parts.has("cache")) {
  console.log("==> greedy decoding with keys and values in 16 and in 8 bits");
  const caches = ["bfloat16", "int8"];
  const request = { work: "grid", decode: 64, batches: [8, 32], contexts: [2048, 8192], caches, graphs: true, rank: 0 };
  const r = await measure("cache", request);
  report.cache = r?.rows ?? [];
  const shown = (row) => ({
    ...row,
    ms: round(row.ms, 2),
    tokensPerSecond: round(row.tokensPerSecond),
    gib: round(row.gib, 2),
  });
  console.table(report.cache.map(shown));
}
if (parts.has("packed")) {
  console.log("==> rows of 64 to 1,024 tokens, packed, beside full rows");
  report.packed = await measure("packed", { work: "packed", checkpointing: "selective", shortest: 64, longest: 1024 });
  console.log(report.packed);
}
if (parts.has("context")) {
  const layers = options.layers === undefined ? {} : { layers: Number(options.layers) };
  const tokens = options.tokens.split(",").map(Number);
  report.context = await benchContext(model, { tokens, compare: options.compare, ...layers });
  console.table(report.context);
}
if (parts.has("peers")) {
  console.log("==> transformers + PEFT + bitsandbytes");
  const sizes = { config: JSON.stringify(model), batch: work.batch, length: work.length, rank: work.rank };
  const args = Object.entries(sizes).flatMap(([name, value]) => [`--${name}`, String(value)]);
  const { lines, code, errors } = await run(
    options.python,
    [join(root, "scripts/peers/gpu_qlora.py"), ...args, "--modes", options.peerModes, "--steps", options.steps],
    { quiet: true },
  );
  if (code !== 0) console.error(`the peer failed (${code}):\n${errors}`);
  for (const line of lines) {
    if (line.work) add(line.peer, line.work === "train" ? `train, ${line.checkpointing}` : "decode", line);
    else report.peer = line;
  }
}
if (report.rows.length > 0) {
  console.log(
    `\n${model.model_type === "llama" ? "Llama-3-" : ""}${options.shape} shape, ${WEIGHTS[options.weights]}, bf16, LoRA r ${work.rank} on all linear layers, 8-bit AdamW, batch ${work.batch} x ${work.length}`,
  );
  console.table(report.rows);
}
if (options.report) {
  mkdirSync(options.report, { recursive: true });
  writeFileSync(join(options.report, "bench-gpu.json"), JSON.stringify(report, null, 1));
}
