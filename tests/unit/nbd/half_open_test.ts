// SPDX-License-Identifier: MIT
// Ten thousand clients, all at once, that connect and go no further: the server keeps a bounded number of them, and serves who comes next.
import { assert, assertEquals, assertMatch } from "@std/assert";
import * as p from "../../../src/nbd/protocol.ts";
import { serveNbd } from "../../../src/nbd/server.ts";
import { RawClient } from "./raw_client.ts";
import { recorder } from "./recorder.ts";

const CLIENTS = 10_000;
/** This process may have so many files. Deno has raised the soft limit to the hard one. */
const OPEN_MAX = Number(/Max open files\s+(\d+)/.exec(Deno.readTextFileSync("/proc/self/limits"))![1]) - 100;
const GROWTH_MIB_MAX = 256;

function rssMiB(pid: number): number {
  return Number(/VmRSS:\s*(\d+) kB/.exec(Deno.readTextFileSync(`/proc/${pid}/status`))![1]) / 1024;
}

function files(pid: number): number {
  return [...Deno.readDirSync(`/proc/${pid}/fd`)].length;
}

/** A server that may have so many files, in a process of its own, which ends with its input. */
async function startServer(path: string, filesMax: string): Promise<Deno.ChildProcess> {
  const main = new URL("half_open_main.ts", import.meta.url).pathname;
  const server = [Deno.execPath(), "run", "-A", "--no-check", main, path];
  const args = ["-c", `ulimit -n ${filesMax}; exec "$@"`, "sh", ...server];
  const child = new Deno.Command("sh", { args, stdin: "piped", stdout: "piped", stderr: "piped" }).spawn();
  const lines = child.stdout.pipeThrough(new TextDecoderStream()).getReader();
  assertEquals((await lines.read()).value, "ready\n");
  await lines.cancel();
  return child;
}

/** Ends it. Returns what it said on stderr. */
async function stopServer(child: Deno.ChildProcess): Promise<string> {
  const said = new Response(child.stderr).text();
  await child.stdin.close();
  assert((await child.status).success);
  return await said;
}

Deno.test("NBD server: 10,000 connections that say half of an option cost a bounded amount", async () => {
  const path = `${await Deno.makeTempDir()}/nbd.sock`;
  const child = await startServer(path, "20000 || ulimit -n $(ulimit -Hn)");
  const before = rssMiB(child.pid);
  const open: Deno.Conn[] = [];
  // Flags, and the first half of an option with 16,000 bytes.
  const half = new Uint8Array(4 + 16 + 8000);
  const view = new DataView(half.buffer);
  view.setUint32(0, 3);
  view.setBigUint64(4, p.IHAVEOPT);
  view.setUint32(12, p.NBD_OPT_GO);
  view.setUint32(16, 16_000);
  for (let n = 0; n < CLIENTS; n++) {
    const conn = await Deno.connect({ transport: "unix", path });
    await conn.read(new Uint8Array(18));
    await conn.write(half);
    open.push(conn);
    if (open.length > OPEN_MAX) open.shift()!.close();
  }
  const [during, fds] = [rssMiB(child.pid), files(child.pid)];
  {
    using client = await RawClient.open(path);
    assertEquals(await client.ask(p.NBD_CMD_FLUSH), 0);
  }
  for (const conn of open) conn.close();
  while (files(child.pid) > 40) await new Promise((resolve) => setTimeout(resolve, 10));
  console.log(`${CLIENTS} half-open: ${before.toFixed(0)} MiB before, ${during.toFixed(0)} with ${fds} files open`);
  assertEquals(await stopServer(child), "");
  assert(during - before < GROWTH_MIB_MAX, `${during - before} MiB more than before`);
});

Deno.test("NBD server: who shakes hands for longest is cut off when 1,024 others do", async () => {
  const path = `${await Deno.makeTempDir()}/nbd.sock`;
  await using _server = await serveNbd({ disk: recorder() }, { address: `unix:${path}` });
  using served = await RawClient.open(path);
  const clients: RawClient[] = [];
  for (let n = 0; n < 1025; n++) clients.push(await RawClient.connect(path));
  assert(await clients[0]!.isAtEnd());
  assertEquals((await clients[1]!.option(p.NBD_OPT_LIST)).length, 2);
  assertEquals(await served.ask(p.NBD_CMD_FLUSH), 0);
  for (const client of clients) client.wire.close();
});

Deno.test("NBD server: those that only shake hands make room when no file is left, and two lines say so at most", async () => {
  const path = `${await Deno.makeTempDir()}/nbd.sock`;
  const child = await startServer(path, "100");
  const clients: RawClient[] = [];
  for (let n = 0; n < 200; n++) clients.push(await RawClient.connect(path));
  {
    using client = await RawClient.open(path);
    assertEquals(await client.ask(p.NBD_CMD_FLUSH), 0);
  }
  assert(await clients[0]!.isAtEnd());
  for (const client of clients) client.wire.close();
  const said = await stopServer(child);
  const line = "Cannot accept connections on unix:\\S+: .*[Tt]oo many open files.*";
  assertMatch(said, new RegExp(`^${line}\n(${line}; \\d+ more in the last \\d+ s\n)?$`));
});
