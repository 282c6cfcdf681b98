/** A program of the tests in a process of its own: it is told lines and says lines. What they mean is between the two. */
import { TextLineStream } from "./lines.ts";

const mapping = "--import-map=src/build/standins/import_map.json";

/** Options of {@linkcode Program}. */
export interface ProgramOptions {
  /** Words before the command: another program that starts it. @default none */
  readonly prefix?: readonly string[];
  /** Of `deno run`, beyond what every program gets. @default none */
  readonly denoArgs?: readonly string[];
}

/** A running program. */
export class Program implements AsyncDisposable {
  readonly child: Deno.ChildProcess;
  /** All that it says on stderr; settles when it has ended. */
  readonly stderr: Promise<string>;
  readonly #reader: ReadableStreamDefaultReader<string>;
  readonly #writer: WritableStreamDefaultWriter<Uint8Array>;

  /** Starts a file of this folder. */
  constructor(file: string, args: readonly string[], { prefix = [], denoArgs = [] }: ProgramOptions = {}) {
    const words = [...prefix, "deno", "run", "--allow-all", "--no-check", mapping, ...denoArgs];
    const [command, ...rest] = [...words, `tests/device/${file}`, ...args] as [string, ...string[]];
    this.child = new Deno.Command(command, { args: rest, stdin: "piped", stdout: "piped", stderr: "piped" }).spawn();
    this.stderr = new Response(this.child.stderr).text();
    this.#reader = this.child.stdout.pipeThrough(new TextDecoderStream()).pipeThrough(new TextLineStream()).getReader();
    this.#writer = this.child.stdin.getWriter();
  }

  get pid(): number {
    return this.child.pid;
  }

  /** The next line that it says. Throws, with what is on stderr, if it ends instead. */
  async line(): Promise<string> {
    const { value } = await this.#reader.read();
    if (value === undefined) {
      const { code, signal } = await this.child.status;
      throw new Error(`the program ended with ${signal ?? code}; it said: ${await this.stderr}`);
    }
    return value;
  }

  /** Says a line to it, and returns what it answers. */
  async ask(line: string): Promise<string> {
    await this.#writer.write(new TextEncoder().encode(`${line}\n`));
    return await this.line();
  }

  /** Ends its input, which ends the program. Returns its status, and what it said on stderr. */
  async end(): Promise<{ readonly code: number; readonly stderr: string }> {
    await this.#writer.close().catch(() => {}); // it may have ended
    return { code: (await this.child.status).code, stderr: await this.stderr };
  }

  async kill(): Promise<void> {
    try {
      this.child.kill("SIGKILL");
    } catch {
      // It has ended.
    }
    await this.child.status;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill();
    await this.#writer.abort().catch(() => {});
    await this.#reader.cancel().catch(() => {});
    await this.stderr;
  }
}
