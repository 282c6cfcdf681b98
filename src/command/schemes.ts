// SPDX-License-Identifier: MIT
/** What a SPEC can be: a table of schemes, one row each, with what opens the disk. `--help` is printed from it. */
import { concat } from "../backends/concat.ts";
import { FileBackend } from "../backends/file.ts";
import { MemoryBackend } from "../backends/memory.ts";
import { MirrorBackend } from "../backends/mirror.ts";
import type { MirrorStatus } from "../backends/mirror_status.ts";
import { NbdBackend } from "../backends/nbd.ts";
import { NullBackend } from "../backends/null.ts";
import { PatternBackend } from "../backends/pattern.ts";
import { RawBackend } from "../backends/raw.ts";
import { RbdBackend } from "../backends/rbd.ts";
import { slice } from "../backends/slice.ts";
import { stripe } from "../backends/stripe.ts";
import type { Backend } from "../disk/backend.ts";
import { DblockError } from "../disk/errors.ts";
import { parseNbdUri } from "../nbd/address.ts";
import { PAGE_BYTES } from "../system/libc.ts";
import { formatSize, UsageError } from "./cli.ts";
import { LiveModule, type LiveOptions } from "./live_module.ts";
import { moduleParameters, openModule } from "./module_disk.ts";
import { diskSize, type Parameter, Parameters } from "./parameters.ts";
import { membersOf, parseSpec, type Spec } from "./spec.ts";
import { didYouMean } from "./words.ts";

/** How a disk is to be opened. */
export interface OpenOptions {
  /** Nothing of it may be written. */
  readonly readOnly: boolean;
  /** Another server has it now, and this one is about to take it over. */
  readonly shared: boolean;
  /** Replace the code of modules when their files change. */
  readonly live?: LiveOptions | undefined;
  /** Make it as large, instead of what the SPEC says; what is smaller grows. */
  readonly growToBytes?: number | undefined;
}

/** A SPEC that was understood: nothing is opened yet. */
export interface DiskSource {
  /** As it was typed. */
  readonly text: string;
  /** What was written is there for the next server, when this process dies. */
  readonly survives: boolean;
  /** There is a module in it, whose code can be replaced. @default false */
  readonly hasModule?: boolean;
  /** The disk begins without content each time that it is opened. @default false */
  readonly isEmpty?: boolean;
  /** Files that opening it may make. @default none */
  readonly files?: readonly string[];
  /** What there is to say of the disk since it was opened, a line each. */
  describe?(): readonly string[];
  /**
   * Opens the disk.
   *
   * @throws {DblockError} with what to type.
   */
  open(options: OpenOptions): Promise<Backend>;
}

/** A scheme: a row of the table. */
export interface Scheme {
  /** "memory"; the first is the one that is shown. */
  readonly names: readonly string[];
  /** How it is typed. */
  readonly form: string;
  /** What it is. */
  readonly text: string;
  readonly parameters: readonly Parameter[];
  /** Reads what is behind the scheme. */
  read(spec: Spec, parameters: Parameters): Omit<DiskSource, "text">;
}

const SIZE: Parameter = { name: "size", value: "SIZE", text: "how large it is" };

/**
 * A half of a mirror that is so much later has failed: long before the disk's own timeout of 30 s, at which those who use the
 * mirror would see an error although the other half has their data. A guess.
 */
const LATE_MS = 10_000;

/** Every scheme. */
export const SCHEMES: readonly Scheme[] = [
  {
    names: ["memory"],
    form: "memory:SIZE",
    text: "memory of this program; taken as it is written",
    parameters: [{ name: "hugepages", text: "in huge pages" }],
    read: (spec, parameters) => {
      const sizeBytes = sizeOfPlace(spec, PAGE_BYTES);
      const hugePages = parameters.has("hugepages");
      return {
        survives: false,
        isEmpty: true,
        open: ({ growToBytes }) =>
          Promise.resolve(new MemoryBackend({ sizeBytes: growToBytes ?? sizeBytes, hugePages })),
      };
    },
  },
  {
    names: ["file"],
    form: "[file:]PATH",
    text: "a file, which is made if a size is given, or a block device",
    parameters: [
      SIZE,
      { name: "direct", text: "go around the page cache (O_DIRECT)" },
      { name: "raw", text: "read and write the file instead of mapping it" },
    ],
    read: readFile,
  },
  {
    names: ["module"],
    form: "[module:]PATH.ts",
    text: "a TypeScript module that exports a disk; it is given the parameters",
    parameters: [],
    read: readModule,
  },
  {
    names: ["nbd", "nbds", "nbd+unix", "nbds+unix"],
    form: "nbd://HOST[:PORT]/EXPORT",
    text: "the export of an NBD server; nbd+unix:///EXPORT?socket=PATH for a socket, nbds for TLS",
    parameters: [],
    read: ({ text }) => {
      const uri = usage(() => parseNbdUri(text));
      return { survives: true, open: ({ readOnly }) => NbdBackend.open(uri, { readOnly }) };
    },
  },
  {
    names: ["rbd"],
    form: "rbd:POOL/[NAMESPACE/]IMAGE[@SNAPSHOT]",
    text: "an image of a Ceph cluster",
    parameters: [
      { name: "id", value: "NAME", text: "who asks [admin]" },
      { name: "conf", value: "PATH", text: "Ceph's configuration" },
      { name: "keyring", value: "PATH", text: "the file with the key" },
      { name: "cache", text: "answer writes before the cluster has them" },
      { name: "fence", text: "take the image from whoever has its lock" },
    ],
    read: readRbd,
  },
  {
    names: ["null"],
    form: "null:SIZE",
    text: "reads zeroes and forgets what is written",
    parameters: [],
    read: (spec) => {
      const sizeBytes = sizeOfPlace(spec);
      return { survives: true, isEmpty: true, open: () => Promise.resolve(new NullBackend({ sizeBytes })) };
    },
  },
  {
    names: ["pattern"],
    form: "pattern:SIZE",
    text: "content that is computed; writes are compared with it",
    parameters: [{ name: "seed", value: "N", text: "another content" }],
    read: (spec, parameters) => {
      const sizeBytes = sizeOfPlace(spec);
      const seed = parameters.count("seed", 0, 2 ** 32 - 1) ?? 0;
      return { survives: true, open: () => Promise.resolve(new PatternBackend({ sizeBytes, seed })) };
    },
  },
  {
    names: ["concat"],
    form: "concat:SPEC,SPEC…",
    text: "disks one behind the other",
    parameters: [],
    read: (spec) => readSet(spec, concat),
  },
  {
    names: ["stripe"],
    form: "stripe:SPEC,SPEC…",
    text: "disks side by side",
    parameters: [{ name: "chunk", value: "SIZE", text: "so much on one before the next one [64KiB]" }],
    read: (spec, parameters) => {
      const chunkBytes = parameters.size("chunk");
      return readSet(spec, (disks) => stripe(disks, chunkBytes === undefined ? {} : { chunkBytes }));
    },
  },
  {
    names: ["mirror"],
    form: "mirror:SPEC,SPEC…",
    text: "the same content on each; one that fails is left, and copied to when it is back",
    parameters: [
      { name: "bitmap", value: "PATH", text: "a file of marks, so that only what differs is copied" },
      {
        name: "late",
        value: "MS",
        text: `a disk that is so much later than another one has failed; 0: never [${LATE_MS}]`,
      },
    ],
    read: readMirror,
  },
  {
    names: ["slice"],
    form: "slice:SPEC",
    text: "a part of a disk",
    parameters: [
      { name: "offset", value: "SIZE", text: "where it begins [0]" },
      SIZE,
      { name: "partition", value: "N", text: "a partition instead, by its number" },
    ],
    read: readSlice,
  },
];

/** What a path is, if its name ends so. */
const MODULE_NAME = /\.[cm]?[jt]s$/;

/**
 * Reads a SPEC; opens nothing.
 *
 * @throws {UsageError} with what to type instead.
 */
export function readSpec(text: string): DiskSource {
  return readParsed(parseSpec(text));
}

function readParsed(spec: Spec): DiskSource {
  const scheme = schemeOf(spec);
  // A module has parameters of its own, and so has the URI of an NBD export.
  const isOpen = scheme.names[0] === "module" || scheme.names[0] === "nbd";
  const parameters = new Parameters(spec.text, isOpen ? new Map() : spec.parameters, scheme.parameters);
  const source = scheme.read(spec, parameters);
  return {
    ...source,
    text: spec.text,
    async open(options) {
      try {
        return await source.open(options);
      } catch (error) {
        // What a disk cannot be made of was typed.
        throw error instanceof RangeError ? new UsageError(`${spec.text}: ${error.message}`) : error;
      }
    },
  };
}

function schemeOf(spec: Spec): Scheme {
  const { scheme: name, place, text } = spec;
  if (name === undefined) {
    const [first, bare] = /^([a-z]+)$/.exec(place) ?? [];
    // "memory" alone is a scheme without its place rather than a file of that name.
    const forgotten = first !== undefined && SCHEMES.find(({ names }) => names.includes(bare!));
    if (forgotten) throw new UsageError(`${text}: it is typed ${forgotten.form} (a file of that name: ./${text})`);
    return SCHEMES.find(({ names }) => names.includes(MODULE_NAME.test(place) ? "module" : "file"))!;
  }
  const found = SCHEMES.find(({ names }) => names.includes(name));
  if (found !== undefined) return found;
  if (/^https?$/.test(name)) throw new UsageError(`${text}: a disk cannot be at a web address yet; download it first`);
  const rest = didYouMean(name, SCHEMES.flatMap(({ names }) => names));
  throw new UsageError(`${text}: there is no scheme ${name}${rest} (a file of that name: ./${text})`);
}

function placeOf({ text, place }: Spec, example: string): string {
  if (place === "") throw new UsageError(`${text}: the path is missing (write it like ${example})`);
  return place;
}

function sizeOfPlace({ text, place }: Spec, multipleOf?: number): number {
  const [name] = text.split(":");
  if (place === "") throw new UsageError(`${text}: the size is missing (write it like ${name}:4GiB)`);
  try {
    return diskSize(place, multipleOf);
  } catch (error) {
    throw error instanceof UsageError ? new UsageError(`${text}: ${error.message}`) : error;
  }
}

/** What is wrong with words is a usage error, also where a library says it. */
function usage<T>(read: () => T): T {
  try {
    return read();
  } catch (error) {
    throw error instanceof DblockError ? new UsageError(error.message) : error;
  }
}

function readFile(spec: Spec, parameters: Parameters): Omit<DiskSource, "text"> {
  const path = placeOf(spec, "./disk.img");
  const direct = parameters.has("direct");
  const size = parameters.size("size");
  return {
    survives: true,
    files: [path],
    open: async ({ readOnly, shared, growToBytes }) => {
      const found = await statOf(path);
      const sizeBytes = growToBytes ?? size;
      if (found === undefined && (sizeBytes === undefined || readOnly)) {
        const hint = readOnly ? "a disk that is read-only is not made" : `to make it: ${withSize(spec)}`;
        throw new DblockError("ENOENT", `Cannot open ${path}`, "there is no such file", { hint });
      }
      if (found?.isFile && found.size === 0 && sizeBytes === undefined) {
        const hint = `to make it larger: ${withSize(spec)}`;
        throw new DblockError("EINVAL", `Cannot open ${path}`, "the file is empty", { hint });
      }
      const isRaw = direct || parameters.has("raw") || found !== undefined && !found.isFile ||
        (sizeBytes ?? found?.size ?? 0) % PAGE_BYTES !== 0;
      const options = {
        path,
        readOnly,
        shared,
        ...(sizeBytes === undefined ? {} : { sizeBytes }),
        grow: growToBytes !== undefined,
      };
      return isRaw ? await RawBackend.open({ ...options, direct }) : await FileBackend.open(options);
    },
  };
}

function readModule(spec: Spec): Omit<DiskSource, "text"> {
  const path = placeOf(spec, "./disk.ts");
  let disk: LiveModule | undefined;
  return {
    survives: false,
    hasModule: true,
    describe: () => disk === undefined ? [] : [`version ${disk.version} of ${path}`],
    open: async ({ live }) => {
      if (live === undefined) return await openModule(path, spec.parameters);
      return disk = await LiveModule.open(path, moduleParameters(path, spec.parameters), live);
    },
  };
}

function withSize({ text }: Spec): string {
  return `${text}${text.includes("?") ? "&" : "?"}size=4GiB`;
}

async function statOf(path: string): Promise<Deno.FileInfo | undefined> {
  try {
    return await Deno.stat(path);
  } catch {
    return undefined; // who opens it says why
  }
}

function readRbd(spec: Spec, parameters: Parameters): Omit<DiskSource, "text"> {
  const match = /^([^/@]+)\/(?:([^/@]+)\/)?([^/@]+)(?:@([^/@]+))?$/.exec(spec.place);
  if (match === null) throw new UsageError(`${spec.text}: it is typed rbd:POOL/[NAMESPACE/]IMAGE[@SNAPSHOT]`);
  const [, pool = "", namespace, image = "", snapshot] = match;
  const address = {
    pool,
    namespace,
    image,
    snapshot,
    id: parameters.text("id"),
    conf: parameters.text("conf"),
    keyring: parameters.text("keyring"),
  };
  const [cache, fence] = [parameters.has("cache"), parameters.has("fence")];
  return {
    survives: true,
    open: ({ readOnly, shared }) =>
      RbdBackend.open({ ...address, cache, fence, readOnly, lock: shared ? "first-request" : "now" }),
  };
}

function readSlice(spec: Spec, parameters: Parameters): Omit<DiskSource, "text"> {
  // One SPEC, with all commas that are in it.
  const source = readParsed(parseSpec(/^\[.*\]$/s.test(spec.place) ? spec.place.slice(1, -1) : spec.place));
  const partition = parameters.count("partition", 1, 128);
  const offsetBytes = parameters.text("offset") === "0" ? 0 : parameters.size("offset");
  const sizeBytes = parameters.size("size");
  if (partition !== undefined && (offsetBytes ?? sizeBytes) !== undefined) {
    throw new UsageError(`${spec.text}: a slice is a partition, or an offset and a size, not both`);
  }
  return {
    ...together([source]),
    open: (options) =>
      joined([source], options, ([disk]) =>
        slice(disk!, {
          ...(partition === undefined ? {} : { partition }),
          ...(offsetBytes === undefined ? {} : { offsetBytes }),
          ...(sizeBytes === undefined ? {} : { sizeBytes }),
        })),
  };
}

function readMirror(spec: Spec, parameters: Parameters): Omit<DiskSource, "text"> {
  const sources = membersOf(spec).map(readParsed);
  const bitmapPath = parameters.text("bitmap");
  const lateMs = parameters.count("late", 0, 1_200_000) ?? LATE_MS;
  let mirror: MirrorBackend | undefined;
  const of = together(sources);
  return {
    ...of,
    files: [...of.files, ...(bitmapPath === undefined ? [] : [bitmapPath])],
    describe: () => mirror === undefined ? [] : describeMirror(mirror.status),
    open: async (options) => {
      requireNoGrowth(options);
      const halves = sources.map((source) => ({ name: source.text, open: () => source.open(options) }));
      return mirror = await MirrorBackend.open(halves, {
        ...(bitmapPath === undefined ? {} : { bitmapPath }),
        lateMs,
      });
    },
  };
}

function describeMirror({ state, halves, writtenBytes, resyncedBytes, repairedBytes }: MirrorStatus): string[] {
  return [
    `mirror: ${state}; ${formatSize(writtenBytes)} written, ${formatSize(resyncedBytes)} copied again, ` +
    `${formatSize(repairedBytes)} repaired`,
    ...halves.map(({ name, state, error, syncLeftBytes }) =>
      `  ${name}: ${state}${syncLeftBytes === 0 ? "" : `, ${formatSize(syncLeftBytes)} to copy`}` +
      `${error === undefined ? "" : `, because: ${error}`}`
    ),
  ];
}

function readSet(spec: Spec, join: (disks: readonly Backend[]) => Backend): Omit<DiskSource, "text"> {
  const sources = membersOf(spec).map(readParsed);
  return {
    ...together(sources),
    open: (options) => joined(sources, options, join),
  };
}

/** What holds of a disk that is made of others. */
function together(
  sources: readonly DiskSource[],
): Required<Pick<DiskSource, "survives" | "hasModule" | "isEmpty" | "files">> {
  return {
    survives: sources.every(({ survives }) => survives),
    hasModule: sources.some(({ hasModule }) => hasModule === true),
    isEmpty: sources.every(({ isEmpty }) => isEmpty === true),
    files: sources.flatMap(({ files = [] }) => files),
  };
}

function requireNoGrowth({ growToBytes }: OpenOptions): void {
  if (growToBytes === undefined) return;
  throw new DblockError("EOPNOTSUPP", "Cannot grow the disk", "it is made of others, whose sizes stay");
}

/** Opens all, or none. */
async function joined(
  sources: readonly DiskSource[],
  options: OpenOptions,
  join: (disks: readonly Backend[]) => Backend | Promise<Backend>,
): Promise<Backend> {
  requireNoGrowth(options);
  await using undo = new AsyncDisposableStack();
  const disks: Backend[] = [];
  for (const source of sources) {
    const disk = await source.open(options);
    undo.defer(() => disk.close?.("unused"));
    disks.push(disk);
  }
  const whole = await join(disks);
  undo.move();
  return whole;
}
