// Every example of README.md, of src/README.md and of --help does what it says, typed as it stands there: examples.ts has
// what is typed when, and what is left out.
// time limit: 300 s
import { assert, assertEquals, assertMatch } from "@std/assert";
import { NbdBackend } from "../../src/backends/nbd.ts";
import { requestOptions } from "../../src/disk/request.ts";
import { parseNbdUri } from "../../src/nbd/address.ts";
import { GROUPS, programOf, type Step } from "./examples.ts";
import { exists, sh, waitFor } from "./harness.ts";

/** Where things are typed: paths are relative to it. */
const FOLDER = "/tmp/examples";
const READY_MS = 60_000;
const mapping = "--import-map=src/build/standins/import_map.json";

/** What the examples find there. */
async function prepare(): Promise<void> {
  await sh(`mkdir -p ${FOLDER} /tmp/etc/upper/dblock /tmp/etc/work; echo memory:4GiB >/tmp/etc/upper/dblock/scratch
    grep -q "overlay /base/etc" /proc/mounts ||
      mount -t overlay overlay -o lowerdir=/base/etc,upperdir=/tmp/etc/upper,workdir=/tmp/etc/work /base/etc
    cd ${FOLDER}; truncate -s 64M a.img b.img; [ -e disk.img ] || truncate -s 10G disk.img`);
}

const PATH = `/project:${Deno.env.get("PATH")}`;

/** A program that goes on until it is told to end. */
class Running implements AsyncDisposable {
  readonly child: Deno.ChildProcess;
  stdout = "";
  stderr = "";
  ended: Deno.CommandStatus | undefined;
  readonly #typed: string;
  readonly #streams: Promise<void[]>;

  constructor(typed: string, command: string, args: readonly string[], cwd = FOLDER) {
    this.#typed = typed;
    this.child = new Deno.Command(command, {
      args: [...args],
      cwd,
      env: { PATH },
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    this.child.status.then((status) => this.ended = status);
    const collect = async (stream: ReadableStream<Uint8Array>, add: (text: string) => void) => {
      for await (const text of stream.pipeThrough(new TextDecoderStream())) add(text);
    };
    this.#streams = Promise.all([
      collect(this.child.stdout, (text) => this.stdout += text),
      collect(this.child.stderr, (text) => this.stderr += text),
    ]);
  }

  /** As a shell would start it. */
  static typed(typed: string): Running {
    return new Running(typed, "bash", ["-c", `exec ${typed}`]);
  }

  /** Its disks, once it has said something. */
  async says(pattern: RegExp): Promise<string[]> {
    await waitFor(`"${this.#typed}" says ${pattern}`, () => {
      assert(this.ended === undefined, `"${this.#typed}" ended with ${this.ended?.code}: ${this.stdout}${this.stderr}`);
      return pattern.test(this.stdout);
    }, READY_MS);
    return [...this.stdout.matchAll(/(\/dev\/\S+) is /g)].map(([, path]) => path!);
  }

  /** Waits for its end. */
  async end(signal?: Deno.Signal): Promise<Deno.CommandStatus> {
    if (signal !== undefined) this.child.kill(signal);
    await waitFor(`"${this.#typed}" ends`, () => this.ended !== undefined, READY_MS);
    await this.#streams;
    return this.ended!;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.ended === undefined) await this.end("SIGKILL");
  }
}

/** What is written is read back, at the end of the disk too. */
async function exercise(path: string): Promise<void> {
  const last = Math.floor(Number((await sh(`blockdev --getsize64 ${path}`)).stdout) / 2 ** 20) - 1;
  for (const at of [1, last]) {
    await sh(`head -c 1M /dev/urandom >/tmp/in; dd if=/tmp/in of=${path} bs=1M seek=${at} oflag=direct status=none`);
    await sh(`dd if=${path} bs=1M skip=${at} count=1 iflag=direct status=none | cmp - /tmp/in`);
  }
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
  const running = Running.typed(step.typed);
  try {
    const paths = await running.says(/to end /);
    const uris = [...running.stdout.matchAll(/(nbd\S+) is ready/g)].map(([, uri]) => uri!);
    assert(paths.length + uris.length > 0, running.stdout);
    for (const path of paths) assert(exists(path), path);
    if (step.covers === undefined) { for (const path of paths) await exercise(path); }
    for (const uri of uris) await exerciseNbd(uri);
    if (step.keep) return running;
    assertEquals((await running.end("SIGINT")).code, 0, running.stderr);
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
  const running = new Running(typed, "deno", ["run", "-A", "--no-check", mapping, file], "/project");
  if (keep) {
    const [path] = await running.says(/ is (ready|there)/);
    await exercise(path!);
    return running;
  }
  assertEquals((await running.end()).code, 0, running.stderr);
  return undefined;
}

async function runCommand(step: Step & { readonly kind: "command" }): Promise<void> {
  // As it stands there bench takes minutes.
  const typed = step.typed.startsWith("dblock bench") ? `${step.typed} --seconds 1 --area 8MiB` : step.typed;
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
          await using running = Running.typed(step.typed);
          await running.says(step.says);
          assertEquals((await running.end("SIGINT")).signal, "SIGINT");
          break;
        }
        case "end": {
          const running = kept.pop()!;
          const signal = step.by === "itself" ? undefined : step.by === "SIGKILL" ? "SIGKILL" : "SIGINT";
          const { code, signal: died } = await running.end(signal);
          assertEquals(died ?? code, signal === "SIGKILL" ? signal : 0, running.stderr);
        }
      }
    }
    assertEquals(kept, []);
  });
}
