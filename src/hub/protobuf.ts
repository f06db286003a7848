/** The wire format of protocol buffers, as far as a model of sentencepiece needs it. */

/** What is wrong with the bytes. Callers wrap it in their own error class. */
export class ProtobufError extends Error {
  constructor(message: string, position: number) {
    super(`${message} at byte ${position}`);
    this.name = "ProtobufError";
  }
}

/** One field as it stands in the bytes. */
export interface Field {
  readonly number: number;
  /** A varint (int32, bool, enum) as a signed number, or undefined for other kinds. */
  readonly integer?: number;
  /** A 32-bit field as float. */
  readonly float?: number;
  /** A length-delimited field: string, bytes or message. */
  readonly bytes?: Uint8Array;
}

/**
 * The fields of a message in order. Views into `message` are given, nothing is copied.
 *
 * @throws ProtobufError when a field has no end, or a kind that no message has today (groups).
 */
export function* fields(message: Uint8Array): Generator<Field, void> {
  const view = new DataView(message.buffer, message.byteOffset, message.byteLength);
  let at = 0;

  // Low 32 bits as a signed number, which is what int32, bool and enum need; the rest is only skipped.
  const varint = (): number => {
    const begin = at;
    let value = 0;
    for (let shift = 0; shift < 70; shift += 7) {
      const byte = message[at++];
      if (byte === undefined) throw new ProtobufError("a number has no end", begin);
      if (shift < 32) value |= (byte & 0x7f) << shift;
      if (byte < 0x80) return value;
    }
    throw new ProtobufError("a number has more than ten bytes", begin);
  };
  const take = (bytes: number, what: string): number => {
    const begin = at;
    if (bytes < 0 || bytes > message.length - at)
      throw new ProtobufError(`${what} of ${bytes} bytes does not fit in the ${message.length - at} that are left`, at);
    at += bytes;
    return begin;
  };

  while (at < message.length) {
    const begin = at;
    const key = varint() >>> 0;
    const number = key >>> 3;
    if (number === 0) throw new ProtobufError("a field has the number 0", begin);
    switch (key & 7) {
      case 0:
        yield { number, integer: varint() };
        break;
      case 1:
        take(8, "a 64-bit field");
        yield { number };
        break;
      case 2: {
        const length = varint();
        const from = take(length, `field ${number}`);
        yield { number, bytes: message.subarray(from, from + length) };
        break;
      }
      case 5:
        yield { number, float: view.getFloat32(take(4, "a 32-bit field"), true) };
        break;
      default:
        throw new ProtobufError(`field ${number} has the wire type ${key & 7}`, begin);
    }
  }
}
