// time limit: 240 s
// dblock serve --watch: the code of a disk is replaced ten times under fio verify and under a mounted file system, however the
// file is written; code that cannot take over leaves the old one serving and says why. Nobody sees an error. What happens to
// requests in each step of a replacement is tested in tests/unit/command/live_module_test.ts.
import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { fio, type FioResult, slowestMs } from "./fio.ts";
import { assertWithin, figure, sh, waitFor } from "./harness.ts";
import { infoOf, MIB } from "./server.ts";
import { dblock, Serving } from "./serving.ts";

const folder = "/tmp/watch";
const file = `${folder}/disk.ts`;
/** The last 4 KiB of the disk, which read as the number of the version. */
const numberAt = 32 * MIB - 4096;

/** A version that is known by its number. Odd ones answer at once, even ones later. */
function version(number: number): string {
  return `
import type { Backend, RequestOptions } from "@dblock/dblock";
import { offset } from "./lib.ts";
const wait: (() => Promise<void>) | undefined = ${number % 2} === 0
  ? () => new Promise<void>((resolve) => setTimeout(resolve, 1))
  : undefined;
interface Given { readonly sizeBytes: number }
export default function ({ sizeBytes }: Given, store: Uint8Array = new Uint8Array(sizeBytes)): Backend {
  return {
    sizeBytes,
    read(buffer, at, _options: RequestOptions) {
      const answer = () => {
        buffer.set(store.subarray(at, at + buffer.length));
        if (at >= ${numberAt}) buffer.fill(${number} + offset);
      };
      return wait === undefined ? answer() : wait().then(answer);
    },
    write(buffer, at) {
      const answer = (): void => store.set(buffer, at);
      return wait === undefined ? answer() : wait().then(answer);
    },
    flush() {},
    handOver: () => store,
  };
}
`;
}

/** The number of the version that answers now. */
async function numberOf(path: string): Promise<number> {
  const read = `dd if=${path} bs=4096 skip=${numberAt / 4096} count=1 iflag=direct status=none`;
  return Number((await sh(`${read} | head -c 1 | od -An -tu1`)).stdout);
}

/** Writes the module with a lib beside it, and serves it. */
async function start(name: string): Promise<Serving> {
  await sh(`rm -rf ${folder} && mkdir ${folder}`);
  await Deno.writeTextFile(`${folder}/lib.ts`, "export const offset: number = 0;\n");
  await Deno.writeTextFile(file, version(1));
  return await Serving.start(["serve", `${file}?size=32MiB`, "--name", name, "--watch", "--with", "stats"]);
}

interface Change {
  /** Ends when the file is written. */
  readonly write: () => Promise<void>;
  /** The number that is read from then on, or what is said of code that cannot take over. */
  readonly expected: number | string;
}

const inPlace = (text: string) => () => Deno.writeTextFile(file, text);

async function renamed(text: string): Promise<void> {
  await Deno.writeTextFile(`${file}~`, text);
  await Deno.rename(`${file}~`, file);
}

async function removedAndWritten(text: string): Promise<void> {
  await Deno.remove(file);
  await new Promise((resolve) => setTimeout(resolve, 100));
  await Deno.writeTextFile(file, text);
}

async function savedTwice(text: string): Promise<void> {
  await Deno.writeTextFile(file, "");
  await Deno.writeTextFile(file, text.slice(0, 100));
  await Deno.writeTextFile(file, text);
}

/** All of it in one go, five times good and five times not. */
const changes: readonly Change[] = [
  { write: inPlace(version(2)), expected: 2 },
  { write: inPlace(version(3).replace("export default", "export default default")), expected: `${file}:8:` },
  { write: () => renamed(version(3)), expected: 3 },
  {
    write: inPlace(version(4).replace("export default function", "export function disk")),
    expected: "it has no default export",
  },
  {
    write: inPlace(version(4).replace("  return {", "  throw new Error('no'); return {")),
    expected: "threw Error: no",
  },
  { write: () => removedAndWritten(version(4)), expected: 4 },
  { write: inPlace(version(5).replace("sizeBytes,", "sizeBytes: 4096,")), expected: "its disk's sizeBytes is 4096" },
  { write: () => savedTwice(version(5)), expected: 5 },
  { write: () => Deno.writeTextFile(`${folder}/lib.ts`, "export const offset: number = 50;\n"), expected: 55 },
  { write: inPlace(version(6).replace("./lib.ts", "npm:left-pad")), expected: "deno bundle" },
];

/** Runs fio, five seconds at a time, until `stop()`. */
function keepVerifying(path: string): AsyncDisposable & { stop(): Promise<FioResult[]> } {
  let isOver = false;
  const results: FioResult[] = [];
  // In bursts: two emulated processors leave the server and this test nothing else.
  const words = `--name=verify --filename=${path} --direct=1 --ioengine=io_uring --rw=randrw --bs=4k --iodepth=16 ` +
    "--size=31M --time_based --runtime=5 --verify=crc32c --verify_fatal=1 --verify_backlog=256 --verify_state_save=0 " +
    "--thinktime=50ms --thinktime_blocks=64";
  const running = (async () => {
    while (!isOver) results.push(await fio(words));
  })();
  running.catch(() => {}); // stop() tells
  const stop = async () => {
    isOver = true;
    await running;
    return results;
  };
  return { stop, [Symbol.asyncDispose]: async () => void await stop() };
}

Deno.test("ten changes of a disk's code under fio verify: no error, good code within a second, the rest is one line", async () => {
  await using serving = await start("watched");
  await using load = keepVerifying("/dev/watched");
  let longestMs = 0;
  let [good, bad, number] = [0, 0, 1];
  for (const { write, expected } of changes) {
    const before = infoOf("watched")!.requests[1]!;
    await waitFor("fio writes", () => infoOf("watched")!.requests[1]! > before, 60_000);
    const saidBefore = serving.stderr.length;
    await write();
    const writtenMs = performance.now();
    if (typeof expected === "number") {
      const line = `version ${++good + 1} serves now`;
      await waitFor(line, () => serving.stdout.includes(line), 60_000);
      assertWithin(1_000, performance.now() - writtenMs, line);
      longestMs = Math.max(longestMs, performance.now() - writtenMs);
      number = expected;
    } else {
      bad++;
      // A file that is saved twice may be seen half written in between, so there can be more lines.
      const lineOf = () => serving.stderr.slice(saidBefore).split("\n").find((line) => line.includes(expected));
      await waitFor(expected, () => serving.stderr.endsWith("\n") && lineOf() !== undefined, 60_000);
      assertMatch(lineOf()!, new RegExp(`^Cannot load ${file}: .*; version ${good + 1} goes on$`));
    }
    assertEquals(await numberOf("/dev/watched"), number);
  }
  const results = await load.stop();
  assertEquals(results.flatMap(({ status, jobs }) => [status, ...jobs.map(({ error }) => error)]).filter(Boolean), []);
  const { error_count, timeout_count } = infoOf("watched")!;
  assertEquals([error_count, timeout_count, good, bad], [0, 0, 5, 5]);
  assertEquals(serving.stdout.match(/version \d+ serves now/g)?.length, good);
  const pauses = [...serving.stdout.matchAll(/requests waited for ([\d.]+) ms/g)].map(([, ms]) => Number(ms));
  figure({
    "changes of a disk's code under fio verify": good + bad,
    "longest request": [Math.max(...results.map(slowestMs)) / 1_000, "s"],
    "longest pause for new code": [Math.max(...pauses) / 1_000, "s"],
    "longest from a saved file to new code": [longestMs / 1_000, "s"],
  });
  assertStringIncludes((await dblock("info watched")).stdout, `version ${good + 1} of ${file}`);
  serving.child.kill("SIGINT");
  assertEquals((await serving.end()).code, 0);
});

async function untilServes(serving: Serving, number: number): Promise<void> {
  await waitFor(`version ${number}`, () => serving.stdout.includes(`version ${number} serves now`), 60_000);
}

Deno.test("a mounted file system goes on while the code changes", async () => {
  await using serving = await start("mounted");
  await sh("mkfs.ext4 -q /dev/mounted && mount /dev/mounted /mnt");
  try {
    for (const [i, part] of ["command", "module", "disk"].entries()) {
      const copied = sh(`cp -r src/${part} /mnt && sync -f /mnt`);
      await Deno.writeTextFile(file, version(i + 2));
      await untilServes(serving, i + 2);
      await copied;
    }
    await sh("umount /mnt && fsck.ext4 -fn /dev/mounted && mount -o ro /dev/mounted /mnt");
    for (const part of ["command", "module", "disk"]) await sh(`diff -r src/${part} /mnt/${part}`);
  } finally {
    await sh("umount /mnt", { check: false });
  }
  assertEquals([infoOf("mounted")!.error_count, serving.stderr], [0, ""]);
  serving.child.kill("SIGINT");
  assertEquals((await serving.end()).code, 0);
});

Deno.test("the executable says in one line what to type where a module cannot be loaded or watched", async () => {
  await sh(`rm -rf ${folder} && mkdir ${folder}`);
  await Deno.writeTextFile(`${folder}/lib.ts`, "export const offset: number = 0;\n");
  const mistakes: readonly [text: string, said: string][] = [
    [version(1).replace("./lib.ts", "npm:left-pad"), `deno bundle ${file} -o disk.js, and serve ./disk.js`],
    [version(1).replace("./lib.ts", "./none.ts"), `there is no file ${folder}/none.ts`],
    [version(1).replace("handOver:", "kept:"), "type into its disk: handOver: () => store"],
  ];
  for (const [text, said] of mistakes) {
    await Deno.writeTextFile(file, text);
    const { status, stdout, stderr } = await dblock(`serve '${file}?size=32MiB' --name wrong --watch`);
    assertEquals([status, stdout, stderr.split("\n").length], [1, "", 2], stderr);
    assertStringIncludes(stderr, said);
  }
});
