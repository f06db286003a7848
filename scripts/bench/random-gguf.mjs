// A GGUF file of a given shape with random weights, typed as the Q4_1 files of small models are: for machines that do not have the real one. Its tokenizer
// has names for its tokens and nothing else.
import { closeSync, mkdirSync, openSync, renameSync, writeSync } from "node:fs";
import { dirname, join } from "node:path";
import { root } from "./duel.mjs";
import { blockMatrices } from "./shapes.mjs";

const [U32, F32, STRING, ARRAY, I32] = [4, 6, 8, 9, 5];
const [TYPE_F32, TYPE_Q4_1, TYPE_Q8_0] = [0, 3, 8];
const PARTS = ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"];

/** @returns its path, in the cache folder */
export async function randomGguf(name, shape) {
  const path = join(root, ".cache", "bench", `random-${name}.gguf`);
  mkdirSync(dirname(path), { recursive: true });
  const d = shape.hidden_size;
  const tensors = [
    { name: "token_embd.weight", sizes: [d, shape.vocab_size], type: TYPE_Q8_0 },
    { name: "output_norm.weight", sizes: [d], type: TYPE_F32 },
  ];
  for (let i = 0; i < shape.num_hidden_layers; i++) {
    for (const norm of ["attn_norm", "ffn_norm"])
      tensors.push({ name: `blk.${i}.${norm}.weight`, sizes: [d], type: 0 });
    blockMatrices(shape).forEach(([outputs, inputs], j) => {
      tensors.push({ name: `blk.${i}.${PARTS[j]}.weight`, sizes: [inputs, outputs], type: TYPE_Q4_1 });
    });
  }
  const file = openSync(`${path}.new`, "w");
  const write = (bytes) => writeSync(file, bytes);
  const data = tensors.map(valuesOf);
  let at = 0;
  const heads = tensors.map((tensor, i) => {
    const head = [string(tensor.name), u32(tensor.sizes.length), ...tensor.sizes.map(u64), u32(tensor.type), u64(at)];
    at += data[i].length;
    return Buffer.concat(head);
  });
  const pairs = metadata(shape).map(pair);
  const header = Buffer.concat([
    Buffer.from("GGUF"),
    u32(3),
    u64(tensors.length),
    u64(pairs.length),
    ...pairs,
    ...heads,
  ]);
  write(header);
  write(Buffer.alloc((32 - (header.length % 32)) % 32));
  for (const bytes of data) write(bytes);
  closeSync(file);
  renameSync(`${path}.new`, path);
  return path;
}

function metadata(shape) {
  const tokens = Array.from({ length: shape.vocab_size }, (_, i) =>
    i < 3 ? `<|${i}|>` : i < 259 ? byte(i - 3) : `t${i}`,
  );
  return [
    ["general.architecture", STRING, "llama"],
    ["llama.block_count", U32, shape.num_hidden_layers],
    ["llama.context_length", U32, shape.max_position_embeddings],
    ["llama.embedding_length", U32, shape.hidden_size],
    ["llama.feed_forward_length", U32, shape.intermediate_size],
    ["llama.attention.head_count", U32, shape.num_attention_heads],
    ["llama.attention.head_count_kv", U32, shape.num_key_value_heads],
    ["llama.attention.layer_norm_rms_epsilon", F32, shape.rms_norm_eps],
    ["llama.rope.freq_base", F32, shape.rope_theta],
    ["llama.rope.dimension_count", U32, shape.head_dim],
    ["llama.vocab_size", U32, shape.vocab_size],
    ["tokenizer.ggml.model", STRING, "gpt2"],
    ["tokenizer.ggml.pre", STRING, "smollm"],
    ["tokenizer.ggml.tokens", ARRAY, [STRING, tokens]],
    ["tokenizer.ggml.token_type", ARRAY, [I32, tokens.map((_, i) => (i < 3 ? 3 : 1))]],
    ["tokenizer.ggml.merges", ARRAY, [STRING, ["a b"]]],
    ["tokenizer.ggml.bos_token_id", U32, 1],
    ["tokenizer.ggml.eos_token_id", U32, 2],
  ];
}

// GPT-2's name of a byte: a letter that can be seen.
function byte(value) {
  const plain = (b) => (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
  if (plain(value)) return String.fromCharCode(value);
  let before = 0;
  for (let b = 0; b < value; b++) if (!plain(b)) before++;
  return String.fromCharCode(256 + before);
}

/** Norms are ones; blocks have random codes and scales that give weights a deviation of about 0.02. */
function valuesOf({ sizes, type }, index) {
  const count = sizes.reduce((n, size) => n * size, 1);
  if (type === TYPE_F32) return Buffer.from(new Float32Array(count).fill(1).buffer);
  const [blockBytes, scale] = type === TYPE_Q8_0 ? [34, 2 ** -12] : [20, 2 ** -8];
  const out = Buffer.alloc((count / 32) * blockBytes);
  let state = index + 1;
  for (let i = 0; i < out.length; i += 4) {
    state = (Math.imul(state, 1664525) + 1013904223) | 0;
    const word = state ^ (state >>> 15);
    if (i + 4 <= out.length) out.writeInt32LE(word, i);
    else out.writeInt16LE(word >> 16, i);
  }
  for (let i = 0; i < out.length; i += blockBytes) {
    out.writeUInt16LE(half(scale), i);
    if (type === TYPE_Q4_1) out.writeUInt16LE(half(-7.5 * scale), i + 2);
  }
  return out;
}

// The bits of a half, of numbers that it holds exactly.
function half(value) {
  const exponent = Math.floor(Math.log2(Math.abs(value)));
  const mantissa = (Math.abs(value) / 2 ** exponent - 1) * 1024;
  return (value < 0 ? 0x8000 : 0) | ((exponent + 15) << 10) | mantissa;
}

function u32(value) {
  const out = Buffer.alloc(4);
  out.writeUInt32LE(value);
  return out;
}

function u64(value) {
  const out = Buffer.alloc(8);
  out.writeBigUInt64LE(BigInt(value));
  return out;
}

function string(text) {
  return Buffer.concat([u64(Buffer.byteLength(text)), Buffer.from(text)]);
}

function scalar(kind, value) {
  if (kind === STRING) return string(value);
  if (kind !== F32) return u32(value);
  const out = Buffer.alloc(4);
  out.writeFloatLE(value);
  return out;
}

function pair([key, kind, value]) {
  if (kind !== ARRAY) return Buffer.concat([string(key), u32(kind), scalar(kind, value)]);
  const [inner, values] = value;
  return Buffer.concat([
    string(key),
    u32(kind),
    u32(inner),
    u64(values.length),
    ...values.map((v) => scalar(inner, v)),
  ]);
}
