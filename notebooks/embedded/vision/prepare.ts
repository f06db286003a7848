/** The rows, the tokenizer and the shape of the embedded model that sees: everything that its training starts from. */
import { Random } from "../../../src/data/random.js";
import { type Bpe, type TokenForm, trainBpe } from "../tokenizer.js";
import { chance, pick } from "../world/render.js";
import { side } from "./draw.js";
import { type Asked, cells, type Kind, match, most, picture, type Scene, scene, taught, untaught } from "./scenes.js";

/** Sizes and seeds; another value of any of these makes another model. */
export const recipe = {
  seed: 40,
  vocabulary: 512,
  context: 1024,
  /** One after another; see train.ts. */
  parts: {
    looking: { pictures: 12_000, rows: "looks", seed: 42, steps: 1000, batch: 16, lr: 1.5e-3 },
    matching: { pictures: 12_000, rows: "matches", seed: 43, steps: 1200, batch: 16, lr: 1.5e-3 },
    answering: { pictures: 16_000, rows: "talks", seed: 44, steps: 2000, batch: 16, lr: 1.2e-3 },
    practising: { pictures: 16_000, rows: "talks", seed: 45, steps: 3000, batch: 16, lr: 1.5e-3 },
    finishing: { pictures: 16_000, rows: "mixture", seed: 46, steps: 1700, batch: 16, lr: 1.5e-3 },
  },
} as const;

/** A part of the training. */
export type Part = keyof typeof recipe.parts;

/** Qwen2-VL's special tokens, and the form of its conversations: a system message stands first, an image is a token between two others. */
export const form: TokenForm = {
  special: [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
  ],
  end: "<|im_end|>",
  pad: "<|endoftext|>",
  chatTemplate:
    "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\\nYou look at pictures.<|im_end|>\\n' }}{% endif %}" +
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' }}" +
    "{% if message['content'] is string %}{{ message['content'] }}" +
    "{% else %}{% for part in message['content'] %}" +
    "{% if part['type'] == 'image' %}{{ '<|vision_start|><|image_pad|><|vision_end|>' }}" +
    "{% elif 'text' in part %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}" +
    "{{ '<|im_end|>\\n' }}{% endfor %}" +
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}",
};

const id = (token: string): number => form.special.indexOf(token);

/** A message, as chats and rows to train on have it. */
interface Said {
  readonly role: "user" | "assistant";
  readonly content: string | readonly object[];
}

/** A conversation to train on: up to four questions about a picture. */
export interface Talk {
  readonly messages: readonly Said[];
}

const named = (names: readonly string[]): readonly Kind[] => names.map((name) => taught[name]!);

/** Kinds of questions as often as they are asked: finding something by what it is takes the most practice. */
const kinds = named(["colour", "colour", "shape", "shape", "there", "there", "side", "all", "places", "ground"]);

/** As often as they are asked in the end, when colours are known best and shapes least. */
const lastKinds = named([
  "colour",
  "shape",
  "shape",
  "shape",
  "shape",
  "there",
  "there",
  "side",
  "side",
  "all",
  "places",
  "ground",
]);

/** Questions of one kind about a scene, in a third of all cases of several, so that no answer is given away by what was asked before. */
function questions(random: Random, seen: Scene, count: number, from: readonly Kind[]): Asked[] {
  const one = chance(random, 1 / 3) ? undefined : pick(random, from);
  const asked = new Map<string, Asked>();
  for (let tries = 0; tries < 12 && asked.size < count; tries++) {
    const next = (one ?? pick(random, from))(random, seen);
    if (next) asked.set(next.question, next);
  }
  return [...asked.values()];
}

/** Rows that ask for nothing but what is in each place, of pictures of up to nine things. */
async function looks(seed: number, count: number): Promise<Talk[]> {
  const random = new Random(seed);
  const rows: Talk[] = [];
  while (rows.length < count) {
    const seen = scene(random, 1 + random.nextInt(cells * cells));
    rows.push(talk(await picture(seen), [taught.places!(random, seen)!]));
  }
  return rows;
}

/** Rows that name shapes, no two alike, in random order, and the colour that belongs to each; or colours and their shapes. */
async function matches(seed: number, count: number): Promise<Talk[]> {
  const random = new Random(seed);
  const rows: Talk[] = [];
  while (rows.length < count) {
    const seen = scene(random, 2 + random.nextInt(5), true);
    rows.push(talk(await picture(seen), [match(random, seen)]));
  }
  return rows;
}

/** Rows of all kinds of questions. */
async function talks(seed: number, count: number, from: readonly Kind[] = kinds): Promise<Talk[]> {
  const random = new Random(seed);
  const rows: Talk[] = [];
  while (rows.length < count) {
    const seen = scene(random, 1 + random.nextInt(most));
    const asked = questions(random, seen, 1 + random.nextInt(4), from);
    if (asked.length === 0) continue;
    if (chance(random, 0.02)) rows.push(blind(asked[0]!.question));
    else rows.push(talk(await picture(seen), asked));
  }
  return rows;
}

/** Three quarters questions, and the rest matches again. */
async function mixture(seed: number, count: number): Promise<Talk[]> {
  const matched = await matches(seed, Math.floor(count / 4));
  return [...(await talks(seed, count - matched.length, lastKinds)), ...matched];
}

/** What the parts of the training ask. */
export const exercises = { looks, matches, talks, mixture } as const;

function talk(image: Uint8Array, asked: readonly Asked[]): Talk {
  const messages = asked.flatMap(({ question, answer }, i): Said[] => [
    {
      role: "user",
      content:
        i > 0
          ? question
          : [
              { type: "image", image },
              { type: "text", text: question },
            ],
    },
    { role: "assistant", content: answer },
  ]);
  return { messages };
}

/** Asked without a picture, it says so. */
function blind(question: string): Talk {
  return {
    messages: [
      { role: "user", content: question },
      { role: "assistant", content: "I see no picture." },
    ],
  };
}

/** The tokenizer: of all kinds of questions and answers, those too that the model is not taught. */
export function vocabulary(): Bpe {
  const random = new Random(recipe.seed + 1);
  const texts: string[] = [form.chatTemplate.match(/You[^<]*/)![0], "I see no picture.", "system\nuser\nassistant\n"];
  for (let i = 0; i < 4000; i++) {
    const seen = scene(random, 1 + random.nextInt(most));
    for (const kind of [...Object.values(taught), ...Object.values(untaught)]) {
      const asked = kind(random, seen);
      if (asked) texts.push(asked.question, asked.answer);
    }
  }
  return trainBpe(texts, recipe.vocabulary, form.special);
}

/**
 * config.json of the model. Every linear layer's sizes are multiples of 64, so that NF4 blocks are whole rows. The slowest third of the pairs turns by an
 * image token's column, which nothing else tells the language layers: with the usual base of 10,000 neighbours would differ by 0.003 in angle.
 */
export function config(): Record<string, unknown> {
  return {
    architectures: ["Qwen2VLForConditionalGeneration"],
    model_type: "qwen2_vl",
    vocab_size: recipe.vocabulary,
    hidden_size: 128,
    intermediate_size: 192,
    num_hidden_layers: 3,
    num_attention_heads: 4,
    num_key_value_heads: 2,
    max_position_embeddings: recipe.context,
    rms_norm_eps: 1e-6,
    rope_theta: 20,
    rope_scaling: { type: "mrope", mrope_section: [4, 6, 6] },
    hidden_act: "silu",
    tie_word_embeddings: true,
    initializer_range: 0.05,
    vision_config: {
      depth: 3,
      embed_dim: 64,
      num_heads: 4,
      hidden_size: 128,
      mlp_ratio: 2,
      patch_size: 14,
      spatial_merge_size: 2,
      temporal_patch_size: 2,
      in_chans: 3,
      hidden_act: "quick_gelu",
      initializer_range: 0.05,
    },
    image_token_id: id("<|image_pad|>"),
    video_token_id: id("<|video_pad|>"),
    vision_start_token_id: id("<|vision_start|>"),
    vision_end_token_id: id("<|vision_end|>"),
    bos_token_id: id("<|endoftext|>"),
    eos_token_id: id("<|im_end|>"),
    pad_token_id: id("<|endoftext|>"),
    dtype: "float32",
  };
}

/** preprocessor_config.json: other pictures are brought to about the size of those that the model learned from. */
export function preprocessor(): Record<string, unknown> {
  return {
    image_processor_type: "Qwen2VLImageProcessor",
    processor_class: "Qwen2VLProcessor",
    min_pixels: side * side,
    max_pixels: side * side,
    patch_size: 14,
    merge_size: 2,
    temporal_patch_size: 2,
    image_mean: [0.5, 0.5, 0.5],
    image_std: [0.5, 0.5, 0.5],
  };
}
