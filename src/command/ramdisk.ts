// SPDX-License-Identifier: MIT
/** The command dblock-ramdisk: a disk in memory, served in the foreground until somebody destroys it. */
import { parseArgs } from "@std/cli";
import { DBLOCK_ABI_VERSION, DBLOCK_QUEUE_COUNT_MAX } from "../module/abi.ts";
import { FileBackend } from "../backends/file.ts";
import { MemoryBackend } from "../backends/memory.ts";
import {
  becomeIoFlusher,
  formatSize,
  keepCode,
  parseCount,
  parseSize,
  parseTimeout,
  runCommand,
  START_TIMEOUT_MS,
  UsageError,
  VERSION,
} from "./cli.ts";
import { Control, devicePath, whyBadName } from "../module/control.ts";
import { destroy } from "../module/destroy.ts";
import type { Device, Ending } from "../module/device.ts";
import { DblockError, describe, quietly, withHint } from "../disk/errors.ts";
import { hasLostItsServer, settle } from "../module/existing.ts";
import { type DeviceInfo, list } from "../module/info.ts";
import { linux } from "../system/libc.ts";
import { PAGE_BYTES } from "../system/pages.ts";
import { counted, formatDevice, jsonOf } from "./listing.ts";
import { serveOn } from "../module/serve.ts";
import { Progress } from "./progress.ts";
import { abortOnSignals, outliveTerminal, SIGNALS_HELP, undoDevice, untilEnded } from "./signals.ts";

const COMMAND = "dblock-ramdisk";
const DEFAULT_NAME = "dblockramdisk";
const DEFAULT_SIZE_BYTES = 4 * 2 ** 30;
const ON_DEATH = ["remove", "fail", "hold"] as const;

/** What `--help` prints. */
export const HELP: string = `${COMMAND}: a disk in memory, /dev/${DEFAULT_NAME}, served until it is destroyed

  sudo ./${COMMAND}                        create and serve it; Ctrl-C ends it
  sudo ./${COMMAND} --name a --size 512M   another one: /dev/a
  sudo ./${COMMAND} -d                     destroy it, from another terminal
  sudo ./${COMMAND} --list                 what there is, and what it is doing

  sudo ./${COMMAND} --store /dev/shm/a --on-death hold
                     a disk that survives this program: if it is killed, I/O
                     waits until the same command is given again, and goes on

Options:
  --name NAME        the disk becomes /dev/NAME        [${DEFAULT_NAME}]
  --size SIZE        512M, 4GiB, 1.5T, or bytes; a multiple of ${PAGE_BYTES}
                     memory is only taken for what is written
                     [what --store has, or 4GiB]
  --store PATH       keep the memory in a file: on /dev/shm, hugetlbfs, or any
                     file system; made if it is not there, kept at the end
  --on-death POLICY  when this program dies, the disk is removed (remove), or
                     stays until the next server; until then I/O fails (fail)
                     or waits (hold); these take --store    [remove]
  --take-over        take the disk from the server that it has, which must have
                     the same --store; those who use it notice nothing
  --grow             with --store: if the disk is smaller than --size, make it so
                     large; with --take-over, under those who use it
  --queues N         queues, and threads that serve them, 1 to ${DBLOCK_QUEUE_COUNT_MAX}
                     [one per CPU, at most 4]
  --timeout SECONDS  a request that takes longer fails; 0: none    [30]
  -d, --destroy      destroy the disk NAME, if nobody uses it
  --force            with -d: even if somebody does; what is not written is lost
  --list             all disks of this module: state, use, counts
  --json             with --list: all that there is to know, as JSON
  -h, --help         this text
  --version          the version

A disk that is recovered or taken over stays as it was created: --queues,
--timeout and --on-death change nothing.

${SIGNALS_HELP}`;

/** What the command line asks for. */
export interface RamdiskArgs {
  readonly action: "serve" | "destroy" | "list" | "help" | "version";
  readonly name: string;
  /** Undefined: what the store has, or the default. */
  readonly sizeBytes: number | undefined;
  /** Undefined: memory of this process. */
  readonly store: string | undefined;
  readonly onDeath: typeof ON_DEATH[number];
  readonly takeOver: boolean;
  /** A store that is smaller than `sizeBytes` grows, and so does its disk. */
  readonly grow: boolean;
  /** Undefined: as many as suit the machine. */
  readonly queues: number | undefined;
  readonly timeoutMs: number;
  readonly force: boolean;
  readonly json: boolean;
}

/** Whether anybody can read it or not, the disk goes on. */
const say = quietly(console.log);

const WITH_VALUE = ["name", "size", "store", "on-death", "queues", "timeout"] as const;

/**
 * Reads the command line.
 *
 * @throws {UsageError} with what is wrong in it.
 */
export function parseRamdiskArgs(args: readonly string[]): RamdiskArgs {
  const unknown: string[] = [];
  const parsed = parseArgs([...args], {
    string: [...WITH_VALUE],
    boolean: ["destroy", "force", "list", "json", "take-over", "grow", "help", "version"],
    alias: { destroy: "d", help: "h" },
    default: { name: DEFAULT_NAME, timeout: "30", "on-death": "remove" },
    unknown: (arg: string) => {
      unknown.push(arg);
      return false;
    },
  });
  for (const option of WITH_VALUE) {
    if (parsed[option] === "") throw new UsageError(`--${option} needs a value`);
  }
  const stray = unknown[0] ?? parsed._[0];
  if (stray !== undefined) {
    const kind = String(stray).startsWith("-") ? "option" : "argument";
    throw new UsageError(`there is no ${kind} ${stray}`);
  }
  const badName = whyBadName(parsed.name);
  if (badName !== undefined) throw new UsageError(`"${parsed.name}" cannot be a disk's name: ${badName}`);
  if (parsed.force && !parsed.destroy) throw new UsageError("--force goes with -d");
  if (parsed.json && !parsed.list) throw new UsageError("--json goes with --list");
  if (parsed.list && parsed.destroy) throw new UsageError("--list and -d do not go together");
  const ofNew = ["size", "store", "queues", "grow", "take-over"].find((option) => parsed[option]);
  if (ofNew !== undefined && (parsed.destroy || parsed.list)) {
    throw new UsageError(`--${ofNew} does not go with ${parsed.destroy ? "-d" : "--list"}`);
  }
  const { store } = parsed;
  const takeOver = parsed["take-over"];
  const onDeath = ON_DEATH.find((policy) => policy === parsed["on-death"]);
  if (onDeath === undefined) {
    throw new UsageError(`"${parsed["on-death"]}" is not a policy for --on-death (${ON_DEATH.join(", ")})`);
  }
  const needsStore = takeOver ? "--take-over" : onDeath === "remove" ? undefined : `--on-death ${onDeath}`;
  if (needsStore !== undefined && store === undefined) {
    throw new UsageError(`${needsStore} needs --store PATH: no other process can have this one's memory`);
  }
  if (parsed.grow && (store === undefined || parsed.size === undefined)) {
    throw new UsageError("--grow goes with --store PATH and --size SIZE");
  }
  return {
    action: parsed.help
      ? "help"
      : parsed.version
      ? "version"
      : parsed.list
      ? "list"
      : parsed.destroy
      ? "destroy"
      : "serve",
    name: parsed.name,
    sizeBytes: parsed.size === undefined ? undefined : parseRamdiskSize(parsed.size),
    store,
    onDeath,
    takeOver,
    grow: parsed.grow,
    queues: parsed.queues === undefined ? undefined : parseCount(parsed.queues, "queues", 1, DBLOCK_QUEUE_COUNT_MAX),
    timeoutMs: parseTimeout(parsed.timeout),
    force: parsed.force,
    json: parsed.json,
  };
}

function parseRamdiskSize(text: string): number {
  const sizeBytes = parseSize(text);
  if (sizeBytes === 0) throw new UsageError(`size ${text}: a disk has at least ${PAGE_BYTES} bytes`);
  if (sizeBytes % PAGE_BYTES !== 0) {
    const below = Math.floor(sizeBytes / PAGE_BYTES) * PAGE_BYTES;
    const near = below === 0 ? PAGE_BYTES : `${below} or ${below + PAGE_BYTES}`;
    throw new UsageError(`size ${text} is ${sizeBytes} bytes, not a multiple of ${PAGE_BYTES} (near it: ${near})`);
  }
  return sizeBytes;
}

/** What to type about the disk NAME. */
function command(options: string, name: string): string {
  return `./${COMMAND} ${options}${name === DEFAULT_NAME ? "" : ` --name ${name}`}`;
}

async function serveRamdisk(args: RamdiskArgs): Promise<void> {
  becomeIoFlusher();
  keepCode();
  const { name, store, queues, timeoutMs, onDeath, takeOver, grow } = args;
  outliveTerminal();
  using interrupted = abortOnSignals();
  using starting = new Progress(`starting ${devicePath(name)}`);
  const { signal } = interrupted;
  const options = {
    name,
    timeoutMs,
    onDeath,
    existing: store === undefined ? "refuse" : takeOver ? "take-over" : "recover",
    grow,
    ...(queues === undefined ? {} : { queues }),
    startTimeoutMs: START_TIMEOUT_MS,
  } as const;
  const backend = store === undefined ? memory(args) : await stored(args, store);
  const device = await serveOn(linux, backend, options, { startSignal: signal }).catch(async (error: unknown) => {
    if (!(error instanceof DblockError) || error.code !== "EEXIST") throw error;
    throw withHint(error, await whatToDo(args));
  });
  if (signal.aborted) {
    await undoDevice(device);
    throw signal.reason;
  }
  const ended = untilEnded(device); // from here on a signal is its business: without a listener it would kill
  interrupted[Symbol.dispose]();
  starting[Symbol.dispose]();
  say(await greeting(device, name));
  await report(device, await ended, store);
}

function memory({ sizeBytes = DEFAULT_SIZE_BYTES }: RamdiskArgs): MemoryBackend {
  return new MemoryBackend({ sizeBytes });
}

/** The store; before it is touched, what the name means is settled. */
async function stored(args: RamdiskArgs, path: string): Promise<FileBackend> {
  const { name, takeOver, grow } = args;
  const attempted = `Cannot ${takeOver ? "take over" : "create"} ${devicePath(name)}`;
  using control = await Control.open(attempted);
  const info = await settle(control, name);
  if (info !== undefined && !hasLostItsServer(info) && !takeOver) {
    throw new DblockError("EEXIST", attempted, "the name is in use", { hint: await whatToDo(args) });
  }
  if (info !== undefined && sizeOf(path) === undefined) {
    throw new DblockError("ENOENT", attempted, `there is nothing in ${path}, and the disk has had a store`, {
      hint: "give the --store that it had",
    });
  }
  const lengthBytes = sizeOf(path);
  if (
    info !== undefined && args.sizeBytes === undefined && lengthBytes !== undefined && lengthBytes > info.size_bytes
  ) {
    throw new DblockError("EINVAL", attempted, `${path} has ${lengthBytes} bytes, and the disk ${info.size_bytes}`, {
      hint: `it was about to grow: add --grow --size ${lengthBytes}`,
    });
  }
  const sizeBytes = args.sizeBytes ?? info?.size_bytes ?? lengthBytes ?? DEFAULT_SIZE_BYTES;
  const isServed = info !== undefined && info.attached_count > 0;
  const backend = await FileBackend.open({ path, sizeBytes, shared: takeOver && isServed, grow });
  if (isServed && backend.locked) {
    // It may have grown, for nothing. Before it is let go: the next server may make it longer.
    if (lengthBytes !== undefined) Deno.truncateSync(path, lengthBytes);
    backend.close();
    const wrong = `process ${info.server_pid} serves it from something else than ${path}`;
    throw new DblockError("EINVAL", attempted, wrong, { hint: "give the --store that it has" });
  }
  return backend;
}

/** Undefined if there is nothing to keep: no such file, or an empty one. */
function sizeOf(path: string): number | undefined {
  try {
    return Deno.statSync(path).size || undefined;
  } catch {
    return undefined; // FileBackend.open() will say why
  }
}

/** What to type when the name is in use. */
async function whatToDo({ name, store }: RamdiskArgs): Promise<string> {
  const rest = "take another name: --name NAME";
  const info = (await list()).find((one) => one.name === name);
  if (info === undefined) return rest;
  const end = `end that one with ${command("-d", name)}, or ${rest}`;
  if (isWaiting(info)) return `its server died: go on with the --store PATH that it had, ${end}`;
  return store === undefined ? end : `take it over with --take-over, ${end}`;
}

async function greeting(device: Device, name: string): Promise<string> {
  const { path, sizeBytes, queueCount, origin } = device;
  const what = `${formatSize(sizeBytes)}, ${counted(queueCount, "queue")}`;
  const end = `to end it: ${command("-d", name)}, or Ctrl-C`;
  if (origin === "created") return `${path} is ready: ${what}. Next: mkfs.ext4 ${path}; ${end}`;
  const { counts, onDeath } = await device.info();
  return `${path} is ${origin.replace("-", " ")}: ${what}, on death ${onDeath}, ` +
    `${counted(counts.deaths, "server")} died so far. It goes on as it was; ${end}`;
}

async function report({ name, path }: Device, ending: Ending, store: string | undefined): Promise<void> {
  if (ending.reason === "failed") {
    const info = (await list()).find((one) => one.name === name);
    throw failure(name, describe(ending.error), { info, store });
  }
  if (ending.reason === "left") {
    return say(`${path} is left to its next server; to go on: ${command(`--store ${store}`, name)}`);
  }
  if (ending.reason === "replaced") return say(`${path} goes on: another process has taken it over`);
  const how =
    { closed: "destroyed", destroyed: "destroyed by another process", left: "left for the next server" }[ending.reason];
  say(`${path} has ended: ${how}; ${store === undefined ? "its memory is given back" : `${store} is kept`}`);
}

/** Its server is gone, and it waits for another one. */
function isWaiting({ state }: Pick<DeviceInfo, "state">): boolean {
  return state === "held" || state === "failed";
}

/** A disk whose server failed has ended, or its policy keeps it for the next one. */
export function failure(
  name: string,
  why: string,
  left: { readonly info: Pick<DeviceInfo, "state"> | undefined; readonly store: string | undefined },
): DblockError {
  const { info, store } = left;
  const hint = info !== undefined && isWaiting(info)
    ? `it waits for a server: go on with ${command(`--store ${store}`, name)}, or end it with ${command("-d", name)}`
    : "the disk has ended";
  return new DblockError("EIO", `Cannot serve ${devicePath(name)} any more`, why, { hint });
}

async function listRamdisks({ json }: RamdiskArgs): Promise<void> {
  const infos = await list();
  if (json) console.log(jsonOf(infos));
  else console.log(infos.length === 0 ? "there is no disk" : infos.map(formatDevice).join("\n"));
}

async function destroyRamdisk({ name, force }: RamdiskArgs): Promise<void> {
  const progress = new Progress(`destroying ${devicePath(name)}`);
  try {
    await destroy(name, { force }).finally(() => progress[Symbol.dispose]());
  } catch (error) {
    if (!(error instanceof DblockError)) throw error;
    if (error.code === "EBUSY") {
      const first = error.wrong.includes("mounted on") ? "umount it first" : "end that first";
      throw withHint(error, `${first}, or ${command("-d --force", name)}: what is not written is lost`);
    }
    if (error.code === "ENOENT" && error.wrong === "there is no such device") {
      throw withHint(error, await whatThereIs());
    }
    throw error;
  }
  console.log(`${devicePath(name)} is destroyed`);
}

async function whatThereIs(): Promise<string> {
  const names = (await list()).map((info) => info.name);
  return names.length === 0 ? "there is none at all" : `there is: ${names.join(", ")}; name it with --name`;
}

/** Runs `dblock-ramdisk WORDS…` and ends the program. */
export async function ramdisk(words: readonly string[]): Promise<never> {
  return await runCommand(COMMAND, async () => {
    const args = parseRamdiskArgs(words);
    switch (args.action) {
      case "help":
        return console.log(HELP.trimEnd());
      case "version":
        return console.log(`${COMMAND} ${VERSION} (ABI ${DBLOCK_ABI_VERSION})`);
      case "destroy":
        return await destroyRamdisk(args);
      case "list":
        return await listRamdisks(args);
      case "serve":
        return await serveRamdisk(args);
    }
  });
}

if (import.meta.main) await ramdisk(Deno.args);
