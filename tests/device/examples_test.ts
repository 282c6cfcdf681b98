// Every example of README.md, of src/README.md and of --help does what it says, typed as it stands there: examples.ts has
// what is typed when, and what is left out.
// time limit: 300 s
import { assert, assertEquals, assertMatch } from "@std/assert";
import { NbdBackend } from "../../src/backends/nbd.ts";
import { requestOptions } from "../../src/disk/request.ts";
import { parseNbdUri } from "../../src/nbd/address.ts";
import { GROUPS, programOf, type Step } from "./examples.ts";
import { exists, sh, waitFor } from "./harness.ts";
import { Running } from "./running.ts";

/** Where things are typed: paths are relative to it. */
const FOLDER = "/tmp/examples";
const END_MS = 60_000;
const mapping = "--import-map=src/build/standins/import_map.json";

/** What the examples find there. */
async function prepare(): Promise<void> {
  await sh(`mkdir -p ${FOLDER} /tmp/etc/upper/dblock /tmp/etc/work; echo memory:4GiB >/tmp/etc/upper/dblock/scratch
    (umask 077; echo 0123456789abcdef >/tmp/etc/upper/dblock-token)
    grep -q "overlay /base/etc" /proc/mounts ||
      mount -t overlay overlay -o lowerdir=/base/etc,upperdir=/tmp/etc/upper,workdir=/tmp/etc/work /base/etc
    cd ${FOLDER}; truncate -s 16M a.img b.img; [ -e disk.img ] || truncate -s 10G disk.img`);
}

const PATH = `/project:${Deno.env.get("PATH")}`;

/** What is typed, as a shell would start it. */
const started = (typed: string) =>
  new Running(`"${typed}"`, ["bash", "-c", `exec ${typed}`], { cwd: FOLDER, env: { PATH } });

/** Its disks, once it has said something. */
async function disksOf(running: Running, said: RegExp): Promise<string[]> {
  await running.ready((stdout) => said.test(stdout));
  return [...running.stdout.matchAll(/(\/dev\/\S+) is /g)].map(([, path]) => path!);
}

async function endBy(running: Running, signal?: Deno.Signal): Promise<Deno.CommandStatus> {
  if (signal !== undefined) running.child.kill(signal);
  return await running.end(END_MS);
}

/** What is written is read back, at the end of the disk too. One shell for all: a program takes a while to start. */
async function exercise(path: string): Promise<void> {
  await sh(`set -e; last=$(($(blockdev --getsize64 ${path}) / 1048576 - 1))
    head -c 1M /dev/urandom >/tmp/in
    for at in 1 $last; do
      dd if=/tmp/in of=${path} bs=1M seek=$at oflag=direct status=none
      dd if=${path} bs=1M skip=$at count=1 iflag=direct status=none | cmp - /tmp/in
    done`);
}

/** The same over NBD, where the program says that it is. */
async function exerciseNbd(uri: string): Promise<void> {
  const disk = await NbdBackend.open(parseNbdUri(uri));
  const [written, read] = [crypto.getRandomValues(new Uint8Array(4096)), new Uint8Array(4096)];
  await disk.write(written, 8192, requestOptions());
  await disk.read(read, 8192);
  await disk.close();
  assertEquals(read, written);
}

async function runServer(step: Step & { readonly kind: "server" }): Promise<Running | undefined> {
  const running = started(step.typed);
  try {
    const paths = await disksOf(running, /to end /);
    const uris = [...running.stdout.matchAll(/(nbd\S+) is ready/g)].map(([, uri]) => uri!);
    assert(paths.length + uris.length > 0, running.stdout);
    for (const path of paths) assert(exists(path), path);
    if (step.covers === undefined) { for (const path of paths) await exercise(path); }
    for (const uri of uris) await exerciseNbd(uri);
    if (step.keep) return running;
    assertEquals((await endBy(running, "SIGINT")).code, 0, running.stderr);
    for (const path of paths) await waitFor(`${path} is gone`, () => !exists(path));
    return undefined;
  } catch (error) {
    await running[Symbol.asyncDispose]();
    throw error;
  }
}

async function runProgram(step: Step & { readonly kind: "program" }): Promise<Running | undefined> {
  const { typed, before = "", keep } = step;
  // Where a reader would put it: the imports are those of a program beside the README.
  const file = `/project/${typed.startsWith("src/") ? "src/" : ""}.example.ts`;
  Deno.writeTextFileSync(file, before + programOf(typed));
  const running = new Running(`"${typed}"`, ["deno", "run", "-A", "--no-check", mapping, file]);
  if (keep) {
    const [path] = await disksOf(running, / is (ready|there)/);
    await exercise(path!);
    return running;
  }
  assertEquals((await endBy(running)).code, 0, running.stderr);
  return undefined;
}

async function runCommand(step: Step & { readonly kind: "command" }): Promise<void> {
  const typed = `${step.typed} ${step.more ?? ""}`;
  const { status, stdout, stderr } = await sh(`cd ${FOLDER}; ${typed}`, {
    check: false,
    env: { PATH },
    timeoutMs: 180_000,
  });
  assertEquals(status, step.status ?? 0, `${typed}: ${stdout}${stderr}`);
  if (step.says !== undefined) assertMatch(stdout, step.says);
}

for (const [name, steps] of Object.entries(GROUPS)) {
  Deno.test(`examples: ${name}`, async () => {
    await prepare();
    await using stack = new AsyncDisposableStack();
    const kept: Running[] = [];
    const keep = (running: Running | undefined) => {
      if (running !== undefined) kept.push(stack.use(running));
    };
    for (const step of steps) {
      const startedMs = performance.now();
      switch (step.kind) {
        case "command":
          await runCommand(step);
          break;
        case "server":
          keep(await runServer(step));
          break;
        case "module":
          Deno.writeTextFileSync(`${FOLDER}/disk.ts`, programOf(step.typed));
          break;
        case "program":
          keep(await runProgram(step));
          break;
        case "watch": {
          await using running = started(step.typed);
          await running.ready((stdout) => step.says.test(stdout));
          const { code, signal } = await endBy(running, "SIGINT");
          assertEquals(signal ?? code, step.status ?? "SIGINT", running.stderr);
          break;
        }
        case "end": {
          const running = kept.pop()!;
          const signal = step.by === "itself" ? undefined : step.by === "SIGKILL" ? "SIGKILL" : "SIGINT";
          const { code, signal: died } = await endBy(running, signal);
          assertEquals(died ?? code, signal === "SIGKILL" ? signal : 0, running.stderr);
        }
      }
      const what = step.kind === "end" ? `its end by ${step.by}` : step.typed;
      console.log(`${((performance.now() - startedMs) / 1000).toFixed(1)} s: ${what.slice(0, 100)}`);
    }
    assertEquals(kept, []);
  });
}
