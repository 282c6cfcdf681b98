/** A `dblock serve` (or recover) as a process of its own: started, watched, and never left behind. */
import { sh, type ShellResult } from "./harness.ts";
import { Running } from "./running.ts";

const program = "./dblock";
/** As long as a start may take. */
const endMs = 60_000;

/** Runs `dblock WORDS` to its end. */
export async function dblock(words: string): Promise<ShellResult> {
  return await sh(`${program} ${words}`, { check: false, timeoutMs: endMs });
}

/** `dblock WORDS` at a terminal of its own, which is as a shell reads the words. */
export function atTerminal(words: string): Running {
  return new Running(`dblock ${words}`, ["script", "-qec", `${program} ${words}`, "/dev/null"], {
    env: { TERM: "xterm" },
  });
}

/** A running `dblock`. */
export class Serving extends Running {
  private constructor(words: readonly string[]) {
    super(`dblock ${words.join(" ")}`, [program, ...words]);
  }

  /** Starts it and waits until it says that all is ready. */
  static async start(words: readonly string[]): Promise<Serving> {
    const serving = new Serving(words);
    await serving.ready((stdout) => stdout.includes("; to end "));
    return serving;
  }
}
