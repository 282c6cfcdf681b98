// SPDX-License-Identifier: MIT
/** Programs of others, run for a test: what they say, and what it means when they fail. */

const LIMIT_MS = 120_000;

/** Runs a program to its end. @returns what it printed @throws with what it said, if it fails or takes two minutes */
export async function run(command: string, args: readonly string[], env: Record<string, string> = {}): Promise<string> {
  // Debian's own programs first: nbdsh wants the python3 that it was built for.
  const path = `/usr/bin:/bin:/usr/sbin:/sbin:${Deno.env.get("PATH")}`;
  const signal = AbortSignal.timeout(LIMIT_MS);
  const options: Deno.CommandOptions = {
    args: [...args],
    env: { ...env, PATH: path, LC_ALL: "C" },
    signal,
    stdin: "null",
  };
  const { success, code, stdout, stderr } = await new Deno.Command(command, options).output();
  const [said, complained] = [stdout, stderr].map((bytes) => new TextDecoder().decode(bytes));
  if (success) return said!;
  throw new Error(`${command} ${args.join(" ")}\nended with ${code}: ${complained}${said}`);
}

/** A program that runs until the end of the block. */
export class Background implements AsyncDisposable {
  readonly #child: Deno.ChildProcess;
  readonly #said: Promise<string>;
  readonly #what: string;

  constructor(command: string, args: readonly string[]) {
    this.#what = `${command} ${args.join(" ")}`;
    // A group of its own: some servers have a process for each client.
    this.#child = new Deno.Command("setsid", {
      args: [command, ...args],
      stdin: "null",
      stdout: "null",
      stderr: "piped",
    }).spawn();
    this.#said = new Response(this.#child.stderr).text();
  }

  get pid(): number {
    return this.#child.pid;
  }

  /** Waits until it listens on a unix socket. */
  async listens(path: string): Promise<void> {
    const ended = this.#child.status.then(async ({ code }) => {
      throw new Error(`${this.#what}\nended with ${code}: ${await this.#said}`);
    });
    const listening = (async () => {
      for (const start = performance.now(); performance.now() - start < LIMIT_MS;) {
        try {
          (await Deno.connect({ transport: "unix", path })).close();
          return;
        } catch {
          await new Promise((resolve) => setTimeout(resolve, 10));
        }
      }
      throw new Error(`${this.#what} does not listen on ${path}`);
    })();
    await Promise.race([listening, ended]);
    ended.catch(() => {}); // later, it is meant
  }

  async kill(signal: "KILL" | "TERM" = "KILL"): Promise<void> {
    await new Deno.Command("kill", { args: [`-${signal}`, "--", `-${this.#child.pid}`], stderr: "null" }).output();
    await this.#child.status;
    await this.#said;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill("TERM");
  }
}
