// What takes over a second shows a line on a terminal, drawn again in its place and gone at the end: a start, a recovery, a
// resize, a reload, a destroy, bench and a mirror's first copy. Where nobody looks, nothing of that is written. What takes so
// long here is a stopped server, or a slow one.
// time limit: 240 s
import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { sh, waitFor } from "./harness.ts";
import { Running } from "./running.ts";
import { atTerminal, dblock, Serving } from "./serving.ts";

const SOCKET = "/tmp/progress.sock";
const STORE = `nbd+unix:///?socket=${SOCKET}`;
const ERASE = "\x1b[K";

/** What was written to a terminal, with <K> where the line was emptied and <R> where the cursor went to its beginning. */
function visible(screen: string): string {
  return screen.replaceAll(ERASE, "<K>").replaceAll("\r", "<R>");
}

/** What stays on the screen: of each line what was written after it was last emptied. */
function staying(screen: string): string[] {
  return screen.split("\n").map((line) => line.split(ERASE).at(-1)!.replaceAll("\r", "")).filter((line) => line !== "");
}

/** Runs a command at a terminal while its server is stopped, until it has said that it waits. */
async function whileStopped(server: Running, words: string, waits: RegExp): Promise<Running> {
  server.child.kill("SIGSTOP");
  const running = atTerminal(words);
  await waitFor(`"${words}" shows ${waits}`, () => waits.test(visible(running.stdout)), 30_000);
  server.child.kill("SIGCONT");
  return running;
}

Deno.test("serve, recover, resize and reload show what they wait for, drawn in place, and nothing of it stays", async () => {
  await using store = await Serving.start(["serve", "memory:32MiB", "--nbd", `unix:${SOCKET}`]);
  const words = `serve '${STORE}' --name prog --on-death hold`;
  await using first = await whileStopped(store, words, /<R><K>starting nbd\S+ \(2 s\)<R>/);
  await first.ready((screen) => screen.includes("; to end it: "));
  assertMatch(visible(first.stdout), /\(1 s\)<R><R><K>starting/, "it is drawn again in its place");
  assertMatch(staying(first.stdout).join("\n"), /^\/dev\/prog is ready: 32 MiB, [^\n]*$/);

  const { server } = JSON.parse((await dblock("info prog --json")).stdout)[0];
  await sh(`kill -STOP ${server.pid}`);
  const slow = [
    ["resize prog 64MiB", /resizing \/dev\/prog to 64 MiB \(1 s\)/],
    ["reload prog", /reloading the server of \/dev\/prog \(1 s\)/],
  ] as const;
  const waiting = slow.map(([typed, waits]) => ({ running: atTerminal(typed), waits }));
  for (const { running, waits } of waiting) {
    await waitFor(`${waits}`, () => waits.test(visible(running.stdout)), 30_000);
  }
  // The same without a terminal: this says what is wrong, and no more.
  const silent = new Running("resize", ["./dblock", "resize", "prog", "64MiB"]);
  await new Promise((resolve) => setTimeout(resolve, 2_000));
  await sh(`kill -CONT ${server.pid}`);
  for (const { running } of waiting) {
    assertEquals((await running.end()).code, 1);
    assertMatch(staying(running.stdout).join("\n"), /^dblock re\w+: Cannot re[^\n]*$/);
  }
  assertEquals((await silent.end()).code, 1);
  assertMatch(silent.stdout + silent.stderr, /^dblock resize: Cannot resize [^\n\r]*\n$/);

  await sh(`kill -KILL ${server.pid}`);
  await waitFor("the disk waits for a server", async () => / held /.test((await dblock("list")).stdout));
  await using second = await whileStopped(store, "recover prog", /<K>starting nbd\S+ \(1 s\)/);
  await second.ready((screen) => screen.includes("; to end it: "));
  assertMatch(staying(second.stdout).join("\n"), /^\/dev\/prog is recovered: [^\n]*$/);

  // A disk that is in use is waited for, for two seconds.
  const busy = new Running("who has it open", ["bash", "-c", "exec 3</dev/prog; echo open; exec sleep 60"]);
  await busy.ready((said) => said.includes("open"));
  const destroying = atTerminal("destroy prog");
  assertEquals((await destroying.end()).code, 1);
  assertStringIncludes(destroying.stdout, `${ERASE}destroying /dev/prog (1 s)\r`);
  assertMatch(
    staying(destroying.stdout).join("\n"),
    /^dblock destroy: Cannot destroy \/dev\/prog: it is in use: [^\n]*$/,
  );
  await busy[Symbol.asyncDispose]();
  assertEquals((await dblock("destroy prog")).status, 0);
  assertEquals((await second.end()).code, 0);
});

Deno.test("a mirror's first copy is shown until it is done, and bench shows its jobs", async () => {
  // Zeroes would be copied at once.
  await sh("head -c 8M /dev/urandom >/tmp/progress.img");
  const slow = `serve memory:8MiB --with rate=bytes=1MiB --nbd unix:${SOCKET}`;
  await using _half = await Serving.start(slow.split(" "));
  await using mirror = atTerminal(`serve 'mirror:/tmp/progress.img,[${STORE}]' --name prog`);
  await mirror.ready((screen) => /<K>copying to nbd\S+: [\d.]+ MiB left \(\d s\)<R>/.test(visible(screen)));
  await waitFor("it is copied", async () => (await dblock("info prog")).stdout.includes("mirror: in sync"), 60_000);
  await waitFor("it says so", () => /<K>nbd\S+ has everything/.test(visible(mirror.stdout)));
  assertMatch(staying(mirror.stdout).join("\n"), /^\/dev\/prog is ready: [^\n]*\nnbd\S+ has everything$/);
  assertEquals((await dblock("destroy prog")).status, 0);
  assertEquals((await mirror.end()).code, 0);

  const words = "bench memory:16MiB --seconds 2 --area 8MiB --jobs randread-4KiB-1";
  await using bench = atTerminal(words);
  assertEquals((await bench.end(60_000)).code, 0);
  assertMatch(visible(bench.stdout), /<K>read 4 KiB, one at a time, on memory \(\d s\)<R>/);
  assertMatch(staying(bench.stdout).join("\n"), /^memory:16MiB, 8 MiB of it: [^\n]*\nJOB [^\n]*\nread 4 KiB, [^\n]*$/);
  const silent = await dblock(words);
  assertEquals([silent.status, silent.stderr, silent.stdout.includes("\r")], [0, "", false]);
});
