// SPDX-License-Identifier: MIT
/** How a disk is opened for `dblock serve` by code that may never answer. What serves it is in device/command and live. */
import { assertEquals, assertRejects } from "@std/assert";
import { unlessAborted } from "../../../src/command/opened_disk.ts";
import type { Backend, CloseReason } from "../../../src/disk/backend.ts";

const never = new AbortController().signal;

function disk(closings: (CloseReason | undefined)[]): Backend {
  return { sizeBytes: 512, read() {}, write() {}, close: (reason) => void closings.push(reason) };
}

Deno.test("unlessAborted() gives the disk, or what opening throws", async () => {
  const made = disk([]);
  assertEquals(await unlessAborted(Promise.resolve(made), "memory", never), made);
  await assertRejects(() => unlessAborted(Promise.reject(new Error("no")), "memory", never), Error, "no");
});

Deno.test("unlessAborted() ends at once when it is aborted, and a disk that comes later is closed", async () => {
  for (const isBefore of [true, false]) {
    const controller = new AbortController();
    const opened = Promise.withResolvers<Backend>();
    const closings: (CloseReason | undefined)[] = [];
    if (isBefore) controller.abort(new Error("Interrupted"));
    const waited = unlessAborted(opened.promise, "./never.ts", controller.signal);
    controller.abort(new Error("Interrupted"));
    await assertRejects(() => waited, Error, "Interrupted");
    opened.resolve(disk(closings));
    await opened.promise;
    await new Promise((resolve) => setTimeout(resolve));
    assertEquals(closings, ["unused"]);
  }
});

Deno.test("a module that never makes its disk is named, and Ctrl-C ends the wait", async () => {
  const dir = await Deno.makeTempDir();
  await Deno.writeTextFile(`${dir}/never.ts`, "export default () => new Promise(() => {});");
  const main = new URL("../../../src/command/main.ts", import.meta.url).pathname;
  const deno = new URL("../../../src/build/deno.sh", import.meta.url).pathname;
  const child = new Deno.Command(deno, {
    args: ["run", "-A", "--no-check", main, "serve", "./never.ts", "--nbd", "unix:./disk.sock"],
    cwd: dir,
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  const [waits, interrupted] = [
    "./never.ts is not open yet, and is waited for (Ctrl-C ends this)\n",
    "dblock serve: Interrupted: nothing is left behind\n",
  ];
  let said = "";
  for await (const text of child.stderr.pipeThrough(new TextDecoderStream())) {
    said += text;
    if (said === waits) child.kill("SIGINT");
  }
  assertEquals([said, (await child.status).code], [waits + interrupted, 1]);
  await child.stdout.cancel();
  assertEquals([...Deno.readDirSync(dir)].map(({ name }) => name), ["never.ts"]);
  await Deno.remove(dir, { recursive: true });
});
