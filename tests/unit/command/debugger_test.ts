// SPDX-License-Identifier: MIT
/** What SIGUSR1 and SIGUSR2 do to a server: Deno's debugger, which asks nobody for a password, must not open. */
import { assertEquals } from "@std/assert";

const LISTEN = "0A";

/** The addresses where a process listens for TCP, as the kernel writes them. */
function listening(pid: number): string[] {
  const sockets = new Set<string>();
  for (const { name } of Deno.readDirSync(`/proc/${pid}/fd`)) {
    try {
      const [, inode] = /^socket:\[(\d+)\]$/.exec(Deno.readLinkSync(`/proc/${pid}/fd/${name}`)) ?? [];
      if (inode !== undefined) sockets.add(inode);
    } catch {
      // closed meanwhile
    }
  }
  const rows = ["tcp", "tcp6"].flatMap((table) => Deno.readTextFileSync(`/proc/${pid}/net/${table}`).split("\n"));
  return rows.map((row) => row.trim().split(/\s+/))
    .filter(([, , , state, , , , , , inode]) => state === LISTEN && inode !== undefined && sockets.has(inode))
    .map(([, address]) => address!);
}

const src = new URL("../../../src/", import.meta.url);

/** Starts a program that serves a disk, and gives its process' id to `use`. Returns what it said on standard error. */
async function served(program: readonly string[], use: (pid: number) => Promise<void>): Promise<string> {
  const dir = await Deno.makeTempDir();
  const child = new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--no-check", ...program],
    cwd: dir,
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  try {
    const stderr = new Response(child.stderr).text();
    const reader = child.stdout.pipeThrough(new TextDecoderStream()).getReader();
    for (let said = ""; !said.includes("is ready");) {
      const { done, value } = await reader.read();
      if (done) throw new Error(`it has ended: ${await stderr}`);
      said += value;
    }
    await use(child.pid);
    child.kill("SIGTERM");
    await reader.cancel();
    assertEquals((await child.status).code, 0);
    return await stderr;
  } finally {
    await Deno.remove(dir, { recursive: true });
  }
}

/** Deno opened its debugger within some 50 ms; no event says that it has not. */
const HEARD_MS = 500;

async function hearsNothing(pid: number): Promise<void> {
  for (const signal of ["SIGUSR1", "SIGUSR2", "SIGUSR1"] as const) {
    Deno.kill(pid, signal);
    await new Promise((resolve) => setTimeout(resolve, HEARD_MS));
    assertEquals(listening(pid), []);
  }
}

for (const words of [[], ["--with", "stats"]]) {
  Deno.test(`dblock serve ${words.join(" ")}: SIGUSR1 opens no debugger, and SIGUSR2 ends nothing`, async () => {
    const command = [`${src}command/main.ts`, "serve", "memory:1MiB", ...words, "--nbd", "unix:./disk.sock"];
    const said = await served(command, hearsNothing);
    if (words.length === 0) return assertEquals(said, "");
    // One at the signal, one at the end.
    assertEquals(said.match(/at the same time/g)?.length, 2);
  });
}

Deno.test("a program of one's own that calls keepDebuggerShut(): SIGUSR1 opens no debugger, and SIGUSR2 ends nothing", async () => {
  const program = `
    import { abortOnSignals, keepDebuggerShut } from "${src}command/cli.ts";
    import { MemoryBackend, serveNbd } from "${src}mod.ts";
    keepDebuggerShut();
    using signals = abortOnSignals();
    const ended = new Promise((resolve) => signals.signal.addEventListener("abort", resolve));
    await using server = await serveNbd({ disk: new MemoryBackend({ sizeBytes: 2 ** 20 }) }, { address: "unix:./disk.sock" });
    console.log("it is ready");
    await ended;`;
  assertEquals(await served([`data:text/javascript,${encodeURIComponent(program)}`], hearsNothing), "");
});
