// SPDX-License-Identifier: MIT
/**
 * Adds the stub and a program's bundles to a copy of the Deno executable: one more loadable segment, and the entry
 * point moved to it. It knows ELF and the stub's payload; it does not know how bundles are made.
 *
 * The kernel maps one segment more, ld.so relocates Deno as ever, and then jumps to the entry point: the stub's. The
 * segment takes the place of a note (build id) in the program headers, so nothing in the file has to move.
 */

/** One bundle: its name is what `ls -l /proc/PID/fd` shows. */
export interface Bundle {
  readonly name: string;
  readonly source: Uint8Array;
}

/** What the stub gives Deno. */
export interface Launch {
  /** argv[0], the subcommand and its options; the main program's path and the user's arguments follow. */
  readonly options: readonly string[];
  /** Set in the environment, replacing what the user has under the same name. */
  readonly variables: Readonly<Record<string, string>>;
  /** The first is the main program. */
  readonly bundles: readonly Bundle[];
}

/** What is needed of the ELF file; addresses and offsets in bytes. */
export interface Elf {
  readonly entryAddress: number;
  readonly headersOffset: number;
  /** Segments begin at multiples of this. */
  readonly pageBytes: number;
  readonly segments: readonly Segment[];
  /** The GOT entry that ld.so fills with the address of libc's `environ`. */
  readonly environAddress: number;
}

interface Machine {
  readonly name: string;
  /** The relocation that fills a GOT entry with a symbol's address. */
  readonly globDat: number;
  /** The largest page that its kernels have. */
  readonly pageBytes: number;
}

interface Segment {
  readonly type: number;
  readonly flags: number;
  readonly offset: number;
  readonly address: number;
  readonly fileBytes: number;
  readonly memoryBytes: number;
  readonly alignment: number;
}

/** What differs between kinds of machine, by the number that ELF gives them. */
const MACHINES: ReadonlyMap<number, Machine> = new Map([
  [62, { name: "x86_64", globDat: 6, pageBytes: 4096 }],
  [183, { name: "aarch64", globDat: 1025, pageBytes: 65536 }],
]);
const PT_LOAD = 1;
const PT_DYNAMIC = 2;
const PT_NOTE = 4;
const PF_X = 1;
const PF_R = 4;
const DT_STRTAB = 5;
const DT_SYMTAB = 6;
const DT_RELA = 7;
const DT_RELASZ = 8;

const SEGMENT_BYTES = 56;
const SYMBOL_BYTES = 24;
const RELOCATION_BYTES = 24;
const PAYLOAD_WORD_COUNT = 7;
const BUNDLE_WORD_COUNT = 3;

/**
 * Reads what {@linkcode addProgram} needs of a 64-bit ELF executable for x86_64 or aarch64.
 *
 * @param file The whole file.
 * @throws {Error} When it is not such a file, has no note to give up or does not use `environ`.
 */
export function readElf(file: Uint8Array): Elf {
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  if (file.length < 64 || view.getUint32(0) !== 0x7f454c46 || file[4] !== 2 || file[5] !== 1) {
    throw new Error("Cannot read the Deno executable: it is not a 64-bit little-endian ELF file");
  }
  const machine = MACHINES.get(view.getUint16(18, true));
  if (machine === undefined) {
    const known = [...MACHINES.values()].map(({ name }) => name).join(" or ");
    throw new Error(`Cannot read the Deno executable: machine ${view.getUint16(18, true)} is not ${known}`);
  }
  const { globDat, pageBytes } = machine;
  const word = (offset: number): number => Number(view.getBigUint64(offset, true));
  const headersOffset = word(32);
  const segments = Array.from({ length: view.getUint16(56, true) }, (_, index): Segment => {
    const at = headersOffset + index * SEGMENT_BYTES;
    return {
      type: view.getUint32(at, true),
      flags: view.getUint32(at + 4, true),
      offset: word(at + 8),
      address: word(at + 16),
      fileBytes: word(at + 32),
      memoryBytes: word(at + 40),
      alignment: word(at + 48),
    };
  });
  if (!segments.some((segment) => segment.type === PT_NOTE)) {
    throw new Error("Cannot change the Deno executable: no note among its program headers to replace");
  }
  const environAddress = findEnviron(view, segments, globDat);
  return { entryAddress: word(24), headersOffset, pageBytes, segments, environAddress };
}

function findEnviron(view: DataView, segments: readonly Segment[], globDat: number): number {
  const word = (offset: number): number => Number(view.getBigUint64(offset, true));
  const offsetOf = (address: number): number => {
    const segment = segments.find((s) =>
      s.type === PT_LOAD && address >= s.address && address < s.address + s.fileBytes
    );
    if (segment === undefined) throw new Error(`Cannot read the Deno executable: address ${address} is in no segment`);
    return address - segment.address + segment.offset;
  };
  const dynamic = segments.find((segment) => segment.type === PT_DYNAMIC);
  if (dynamic === undefined) throw new Error("Cannot change the Deno executable: it is not dynamically linked");
  const tags = new Map<number, number>();
  for (let at = dynamic.offset; at < dynamic.offset + dynamic.fileBytes; at += 16) tags.set(word(at), word(at + 8));
  const tag = (number: number): number => {
    const value = tags.get(number);
    if (value === undefined) throw new Error(`Cannot read the Deno executable: no dynamic tag ${number}`);
    return value;
  };
  const symbols = offsetOf(tag(DT_SYMTAB));
  const names = offsetOf(tag(DT_STRTAB));
  const relocations = offsetOf(tag(DT_RELA));
  for (let at = relocations; at < relocations + tag(DT_RELASZ); at += RELOCATION_BYTES) {
    if (view.getUint32(at + 8, true) !== globDat) continue;
    const symbol = symbols + view.getUint32(at + 12, true) * SYMBOL_BYTES;
    const name = stringAt(view, names + view.getUint32(symbol, true));
    if (name === "environ" || name === "__environ") return word(at);
  }
  throw new Error("Cannot change the Deno executable: it does not refer to environ through its GOT");
}

function stringAt(view: DataView, offset: number): string {
  let text = "";
  for (let at = offset; view.getUint8(at) !== 0; at++) text += String.fromCharCode(view.getUint8(at));
  return text;
}

/**
 * Lays out the payload that follows the stub: `struct payload` of stub.c, the table of bundles, strings, sources.
 *
 * @param elf The executable it is for.
 * @param stubAddress Where the stub will be, in the file's own addresses.
 * @param launch What the stub shall do.
 */
export function payloadOf(elf: Elf, stubAddress: number, launch: Launch): Uint8Array {
  const encoder = new TextEncoder();
  const cString = (text: string): Uint8Array => {
    if (text.includes("\0")) throw new Error("Cannot put a string with a NUL into the executable");
    return encoder.encode(text + "\0");
  };
  const variables = Object.entries(launch.variables).map(([name, value]) => `${name}=${value}`);
  const strings = [...launch.options, ...variables].map(cString);
  const names = launch.bundles.map((bundle) => cString(bundle.name));
  const table = launch.bundles.length;
  const stringsOffset = 8 * (PAYLOAD_WORD_COUNT + BUNDLE_WORD_COUNT * table);
  const pieces = [...strings, ...names, ...launch.bundles.map((bundle) => bundle.source)];
  const payload = new Uint8Array(stringsOffset + pieces.reduce((sum, piece) => sum + piece.length, 0));
  const offsets: number[] = [];
  let end = stringsOffset;
  for (const piece of pieces) {
    payload.set(piece, end);
    offsets.push(end);
    end += piece.length;
  }
  const words = [
    stubAddress,
    elf.entryAddress,
    elf.environAddress,
    launch.options.length,
    variables.length,
    table,
    stringsOffset,
  ];
  for (const [index, bundle] of launch.bundles.entries()) {
    const name = offsets[strings.length + index];
    const source = offsets[strings.length + table + index];
    if (name === undefined || source === undefined) throw new Error("unreachable: a piece without an offset");
    words.push(name, source, bundle.source.length);
  }
  const view = new DataView(payload.buffer);
  for (const [index, value] of words.entries()) view.setBigUint64(index * 8, BigInt(value), true);
  return payload;
}

/**
 * Turns a copy of the Deno executable into the program.
 *
 * @param path The copy; it is changed in place.
 * @param stub The flat code of stub.c.
 * @param launch What the stub shall do.
 */
export function addProgram(path: string, stub: Uint8Array, launch: Launch): void {
  const file = Deno.readFileSync(path);
  const elf = readElf(file);
  const roundUp = (bytes: number): number => Math.ceil(bytes / elf.pageBytes) * elf.pageBytes;
  const loaded = elf.segments.filter((segment) => segment.type === PT_LOAD);
  const address = roundUp(Math.max(...loaded.map((segment) => segment.address + segment.memoryBytes)));
  const offset = roundUp(file.length);
  const payload = payloadOf(elf, address, launch);
  const bytes = stub.length + payload.length;

  // The kernel wants loadable segments in ascending order, so the new one goes last and the note's place closes up.
  const note = elf.segments.findIndex((segment) => segment.type === PT_NOTE);
  const segments = elf.segments.filter((_, index) => index !== note);
  segments.push({
    type: PT_LOAD,
    flags: PF_R | PF_X,
    offset,
    address,
    fileBytes: bytes,
    memoryBytes: bytes,
    alignment: elf.pageBytes,
  });
  using out = Deno.openSync(path, { write: true });
  const writeAt = (at: number, data: Uint8Array): void => {
    out.seekSync(at, Deno.SeekMode.Start);
    for (let done = 0; done < data.length;) done += out.writeSync(data.subarray(done));
  };
  writeAt(24, words([address]));
  writeAt(elf.headersOffset, encodeSegments(segments));
  writeAt(offset, stub);
  writeAt(offset + stub.length, payload);
}

function words(values: readonly number[]): Uint8Array {
  return new Uint8Array(new BigUint64Array(values.map((value) => BigInt(value))).buffer);
}

function encodeSegments(segments: readonly Segment[]): Uint8Array {
  const bytes = new Uint8Array(segments.length * SEGMENT_BYTES);
  const view = new DataView(bytes.buffer);
  for (const [index, s] of segments.entries()) {
    const at = index * SEGMENT_BYTES;
    view.setUint32(at, s.type, true);
    view.setUint32(at + 4, s.flags, true);
    bytes.set(words([s.offset, s.address, s.address, s.fileBytes, s.memoryBytes, s.alignment]), at + 8);
  }
  return bytes;
}
