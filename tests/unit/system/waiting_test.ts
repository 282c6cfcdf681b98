// SPDX-License-Identifier: MIT
// How a program waits for many files without their taking Deno's threads: on real files (FIFOs), with real system calls.
import { assert, assertEquals, assertThrows } from "@std/assert";
import { DblockError } from "../../../src/disk/errors.ts";
import { linux, O_NONBLOCK, O_RDWR } from "../../../src/system/libc.ts";
import { libc as calls } from "../../../src/system/library.ts";
import { blockingTurn, ReadyFiles } from "../../../src/system/waiting.ts";

const COUNT = 40;

/** Files that have nothing to read, and what gives one something. */
async function fifos(count: number): Promise<AsyncDisposable & { fds: number[]; fill(index: number): void }> {
  const folder = await Deno.makeTempDir();
  const paths = Array.from({ length: count }, (_, i) => `${folder}/${i}`);
  await new Deno.Command("mkfifo", { args: paths }).output();
  const fds = paths.map((path) => linux.open(path, O_RDWR | O_NONBLOCK));
  assert(fds.every((fd) => fd >= 0));
  return {
    fds,
    fill: (index) => {
      using file = Deno.openSync(paths[index] ?? "", { write: true });
      file.writeSync(new Uint8Array(1));
    },
    [Symbol.asyncDispose]: async () => await Deno.remove(folder, { recursive: true }),
  };
}

/** Far more than it takes: who waits for something that comes does not wait for this. */
const LONG_MS = 20_000;

function within(ms: number, work: Promise<unknown>): Promise<boolean> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<boolean>((resolve) => timer = setTimeout(resolve, ms, false));
  return Promise.race([work.then(() => true), late]).finally(() => clearTimeout(timer));
}

Deno.test(`${COUNT} files that are waited for leave threads to all else`, async () => {
  await using files = await fifos(COUNT);
  const waits = files.fds.map((fd) => linux.pollAsync(fd));
  assert(await within(LONG_MS, Deno.readTextFile("/proc/self/stat")));
  assert(await within(LONG_MS, linux.ioctlAsync(files.fds[0] ?? -1, 0, new Uint8Array(8))));
  assertEquals(await within(50, Promise.race(waits)), false);
  for (const i of waits.keys()) files.fill(i);
  assert(await within(LONG_MS, Promise.all(waits)));
  // Ready files are ready again; and only they.
  assert(await within(LONG_MS, Promise.all(files.fds.map((fd) => linux.pollAsync(fd)))));
  for (const fd of files.fds) linux.close(fd);
});

Deno.test("a wait ends when its file is closed, and the number is another file's at once", async () => {
  await using files = await fifos(2);
  const [first = -1, second = -1] = files.fds;
  for (let i = 0; i < 20; i++) {
    const closed = linux.pollAsync(first);
    const other = linux.pollAsync(second);
    linux.close(first);
    assert(await within(LONG_MS, closed));
    // The lowest number is taken: that of the file that was closed.
    const again = linux.open("/dev/zero", O_RDWR);
    assertEquals(again, first);
    linux.close(again);
    assertEquals(linux.open(`/proc/self/fd/${second}`, O_RDWR | O_NONBLOCK), first);
    const reopened = linux.pollAsync(first);
    assertEquals(await within(10, Promise.race([reopened, other])), false);
    files.fill(1);
    assert(await within(LONG_MS, Promise.all([reopened, other])));
    using file = Deno.openSync(`/proc/self/fd/${second}`);
    file.readSync(new Uint8Array(1));
  }
  for (const fd of files.fds) linux.close(fd);
});

Deno.test("nothing is left open when all files that were waited for are closed, at whatever moment", async () => {
  await using files = await fifos(3);
  const count = () => [...Deno.readDirSync("/proc/self/fd")].length;
  // A thread that waits comes back before the set is closed.
  const becomes = async (wanted: number) => {
    for (let i = 0; i < 100 && count() !== wanted; i++) await new Promise((resolve) => setTimeout(resolve, 10));
    assertEquals(count(), wanted);
  };
  linux.closePollFiles(linux.openPollFiles()); // the bell, which stays open
  const before = count();
  const [first = -1, second = -1, third = -1] = files.fds;
  for (const fd of files.fds) linux.watch(fd);
  for (const fd of files.fds) linux.forget(fd);
  await becomes(before);
  files.fill(0);
  await linux.pollAsync(first);
  assertEquals(count(), before + 1); // the set
  linux.close(first); // nobody waits
  await becomes(before - 1);
  const wait = linux.pollAsync(second);
  linux.close(second);
  await wait;
  const again = linux.pollAsync(third); // while the one before is on its way back
  files.fill(2);
  assert(await within(LONG_MS, again));
  linux.close(third);
  await becomes(before - 3);
});

Deno.test("a program ends when it waits for nothing any more", async () => {
  await using files = await fifos(0);
  assertEquals(files.fds, []);
  const code = `
    import { linux, O_RDWR } from "${new URL("../../../src/system/libc.ts", import.meta.url).href}";
    const path = await Deno.makeTempFile();
    await Deno.remove(path);
    await new Deno.Command("mkfifo", { args: [path] }).output();
    const fds = [1, 2].map(() => linux.open(path, O_RDWR));
    const waits = fds.map((fd) => linux.pollAsync(fd));
    setTimeout(() => fds.forEach((fd) => linux.close(fd)), 50);
    await Promise.all(waits);
    await Deno.remove(path);
    console.log("ended");
  `;
  const args = ["run", "-A", "--no-check", `data:text/javascript,${encodeURIComponent(code)}`];
  const child = new Deno.Command(Deno.execPath(), { args, stdout: "piped" }).spawn();
  const timer = setTimeout(() => child.kill("SIGKILL"), 20_000);
  const { success, stdout } = await child.output();
  clearTimeout(timer);
  assertEquals([success, new TextDecoder().decode(stdout)], [true, "ended\n"]);
});

const libc = new URL("../../../src/system/libc.ts", import.meta.url).href;
const pages = new URL("../../../src/system/pages.ts", import.meta.url).href;
const pollingCode = `
  import { linux, usePollFiles } from "${libc}";
  onmessage = ({ data: { fd, files, dies } }) => {
    usePollFiles(files);
    linux.watch(fd);
    linux.pollAsync(fd).then(() => postMessage("woken"));
    if (dies) setTimeout(() => { throw new Error("boom"); }, 20);
    else postMessage("waits");
  };
`;

for (const dies of [true, false]) {
  Deno.test(`20 Workers that ${dies ? "die" : "are terminated"} while they wait leave no thread and no descriptor`, async () => {
    // In a program of its own: what a Worker dies of is printed, and a thread of the pool lives on for some seconds.
    const code = `
      import { linux, O_RDWR } from "${libc}";
      const path = await Deno.makeTempFile();
      await Deno.remove(path);
      await new Deno.Command("mkfifo", { args: [path] }).output();
      const fd = linux.open(path, O_RDWR);
      await Deno.remove(path);
      const count = (what) => [...Deno.readDirSync("/proc/self/" + what)].length;
      const url = "data:text/javascript," + encodeURIComponent(${JSON.stringify(pollingCode)});
      const end = async () => {
        const files = linux.openPollFiles();
        const worker = new Worker(url, { type: "module" });
        await new Promise((resolve) => {
          worker.onmessage = resolve;
          worker.onerror = (event) => { event.preventDefault(); resolve(); };
          worker.postMessage({ fd, files, dies: ${dies} });
        });
        worker.terminate();
        linux.closePollFiles(files);
      };
      await end(); // what Deno opens once
      await end();
      await new Promise((resolve) => setTimeout(resolve, 500));
      const [threads, descriptors] = [count("task"), count("fd")];
      for (let i = 0; i < 20; i++) await end();
      const isBack = () => count("task") <= threads + 2 && count("fd") <= descriptors;
      for (let i = 0; i < 1000 && !isBack(); i++) await new Promise((resolve) => setTimeout(resolve, 20));
      console.log(isBack() ? "back" : [threads, count("task"), descriptors, count("fd")].join());
      Deno.exit(0);
    `;
    const args = ["run", "-A", "--no-check", `data:text/javascript,${encodeURIComponent(code)}`];
    const { stdout, stderr } = await new Deno.Command(Deno.execPath(), { args }).output();
    const text = new TextDecoder();
    assertEquals(text.decode(stdout), "back\n", text.decode(stderr));
  });
}

Deno.test("a Worker's wait ends when the main program abandons its file and rings", async () => {
  await using fifo = await fifos(1);
  const [fd = -1] = fifo.fds;
  const files = linux.openPollFiles();
  const worker = new Worker(`data:text/javascript,${encodeURIComponent(pollingCode)}`, { type: "module" });
  const next = () => new Promise((resolve) => worker.onmessage = ({ data }) => resolve(data));
  worker.postMessage({ fd, files, dies: false });
  assertEquals(await next(), "waits");
  const woken = next();
  linux.abandon(fd);
  linux.ringPollFiles(files);
  assertEquals(await woken, "woken");
  worker.terminate();
  linux.closePollFiles(files);
  linux.close(fd);
});

Deno.test("what a program waits with is opened before it waits, and fails with EMFILE then", async () => {
  const code = `
    import { linux, O_RDWR } from "${libc}";
    import { zeroMappedFile, mapMemory } from "${pages}";
    const path = await Deno.makeTempFile();
    await Deno.remove(path);
    await new Deno.Command("mkfifo", { args: [path] }).output();
    const fd = linux.open(path, O_RDWR);
    const memory = mapMemory(4096);
    const watch = () => { try { linux.watch(fd); return "ok"; } catch (error) { return error.code; } };
    const fill = (keep) => {
      const files = [];
      try {
        for (;;) files.push(Deno.openSync("/dev/null"));
      } catch { /* that is the limit */ }
      for (let i = 0; i < keep; i++) files.pop().close();
      return () => files.forEach((file) => file.close());
    };
    const full = fill(0);
    const said = [watch(), zeroMappedFile(memory, 4096)];
    full();
    said.push(zeroMappedFile(memory, 4096), watch());
    fill(0);
    const wait = linux.pollAsync(fd); // needs nothing any more
    linux.close(fd);
    await wait;
    console.log(said.join());
    Deno.exit(0);
  `;
  const program = `ulimit -n 60; exec "$0" run -A --no-check "$1"`;
  const args = ["-c", program, Deno.execPath(), `data:text/javascript,${encodeURIComponent(code)}`];
  const { stdout, stderr } = await new Deno.Command("sh", { args }).output();
  const text = new TextDecoder();
  assertEquals(text.decode(stdout), "EMFILE,false,true,ok\n", text.decode(stderr));
});

Deno.test("blockingTurn() lets half the pool wait, and the others in line", async () => {
  const turns = await Promise.all(Array.from({ length: 16 }, () => blockingTurn()));
  const order: number[] = [];
  const late = [1, 2].map(async (which) => {
    const turn = await blockingTurn();
    order.push(which);
    return turn;
  });
  await new Promise((resolve) => setTimeout(resolve, 10));
  assertEquals(order, []);
  turns.pop()?.[Symbol.dispose]();
  await late[0];
  assertEquals(order, [1]);
  for (const turn of turns) turn[Symbol.dispose]();
  for (const turn of await Promise.all(late)) turn[Symbol.dispose]();
  assertEquals(order, [1, 2]);
});

Deno.test("ReadyFiles finds what is ready each time, the bell once, and sees that a file was closed by another thread", () => {
  const files = linux.openPollFiles();
  const ready = new ReadyFiles(calls(), files);
  const found = () => Array.from({ length: ready.waitHere() }, (_, i) => ready.ready(i)).sort();
  // All sets of a process have the same bell, which others may have rung before.
  linux.ringPollFiles(files);
  assertEquals(found(), [files.bell]);
  const fd = calls().eventfd(1, 0);
  ready.add(fd);
  assertThrows(() => ready.add(fd), DblockError, "no room");
  assertEquals([found(), found(), ready.has(fd)], [[fd], [fd], true]);
  linux.ringPollFiles(files);
  linux.ringPollFiles(files);
  assertEquals([found(), found()], [[fd, files.bell].sort(), [fd]]);
  calls().eventfd_read(fd, new Uint8Array(8));
  linux.ringPollFiles(files);
  assertEquals(found(), [files.bell]);
  linux.abandon(fd);
  assertEquals(ready.has(fd), false);
  linux.close(fd);
  const other = calls().eventfd(1, 0);
  ready.add(other);
  ready.remove(other);
  assertEquals(ready.has(other), false);
  linux.close(other);
  linux.closePollFiles(files);
});
