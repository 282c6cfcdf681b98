// SPDX-License-Identifier: MIT
// `dblock serve ./disk.ts --watch --nbd`: the code is replaced under an NBD client, which stays connected. With /dev it is
// device/watch; what happens to requests in each step is live_module_test.ts.
import { assert, assertEquals, assertMatch } from "@std/assert";
import { NbdBackend, requestOptions } from "../../../src/mod.ts";
import { until } from "../until.ts";

const plain = requestOptions();
const root = new URL("../../..", import.meta.url).pathname;
/** The first read of this place says which version answers. */
const NUMBER_AT = 64 * 1024;

const version = (number: number) => `
interface Given { readonly sizeBytes: number }
export default function ({ sizeBytes }: Given, store: Uint8Array = new Uint8Array(sizeBytes)) {
  return {
    sizeBytes,
    read(buffer: Uint8Array, at: number): void {
      buffer.set(store.subarray(at, at + buffer.length));
      if (at >= ${NUMBER_AT}) buffer.fill(${number});
    },
    write: (buffer: Uint8Array, at: number): void => store.set(buffer, at),
    flush() {},
    handOver: () => store,
  };
}
`;

/** What a stream has said so far. */
function collect(stream: ReadableStream<Uint8Array<ArrayBuffer>>): { text: string; readonly end: Promise<void> } {
  const read = async () => {
    for await (const text of stream.pipeThrough(new TextDecoderStream())) said.text += text;
  };
  const said = { text: "", end: Promise.resolve() };
  said.end = read();
  return said;
}

Deno.test("--watch with --nbd: new code goes on under a client that writes and reads; bad code leaves the old one", async () => {
  const dir = await Deno.makeTempDir({ prefix: "dblock-watch-" });
  await Deno.writeTextFile(`${dir}/disk.ts`, version(1));
  const run = ["run", "-A", "--no-check", `${root}/src/command/main.ts`];
  const child = new Deno.Command(`${root}/src/build/deno.sh`, {
    args: [...run, "serve", "./disk.ts?size=1MiB", "--watch", "--nbd", "unix:./disk.sock"],
    cwd: dir,
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  const [stdout, stderr] = [collect(child.stdout), collect(child.stderr)];
  try {
    await until(() => stdout.text.includes("; to end it"), "it is ready");
    const said: string[] = [];
    const client = await NbdBackend.open(`nbd+unix:///?socket=${dir}/disk.sock`, {
      log: (line) => void said.push(line),
    });
    const numberOf = async () => {
      const buffer = new Uint8Array(512);
      await client.read(buffer, NUMBER_AT);
      return buffer[0];
    };
    let isOver = false;
    let rounds = 0;
    const load = (async () => {
      for (; !isOver; rounds++) {
        const at = rounds % 16 * 4096;
        await client.write(new Uint8Array(4096).fill(rounds), at, plain);
        const seen = new Uint8Array(4096);
        await client.read(seen, at);
        assert(seen.every((byte) => byte === rounds % 256), `round ${rounds} reads ${seen[0]}`);
      }
    })();
    try {
      assertEquals(await numberOf(), 1);
      for (const number of [2, 3]) {
        const before = rounds;
        await Deno.writeTextFile(`${dir}/disk.ts`, version(number));
        await until(() => stdout.text.includes(`version ${number} serves now`), `version ${number}`);
        assertEquals(await numberOf(), number);
        await until(() => rounds > before + 10, "the load goes on");
      }
      await Deno.writeTextFile(`${dir}/disk.ts`, "export default 5 +;\n");
      await until(() => stderr.text.endsWith("\n"), "it says why");
      assertMatch(stderr.text, /^[^\n]*disk\.ts:1[^\n]*\n$/);
      assertEquals(await numberOf(), 3);
    } finally {
      isOver = true;
      await load;
    }
    assertEquals(said, [], "the client never lost its server");
    await client.close();
    child.kill("SIGTERM");
    assertEquals((await child.status).code, 0, stderr.text);
  } finally {
    try {
      child.kill("SIGKILL");
    } catch {
      // it has ended
    }
    await child.status;
    await Promise.all([stdout.end, stderr.end]);
    await Deno.remove(dir, { recursive: true });
  }
});
