// SPDX-License-Identifier: MIT
/**
 * What is to be served and where to, as words say it: a SPEC, and the options that follow it. The same words are on a
 * command line, in a file of /etc/dblock/, and in what a server leaves in /run/dblock/ for `dblock recover`.
 */
import { DBLOCK_QUEUE_COUNT_MAX, DBLOCK_QUEUE_DEPTH_MAX } from "../module/abi.ts";
import { DblockError } from "../disk/errors.ts";
import { ON_DEATH, type OnDeath } from "../module/words.ts";
import { formatNbdAddress, type NbdAddress, parseNbdAddress, parseNbdUri } from "../nbd/address.ts";
import { parseCount, parseTimeout, UsageError } from "./cli.ts";
import type { Item, Option } from "./command.ts";
import { type ParsedFilter, parseFilter } from "../filters/table.ts";
import type { DiskSource } from "./disk_source.ts";
import { readSpec } from "./schemes.ts";
import { checkName, didYouMean } from "./words.ts";

/** Where a disk is to be had: in /dev, by this module or by the kernel's NBD client, or from an NBD server. */
export type Exit =
  | { readonly kind: "device"; /** Undefined: the first dblockN that is free. */ readonly name: string | undefined }
  | { readonly kind: "kernel-nbd"; /** What the commands call it; the kernel calls it nbdN. */ readonly name: string }
  | {
    readonly kind: "nbd";
    readonly address: NbdAddress; /** Undefined: the disk's name. */
    readonly exportName?: string;
  };

/** A way out to NBD clients. */
export type NbdExit = Exit & { readonly kind: "nbd" };

/** A disk that is to be served. */
export interface DiskPlan {
  /** All of it, as it was typed, and the policy if where it was typed has decided that. */
  readonly words: readonly string[];
  readonly source: DiskSource;
  /** From the content outward. */
  readonly filters: readonly ParsedFilter[];
  /** At least one. */
  readonly exits: readonly Exit[];
  readonly readOnly: boolean;
  readonly onDeath: OnDeath;
  readonly timeoutMs: number;
  /** Undefined: what suits the machine. */
  readonly queues: number | undefined;
  readonly depth: number | undefined;
  readonly takeOver: boolean;
  /** The code of modules is replaced when their files change. */
  readonly watch: boolean;
}

/** What the lines about a disk are marked with: its first name, if it has one. */
export function nameOfPlan({ exits }: Pick<DiskPlan, "exits">): string | undefined {
  for (const exit of exits) {
    const name = exit.kind === "nbd" ? exit.exportName : exit.name;
    if (name !== undefined && name !== "") return name;
  }
  return undefined;
}

/** The options of a disk. */
export const DISK_OPTIONS: readonly Option[] = [
  { name: "name", value: "NAME", ofDisk: true, text: "the disk becomes /dev/NAME [the first dblockN that is free]" },
  {
    name: "nbd",
    value: "ADDRESS",
    ofDisk: true,
    text: "serve it over NBD: unix:PATH, HOST:PORT, or an nbd:// URI, which names the export",
  },
  {
    name: "transport",
    value: "nbd",
    ofDisk: true,
    text:
      "without dblock.ko: the kernel's own NBD client has the disk, as /dev/nbdN; --name is what other commands call it",
  },
  {
    name: "with",
    value: "FILTER",
    ofDisk: true,
    text: "put a filter in front of the content, NAME or NAME=OPTION=VALUE,...; the first one is next to the content",
  },
  { name: "read-only", ofDisk: true, text: "refuse everything that would change the disk" },
  {
    name: "on-death",
    value: "POLICY",
    ofDisk: true,
    text:
      "when this program dies, the disk is removed (remove), or stays until the next server; until then I/O fails " +
      "(fail) or waits (hold) [remove]",
  },
  {
    name: "take-over",
    ofDisk: true,
    text: "take the disk from the server that it has; those who use it notice nothing",
  },
  {
    name: "watch",
    ofDisk: true,
    text:
      "of a module: when its files change, the new code goes on with the disk; code that does not load changes nothing",
  },
  {
    name: "timeout",
    value: "SECONDS",
    ofDisk: true,
    text:
      "a request of a disk in /dev that takes longer fails, with --transport nbd all of the disk with it; 0: none [30]; " +
      "clients of --nbd have time limits of their own",
  },
  {
    name: "queues",
    value: "N",
    ofDisk: true,
    text: `queues of the disk, 1 to ${DBLOCK_QUEUE_COUNT_MAX} [one, or for memory and files one per CPU, at most 4; ` +
      "of several disks each has one]",
  },
  { name: "depth", value: "N", ofDisk: true, text: "requests of each queue at once, 1 to 1024 [128]" },
];

/**
 * Reads disks: each begins with its SPEC, and the options that follow belong to it. Options before the first SPEC belong
 * to the first.
 *
 * @param isKept a disk whose content outlives the program is so by default what outlives it: --on-death hold
 * @throws {UsageError} with what is wrong.
 */
export function readDisks(items: readonly Item[], isKept = false): DiskPlan[] {
  const groups: { spec: string; items: Item[] }[] = [];
  const early: Item[] = [];
  for (const item of items) {
    if (item.kind === "word") groups.push({ spec: item.text, items: groups.length === 0 ? early : [] });
    else (groups.at(-1)?.items ?? early).push(item);
  }
  if (groups.length === 0 && early.length > 0) throw new UsageError("the SPEC is missing (write it like memory:4GiB)");
  const plans = groups.map(({ spec, items }) => readDisk(spec, items, isKept));
  requireNames(plans);
  return plans;
}

/**
 * Each disk has a name of its own, wherever its words stand, and so has each export of an NBD server.
 *
 * @throws {UsageError} a name twice.
 */
export function requireNames(plans: readonly DiskPlan[]): void {
  const names = new Set<string>();
  for (const exit of plans.flatMap(({ exits }) => exits)) {
    if (exit.kind === "nbd" || exit.name === undefined) continue;
    if (names.has(exit.name)) {
      throw new UsageError(`--name ${exit.name} is there twice: each disk has a name of its own`);
    }
    names.add(exit.name);
  }
  exportNames(plans);
}

/**
 * What each export is called at its address: as the URI says, else as the disk's device, else diskN; a disk that is alone at
 * its address needs no name and has "".
 *
 * @throws {UsageError} a name twice at an address: only one of the two disks could be served.
 */
export function exportNames(plans: readonly DiskPlan[]): ReadonlyMap<NbdExit, string> {
  const exports = plans.flatMap(({ exits }) => {
    const device = exits.find(({ kind }) => kind === "device") as Exit & { kind: "device" } | undefined;
    return exits.filter((exit) => exit.kind === "nbd").map((exit) => ({ exit, name: exit.exportName ?? device?.name }));
  });
  const names = new Map<NbdExit, string>();
  for (const group of Map.groupBy(exports, ({ exit }) => JSON.stringify(exit.address)).values()) {
    const taken = new Set<string>();
    for (const { exit, name } of group) {
      if (name === undefined) continue;
      if (taken.has(name)) {
        const hint = "give each a name of its own: --nbd nbd://HOST:PORT/EXPORT";
        throw new UsageError(`the export "${name}" is there twice at ${formatNbdAddress(exit.address)}; ${hint}`);
      }
      taken.add(name);
      names.set(exit, name);
    }
    for (const [i, { exit, name }] of group.entries()) {
      if (name !== undefined) continue;
      let number = i;
      while (taken.has(`disk${number}`)) number++;
      const free = group.length === 1 ? "" : `disk${number}`;
      taken.add(free);
      names.set(exit, free);
    }
  }
  return names;
}

function readDisk(spec: string, items: readonly Item[], isKept: boolean): DiskPlan {
  const source = readSpec(spec);
  const words = [spec];
  const exits: Exit[] = [];
  const filters: ParsedFilter[] = [];
  const given = new Map<string, string>();
  for (const item of items) {
    if (item.kind === "word") continue;
    const { option: { name, value: takesValue }, value } = item;
    words.push(`--${name}`, ...(takesValue === undefined ? [] : [value]));
    if (name === "name") exits.push({ kind: "device", name: checkName(value) });
    else if (name === "nbd") exits.push(readNbd(value));
    else if (name === "with") filters.push(parseFilter(value));
    else if (given.has(name)) throw new UsageError(`--${name} is there twice for ${spec}`);
    else given.set(name, value);
  }
  const onlyNbd = !given.has("transport") && exits.length > 0 && exits.every(({ kind }) => kind === "nbd");
  const keeps = isKept && source.survives && !given.has("transport") && !onlyNbd;
  const onDeath = readPolicy(given.get("on-death") ?? (keeps ? "hold" : "remove"));
  if (keeps && !given.has("on-death")) words.push("--on-death", onDeath); // they are read again elsewhere
  const takeOver = given.has("take-over");
  const needsMore = takeOver ? "--take-over" : onDeath === "remove" ? undefined : `--on-death ${onDeath}`;
  if (needsMore !== undefined && !source.survives) {
    throw new UsageError(`${needsMore} needs a disk whose content outlives this program, and ${spec} does not`);
  }
  if (given.has("watch") && !source.hasModule) {
    throw new UsageError(`--watch is for modules, such as ./disk.ts, and ${spec} is none`);
  }
  if (onlyNbd) requireNothingOfDevices(given, onDeath);
  const ways = given.has("transport") ? overKernelNbd(given, exits, onDeath) : exits;
  const [queues, depth] = [given.get("queues"), given.get("depth")];
  return {
    words,
    source,
    filters,
    exits: ways.length > 0 ? ways : [{ kind: "device", name: undefined }],
    readOnly: given.has("read-only"),
    onDeath,
    takeOver,
    watch: given.has("watch"),
    timeoutMs: parseTimeout(given.get("timeout") ?? "30"),
    queues: queues === undefined ? undefined : parseCount(queues, "queues", 1, DBLOCK_QUEUE_COUNT_MAX),
    depth: depth === undefined ? undefined : parseCount(depth, "requests", 1, DBLOCK_QUEUE_DEPTH_MAX),
  };
}

/** The same ways out, without the module. */
function overKernelNbd(given: ReadonlyMap<string, string>, exits: readonly Exit[], onDeath: OnDeath): readonly Exit[] {
  const transport = given.get("transport");
  if (transport !== "nbd") throw new UsageError(`"${transport}" is not a transport (there is: nbd)`);
  if (onDeath !== "remove") throw new UsageError(`--on-death ${onDeath} needs dblock.ko, and not --transport nbd`);
  for (const option of ["take-over", "queues", "depth"]) {
    if (given.has(option)) throw new UsageError(`--${option} needs dblock.ko, and not --transport nbd`);
  }
  if (!exits.some(({ kind }) => kind === "device")) {
    throw new UsageError("--transport nbd needs a name for the disk: --name NAME");
  }
  return exits.map((exit) => exit.kind === "device" ? { kind: "kernel-nbd", name: exit.name! } : exit);
}

/** Nothing that is typed is without effect. The time limit is a device's, and with --watch that of new code as well. */
function requireNothingOfDevices(given: ReadonlyMap<string, string>, onDeath: OnDeath): void {
  const options = ["take-over", "queues", "depth", ...(given.has("watch") ? [] : ["timeout"])];
  const wrong = onDeath === "remove" ? options.find((option) => given.has(option)) : `on-death ${onDeath}`;
  if (wrong === undefined) return;
  const [why, what] = wrong === "timeout"
    ? [", whose time limits are their own", "leave it out, or add --name NAME"]
    : ["", "add --name NAME"];
  throw new UsageError(`--${wrong} needs a disk in /dev, and only NBD clients have this one${why}; ${what}`);
}

function readPolicy(text: string): OnDeath {
  const policies = Object.keys(ON_DEATH) as OnDeath[];
  const found = policies.find((policy) => policy === text);
  if (found !== undefined) return found;
  throw new UsageError(`"${text}" is not a policy for --on-death${didYouMean(text, policies)}`);
}

function readNbd(text: string): Exit {
  try {
    if (!/^nbds?(\+unix)?:\/\//.test(text)) return { kind: "nbd", address: parseNbdAddress(text) };
    const { address, exportName, tls } = parseNbdUri(text);
    if (tls) throw new UsageError(`${text}: TLS is served by a program of yours (serveNbd() in src/nbd/README.md)`);
    return { kind: "nbd", address, ...(exportName === "" ? {} : { exportName }) };
  } catch (error) {
    throw error instanceof DblockError ? new UsageError(error.message) : error;
  }
}
