/** Our own disks, each served by a process of its own. Runs inside the VM. */
import { Ramdisk } from "../device/ramdisk.ts";
import { Serving } from "../device/serving.ts";
import { TextLineStream } from "../device/lines.ts";
import { exists, waitFor } from "../device/harness.ts";
import type { DiskSpec, OwnKind } from "./disks.ts";
import type { RunningDisk } from "./running.ts";
import { scratchFolder } from "./scratch.ts";
import type { ServerOptions } from "./server.ts";

/** Disks that there can be several of. */
const inNumbers: readonly OwnKind[] = ["direct", "delivered", "sync", "async"];

/** Makes the disk, or disks. */
export async function startOwn(spec: DiskSpec & { readonly kind: OwnKind }): Promise<RunningDisk> {
  if (spec.count !== undefined && !inNumbers.includes(spec.kind)) {
    throw new Error(`${spec.name}: ${spec.kind} is not made in numbers, but ${inNumbers.join(", ")}`);
  }
  switch (spec.kind) {
    case "direct":
      return spec.count === undefined ? await startProgram(spec) : await startMany(spec, spec.count);
    case "file":
      return await startProgram(spec);
    case "mapped-disk":
      return await startFileDisk(spec, "");
    case "file-disk":
      return await startFileDisk(spec, "direct&");
    default:
      return await startServer(spec);
  }
}

function namesOf(name: string, count?: number): readonly string[] {
  return count === undefined ? [name] : Array.from({ length: count }, (_, i) => `${name}-${i}`);
}

/** Several disks in memory, of one process: `dblock serve` has a few Workers for all. */
async function startMany({ name, sizeMiB }: DiskSpec, count: number): Promise<RunningDisk> {
  const names = namesOf(`bench-${name}`, count);
  return await startCommand(names, names.flatMap((disk) => [`memory:${sizeMiB}MiB`, "--name", disk]));
}

/** A file on a disk; around the page cache it is what `loop-disk` is to the kernel. */
async function startFileDisk({ name, sizeMiB }: DiskSpec, parameters: "" | "direct&"): Promise<RunningDisk> {
  const disk = `bench-${name}`;
  const store = `${await scratchFolder()}/${name}`;
  const running = await startCommand([disk], [`file:${store}?${parameters}size=${sizeMiB}MiB`, "--name", disk]);
  return {
    ...running,
    async [Symbol.asyncDispose]() {
      await running[Symbol.asyncDispose]();
      await Deno.remove(store);
    },
  };
}

/** What `dblock serve WORDS` makes. */
async function startCommand(names: readonly string[], words: readonly string[]): Promise<RunningDisk> {
  const serving = await Serving.start(["serve", ...words]);
  return {
    paths: names.map((disk) => `/dev/${disk}`),
    dblockNames: names,
    async [Symbol.asyncDispose]() {
      await serving[Symbol.asyncDispose]();
      await untilGone(names);
    },
  };
}

async function untilGone(names: readonly string[]): Promise<void> {
  await waitFor("the server's disks are gone", () => names.every((name) => !exists(`/dev/${name}-ctl`)));
}

async function startProgram(spec: DiskSpec): Promise<RunningDisk> {
  const args = ["--size", `${spec.sizeMiB}M`];
  if (spec.queues !== undefined) args.push("--queues", String(spec.queues));
  const store = `/dev/shm/bench-${spec.name}`;
  if (spec.kind === "file") args.push("--store", store);
  const ramdisk = await Ramdisk.start({ name: `bench-${spec.name}`, args });
  return {
    paths: [ramdisk.path],
    dblockNames: [ramdisk.name],
    async [Symbol.asyncDispose]() {
      await ramdisk[Symbol.asyncDispose]();
      if (spec.kind === "file") await Deno.remove(store);
    },
  };
}

async function startServer(spec: DiskSpec & { readonly kind: OwnKind }): Promise<RunningDisk> {
  const name = `bench-${spec.name}`;
  const names = namesOf(name, spec.count);
  const options: ServerOptions = {
    kind: spec.kind,
    names,
    sizeBytes: spec.sizeMiB * 2 ** 20,
    ...(spec.queues === undefined ? {} : { queues: spec.queues }),
  };
  const mapping = "--import-map=src/build/standins/import_map.json";
  const child = new Deno.Command("deno", {
    args: ["run", "--allow-all", "--no-check", mapping, "tests/bench/server.ts", JSON.stringify(options)],
    stdin: "null",
    stdout: "piped",
  }).spawn();
  const lines = child.stdout.pipeThrough(new TextDecoderStream()).pipeThrough(new TextLineStream()).getReader();
  if ((await lines.read()).done) throw new Error(`the server of ${name} ended with ${(await child.status).code}`);
  return {
    paths: names.map((disk) => `/dev/${disk}`),
    dblockNames: names,
    async [Symbol.asyncDispose]() {
      child.kill("SIGKILL");
      await child.status;
      await lines.cancel();
      await untilGone(names);
    },
  };
}
