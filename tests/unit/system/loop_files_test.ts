// SPDX-License-Identifier: MIT
// A socket that Deno's event loop has, and that somebody else uses for a time: what comes does not wake the loop, and nothing
// is lost for it when it has the socket again.
import { assert, assertEquals } from "@std/assert";
import { quieten } from "../../../src/system/loop_files.ts";
import { fileOf, releaseFile } from "../../../src/system/socket.ts";

const MESSAGES = 100;

/** A Worker that connects to a path and sends so many messages, 1 ms apart: two bytes each. */
const SENDER = `
self.onmessage = async ({ data: { path, count } }) => {
  const conn = await Deno.connect({ transport: "unix", path });
  self.postMessage("connected");
  await new Promise((resolve) => self.onmessage = resolve);
  for (let i = 0; i < count; i++) {
    await conn.write(Uint8Array.of(1, 2));
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
  self.postMessage("sent");
};`;

/** How often this thread, which is the event loop's, has slept. */
function sleeps(): number {
  const status = Deno.readTextFileSync("/proc/thread-self/status");
  return Number(/^voluntary_ctxt_switches:\s*(\d+)/m.exec(status)![1]);
}

/** What Deno's loop wants to know of a file, as the kernel has it. */
function eventsOf(fd: number): string[] {
  const found: string[] = [];
  for (const { name } of Deno.readDirSync("/proc/self/fdinfo")) {
    let text = "";
    try {
      text = Deno.readTextFileSync(`/proc/self/fdinfo/${name}`);
    } catch { /* the folder's own file */ }
    for (const [, tfd, events] of text.matchAll(/^tfd:\s*(\d+) events:\s*([0-9a-f]+)/mg)) {
      if (Number(tfd) === fd && !found.includes(events!)) found.push(events!);
    }
  }
  return found;
}

/** A socket at which a Worker sends messages when it is told to; the loop has looked at it once. */
async function sender(): Promise<{ conn: Deno.Conn; fd: number; send: () => Promise<void> } & Disposable> {
  const dir = await Deno.makeTempDir();
  using listener = Deno.listen({ transport: "unix", path: `${dir}/s` });
  const worker = new Worker(`data:text/javascript,${encodeURIComponent(SENDER)}`, { type: "module" });
  const said = () => new Promise((resolve) => worker.onmessage = resolve);
  const connected = said();
  worker.postMessage({ path: `${dir}/s`, count: MESSAGES });
  const conn = await listener.accept() as unknown as Deno.Conn;
  await connected;
  await Deno.remove(dir, { recursive: true });
  const fd = fileOf(conn)!;
  return {
    conn,
    fd,
    async send() {
      const sent = said();
      worker.postMessage("go");
      await sent;
    },
    [Symbol.dispose]() {
      releaseFile(fd);
      conn.close();
      worker.terminate();
    },
  };
}

Deno.test("a quiet file does not wake the event loop, which finds all that has come when it is loud again", async () => {
  using loud = await sender();
  const before = sleeps();
  await loud.send();
  const loudSleeps = sleeps() - before;

  using one = await sender();
  const events = eventsOf(one.fd);
  assertEquals(events.length, 1);
  const quiet = quieten(one.fd);
  assert(eventsOf(one.fd)[0] !== events[0], "the kernel has not been told");
  const began = sleeps();
  await one.send();
  const quietSleeps = sleeps() - began;
  assert(quietSleeps < loudSleeps / 4, `${quietSleeps} sleeps, and ${loudSleeps} where it is loud`);
  quiet[Symbol.dispose]();
  assertEquals(eventsOf(one.fd), events);
  assertEquals(await one.conn.read(new Uint8Array(1000)), 2 * MESSAGES);
});

Deno.test("a read that waits while a file is quiet ends when it is loud again", async () => {
  using one = await sender();
  const quiet = quieten(one.fd);
  const reading = one.conn.read(new Uint8Array(1000));
  let isRead = false;
  reading.then(() => isRead = true);
  await one.send();
  assertEquals(isRead, false);
  quiet[Symbol.dispose]();
  assertEquals(await reading, 2 * MESSAGES);
});

Deno.test("a file that the event loop does not have is left alone", async () => {
  using file = await Deno.open("/dev/null");
  assert(file !== undefined);
  using _quiet = quieten(1_000_000);
});

for (const permissions of [["--allow-ffi"], ["--allow-ffi", "--allow-read"]]) {
  Deno.test(`a program with ${permissions.join(" and ")} alone is asked for nothing, and nothing fails`, async () => {
    const module = new URL("../../../src/system/loop_files.ts", import.meta.url).href;
    const code = `import { quieten } from "${module}"; { using quiet = quieten(0); } console.log("over");`;
    const args = ["run", "--no-check", ...permissions, `data:text/javascript,${encodeURIComponent(code)}`];
    // At a terminal, where Deno would ask, and wait.
    const command = `timeout --foreground 20 '${Deno.execPath()}' ${args.map((word) => `'${word}'`).join(" ")}`;
    const { stdout } = await new Deno.Command("script", { args: ["-qec", command, "/dev/null"], stdin: "null" })
      .output();
    assertEquals(new TextDecoder().decode(stdout).trim(), "over");
  });
}
