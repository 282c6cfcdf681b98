/** A `dblock serve` (or recover) as a process of its own: started, watched, and never left behind. */
import { sh, type ShellResult, waitFor } from "./harness.ts";

const program = "./dblock";
/** As for a ramdisk, and some more for many disks. */
const readyMs = 60_000;

/** Runs `dblock WORDS` to its end. */
export async function dblock(words: string): Promise<ShellResult> {
  return await sh(`${program} ${words}`, { check: false, timeoutMs: readyMs });
}

/** A running `dblock`. */
export class Serving implements AsyncDisposable {
  readonly child: Deno.ChildProcess;
  /** What it printed so far. */
  stdout = "";
  stderr = "";
  /** Undefined while it runs. */
  ended: Deno.CommandStatus | undefined;
  readonly #streams: Promise<void[]>;

  private constructor(words: readonly string[]) {
    this.child = new Deno.Command(program, { args: [...words], stdin: "null", stdout: "piped", stderr: "piped" })
      .spawn();
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

  /** Starts it and waits until it says that all is ready. */
  static async start(words: readonly string[]): Promise<Serving> {
    const serving = new Serving(words);
    await waitFor(`dblock ${words.join(" ")} is ready`, () => {
      if (serving.ended !== undefined) {
        throw new Error(`dblock ended with ${serving.ended.code}; it said: ${serving.stdout}${serving.stderr}`);
      }
      return serving.stdout.includes("; to end ");
    }, readyMs);
    return serving;
  }

  /** Waits for its end. Returns the status, once everything it printed is there. */
  async end(timeoutMs = 20_000): Promise<Deno.CommandStatus> {
    await waitFor("dblock ends", () => this.ended !== undefined, timeoutMs);
    await this.#streams;
    return this.ended!;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.ended === undefined) this.child.kill("SIGKILL");
    await this.end();
  }
}
