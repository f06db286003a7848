// Writes a checkpoint of a Llama's shape for benchmarks of loading: bfloat16 safetensors in shards, every tensor cut from one pool of random numbers.
import { mkdir, open, writeFile } from "node:fs/promises";
import { join } from "node:path";

const POOL = 32 * 2 ** 20; // bytes
const SHARD = 4.5e9;

/** Names and shapes of the weights of a config, in the order of the layers. */
function tensorsOf(c) {
  const head = c.head_dim ?? c.hidden_size / c.num_attention_heads;
  const layer = (i) =>
    Object.entries({
      "self_attn.q_proj": [c.num_attention_heads * head, c.hidden_size],
      "self_attn.k_proj": [c.num_key_value_heads * head, c.hidden_size],
      "self_attn.v_proj": [c.num_key_value_heads * head, c.hidden_size],
      "self_attn.o_proj": [c.hidden_size, c.num_attention_heads * head],
      "mlp.gate_proj": [c.intermediate_size, c.hidden_size],
      "mlp.up_proj": [c.intermediate_size, c.hidden_size],
      "mlp.down_proj": [c.hidden_size, c.intermediate_size],
      input_layernorm: [c.hidden_size],
      post_attention_layernorm: [c.hidden_size],
    }).map(([name, shape]) => [`model.layers.${i}.${name}.weight`, shape]);
  return [
    ["model.embed_tokens.weight", [c.vocab_size, c.hidden_size]],
    ...Array.from({ length: c.num_hidden_layers }, (_, i) => layer(i)).flat(),
    ["model.norm.weight", [c.hidden_size]],
    ...(c.tie_word_embeddings ? [] : [["lm_head.weight", [c.vocab_size, c.hidden_size]]]),
  ];
}

const bytesOf = (shape) => 2 * shape.reduce((n, size) => n * size, 1);

// Roughly normal numbers of the size that weights have: sums of uniform ones, rounded towards zero to 16 bits.
function randomPool() {
  const floats = new Float32Array(POOL / 2);
  let state = 1;
  const draw = () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32 - 0.5;
  };
  for (let i = 0; i < floats.length; i++) floats[i] = (draw() + draw() + draw()) * 0.04;
  const halves = new Uint16Array(floats.length);
  const words = new Uint32Array(floats.buffer);
  for (let i = 0; i < halves.length; i++) halves[i] = words[i] >>> 16;
  return Buffer.from(halves.buffer);
}

async function writeShard(path, tensors, pool) {
  const header = {};
  let at = 0;
  for (const [name, shape] of tensors) {
    header[name] = { dtype: "BF16", shape, data_offsets: [at, at + bytesOf(shape)] };
    at += bytesOf(shape);
  }
  const json = Buffer.from(JSON.stringify(header));
  const padded = Buffer.alloc(8 + Math.ceil(json.length / 8) * 8, " ");
  padded.writeBigUInt64LE(BigInt(padded.length - 8));
  json.copy(padded, 8);
  const file = await open(path, "w");
  await file.write(padded);
  let from = tensors.length * 4096; // not every shard begins alike
  for (let left = at; left > 0; ) {
    from %= POOL;
    const n = Math.min(left, POOL - from);
    const { bytesWritten } = await file.write(pool, from, n);
    left -= bytesWritten;
    from += bytesWritten;
  }
  await file.close();
}

/** Bytes of a config's weights. */
export const bytesOfModel = (config) => tensorsOf(config).reduce((n, [, shape]) => n + bytesOf(shape), 0);

/** @returns {Promise<number>} the bytes of its tensors */
export async function writeCheckpoint(folder, config) {
  await mkdir(folder, { recursive: true });
  const shards = [[]];
  let bytes = 0;
  let total = 0;
  const all = tensorsOf(config);
  for (const tensor of all) {
    const own = bytesOf(tensor[1]);
    if (bytes + own > SHARD && shards.at(-1).length > 0) {
      shards.push([]);
      bytes = 0;
    }
    shards.at(-1).push(tensor);
    bytes += own;
    total += own;
  }
  const pool = randomPool();
  const name = (i) =>
    `model-${String(i + 1).padStart(5, "0")}-of-${String(shards.length).padStart(5, "0")}.safetensors`;
  await Promise.all(shards.map((tensors, i) => writeShard(join(folder, name(i)), tensors, pool)));
  const map = Object.fromEntries(shards.flatMap((tensors, i) => tensors.map(([key]) => [key, name(i)])));
  await writeFile(
    join(folder, "model.safetensors.index.json"),
    JSON.stringify({ metadata: { total_size: total }, weight_map: map }),
  );
  const written = { architectures: ["LlamaForCausalLM"], model_type: "llama", torch_dtype: "bfloat16", ...config };
  await writeFile(join(folder, "config.json"), JSON.stringify(written));
  return total;
}
