// SPDX-License-Identifier: MIT
/** The command dblock-ramdisk: a disk in memory, served in the foreground until somebody destroys it. */
import { parseArgs } from "@std/cli";
import { DBLOCK_ABI_VERSION, DBLOCK_QUEUE_COUNT_MAX } from "./abi.ts";
import { MemoryBackend } from "./backends/memory.ts";
import {
  abortOnSignals,
  becomeIoFlusher,
  formatSize,
  parseCount,
  parseSize,
  parseTimeout,
  runCommand,
  untilEnded,
  UsageError,
  VERSION,
} from "./cli.ts";
import { Control, devicePath, whyBadName } from "./control.ts";
import { destroy } from "./destroy.ts";
import type { Ending } from "./device.ts";
import { DblockError } from "./errors.ts";
import { PAGE_BYTES } from "./libc.ts";
import { serve } from "./serve.ts";

const COMMAND = "dblock-ramdisk";
const DEFAULT_NAME = "dblockramdisk";

const HELP = `${COMMAND}: a disk in memory, /dev/${DEFAULT_NAME}, served until it is destroyed

  sudo ./${COMMAND}                        create and serve it; Ctrl-C ends it
  sudo ./${COMMAND} --name a --size 512M   another one: /dev/a
  sudo ./${COMMAND} -d                     destroy it, from another terminal

Options:
  --name NAME        the disk becomes /dev/NAME        [${DEFAULT_NAME}]
  --size SIZE        512M, 4GiB, 1.5T, or bytes; a multiple of ${PAGE_BYTES}
                     memory is only taken for what is written   [4GiB]
  --queues N         queues, and threads that serve them, 1 to ${DBLOCK_QUEUE_COUNT_MAX}
                     [one per CPU, at most 4]
  --timeout SECONDS  a request that takes longer fails; 0: none    [30]
  -d, --destroy      destroy the disk NAME, if nobody uses it
  --force            with -d: even if somebody does; what is not written is lost
  -h, --help         this text
  --version          the version
`;

/** What the command line asks for. */
export interface RamdiskArgs {
  readonly action: "serve" | "destroy" | "help" | "version";
  readonly name: string;
  readonly sizeBytes: number;
  /** Undefined: as many as suit the machine. */
  readonly queues: number | undefined;
  readonly timeoutMs: number;
  readonly force: boolean;
}

/**
 * Reads the command line.
 *
 * @throws {UsageError} with what is wrong in it.
 */
export function parseRamdiskArgs(args: readonly string[]): RamdiskArgs {
  const unknown: string[] = [];
  const parsed = parseArgs([...args], {
    string: ["name", "size", "queues", "timeout"],
    boolean: ["destroy", "force", "help", "version"],
    alias: { destroy: "d", help: "h" },
    default: { name: DEFAULT_NAME, size: "4GiB", timeout: "30" },
    unknown: (arg: string) => {
      unknown.push(arg);
      return false;
    },
  });
  for (const option of ["name", "size", "queues", "timeout"] as const) {
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
  return {
    action: parsed.help ? "help" : parsed.version ? "version" : parsed.destroy ? "destroy" : "serve",
    name: parsed.name,
    sizeBytes: parseRamdiskSize(parsed.size),
    queues: parsed.queues === undefined ? undefined : parseCount(parsed.queues, "queues", 1, DBLOCK_QUEUE_COUNT_MAX),
    timeoutMs: parseTimeout(parsed.timeout),
    force: parsed.force,
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
  const { name, sizeBytes, queues, timeoutMs } = args;
  using interrupted = abortOnSignals();
  const device = await serve(new MemoryBackend({ sizeBytes }), {
    name,
    timeoutMs,
    ...(queues === undefined ? {} : { queues }),
    signal: interrupted.signal,
  }).catch(async (error: unknown) => {
    if (!(error instanceof DblockError) || error.code !== "EEXIST") throw error;
    const isOurs = (await deviceNames(error.attempted)).includes(name);
    const end = isOurs ? `end that one with ${command("-d", name)}, or ` : "";
    throw error.withHint(`${end}take another name: --name NAME`);
  });
  interrupted[Symbol.dispose]();
  const threads = device.queueCount === 1 ? "1 queue" : `${device.queueCount} queues`;
  console.log(
    `${device.path} is ready: ${formatSize(sizeBytes)}, ${threads}. ` +
      `Next: mkfs.ext4 ${device.path}; to end it: ${command("-d", name)}, or Ctrl-C`,
  );
  report(device.path, await untilEnded(device));
}

function report(path: string, ending: Ending): void {
  if (ending.reason === "failed") {
    const why = ending.error instanceof Error ? ending.error.message : String(ending.error);
    throw new DblockError("EIO", `${path} has ended`, why);
  }
  const how = {
    closed: "destroyed",
    destroyed: "destroyed by another process",
    replaced: "another server has taken over",
  };
  console.log(`${path} has ended: ${how[ending.reason]}; its memory is given back`);
}

async function destroyRamdisk({ name, force }: RamdiskArgs): Promise<void> {
  try {
    await destroy(name, { force });
  } catch (error) {
    if (!(error instanceof DblockError)) throw error;
    if (error.code === "EBUSY") {
      const first = error.wrong.includes("mounted on") ? "umount it first" : "end that first";
      throw error.withHint(`${first}, or ${command("-d --force", name)}: what is not written is lost`);
    }
    if (error.code === "ENOENT" && error.wrong === "there is no such device") {
      throw error.withHint(await whatThereIs(error.attempted));
    }
    throw error;
  }
  console.log(`${devicePath(name)} is destroyed`);
}

async function deviceNames(attempted: string): Promise<string[]> {
  using control = await Control.open(attempted);
  return (await control.list()).map((info) => info.name);
}

async function whatThereIs(attempted: string): Promise<string> {
  const names = await deviceNames(attempted);
  return names.length === 0 ? "there is none at all" : `there is: ${names.join(", ")}; name it with --name`;
}

if (import.meta.main) {
  await runCommand(COMMAND, async () => {
    const args = parseRamdiskArgs(Deno.args);
    switch (args.action) {
      case "help":
        return console.log(HELP.trimEnd());
      case "version":
        return console.log(`${COMMAND} ${VERSION} (ABI ${DBLOCK_ABI_VERSION})`);
      case "destroy":
        return await destroyRamdisk(args);
      case "serve":
        return await serveRamdisk(args);
    }
  });
}
