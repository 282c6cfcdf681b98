// SPDX-License-Identifier: MIT
/**
 * C structures as byte arrays: a layout says where each field is, `encode` and
 * `decode` turn plain objects into bytes and back. It knows nothing of dblock;
 * the layouts themselves are in abi.ts.
 *
 * Everything is little-endian: library.ts refuses other machines.
 */

/** How a field is stored. `text` is a char array with a closing NUL. */
export type FieldKind = "u8" | "u16" | "u32" | "u64" | "text";

/** One field: where it is (bytes from the start) and how many elements it has. */
export interface Field {
  readonly kind: FieldKind;
  readonly offset: number;
  readonly count: number;
  /** True for arrays, even those of one element; false for scalars and text. */
  readonly many: boolean;
}

interface Scalar extends Field {
  readonly many: false;
  readonly kind: Exclude<FieldKind, "text">;
}
interface Many extends Field {
  readonly many: true;
  readonly kind: Exclude<FieldKind, "text">;
}
interface Text extends Field {
  readonly many: false;
  readonly kind: "text";
}

type Fields = Readonly<Record<string, Field>>;

/** A structure: its C name, its size in bytes, its fields in order. */
export interface Struct<F extends Fields = Fields> {
  readonly name: string;
  readonly size: number;
  readonly fields: F;
}

type Value<F extends Field> = F extends Text ? string
  : F extends Many ? readonly number[]
  : number;

/** What `decode` gives for a structure: one property per field. */
export type Decoded<S extends Struct> = {
  -readonly [K in keyof S["fields"]]: Value<S["fields"][K]>;
};

const scalar = (kind: Scalar["kind"]) => (offset: number): Scalar => ({
  kind,
  offset,
  count: 1,
  many: false,
});
const many = (kind: Many["kind"]) => (offset: number, count: number): Many => ({
  kind,
  offset,
  count,
  many: true,
});

/** Field constructors; the argument is the offset in bytes. */
export const u8 = scalar("u8");
export const u16 = scalar("u16");
export const u32 = scalar("u32");
export const u64 = scalar("u64");
export const u32s = many("u32");
export const u64s = many("u64");

/** A char array of `bytes` bytes, the closing NUL included. */
export function text(offset: number, bytes: number): Text {
  return { kind: "text", offset, count: bytes, many: false };
}

/** Declares a structure. The ABI test compares it with the C compiler's view. */
export function struct<F extends Fields>(
  name: string,
  size: number,
  fields: F,
): Struct<F> {
  return { name, size, fields };
}

/** Bytes of one element of a field. */
export function elementBytes(kind: FieldKind): number {
  return { text: 1, u8: 1, u16: 2, u32: 4, u64: 8 }[kind];
}

/**
 * The bytes of a structure; fields that are not given are zero.
 *
 * The array is never on V8's heap, so its address is stable for as long as it is
 * referenced: it can be given to the kernel.
 *
 * @throws {RangeError} if a value does not fit its field.
 */
export function encode<S extends Struct>(
  layout: S,
  values: Partial<Decoded<S>> = {},
): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(new ArrayBuffer(layout.size));
  const view = new DataView(bytes.buffer);
  for (const [name, field] of Object.entries(layout.fields)) {
    const value: unknown = values[name as keyof typeof values];
    if (value === undefined) continue;
    const where = `${layout.name}.${name}`;
    if (typeof value === "string") {
      setText(bytes, field, value, where);
    } else if (Array.isArray(value)) {
      if (value.length !== field.count) {
        throw new RangeError(`${where} takes ${field.count} elements`);
      }
      value.forEach((one, i) => set(view, field, i, Number(one), where));
    } else {
      set(view, field, 0, Number(value), where);
    }
  }
  return bytes;
}

/**
 * The values in the bytes of a structure.
 *
 * @throws {RangeError} if there are too few bytes. A u64 beyond 2^53 is rounded.
 */
export function decode<S extends Struct>(
  layout: S,
  bytes: Uint8Array,
): Decoded<S> {
  if (bytes.byteLength < layout.size) {
    throw new RangeError(`struct ${layout.name} needs ${layout.size} bytes`);
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, layout.size);
  const values: Record<string, unknown> = {};
  for (const [name, field] of Object.entries(layout.fields)) {
    if (field.kind === "text") {
      values[name] = getText(bytes, field);
    } else if (field.many) {
      values[name] = Array.from(
        { length: field.count },
        (_, i) => get(view, field, i),
      );
    } else {
      values[name] = get(view, field, 0);
    }
  }
  return values as Decoded<S>;
}

function setText(
  bytes: Uint8Array,
  field: Field,
  value: string,
  where: string,
): void {
  const encoded = new TextEncoder().encode(value);
  if (encoded.byteLength >= field.count) {
    throw new RangeError(
      `${where} takes at most ${field.count - 1} bytes, not ${encoded.length}`,
    );
  }
  bytes.set(encoded, field.offset);
}

function getText(bytes: Uint8Array, field: Field): string {
  const chars = bytes.subarray(field.offset, field.offset + field.count);
  const end = chars.indexOf(0);
  return new TextDecoder().decode(end < 0 ? chars : chars.subarray(0, end));
}

function set(
  view: DataView,
  field: Field,
  index: number,
  value: number,
  where: string,
): void {
  const width = elementBytes(field.kind);
  const limit = width === 8 ? Number.MAX_SAFE_INTEGER : 2 ** (8 * width) - 1;
  if (!Number.isSafeInteger(value) || value < 0 || value > limit) {
    throw new RangeError(`${where} takes 0 to ${limit}, not ${value}`);
  }
  const offset = field.offset + index * width;
  if (width === 8) view.setBigUint64(offset, BigInt(value), true);
  else if (width === 4) view.setUint32(offset, value, true);
  else if (width === 2) view.setUint16(offset, value, true);
  else view.setUint8(offset, value);
}

function get(view: DataView, field: Field, index: number): number {
  const offset = field.offset + index * elementBytes(field.kind);
  switch (field.kind) {
    case "u64":
      // Rounded beyond 2^53: a total of bytes that has come so far is no reason to refuse all else that is told with it.
      return Number(view.getBigUint64(offset, true));
    case "u32":
      return view.getUint32(offset, true);
    case "u16":
      return view.getUint16(offset, true);
    default:
      return view.getUint8(offset);
  }
}
