// SPDX-License-Identifier: MIT
/** How a disk is opened for `dblock serve` by code that may never answer. What serves it is in device/command and live. */
import { assertEquals, assertRejects } from "@std/assert";
import { DISK_OPTIONS, readDisks } from "../../../src/command/disk_plan.ts";
import { openContent, unlessAborted } from "../../../src/command/opened_disk.ts";
import { readItems } from "../../../src/command/command.ts";
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
  assertEquals([said, (await child.status).code], [waits + interrupted, 130]);
  await child.stdout.cancel();
  assertEquals([...Deno.readDirSync(dir)].map(({ name }) => name), ["never.ts"]);
  await Deno.remove(dir, { recursive: true });
});

Deno.test("what a start has made is gone when another disk or a filter fails, and what was there before stays", async () => {
  const main = new URL("../../../src/command/main.ts", import.meta.url).pathname;
  const nbd = ["--nbd", "unix:./disk.sock"];
  const filters = ["log=file=./log", "stats=file=./stats", "checksum=file=./sums", "cache=block=1000"];
  const starts: readonly [words: readonly string[], code: number, said: string][] = [
    [["./new.img?size=1MiB", ...nbd, "./missing.img", "--nbd", "unix:./other.sock"], 1, "./missing.img"],
    [["./new.img?size=1MiB", ...nbd, "--with", "cache=block=1000"], 2, "1000"],
    [["./new.img?size=1MiB&raw", ...nbd, "--with", "cache=block=1000"], 2, "1000"],
    [["mirror:[./new.img?size=1MiB],./missing.img?bitmap=./new.bitmap", ...nbd], 1, "./missing.img"],
    [["mirror:[./new.img?size=1MiB],./old.img?bitmap=./new.bitmap", ...nbd, "--with", "cache=block=1000"], 2, "1000"],
    [["./old.img?size=1MiB", ...nbd, "--with", "cache=block=1000"], 2, "1000"],
    [["./old.img?size=1MiB&raw", ...nbd, "--with", "cache=block=1000"], 2, "1000"],
    [["mirror:[./new.img?size=1MiB],./old.img?bitmap=./nowhere/x", ...nbd], 1, "there is no such folder"],
    [["./new.img?size=1MiB", ...nbd, ...filters.flatMap((filter) => ["--with", filter])], 2, "1000"],
    // Its report would be a line more.
    [["./old.img", ...nbd, "--with", "stats", "--with", "cache=block=1000"], 2, "1000"],
  ];
  for (const [words, code, said] of starts) {
    const dir = await Deno.makeTempDir();
    await Deno.writeFile(`${dir}/old.img`, new Uint8Array(2 ** 20).fill(1));
    const child = new Deno.Command(Deno.execPath(), {
      args: ["run", "-A", "--no-check", main, "serve", ...words],
      cwd: dir,
    });
    const ran = await child.output();
    const stderr = new TextDecoder().decode(ran.stderr);
    assertEquals([ran.code, stderr.split("\n").length, stderr.includes(said)], [code, 2, true], stderr);
    assertEquals([...Deno.readDirSync(dir)].map(({ name }) => name), ["old.img"], words.join(" "));
    await Deno.remove(dir, { recursive: true });
  }
});

Deno.test("filters are told which of several disks they are in front of", async () => {
  const dir = await Deno.makeTempDir();
  const stats = ["--with", `stats=file=${dir}/stats`];
  const words = [
    ...["null:1MiB", "--nbd", "unix:/x.sock", "--name", "first", ...stats],
    ...["null:1MiB", "--nbd", "nbd://localhost/second", ...stats],
    ...["null:1MiB", "--nbd", "unix:/third.sock", ...stats],
    ...["null:1MiB", "--name", "fourth", "--transport", "nbd", ...stats],
  ];
  for (const plan of readDisks(readItems(words, DISK_OPTIONS))) {
    await (await openContent(plan, { readOnly: false, shared: false })).close?.("destroyed");
  }
  const heads = (await Deno.readTextFile(`${dir}/stats`)).trimEnd().split("\n").map((line) => line.split(": ")[0]);
  assertEquals(heads, ["first", "second", "unix:/third.sock", "fourth"]);
  await Deno.remove(dir, { recursive: true });
});
