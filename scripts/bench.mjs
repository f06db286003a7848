// npm run bench: tunebook beside its peers on the same cores, in rounds that take turns. What counts is the ratio:
// machines differ, and shared ones drift from minute to minute.
//   node scripts/bench.mjs [--rounds N] [--steps N per round] [--smoke]
import { spawn } from "node:child_process";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { setup, step } from "./setup.mjs";
import { bin, ensureVenv } from "./venv.mjs";

const root = fileURLToPath(new URL("..", import.meta.url));
const threads = Number(process.env.TUNEBOOK_THREADS ?? availableParallelism());

/** The shape of SmolLM2-135M; --smoke is a small stand-in that only shows that the harness works. */
const shapes = {
  "SmolLM2-135M": {
    vocab_size: 49152,
    hidden_size: 576,
    intermediate_size: 1536,
    num_hidden_layers: 30,
    num_attention_heads: 9,
    num_key_value_heads: 3,
    max_position_embeddings: 2048,
    rms_norm_eps: 1e-5,
    tie_word_embeddings: true,
  },
  smoke: {
    vocab_size: 2048,
    hidden_size: 128,
    intermediate_size: 256,
    num_hidden_layers: 2,
    num_attention_heads: 4,
    num_key_value_heads: 2,
    max_position_embeddings: 512,
    rms_norm_eps: 1e-5,
    tie_word_embeddings: true,
  },
};

/** A process that answers one JSON line with one JSON line, and computes only when asked. */
class Contender {
  constructor(name, command, args) {
    this.name = name;
    this.child = spawn(command, args, {
      cwd: root,
      stdio: ["pipe", "pipe", "pipe"],
      env: { ...process.env, TUNEBOOK_THREADS: String(threads), OMP_NUM_THREADS: String(threads) },
    });
    this.errors = "";
    this.child.stderr.on("data", (chunk) => {
      this.errors = (this.errors + chunk).slice(-4000);
    });
    this.lines = createInterface({ input: this.child.stdout })[Symbol.asyncIterator]();
  }

  async reply() {
    for (;;) {
      const { value, done } = await this.lines.next();
      if (done) throw new Error(`${this.name} ended early:\n${this.errors}`);
      if (value.startsWith("{")) return JSON.parse(value);
    }
  }

  ask(request) {
    this.child.stdin.write(`${JSON.stringify(request)}\n`);
    return this.reply();
  }

  close() {
    this.child.kill("SIGKILL");
  }
}

/** Runs both in turns; each round's steps are timed one by one inside the contender. */
async function duel(ours, theirs, rounds, steps) {
  const seconds = new Map([ours, theirs].map((each) => [each, []]));
  const last = new Map();
  try {
    for (const each of [ours, theirs]) {
      Object.assign(each, await each.reply());
      await each.ask({ steps: 2 }); // caches, allocators and clocks settle
    }
    for (let round = 0; round < rounds; round++) {
      for (const each of round % 2 === 0 ? [ours, theirs] : [theirs, ours]) {
        const reply = await each.ask({ steps });
        seconds.get(each).push(...reply.seconds);
        last.set(each, reply);
      }
    }
  } finally {
    for (const each of [ours, theirs]) each.close();
  }
  return [ours, theirs].map((each) => ({ each, times: seconds.get(each).sort((a, b) => a - b), ...last.get(each) }));
}

const median = (sorted) => (sorted[(sorted.length - 1) >> 1] + sorted[sorted.length >> 1]) / 2;

function report(title, tokens, [ours, theirs]) {
  console.log(`\n${title}, ${threads} threads, ${ours.times.length} steps each in turns`);
  const rows = [ours, theirs].map((side) => ({
    "": side.each.name,
    "median ms": Math.round(median(side.times) * 1000),
    "best ms": Math.round(side.times[0] * 1000),
    "tokens/s": Math.round(tokens / median(side.times)),
    "peak MiB": Math.round(side.peakBytes / 2 ** 20),
    loss: Number(side.loss.toFixed(4)),
    trainable: side.each.trainable,
  }));
  console.table(rows);
  const share =
    ours.javascript === undefined ? "" : `, JavaScript between ops ${(100 * ours.javascript).toFixed(1)}% of a step`;
  console.log(
    `ratio: ${(theirs.times[0] / ours.times[0]).toFixed(2)}x by the best steps, ` +
      `${(median(theirs.times) / median(ours.times)).toFixed(2)}x by medians, ` +
      `peak memory ${(theirs.peakBytes / ours.peakBytes).toFixed(2)}x less${share}`,
  );
  // Threads that wait for each other in a loop, as torch's do, lose far more than their share when others want the cores.
  if ([ours, theirs].some((side) => median(side.times) > 1.5 * side.times[0])) {
    console.log("The machine was busy with other work (a median is far above its best step): go by the best steps.");
  }
}

async function loraStep(name, rounds, steps) {
  const shape = { ...shapes[name], hidden_act: "silu", rope_theta: 10000, bos_token_id: 1, eos_token_id: 2 };
  const small = name === "smoke";
  const model = { ...shape, head_dim: shape.hidden_size / shape.num_attention_heads };
  const size = { rank: 16, batch: small ? 2 : 4, length: small ? 64 : 256 };
  const total = 2 + rounds * steps + 1;
  const request = JSON.stringify({ ...size, model, threads, dtype: "float32", total });
  // The peer's config class knows rope_theta under its newer name.
  const { rope_theta, ...rest } = model;
  const theirs = JSON.stringify({
    ...size,
    model: { ...rest, rope_parameters: { rope_type: "default", rope_theta } },
    threads,
    dtype: "float32",
  });
  const sides = await duel(
    new Contender("tunebook", process.execPath, [join(root, "scripts", "bench-worker.mjs"), request]),
    new Contender("transformers + PEFT", bin("python"), [join(root, "scripts", "peers", "lora_step.py"), theirs]),
    rounds,
    steps,
  );
  const title = `LoRA step, fp32, ${name} shape, r 16 all-linear, batch ${size.batch} x ${size.length}, AdamW`;
  report(title, size.batch * size.length, sides);
}

async function main() {
  const { values } = parseArgs({
    options: {
      rounds: { type: "string", default: "4" },
      steps: { type: "string", default: "3" },
      smoke: { type: "boolean", default: false },
      "no-setup": { type: "boolean", default: false },
    },
  });
  if (!values["no-setup"]) setup();
  step("preparing the Python packages");
  await ensureVenv("peers");
  step("LoRA steps");
  await loraStep(values.smoke ? "smoke" : "SmolLM2-135M", Number(values.rounds), Number(values.steps));
}

main().catch((error) => {
  console.error(`bench: ${error.stack ?? error}`);
  process.exitCode = 1;
});
