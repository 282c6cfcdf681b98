/** A program that goes on until it is told to end, in a process of its own: what it says is collected, and it is never left behind. */
import { waitFor } from "./harness.ts";

/** A start takes 1 s on a VM with nothing else to do, and many times that on a host that others share. */
const readyMs = 60_000;

/** Options of {@linkcode Running}. */
export interface RunningOptions {
  /** @default the test's */
  readonly cwd?: string;
  /** Beside those of the test. */
  readonly env?: Readonly<Record<string, string>>;
}

/** A running program. */
export class Running implements AsyncDisposable {
  /** What the test calls it. */
  readonly title: string;
  readonly child: Deno.ChildProcess;
  /** What it printed so far. */
  stdout = "";
  stderr = "";
  /** Undefined while it runs. */
  ended: Deno.CommandStatus | undefined;
  readonly #streams: Promise<void[]>;

  /** Starts it; `title` is what messages call it. */
  constructor(title: string, words: readonly string[], { cwd, env = {} }: RunningOptions = {}) {
    const [command, ...args] = words as [string, ...string[]];
    this.title = title;
    this.child = new Deno.Command(command, {
      args,
      ...(cwd === undefined ? {} : { cwd }),
      env: { ...env },
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    this.child.status.then((status) => this.ended = status);
    const collect = async (stream: ReadableStream<Uint8Array>, add: (text: string) => void) => {
      const decoder = new TextDecoder();
      for await (const chunk of stream) add(decoder.decode(chunk, { stream: true }));
    };
    this.#streams = Promise.all([
      collect(this.child.stdout, (text) => this.stdout += text),
      collect(this.child.stderr, (text) => this.stderr += text),
    ]);
  }

  get pid(): number {
    return this.child.pid;
  }

  /** Waits until it is ready, which what it says or what is there shows; throws if it ends instead. */
  async ready(isReady: (stdout: string) => boolean): Promise<void> {
    await waitFor(`${this.title} is ready`, () => {
      if (this.ended !== undefined) {
        const { signal, code } = this.ended;
        throw new Error(`${this.title} ended with ${signal ?? code}; it said: ${this.stdout}${this.stderr}`);
      }
      return isReady(this.stdout);
    }, readyMs);
  }

  /** Waits for its end. Returns the status, once everything it printed is there. */
  async end(timeoutMs = 20_000): Promise<Deno.CommandStatus> {
    await waitFor(`${this.title} ends`, () => this.ended !== undefined, timeoutMs);
    await this.#streams;
    return this.ended!;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.ended === undefined) this.child.kill("SIGKILL");
    await this.end();
  }
}
