/** Images in messages: taken out before a template sees them, read, and given the tokens that they take. */
import { ConfigError, DataError } from "../errors.js";
import type { Message } from "../hub/chat.js";
import type { ImageSource } from "../images/decode.js";
import type { Picture, Sight } from "../images/patches.js";
import { readPicture } from "../images/picture.js";
import type { PixelLimits } from "../images/resize.js";
import type { Formatted } from "./format.js";
import { type Example, IGNORED } from "./mask.js";

/** An image of a message's content: `{ type: "image", image: path | bytes, maxPixels?, minPixels? }`, or `image_url` in place of `image`. */
interface ImagePart extends Partial<PixelLimits> {
  readonly source: ImageSource | undefined;
  /** What it is, for messages. */
  readonly where: string;
}

/** Whether messages show images. */
export function hasImages(messages: readonly Message[]): boolean {
  return messages.some(({ content }) => Array.isArray(content) && content.some((part) => partOf(part) !== undefined));
}

/** @throws DataError for messages that carry images to where none are taken. */
export function refuseImages(messages: readonly Message[], what: string): void {
  const carried = takeImages(messages).images.find((image) => image.source !== undefined);
  if (carried) throw new DataError(`${what} takes text alone: ${carried.where} has to be left out.`);
}

/** A prompt's ids, and the images that some of them stand for. */
export interface Prompt {
  readonly ids: readonly number[];
  readonly pictures: readonly Picture[];
}

/** What encodes messages: a tokenizer. */
interface ChatEncoder {
  encodeChat(messages: readonly Message[], options: { addGenerationPrompt: boolean }): number[];
}

/**
 * The prompt of a conversation whose messages may show images.
 *
 * @param sight how the model takes images; `undefined`: it takes none
 * @param row the row that the messages come from; images that they only announce stand there
 * @throws ConfigError for images given to a model that takes none; DataError for one that cannot be read
 */
export async function encodeConversation(
  tokenizer: ChatEncoder,
  messages: readonly Message[],
  sight: Sight | undefined,
  row?: unknown,
): Promise<Prompt> {
  if (!hasImages(messages))
    return { ids: tokenizer.encodeChat([...messages], { addGenerationPrompt: true }), pictures: [] };
  const { messages: text, images } = takeImages(messages, imagesOf(row));
  const pictures = await readImages(images, sight);
  const ids = tokenizer.encodeChat(text, { addGenerationPrompt: true });
  return { ids: expandImages(ids, pictures, sight!.imageToken), pictures };
}

/** The prompts of several conversations. */
export async function encodeConversations(
  tokenizer: ChatEncoder,
  conversations: readonly (readonly Message[])[],
  sight: Sight | undefined,
): Promise<Prompt[]> {
  const all: Prompt[] = [];
  for (const messages of conversations) all.push(await encodeConversation(tokenizer, messages, sight));
  return all;
}

/** The prompt of a text in which image tokens stand, one for each of these images. */
export async function withImages(
  ids: readonly number[],
  sources: readonly ImageSource[] | undefined,
  sight: Sight | undefined,
): Promise<Prompt> {
  if (sources === undefined || sources.length === 0) return { ids, pictures: [] };
  const pictures = await readImages(
    sources.map((source, i) => ({ source, where: `image ${i}` })),
    sight,
  );
  return { ids: expandImages(ids, pictures, sight!.imageToken), pictures };
}

/** The prompts of several texts, each with its images. @throws ConfigError where the lists of images are not one for each prompt */
export async function allWithImages(
  prompts: readonly (readonly number[])[],
  sources: readonly (readonly ImageSource[])[] | undefined,
  sight: Sight | undefined,
): Promise<Prompt[]> {
  if (sources && (sources.length !== prompts.length || !sources.every((each) => Array.isArray(each))))
    throw new ConfigError(
      `generate: images of several prompts are a list for each of the ${prompts.length} ([] for none), received ${sources.length} ${sources.every((each) => Array.isArray(each)) ? "lists" : "items that are not all lists"}.`,
    );
  const all: Prompt[] = [];
  for (const [i, ids] of prompts.entries()) all.push(await withImages(ids, sources?.[i], sight));
  return all;
}

/**
 * Messages as a template takes them, with the images that they show in order.
 *
 * @param spare images for the parts that carry none: a row's own column of images
 */
export function takeImages(
  messages: readonly Message[],
  spare: readonly ImageSource[] = [],
): { messages: Message[]; images: ImagePart[] } {
  const images: ImagePart[] = [];
  const rest = [...spare];
  const taken = messages.map((message, m): Message => {
    if (!Array.isArray(message.content)) return message;
    const content = message.content.map((part: unknown): unknown => {
      const found = partOf(part);
      if (!found) return withoutNulls(part);
      const where = `image ${images.length} (in message ${m})`;
      images.push({ ...found, source: found.source ?? rest.shift(), where });
      return { type: "image" };
    });
    return { ...message, content };
  });
  return { messages: taken, images };
}

function partOf(part: unknown): Omit<ImagePart, "where"> | undefined {
  if (typeof part !== "object" || part === null) return undefined;
  const { type, image, image_url: url, minPixels, maxPixels } = part as Record<string, unknown>;
  const own = image ?? (typeof url === "object" && url !== null && "url" in url ? url.url : url) ?? undefined;
  if (type === undefined ? own === undefined : type !== "image" && type !== "image_url") return undefined;
  return {
    source: own as ImageSource | undefined,
    ...(typeof minPixels === "number" ? { minPixels } : {}),
    ...(typeof maxPixels === "number" ? { maxPixels } : {}),
  };
}

/** Columns give each record all fields; templates ask which are there. */
function withoutNulls(part: unknown): unknown {
  if (typeof part !== "object" || part === null) return part;
  return Object.fromEntries(Object.entries(part).filter(([, value]) => value !== null));
}

async function readImages(images: readonly ImagePart[], sight: Sight | undefined): Promise<Picture[]> {
  if (!sight)
    throw new ConfigError(
      `This model takes text alone, and ${images.length} ${images.length === 1 ? "image was" : "images were"} given. Leave them out, or load a model that sees, such as Qwen2-VL.`,
    );
  const pictures: Picture[] = [];
  for (const { source, where, ...limits } of images) {
    if (source === undefined)
      throw new DataError(`${where} has no image: give { type: "image", image: path or bytes }.`);
    pictures.push(await readPicture(source, sight.settings, where, limits));
  }
  return pictures;
}

/** Ids in which each image token stands as often as its image takes tokens. @throws DataError when there are others than the images. */
export function expandImages(ids: readonly number[], pictures: readonly Picture[], imageToken: number): number[] {
  const places = ids.filter((id) => id === imageToken).length;
  if (places !== pictures.length)
    throw new DataError(
      `The text has ${places} places for images (id ${imageToken}), and ${pictures.length} images were given. Does the chat template show images?`,
    );
  let next = 0;
  return ids.flatMap((id) => (id === imageToken ? Array<number>(pictures[next++]!.tokens).fill(id) : [id]));
}

/** An example whose messages showed these images; their tokens are never trained. */
function expandExample({ ids, labels }: Example, pictures: readonly Picture[], imageToken: number): Example {
  const expanded = Int32Array.from(expandImages([...ids], pictures, imageToken));
  const trained = new Int32Array(expanded.length).fill(IGNORED);
  let [from, next] = [0, 0];
  for (let at = 0; at < expanded.length; from++) {
    if (ids[from] === imageToken) at += pictures[next++]!.tokens;
    else trained[at++] = labels[from]!;
  }
  return { ids: expanded, labels: trained, pictures };
}

/** Whether what a format gave are messages that show images. */
export function showsImages(formatted: Formatted): formatted is readonly Message[] {
  return Array.isArray(formatted) && hasImages(formatted as readonly Message[]);
}

/**
 * The example of messages that show images.
 *
 * @param row the row that they come from: images that its messages only announce stand in its field `images` or `image`
 * @param where what it is called in errors
 */
export async function exampleWithImages(
  messages: readonly Message[],
  row: unknown,
  sight: Sight | undefined,
  where: string,
  make: (messages: readonly Message[]) => Example,
): Promise<Example> {
  const { messages: text, images } = takeImages(messages, imagesOf(row));
  try {
    const pictures = await readImages(images, sight);
    return expandExample(make(text), pictures, sight!.imageToken);
  } catch (error) {
    if (!(error instanceof DataError)) throw error;
    throw new DataError(`${where}: ${error.message}`, { cause: error });
  }
}

function imagesOf(row: unknown): ImageSource[] {
  const { images, image } = (typeof row === "object" && row !== null ? row : {}) as Record<string, unknown>;
  const own = images ?? image;
  if (own === undefined || own === null) return [];
  return (Array.isArray(own) ? own : [own]) as ImageSource[];
}

/** An example's beginning. @throws DataError when an image would be cut. */
export function beginningOf(example: Example, length: number, imageToken: number, where: string): Example {
  const { ids, labels, pictures } = example;
  const cut = { ids: ids.slice(0, length), labels: labels.slice(0, length) };
  if (!pictures) return cut;
  if (!ids.subarray(length).includes(imageToken)) return { ...cut, pictures };
  throw new DataError(
    `${where}: maxLength ${length} cuts one of its images. Raise maxLength, give overlong: "drop", or show smaller images ({ type: "image", image, maxPixels: 200_000 }).`,
  );
}
