// Qwen2-VL-2B with random weights: QLoRA steps on rows with an image, the time of the vision tower, decoding behind an image.
//   node scripts/bench/vision.mjs [--device cuda] [--batch 4] [--side 448] [--text 256] [--steps 10] [--dense] [--small] [--peer]
// --peer: then the same steps with transformers + PEFT + bitsandbytes (needs a GPU and these packages; TUNEBOOK_PYTHON names the Python).
import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { generateIds, samplingSettings } from "../../dist/src/evaluation/generate.js";
import { loadModel } from "../../dist/src/plan.js";
import { resetPeak, settle, stats } from "../../dist/src/tensor/native.js";
import { noGrad } from "../../dist/src/tensor/record.js";
import { scope } from "../../dist/src/tensor/scope.js";
import { trainLoop } from "../../dist/src/training/loop.js";
import { trainSettings } from "../../dist/src/training/options.js";

const { values } = parseArgs({
  options: {
    device: { type: "string", default: "cuda" },
    batch: { type: "string", default: "4" },
    side: { type: "string", default: "448" },
    text: { type: "string", default: "256" },
    steps: { type: "string", default: "10" },
    dense: { type: "boolean" },
    peer: { type: "boolean" },
    small: { type: "boolean" }, // for trying this script on a CPU
  },
});
const [batch, side, text, steps] = [values.batch, values.side, values.text, values.steps].map(Number);
const { device } = values;
const config = {
  model_type: "qwen2_vl",
  vocab_size: 151936,
  hidden_size: 1536,
  intermediate_size: 8960,
  num_hidden_layers: values.small ? 1 : 28,
  num_attention_heads: 12,
  num_key_value_heads: 2,
  max_position_embeddings: 32768,
  rms_norm_eps: 1e-6,
  rope_theta: 1e6,
  rope_scaling: { type: "mrope", mrope_section: [16, 24, 24] },
  tie_word_embeddings: true,
  vision_config: { depth: values.small ? 1 : 32, embed_dim: 1280, hidden_size: 1536, num_heads: 16, in_chans: 3 },
};
const gib = (bytes) => (bytes / 2 ** 30).toFixed(2);
const milliseconds = async (run) => {
  const begun = performance.now();
  await run();
  await settle(device);
  return performance.now() - begun;
};

let plan = loadModel(config, { weights: "random", seed: 0, dtype: "bfloat16", device });
if (!values.dense) plan = plan.quantize({ type: "nf4", doubleQuant: true, compute: "bf16" });
const target = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];
const model = await plan.addLora({ rank: 16, alpha: 32, target });
await settle(device);
console.log(`weights ${gib(stats(device).liveBytes)} GiB`);

let state = 1;
const draw = (n) => {
  state = (Math.imul(state, 1103515245) + 12345) >>> 0;
  return (state >>> 8) % n;
};
const tokens = (side / 28) ** 2;
const row = () => {
  const words = Array.from({ length: text }, () => draw(151000));
  const ids = Int32Array.of(151652, ...Array(tokens).fill(151655), 151653, ...words);
  const labels = ids.map((id) => (id >= 151652 ? -100 : id));
  const data = Uint8Array.from({ length: side * side * 3 }, () => draw(256));
  return { ids, labels, pictures: [{ width: side, height: side, data, tokens }] };
};
const train = Array.from({ length: batch }, row);
const network = model.module;

const see = () =>
  scope(() =>
    noGrad(
      () => void network.model.visual.forward([train[0].pictures[0]], network.sight.settings, network.activations),
    ),
  );
await milliseconds(see);
console.log(`vision tower, an image of ${tokens} tokens: ${(await milliseconds(see)).toFixed(1)} ms`);

for (const checkpointing of ["selective", "full"]) {
  const options = { steps: steps + 1, batch, lr: 2e-4, optimizer: "adamw8bit", checkpointing, shuffle: false };
  const loop = trainLoop({
    model: network,
    train,
    settings: trainSettings(options),
  });
  const times = [];
  let loss;
  for (let i = 0; i <= steps; i++) {
    if (i === 1) resetPeak(device);
    times.push(await milliseconds(async () => void ({ loss } = (await loop.next()).value)));
  }
  await loop.return();
  const middle = times.slice(1).sort((a, b) => a - b)[steps >> 1];
  const rate = (batch * train[0].ids.length * 1000) / middle;
  console.log(
    `QLoRA step ${batch} x (${tokens} + ${text}), ${checkpointing}: ${middle.toFixed(1)} ms, ${rate.toFixed(0)} tokens/s, peak ${gib(stats(device).peakBytes)} GiB, loss ${loss.toFixed(3)}`,
  );
}

const settings = samplingSettings({ maxNewTokens: values.small ? 16 : 128 });
for (const round of ["first", "second"]) {
  const begun = performance.now();
  let first;
  let count = 0;
  for await (const _ of generateIds(network, [...train[0].ids], settings, new Set(), train[0].pictures)) {
    first ??= performance.now() - begun;
    count++;
  }
  const seconds = (performance.now() - begun - first) / 1000;
  console.log(
    `${round} answer: ${first.toFixed(0)} ms to the first token, then ${((count - 1) / seconds).toFixed(0)} tokens/s`,
  );
}
model.dispose();

if (values.peer) {
  const { vocab_size, tie_word_embeddings, vision_config, rope_scaling, rope_theta, model_type, ...language } = config;
  const nested = {
    model_type,
    tie_word_embeddings,
    image_token_id: 151655,
    vision_start_token_id: 151652,
    vision_end_token_id: 151653,
    text_config: {
      ...language,
      vocab_size,
      tie_word_embeddings,
      rope_parameters: { rope_type: "default", rope_theta, mrope_section: rope_scaling.mrope_section },
    },
    vision_config: { ...vision_config, in_channels: 3, patch_size: 14, spatial_merge_size: 2, temporal_patch_size: 2 },
  };
  const script = fileURLToPath(new URL("../peers/gpu_qwen2_vl.py", import.meta.url));
  const sizes = { config: JSON.stringify(nested), batch, side, text, steps, device };
  const args = Object.entries(sizes).flatMap(([name, value]) => [`--${name}`, String(value)]);
  const { status } = spawnSync(process.env.TUNEBOOK_PYTHON ?? "python3", [script, ...args], {
    stdio: ["ignore", "inherit", "inherit"],
    env: { ...process.env, PYTHONWARNINGS: "ignore" },
  });
  process.exitCode = status ?? 1;
}
