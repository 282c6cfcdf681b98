// What a signal, and a terminal that goes, do to a disk that is in use: nothing that its user would notice.
// time limit: 300 s
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { DBLOCK_STATE_FAILED, DBLOCK_STATE_HELD, DBLOCK_STATE_LIVE } from "../../src/module/abi.ts";
import { fioLoop } from "./fio.ts";
import { assertWithin, exists, figure, sh, waitFor } from "./harness.ts";
import { Ramdisk, runRamdisk } from "./ramdisk.ts";
import { infoOf } from "./server.ts";

/** Far less than the 90 s that systemd waits; on a machine of its own it takes a part of a second. */
const leaveMs = 15_000;
const load = (path: string) => `--filename=${path} --rw=randwrite --bs=4k --iodepth=8 --size=16M`;

/** SIGTERM; returns how long it took to end with status 0. */
async function terminate(disk: Ramdisk): Promise<number> {
  const started = performance.now();
  disk.child.kill("SIGTERM");
  assertEquals((await disk.end(leaveMs)).code, 0, disk.stderr);
  const tookMs = performance.now() - started;
  assertWithin(leaveMs, tookMs, "SIGTERM has left the disk");
  assertMatch(disk.stdout, /is left to its next server; to go on: .*--store/);
  assertEquals(disk.stderr, "");
  return tookMs;
}

Deno.test("on-death hold: a restart by SIGTERM is not noticed by fio, which verifies what it writes; Ctrl-C ends the disk", async () => {
  const args = ["--store", "/dev/shm/term0", "--on-death", "hold"];
  let server = await Ramdisk.start({ name: "term0", args: [...args, "--size", "16M"] });
  const loop = fioLoop("term0", load(server.path));
  let longestMs = 0;
  for (let round = 0; round < 2; round++) {
    const { requests } = infoOf("term0")!;
    await waitFor("fio writes", () => infoOf("term0")!.requests[1]! > requests[1]!);
    longestMs = Math.max(longestMs, await terminate(server));
    assertEquals(infoOf("term0")!.state, DBLOCK_STATE_HELD);
    server = await Ramdisk.start({ name: "term0", args });
    assertMatch(server.stdout, /is recovered/);
  }
  await using last = server;
  assertEquals(await loop.stop(), "");
  const { error_count, replayed_count } = infoOf("term0")!;
  // It has answered what was in hand: nothing had to be done again.
  assertEquals([error_count, replayed_count], [0, 0]);
  figure({ "longest stop of a served disk": [longestMs / 1000, "s"] });
  // Ctrl-C ends the disk, as -d does, also under this policy.
  last.child.kill("SIGINT");
  assertEquals((await last.end()).code, 0);
  assertEquals(exists(last.path), false);
  await sh("rm /dev/shm/term0");
});

Deno.test("on-death fail: SIGTERM leaves a mounted disk, whose I/O fails until the next server", async () => {
  const args = ["--store", "/dev/shm/term1", "--on-death", "fail"];
  const first = await Ramdisk.start({ name: "term1", args: [...args, "--size", "64M"] });
  // Read-only, as a file system that cannot write a block is not the same afterwards.
  await sh(`mkfs.ext4 -q ${first.path} && mount ${first.path} /mnt && cp /bin/ls /mnt/ls && mount -o remount,ro /mnt`);
  await terminate(first);
  assertEquals(infoOf("term1")!.state, DBLOCK_STATE_FAILED);
  const read = `dd if=${first.path} of=/dev/null bs=4k count=1 iflag=direct status=none`;
  assertStringIncludes((await sh(read, { check: false })).stderr, "Input/output error");
  await using second = await Ramdisk.start({ name: "term1", args });
  await sh("echo 3 >/proc/sys/vm/drop_caches; cmp /bin/ls /mnt/ls && umount /mnt");
  assertEquals((await runRamdisk("-d --name term1")).status, 0);
  await second.end();
  await sh("rm /dev/shm/term1");
});

/** A dblock-ramdisk on a pseudo-terminal: what is typed there goes to it, and so do the terminal's signals. */
class Terminal implements AsyncDisposable {
  readonly name: string;
  readonly #script: Deno.ChildProcess;
  readonly #keys: WritableStreamDefaultWriter<Uint8Array>;
  screen = "";
  /** Of the server; 0 before its disk is there. */
  pid = 0;
  readonly #read: Promise<void>;

  private constructor(name: string) {
    this.name = name;
    const script = new Deno.Command("script", {
      args: ["--quiet", "--flush", "--command", `exec ./dblock-ramdisk --name ${name} --size 64M`, "/dev/null"],
      stdin: "piped",
      stdout: "piped",
    }).spawn();
    this.#script = script;
    this.#keys = script.stdin.getWriter();
    this.#read = (async () => {
      for await (const text of script.stdout.pipeThrough(new TextDecoderStream())) this.screen += text;
    })();
  }

  static async start(name: string): Promise<Terminal> {
    const terminal = new Terminal(name);
    await waitFor(`/dev/${name} is ready`, () => terminal.screen.includes("is ready"), 60_000);
    terminal.pid = infoOf(name)!.server_pid;
    return terminal;
  }

  get path(): string {
    return `/dev/${this.name}`;
  }

  async type(keys: string): Promise<void> {
    await this.#keys.write(new TextEncoder().encode(keys));
  }

  /**
   * As a shell's `fg`: `script` stops itself a moment after its child has stopped, and lets the child go on when it goes on.
   * A SIGCONT that comes before that moment would be for nothing.
   */
  async foreground(): Promise<void> {
    await waitFor("the terminal's program stops", () => stateOf(this.#script.pid) === "T");
    this.#script.kill("SIGCONT");
  }

  /** As an ssh session that ends: nobody has the other side of the terminal any more. */
  async drop(): Promise<void> {
    this.#script.kill("SIGKILL");
    await this.#script.status;
    await this.#read;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#keys.abort().catch(() => {});
    await this.drop().catch(() => {});
    await this.#script.status;
    await runRamdisk(`-d --force --name ${this.name}`);
    await waitFor(`the server of ${this.path} ends`, () => !exists(`/proc/${this.pid}`));
  }
}

const stateOf = (pid: number) => /^State:\s+(\S)/m.exec(Deno.readTextFileSync(`/proc/${pid}/status`))?.[1];

Deno.test("a terminal that goes takes no disk away: fio, which verifies, goes on", async () => {
  await using terminal = await Terminal.start("pty0");
  const { pid } = terminal;
  assertEquals(Deno.readTextFileSync(`/proc/${pid}/comm`), "dblock-ramdisk\n", "what pgrep looks for");
  const loop = fioLoop("pty0", load(terminal.path));
  await waitFor("fio writes", () => infoOf("pty0")!.requests[1]! > 0);
  await terminal.drop();
  const { requests } = infoOf("pty0")!;
  await waitFor("fio goes on", () => infoOf("pty0")!.requests[1]! > requests[1]! + 100);
  assertEquals(await loop.stop(), "");
  const { server_pid, state, error_count } = infoOf("pty0")!;
  assertEquals([server_pid, state, error_count], [pid, DBLOCK_STATE_LIVE, 0]);
  // It has something to say now, and nowhere to say it.
  assertEquals((await runRamdisk("-d --name pty0")).status, 0);
  await waitFor("the server ends", () => !exists(`/proc/${pid}`));
});

Deno.test("Ctrl-Z stops no disk that is in use, and one that nobody uses; Ctrl-C ends it", async () => {
  await using terminal = await Terminal.start("pty1");
  const { pid } = terminal;
  await sh(`mkfs.ext4 -q ${terminal.path} && mount ${terminal.path} /mnt`);
  await terminal.type("\x1a");
  await waitFor("it says why not", () => terminal.screen.includes("Cannot stop serving /dev/pty1: it is in use"));
  assert(stateOf(pid) !== "T", "the server runs");
  await sh("cp /bin/ls /mnt && sync -f /mnt && umount /mnt");
  await terminal.type("\x1a");
  await waitFor("it stops", () => stateOf(pid) === "T");
  await terminal.foreground();
  await waitFor("it goes on", () => stateOf(pid) !== "T");
  await sh(`mount ${terminal.path} /mnt && cmp /bin/ls /mnt/ls && umount /mnt`);
  await terminal.type("\x03");
  await waitFor("the disk is gone", () => !exists(terminal.path));
  await waitFor("the server ends", () => !exists(`/proc/${pid}`));
});
