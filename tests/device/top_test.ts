// `dblock top` says of every disk what fio says of its load: requests, bytes, and percentiles that the kernel measures for
// it; whoever serves the disk, and while it runs only. Where the kernel's tracing is not there, it says what to type.
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { FIO_REPORT, parseFio } from "../../src/command/fio.ts";
import { LatencyWatch } from "../../src/command/latency.ts";
import type { Activity } from "../../src/command/top.ts";
import { ERRNO } from "../../src/disk/errors.ts";
import { info } from "../../src/module/info.ts";
import { isIoFlusher, setIoFlusher } from "../../src/system/libc.ts";
import { TestDisk } from "./disk.ts";
import { figure, sh, waitFor } from "./harness.ts";
import { atTerminal, dblock, Serving } from "./serving.ts";
import { NR, syscall } from "./syscall.ts";

interface Turn {
  readonly time: string;
  readonly disks: readonly Activity[];
}

/** What top says in so many seconds. */
async function top(seconds: number): Promise<Turn[]> {
  const { status, stdout, stderr } = await dblock(`top --json --count ${seconds}`);
  assertEquals([status, stderr], [0, ""]);
  const lines = stdout.trimEnd().split("\n");
  assertEquals(lines.length, seconds);
  return lines.map((line) => JSON.parse(line));
}

/** The seconds in which a disk read and wrote. On a machine with much other work there are some in which a server has no turn. */
function busySeconds(turns: readonly Turn[], name: string): Activity[] {
  const all = turns.flatMap(({ disks }) => disks).filter((one) => one.name === name);
  const busy = all.filter((one) => one.p50Ms !== undefined && one.readsPerSecond > 0 && one.writesPerSecond > 0);
  assert(busy.length >= 3, `${name} was busy in ${busy.length} seconds`);
  return busy;
}

/** The quickest of them: what it says is never above what fio says of the whole. */
function quickest(busy: readonly Activity[]): Activity {
  return busy.reduce((best, one) => one.p50Ms! < best.p50Ms! ? one : best);
}

function assertBetween(value: number | undefined, least: number, most: number, what: string): void {
  assert(value !== undefined && value >= least && value <= most, `${what}: ${value} is not ${least} to ${most}`);
}

Deno.test("top has the percentiles of a load whose latency is known, of each disk its own", async () => {
  const words = "serve null:1GiB --name topslow --with delay=read=10ms,write=60ms memory:64MiB --name topfast";
  await using serving = await Serving.start(words.split(" "));
  // A server that is no dblock command: a test's own.
  await using own = await TestDisk.start({ name: "topown" });
  const loads = ["/dev/topslow", "/dev/topfast", own.path].map((path) =>
    new Deno.Command("fio", {
      args: `--name=load --filename=${path} --rw=randrw --rwmixread=90 --bs=4k --direct=1 --ioengine=libaio --iodepth=4
        --rate_iops=40,4 --time_based --runtime=600 ${FIO_REPORT.join(" ")}`.split(/\s+/),
      stdout: "piped",
      stderr: "null",
    }).spawn()
  );
  // A program starts slowly on a busy machine: top looks when all three are at work.
  for (const name of ["topslow", "topfast", "topown"]) {
    await waitFor(
      `I/O of fio on ${name}`,
      () => Number(Deno.readTextFileSync(`/sys/block/${name}/stat`).trim().split(/\s+/)[4]) > 0,
    );
  }
  const turns = await top(8);
  for (const load of loads) load.kill("SIGINT");
  const [slow] = await Promise.all(loads.map((load) => load.output()));
  const { p50Us, p99Us } = parseFio(new TextDecoder().decode(slow!.stdout));

  // Nine of ten requests are reads of 10 ms, the others writes of 60 ms; timers are late, and never early. How late on this
  // machine, fio knows, who waits for the same requests and is woken after the kernel has counted them.
  const busy = busySeconds(turns, "topslow");
  const seen = quickest(busy);
  assertBetween(seen.p50Ms, 10, p50Us / 1_000 * 1.5 + 5, "p50 of the slow disk");
  assertBetween(seen.p99Ms, 60, p99Us / 1_000 * 1.5 + 60, "p99 of the slow disk");
  const sum = (field: "readsPerSecond" | "writesPerSecond") => busy.reduce((total, one) => total + one[field], 0);
  assertBetween(sum("writesPerSecond") / sum("readsPerSecond"), 0.02, 0.4, "writes to reads");
  for (const name of ["topfast", "topown"]) {
    const { p50Ms, p99Ms } = quickest(busySeconds(turns, name));
    assertBetween(p50Ms, 0.001, seen.p50Ms! * 0.9, `p50 of ${name}`);
    assertBetween(p99Ms, p50Ms!, 10_000, `p99 of ${name}`);
  }
  figure({ "p50 in top of a disk that takes 10 ms": [seen.p50Ms!, "ms"] });

  serving.child.kill("SIGTERM");
  assertEquals((await serving.end()).code, 0);
});

const DEPTH = 6;
const BLOCK_BYTES = 16_384;

Deno.test("top has bytes, depth and errors of each disk, and draws its table again in its place", async () => {
  const words = "serve null:1GiB --name topdepth --with delay=read=300ms memory:16MiB --name toperr " +
    "--with fault=operations=read,offset=8MiB,length=1MiB";
  await using serving = await Serving.start(words.split(" "));
  const common = "--direct=1 --ioengine=libaio --rw=randread --time_based --runtime=600";
  const loads = [
    `--name=depth --filename=/dev/topdepth --bs=${BLOCK_BYTES} --iodepth=${DEPTH}`,
    "--name=errors --filename=/dev/toperr --bs=4k --offset=8M --size=1M --rate_iops=20 --continue_on_error=all",
  ].map((args) =>
    new Deno.Command("fio", { args: `${args} ${common}`.split(" "), stdout: "null", stderr: "null" }).spawn()
  );
  // A program starts slowly on a busy machine.
  await waitFor("fio is at work", async () => {
    const depth = await info("topdepth");
    return depth.inFlight.waiting + depth.inFlight.handedOut === DEPTH && (await info("toperr")).counts.errors > 0;
  }, 60_000);
  const turns = (await top(5)).map(({ disks }) => new Map(disks.map((one) => [one.name, one])));
  for (
    const { readsPerSecond, bytesPerSecond, inFlight, errorsPerSecond } of turns.map((one) => one.get("topdepth")!)
  ) {
    // Six at a time, of 300 ms each; one second may have the end of six more.
    assertBetween(readsPerSecond, 0, DEPTH / 0.3 + DEPTH, "reads of the disk with a depth");
    // Counts and bytes of one moment are read one after the other.
    assertBetween(bytesPerSecond - readsPerSecond * BLOCK_BYTES, -DEPTH * BLOCK_BYTES, DEPTH * BLOCK_BYTES, "bytes");
    assertBetween(inFlight, 0, DEPTH, "requests in flight");
    assertEquals(errorsPerSecond, 0);
  }
  assert(turns.some((one) => one.get("topdepth")!.bytesPerSecond > 4 * BLOCK_BYTES), "no second has bytes");
  assert(turns.some((one) => one.get("topdepth")!.inFlight === DEPTH), "no second has all in flight");
  const errors = turns.map((one) => one.get("toperr")!.errorsPerSecond);
  assertBetween(Math.max(...errors), 2, 45, `errors of the disk that fails (${errors})`);

  await using terminal = atTerminal("top --count 4");
  assertEquals((await terminal.end(60_000)).code, 0);
  const [before, ...screens] = terminal.stdout.split("\x1b[H\x1b[J");
  assertEquals([before, screens.length], ["", 4], terminal.stdout);
  const rows = screens.map((screen) => screen.trimEnd().split("\r\n"));
  for (const lines of rows) {
    // The head, two disks, and the sum: nothing of an earlier second, and nothing that moves the cursor.
    assertEquals([lines.length, lines.join("").includes("\x1b")], [4, false], lines.join("\n"));
    assertMatch(lines[0]!, /^DISK +r\/s +w\/s +MiB\/s +ms +p50 +p99 +queue +err\/s$/);
    assertMatch(lines[1]!, /^topdepth( +[\d.]+| +-){8}$/);
    assertMatch(lines[2]!, /^toperr( +[\d.]+| +-){8}$/);
    assertMatch(lines[3]!, /^2 disks, /);
  }
  const columns = (row: number) => rows.map((lines) => lines[row]!.split(/ +/));
  assert(columns(1).some((cells) => Number(cells[3]) > 0 && cells[7] === `${DEPTH}`), terminal.stdout);
  assert(columns(2).some((cells) => Number(cells[8]) >= 2), terminal.stdout);

  for (const load of loads) load.kill("SIGINT");
  await Promise.all(loads.map((load) => load.status));
  serving.child.kill("SIGTERM");
  assertEquals((await serving.end()).code, 0);
});

const BPF_PROG_GET_NEXT_ID = 11;

/** The BPF programs that are in the kernel, also those that no descriptor leads to. A number is not used again. */
function programIds(): number[] {
  const ids: number[] = [];
  // Of union bpf_attr: start_id, next_id, open_flags.
  const words = new Uint32Array(new ArrayBuffer(128));
  for (;;) {
    const result = syscall(NR.bpf, BPF_PROG_GET_NEXT_ID, new Uint8Array(words.buffer), 12);
    if (result === -ERRNO.ENOENT) return ids;
    assertEquals(result, 0, "BPF_PROG_GET_NEXT_ID");
    ids.push(words[1]!);
    words[0] = words[1]!;
  }
}

Deno.test("top shows a disk that is idle, and one that comes and goes, and leaves nothing in the kernel", async () => {
  await using serving = await Serving.start(["serve", "memory:16MiB", "--name", "topidle"]);
  const before = new Set(programIds());
  const programs = () => programIds().filter((id) => !before.has(id)).length;
  const looking = top(4);
  const late = await Serving.start(["serve", "memory:16MiB", "--name", "toplate"]);
  await sh("dd if=/dev/toplate of=/dev/null bs=64k count=16 iflag=direct status=none");
  late.child.kill("SIGTERM");
  assertEquals((await late.end()).code, 0);
  for (const { disks } of await looking) {
    const { readsPerSecond, p50Ms } = disks.find(({ name }) => name === "topidle")!;
    assertEquals([readsPerSecond, p50Ms], [0, undefined]);
  }
  assertMatch(
    (await dblock("top --count 1")).stdout,
    /^DISK +r\/s .* p50 +p99 +queue +err\/s\ntopidle +0 +0 +0\.0 +- +- +- +0 +0\n1 disk, 0/,
  );
  const child = new Deno.Command("./dblock", { args: ["top", "--json"], stdout: "piped", stderr: "null" }).spawn();
  const reader = child.stdout.getReader();
  await reader.read();
  // The kernel frees a program a moment after the last descriptor of it is closed.
  await waitFor("two programs are there", () => programs() === 2);
  child.kill("SIGKILL");
  await child.status;
  await reader.cancel();
  await waitFor("no program is left", () => programs() === 0);
  serving.child.kill("SIGTERM");
  assertEquals((await serving.end()).code, 0);
});

Deno.test("without the kernel's tracing, top says in one line what to type, and shows the rest", async () => {
  await using serving = await Serving.start(["serve", "memory:16MiB", "--name", "topbare"]);
  await sh("umount /sys/kernel/tracing");
  const { status, stdout, stderr } = await dblock("top --count 1");
  await sh("mount -t tracefs tracefs /sys/kernel/tracing");
  assertEquals([status, stderr.split("\n").length], [0, 2]);
  assertStringIncludes(stderr, "(mount -t tracefs tracefs /sys/kernel/tracing)");
  assertMatch(stdout, /\ntopbare +0 +0 +0\.0 +- +- +- /);
  serving.child.kill("SIGTERM");
  assertEquals((await serving.end()).code, 0);
});

// The last one, as this thread stays what it becomes. An executable is an I/O flusher from its beginning; for such a thread
// the kernel (before 6.15) has hardly any per-processor memory, and each of these asks for some.
Deno.test("an I/O flusher measures as anybody does, and stays one", () => {
  assertEquals(setIoFlusher(), true);
  using stack = new DisposableStack();
  for (let i = 0; i < 16; i++) stack.use(LatencyWatch.open());
  assertEquals(isIoFlusher(), true);
});
