// SPDX-License-Identifier: MIT
/** What a SPEC can be: a table of schemes, one row each, with what opens the disk. `--help` is printed from it. */
import { FileBackend } from "../backends/file.ts";
import { MemoryBackend } from "../backends/memory.ts";
import { NbdBackend } from "../backends/nbd.ts";
import { NullBackend } from "../backends/null.ts";
import { PatternBackend } from "../backends/pattern.ts";
import { RawBackend } from "../backends/raw.ts";
import { RbdBackend } from "../backends/rbd.ts";
import { DblockError, ERRNO, withHint } from "../disk/errors.ts";
import { parseNbdUri } from "../nbd/address.ts";
import { PAGE_BYTES } from "../system/pages.ts";
import { UsageError } from "./cli.ts";
import { type DiskSource, type Scheme, SIZE, type Source } from "./disk_source.ts";
import { LiveModule } from "./live_module.ts";
import { moduleParameters, openModule } from "./module_disk.ts";
import { diskSize, Parameters } from "./parameters.ts";
import { SET_SCHEMES } from "./set_schemes.ts";
import { parseSpec, type Spec } from "./spec.ts";
import { didYouMean } from "./words.ts";

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
    text: "a disk that you have written; it is given the parameters (an example is below)",
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
      return {
        survives: true,
        open: ({ readOnly, log }) => NbdBackend.open(uri, { readOnly, ...(log === undefined ? {} : { log }) }),
      };
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
  ...SET_SCHEMES,
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
  const source = scheme.read(spec, parameters, readParsed);
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

/** Why a file that is there cannot be opened to be written. */
const UNWRITABLE: readonly number[] = [ERRNO.EACCES, ERRNO.EPERM, ERRNO.EROFS];

function readFile(spec: Spec, parameters: Parameters): Source {
  const path = placeOf(spec, "./disk.img");
  const direct = parameters.has("direct");
  const size = parameters.size("size");
  return {
    survives: true,
    files: [path],
    open: async ({ readOnly, shared, growToBytes }) => {
      const found = await statOf(path);
      const sizeBytes = growToBytes ?? size;
      if (found === undefined && path.startsWith("/dev/") && !path.startsWith("/dev/shm/")) {
        // A file there would take the memory, and the place of the device when that comes.
        throw new DblockError("ENOENT", `Cannot open ${path}`, "there is no such device");
      }
      if (found === undefined && (sizeBytes === undefined || readOnly)) {
        const hint = readOnly ? "a disk that is read-only is not made" : `to make it: ${withSize(spec)}`;
        throw new DblockError("ENOENT", `Cannot open ${path}`, "there is no such file", { hint });
      }
      if (found?.isFile && found.size === 0 && sizeBytes === undefined) {
        const hint = `to make it larger: ${withSize(spec)}`;
        throw new DblockError("EINVAL", `Cannot open ${path}`, "the file is empty", { hint });
      }
      if (found?.isFile && found.size > 0 && growToBytes === undefined && size !== undefined && size !== found.size) {
        const wrong = `it has ${found.size} bytes, not ${size}`;
        throw new DblockError("EINVAL", `Cannot open ${path}`, wrong, { hint: sizeHint(spec, size > found.size) });
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
      try {
        return isRaw ? await RawBackend.open({ ...options, direct }) : await FileBackend.open(options);
      } catch (error) {
        const isRefused = error instanceof DblockError && UNWRITABLE.includes(error.errno) && found !== undefined;
        throw isRefused && !readOnly ? withHint(error, "to serve it as it is: --read-only") : error;
      }
    },
  };
}

function readModule(spec: Spec): Source {
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

function sizeHint({ text }: Spec, isLarger: boolean): string {
  const without = text.replace(/([?&])size=[^&]*(&|$)/, (_, before, after) => after === "" ? "" : before);
  const more = isLarger ? "; to make it larger once it is served: dblock resize NAME SIZE" : "";
  return `give no size: ${without}${more}`;
}

async function statOf(path: string): Promise<Deno.FileInfo | undefined> {
  try {
    return await Deno.stat(path);
  } catch {
    return undefined; // who opens it says why
  }
}

function readRbd(spec: Spec, parameters: Parameters): Source {
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
