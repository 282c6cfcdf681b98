// SPDX-License-Identifier: MIT
// RawBackend on a block device, as udev sees it: a loop device of this machine, where it can have one.
import { assertEquals, assertRejects } from "@std/assert";
import { RawBackend } from "../../../src/backends/raw.ts";
import { DblockError } from "../../../src/disk/errors.ts";
import { folder } from "./stores.ts";

const IN_NONBLOCK = 0o4000;
const IN_CLOSE_WRITE = 8;

/** A command's first line; undefined if it fails. */
function said(...words: readonly string[]): string | undefined {
  try {
    const { success, stdout } = new Deno.Command(words[0]!, { args: words.slice(1), stderr: "null" }).outputSync();
    return success ? new TextDecoder().decode(stdout).split("\n", 1)[0] : undefined;
  } catch {
    return undefined;
  }
}

/** A loop device, as long as it is used. */
class Loop implements Disposable {
  readonly #dir = folder();
  readonly path: string;

  constructor() {
    const file = `${this.#dir.path}/file`;
    Deno.writeFileSync(file, new Uint8Array(2 ** 20));
    this.path = said("losetup", "--find", "--show", file)!;
  }

  [Symbol.dispose](): void {
    said("losetup", "--detach", this.path);
    this.#dir[Symbol.dispose]();
  }
}

const ignore = Deno.uid() !== 0 || said("losetup", "--find") === undefined;

/** Whether flock(1) gets a lock: udev takes a shared one, mkfs one alone. */
function canLock(path: string, how: "--shared" | "--exclusive"): boolean {
  return said("flock", "--nonblock", how, path, "echo", "yes") === "yes";
}

Deno.test({
  name:
    "udev can lock a block device that is served, and neither mkfs nor another server can, after a take-over neither",
  ignore,
  async fn() {
    using loop = new Loop();
    const { path } = loop;
    const isRefused = async (wrong: string) => {
      assertEquals([canLock(path, "--shared"), canLock(path, "--exclusive")], [true, false]);
      await assertRejects(() => RawBackend.open({ path }), DblockError, wrong);
    };
    const first = await RawBackend.open({ path });
    await isRefused("it is mounted, or somebody else's");
    const heir = await RawBackend.open({ path, shared: true });
    assertEquals([first.locked, heir.locked], [true, false]);
    await first.close();
    for (let waitedMs = 0; !heir.locked && waitedMs < 10_000; waitedMs += 20) {
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    assertEquals(heir.locked, true);
    await isRefused("it is mounted, or somebody else's");
    await heir.close();
    assertEquals(canLock(path, "--exclusive"), true);

    // Those that only read are there together, and keep away who writes; so does a lock of the versions before.
    const readers = await Promise.all([1, 2].map(() => RawBackend.open({ path, readOnly: true })));
    await isRefused("it is served already");
    for (const reader of readers) await reader.close();
    const file = Deno.openSync(path);
    await file.lock(true);
    await assertRejects(() => RawBackend.open({ path }), DblockError, "it is served already");
    file.close();
    await (await RawBackend.open({ path })).close();
  },
});

Deno.test({
  name: "nobody closes a block device that he could write to when a disk opens it: udev would look at it for nothing",
  ignore,
  async fn() {
    using loop = new Loop();
    const device = loop.path;
    const libc = Deno.dlopen("libc.so.6", {
      inotify_init1: { parameters: ["i32"], result: "i32" },
      inotify_add_watch: { parameters: ["i32", "buffer", "u32"], result: "i32" },
      read: { parameters: ["i32", "buffer", "usize"], result: "isize" },
      close: { parameters: ["i32"], result: "i32" },
    });
    // What udev watches each block device for.
    const watch = libc.symbols.inotify_init1(IN_NONBLOCK);
    libc.symbols.inotify_add_watch(watch, new TextEncoder().encode(`${device}\0`), IN_CLOSE_WRITE);
    const isClosed = () => libc.symbols.read(watch, new Uint8Array(4096), 4096n) > 0n;
    try {
      const disk = await RawBackend.open({ path: device });
      assertEquals(isClosed(), false);
      await disk.close();
      assertEquals(isClosed(), true);
    } finally {
      libc.symbols.close(watch);
      libc.close();
    }
  },
});
