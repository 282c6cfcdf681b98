// `dblock bench` measures a disk beside memory: it writes only to what has no content, and nothing of it is there afterwards,
// neither at its end nor after Ctrl-C nor after a mistake.
// time limit: 240 s
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { exists, figure, sh, type ShellResult, waitFor } from "./harness.ts";

const QUICK = "--seconds 1 --area 8MiB --jobs randread-4KiB-1,randwrite-4KiB-1";

/** Runs it to its end; whatever that was, no disk is left. */
async function bench(words: string): Promise<ShellResult> {
  const result = await sh(`exec ./dblock bench ${words}`, { check: false, timeoutMs: 180_000 });
  await assertNothingLeft();
  return result;
}

async function assertNothingLeft(): Promise<void> {
  assertEquals((await sh("ls /dev /run/dblock | grep ^bench", { check: false })).stdout, "");
}

const hashOf = async (path: string) => (await sh(`sha256sum <${path}`)).stdout;

interface Report {
  readonly writes: boolean;
  readonly areaBytes: number;
  readonly jobs: readonly {
    readonly name: string;
    readonly disk: { readonly iops: number; readonly p50Us: number; readonly p99Us: number };
    readonly ratio: number;
  }[];
}

Deno.test("bench makes a file, writes to it and removes it; a slow disk has the ratio of a slow disk", async () => {
  const { status, stdout, stderr } = await bench(`/tmp/new.img?size=16MiB ${QUICK} --with delay=read=200ms --json`);
  assertEquals([status, stderr], [0, ""]);
  assertEquals(exists("/tmp/new.img"), false);
  const { writes, areaBytes, jobs } = JSON.parse(stdout) as Report;
  assertEquals([writes, areaBytes, jobs.length], [true, 8 * 2 ** 20, 2]);
  const single = jobs.find(({ name }) => name === "randread-4KiB-1")!;
  assert(single.disk.p50Us >= 200_000, `reads took ${single.disk.p50Us} us`);
  assert(single.disk.iops <= 5 && single.ratio < 0.5, `${single.disk.iops} reads/s, ${single.ratio} of memory`);
  figure({ "rate of a disk that takes 200 ms a read beside memory": [single.ratio * 100, "%"] });
});

Deno.test("bench reads what has content, and writes to it with --overwrite only", async () => {
  await sh("dd if=/dev/urandom of=/tmp/full.img bs=1M count=9 status=none");
  const before = await hashOf("/tmp/full.img");
  const read = await bench(`/tmp/full.img ${QUICK}`);
  assertEquals([read.status, read.stderr], [0, ""]);
  assertMatch(read.stdout, /^\/tmp\/full\.img, 8 MiB of it: reads only, because it may have content \(--overwrite /);
  assertEquals(read.stdout.split("\n").slice(1).map((line) => line.split(/ {2,}/)[0]), [
    "JOB",
    "read 4 KiB, one at a time",
    "",
  ]);
  assertMatch(read.stdout.split("\n")[2]!, / \d+\/s +\d+\.\d\d +\d+\/s +\d+\.\d\d +\d+\.\d\d$/);
  // A member that has content, behind one that is made: the whole is not empty, and what was made goes.
  const mixed = await bench(`concat:[/tmp/none.img?size=8MiB],/tmp/full.img ${QUICK} --json`);
  assertEquals([mixed.status, JSON.parse(mixed.stdout).writes, exists("/tmp/none.img")], [0, false, false]);
  assertEquals(await hashOf("/tmp/full.img"), before);
});

Deno.test("after Ctrl-C bench leaves no disk, no fio, and of files those that were there, overwritten as it was told", async () => {
  const before = await hashOf("/tmp/full.img");
  const child = new Deno.Command("./dblock", {
    args: "bench concat:[/tmp/made.img?size=8MiB],/tmp/full.img --overwrite --area 16MiB --seconds 600".split(" "),
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  const jobRuns = "pgrep -f '[f]io .*--runtime=600'";
  await waitFor("the first job runs", async () => (await sh(jobRuns, { check: false })).status === 0, 120_000);
  child.kill("SIGINT");
  const { code, stderr } = await child.output();
  assertEquals([code, new TextDecoder().decode(stderr)], [130, "dblock bench: Interrupted: nothing is left behind\n"]);
  assertEquals([(await sh("pgrep -x fio", { check: false })).status, exists("/tmp/made.img")], [1, false]);
  await assertNothingLeft();
  assertEquals(await hashOf("/tmp/full.img") === before, false);
  await sh("rm /tmp/full.img");
});

Deno.test("the jobs with many requests at a time run to their end", async () => {
  const names = ["read-1MiB-8", "randread-4KiB-32", "randwrite-4KiB-32"];
  const { status, stdout, stderr } = await bench(
    `memory:16MiB --seconds 1 --area 8MiB --jobs ${names.join(",")} --json`,
  );
  assertEquals([status, stderr], [0, ""]);
  const { jobs } = JSON.parse(stdout) as Report;
  assertEquals(jobs.map(({ name }) => name), names);
  for (const { name, disk, ratio } of jobs) assert(disk.iops > 0 && disk.p99Us >= disk.p50Us && ratio > 0, name);
});

Deno.test("a mistake of bench is one line, and leaves nothing behind", async () => {
  const mistakes: readonly [words: string, status: number, said: string][] = [
    ["/tmp/small.img?size=1MiB", 1, "it has 1 MiB, and fio needs 8 MiB"],
    ["null:16MiB --read-only --jobs randwrite-4KiB-1", 1, "it is read-only or may have content (--overwrite"],
    [`null:16MiB ${QUICK} --with fault=operations=read`, 1, "Input/output error"],
  ];
  for (const [words, status, said] of mistakes) {
    const result = await bench(words);
    // What the disk itself complains of comes before.
    const seen = [result.status, result.stderr.replaceAll(/^\/dev\/bench\d+: .*\n/gm, "").split("\n").length];
    assertEquals(seen, [status, 2], `${words}: ${result.stdout}${result.stderr}`);
    assertStringIncludes(result.stderr, said);
  }
  assertEquals(exists("/tmp/small.img"), false);
  const without = await sh("mkdir -p /tmp/nothing; PATH=/tmp/nothing ./dblock bench memory:64MiB", { check: false });
  assertEquals(without, {
    status: 1,
    stdout: "",
    stderr: "dblock bench: Cannot measure memory:64MiB: fio is not installed (sudo apt install fio)\n",
  });
});
