// A mapped disk whose file is on a slow store: while a flush is under way, reads of the same queue are answered, and nobody's
// end waits for it longer than it must. fsync() returns when the store has everything, with the store's error if it has one.
// Not covered: writes meanwhile, which a file system may keep waiting for its journal.
// time limit: 300 s
import { assert, assertEquals, assertMatch } from "@std/assert";
import { DBLOCK_DEVICE_WRITE_CACHE, DBLOCK_OPERATION_FLUSH, DBLOCK_STATE_HELD } from "../../src/module/abi.ts";
import { ERRNO } from "../../src/disk/errors.ts";
import { TestDisk } from "./disk.ts";
import { assertWithin, sh, type ShellResult, waitFor } from "./harness.ts";
import { infoOf, MIB, type Request } from "./server.ts";
import { dblock, Serving } from "./serving.ts";

const FOLDER = "/tmp/late-flush";
const SIZE_MIB = 8;
/** As long as anything may take that does not wait for the flush, which ends only when the test says so. */
const promptMs = 5_000;

const isFlush = ({ operation }: Request) => operation === DBLOCK_OPERATION_FLUSH;

/** ext4 on a disk that this event loop serves, so that only other processes may touch it. */
class SlowStore implements AsyncDisposable {
  readonly #disk: TestDisk;

  private constructor(disk: TestDisk) {
    this.#disk = disk;
  }

  static async start(): Promise<SlowStore> {
    const disk = await TestDisk.start({
      name: "latestore",
      size_bytes: 96 * MIB,
      flags: DBLOCK_DEVICE_WRITE_CACHE,
      timeout_ms: 0,
    });
    // The journal is not committed by itself, which would be one flush more.
    await sh(`mkfs.ext4 -q -E lazy_itable_init=0,lazy_journal_init=0 ${disk.path} && mkdir -p ${FOLDER} &&
      mount -o commit=600 ${disk.path} ${FOLDER}`);
    return new SlowStore(disk);
  }

  /** Serves a file of this store whose blocks are all there, and in the page cache. */
  async serve(name: string, ...words: string[]): Promise<Serving> {
    await sh(`[ -e ${FOLDER}/${name} ] || head -c ${SIZE_MIB}M /dev/urandom >${FOLDER}/${name}; sync ${FOLDER}/${name}
      cat ${FOLDER}/${name} >/dev/null`);
    return await Serving.start(["serve", `file:${FOLDER}/${name}`, "--name", name, "--queues", "1", ...words]);
  }

  /** From here on flushes wait, until `release()` or the end of the result: whoever waits for one cannot be ended before. */
  holdFlushes(): Disposable {
    this.#disk.rule = (request) => isFlush(request) ? "hold" : "serve";
    return { [Symbol.dispose]: () => this.release() };
  }

  /** From here on flushes fail. */
  failFlushes(): void {
    this.#disk.rule = (request) => isFlush(request) ? { error: ERRNO.EIO } : "serve";
  }

  async untilFlushing(): Promise<void> {
    await this.#disk.untilHeld(1);
  }

  /** Ends those that wait. */
  release(): void {
    this.#disk.rule = () => "serve";
    this.#disk.releaseAll();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.release();
    await sh(`umount ${FOLDER}`);
    await this.#disk[Symbol.asyncDispose]();
  }
}

/** A write of 64 KiB and its fsync(), which have a process of their own. */
class Sync {
  readonly ended: Promise<ShellResult>;
  hasEnded = false;

  constructor(name: string, options: { readonly byte?: string; readonly atMiB?: number } = {}) {
    const { byte = "s", atMiB = 0 } = options;
    const write = `dd of=/dev/${name} bs=64k count=1 seek=${atMiB * 16} iflag=fullblock oflag=direct conv=fsync`;
    this.ended = sh(`yes ${byte} | tr -d '\\n' | ${write} status=none`, { check: false, timeoutMs: 60_000 });
    void this.ended.then(() => this.hasEnded = true, () => {});
  }

  /** What came of it, without an error. */
  async succeeds(): Promise<void> {
    const { status, stderr } = await this.ended;
    assertEquals([status, stderr], [0, ""]);
  }
}

/** Waits for what must not take as long as the flush. A command that waits in the kernel could not be ended. */
async function prompt(what: string, work: Promise<unknown>): Promise<void> {
  let hasEnded = false;
  work.then(() => hasEnded = true, () => hasEnded = true);
  await waitFor(what, () => hasEnded, promptMs);
  await work;
}

const read = (name: string, words: string) => sh(`dd if=/dev/${name} of=/dev/null iflag=direct status=none ${words}`);
const readAll = (name: string, blockSize = "4k") => prompt(`all of ${name} is read`, read(name, `bs=${blockSize}`));

/** Whether the file has the letter where a Sync has written it. */
async function assertWritten(path: string, byte: string, atMiB = 0): Promise<void> {
  await sh(
    `dd if=${path} bs=64k skip=${atMiB * 16} count=1 status=none | cmp - <(yes ${byte} | tr -d '\\n' | head -c 64k)`,
  );
}

async function ends(serving: Serving, code = 0): Promise<void> {
  const { code: ended } = await serving.end();
  assertEquals(ended, code, serving.stdout + serving.stderr);
}

Deno.test("reads of the same queue are answered while a flush is under way, and fsync() returns when it has ended", async () => {
  await using store = await SlowStore.start();
  await using serving = await store.serve("late0");
  for (let round = 0; round < 2; round++) {
    using _held = store.holdFlushes();
    const sync = new Sync("late0");
    await store.untilFlushing();
    await readAll("late0");
    await readAll("late0", "1M");
    // Another one joins it, or is next.
    const next = new Sync("late0", { atMiB: 1 });
    await sh("sleep 0.5");
    await readAll("late0", "1M");
    assertEquals([sync.hasEnded, next.hasEnded], [false, false]);
    store.release();
    await sync.succeeds();
    await next.succeeds();
  }
  await readAll("late0");
  await assertWritten(`${FOLDER}/late0`, "s", 1);
  assertEquals((await dblock("destroy late0")).status, 0);
  await ends(serving);
});

for (const first of ["read", "flush"]) {
  Deno.test(`a read that the server finds together with a flush is answered before it, the ${first} first`, async () => {
    await using store = await SlowStore.start();
    await using serving = await store.serve("late1");
    await readAll("late1", "1M");
    using _held = store.holdFlushes();
    serving.child.kill("SIGSTOP");
    const waiting = () => infoOf("late1")!.waiting_count;
    let reading: Promise<ShellResult> | undefined;
    let flushing: Promise<ShellResult> | undefined;
    for (const [i, what] of ["read", "flush"].sort((a) => a === first ? -1 : 1).entries()) {
      if (what === "read") reading = read("late1", "bs=4k count=1");
      else flushing = sh("sync /dev/late1", { check: false });
      await waitFor(`${i + 1} requests wait`, () => waiting() === i + 1);
    }
    serving.child.kill("SIGCONT");
    await store.untilFlushing();
    await prompt("the read is answered", reading!);
    store.release();
    assertEquals((await flushing!).status, 0);
    assertEquals((await dblock("destroy late1")).status, 0);
    await ends(serving);
  });
}

Deno.test("a flush of one disk of many keeps none of the others waiting", async () => {
  await using store = await SlowStore.start();
  const names = ["late20", "late21", "late22", "late23"];
  for (const name of names) await sh(`head -c ${SIZE_MIB}M /dev/urandom >${FOLDER}/${name}; sync ${FOLDER}/${name}`);
  await using serving = await Serving.start(
    ["serve", ...names.flatMap((name) => [`file:${FOLDER}/${name}`, "--name", name])],
  );
  assert(names.length > navigator.hardwareConcurrency);
  for (const name of names) await readAll(name, "1M");
  using _held = store.holdFlushes();
  const sync = new Sync("late21");
  await store.untilFlushing();
  for (const name of names) await readAll(name);
  assertEquals(sync.hasEnded, false);
  store.release();
  await sync.succeeds();
  for (const name of names) assertEquals((await dblock(`destroy ${name}`)).status, 0);
  await ends(serving);
});

Deno.test("a flush that fails is EIO for the one who called fsync(), once, and the server goes on", async () => {
  await using store = await SlowStore.start();
  await using serving = await store.serve("late3");
  await new Sync("late3").succeeds();
  store.failFlushes();
  const { status, stderr } = await new Sync("late3").ended;
  assertEquals(status, 1);
  assertMatch(stderr, /fsync failed.*Input\/output error/);
  store.release();
  await new Sync("late3", { byte: "t" }).succeeds();
  await assertWritten(`${FOLDER}/late3`, "t");
  assertEquals(infoOf("late3")!.error_count, 1);
  assertEquals((await dblock("destroy late3")).status, 0);
  await ends(serving);
});

for (const signal of ["SIGTERM", "SIGKILL"] as const) {
  Deno.test(`${signal} while a flush is under way: the disk is held at once, and the next server does the flush again`, async () => {
    await using store = await SlowStore.start();
    const words = ["--on-death", "hold"];
    await using first = await store.serve("late4", ...words);
    using _held = store.holdFlushes();
    const sync = new Sync("late4", { byte: "u", atMiB: 2 });
    await store.untilFlushing();
    first.child.kill(signal);
    const heldMs = await waitFor("the disk is held", () => infoOf("late4")!.state === DBLOCK_STATE_HELD);
    assertWithin(3_000, heldMs, "held");
    assertEquals(sync.hasEnded, false);
    store.release();
    if (signal === "SIGTERM") await ends(first);
    else assertEquals((await first.end()).signal, signal);
    await using next = await store.serve("late4", ...words);
    assertMatch(next.stdout, /is recovered/);
    await sync.succeeds();
    await assertWritten(`${FOLDER}/late4`, "u", 2);
    const { error_count, timeout_count } = infoOf("late4")!;
    assertEquals([error_count, timeout_count], [0, 0]);
    assertEquals((await dblock("destroy late4")).status, 0);
    await ends(next);
  });
}

Deno.test("a disk is destroyed by force while a flush is under way: fsync() fails at once, and what was answered is in the file", async () => {
  await using store = await SlowStore.start();
  await using serving = await store.serve("late5");
  using _held = store.holdFlushes();
  const sync = new Sync("late5", { byte: "v" });
  await store.untilFlushing();
  await prompt("it is destroyed", dblock("destroy late5 --force"));
  await prompt("fsync() fails", sync.ended);
  assertEquals([(await sync.ended).status, infoOf("late5")], [1, undefined]);
  store.release();
  await ends(serving);
  await assertWritten(`${FOLDER}/late5`, "v");
});

Deno.test("a take-over waits for a flush that is under way, and no longer", async () => {
  await using store = await SlowStore.start();
  await using first = await store.serve("late6");
  using _held = store.holdFlushes();
  const sync = new Sync("late6", { byte: "w" });
  await store.untilFlushing();
  const starting = store.serve("late6", "--take-over");
  await sh("sleep 1");
  assertEquals([sync.hasEnded, first.ended], [false, undefined]);
  store.release();
  await using next = await starting;
  assertMatch(next.stdout, /is taken over/);
  await sync.succeeds();
  await ends(first);
  await assertWritten(`${FOLDER}/late6`, "w");
  const { error_count, replayed_count } = infoOf("late6")!;
  assertEquals([error_count, replayed_count], [0, 0]);
  assertEquals((await dblock("destroy late6")).status, 0);
  await ends(next);
});

Deno.test("where the kernel has no asynchronous I/O for it, the thread waits for a flush, and fsync() works", async () => {
  const limit = "/proc/sys/fs/aio-max-nr";
  const before = (await Deno.readTextFile(limit)).trim();
  await using store = await SlowStore.start();
  await using serving = await store.serve("late7");
  await sh(`echo 0 >${limit}`);
  try {
    using _held = store.holdFlushes();
    const sync = new Sync("late7");
    await store.untilFlushing();
    assertEquals((await Deno.readTextFile("/proc/sys/fs/aio-nr")).trim(), "0");
    store.release();
    await sync.succeeds();
    await readAll("late7");
  } finally {
    await sh(`echo ${before} >${limit}`);
  }
  assertEquals((await dblock("destroy late7")).status, 0);
  await ends(serving);
});
