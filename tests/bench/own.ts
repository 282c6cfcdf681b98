/** Our own disks, each served by a process of its own. Runs inside the VM. */
import { Ramdisk } from "../device/ramdisk.ts";
import { TextLineStream } from "../device/lines.ts";
import { exists, waitFor } from "../device/harness.ts";
import type { DiskSpec, OwnKind } from "./disks.ts";
import type { RunningDisk } from "./running.ts";
import type { ServerOptions } from "./server.ts";

/** Makes the disk. */
export async function startOwn(spec: DiskSpec & { readonly kind: OwnKind }): Promise<RunningDisk> {
  const isProgram = (spec.kind === "direct" || spec.kind === "file") && spec.count === undefined;
  return isProgram ? await startProgram(spec) : await startServer(spec);
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
  const names = Array.from({ length: spec.count ?? 1 }, (_, i) => `bench-${spec.name}-${i}`);
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
  if ((await lines.read()).done) throw new Error(`the server of ${names[0]} ended with ${(await child.status).code}`);
  return {
    paths: names.map((name) => `/dev/${name}`),
    dblockNames: names,
    async [Symbol.asyncDispose]() {
      child.kill("SIGKILL");
      await child.status;
      await lines.cancel();
      await waitFor("the server's disks are gone", () => names.every((name) => !exists(`/dev/${name}-ctl`)));
    },
  };
}
