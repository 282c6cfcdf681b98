// What a backend of the SDK does wrong costs the request concerned and nothing else; what serve() cannot do it says, in a
// bounded time. Hard cases H1, H2, H3.
import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import { DBLOCK_STATE_HELD } from "../../src/module/abi.ts";
import { type Backend, DblockError, serve } from "../../src/mod.ts";
import { assertWithin, exists, sh, waitFor } from "./harness.ts";
import { Control, infoOf, MIB, params } from "./server.ts";

const sizeBytes = 8 * MIB;
const block = 4096;

/** Each block is another trouble. */
const troubles: readonly ((buffer: Uint8Array) => void | number | Promise<void | number>)[] = [
  (buffer) => void buffer.fill(65),
  () => {
    throw new Error("thrown");
  },
  () => Promise.reject(new Error("rejected")),
  () => {
    throw undefined;
  },
  () => Promise.reject("a string"),
  () => 0,
  () => Promise.resolve(block - 1),
  () => block + 1,
  () => NaN,
  () => Promise.reject(new DblockError("ENODATA", "Cannot read", "nothing is there")),
  (buffer) => void buffer.fill(66),
];
const expected = ["A", "EIO", "EIO", "EIO", "EIO", "EIO", "EIO", "EIO", "EIO", "ENODATA", "B"];

Deno.test("a backend that throws, rejects or miscounts fails its own requests only", async () => {
  const logged: string[] = [];
  const backend: Backend = {
    sizeBytes,
    read: (buffer, offset) => troubles[offset / block]?.(buffer),
    write: () => {},
  };
  await using device = await serve(backend, { name: "sdk0", log: (message) => logged.push(message) });
  for (const [i, outcome] of expected.entries()) {
    const { status, stdout, stderr } = await sh(`dd if=${device.path} bs=4k count=1 skip=${i} iflag=direct`, {
      check: false,
    });
    const got = status === 0
      ? stdout[0]
      : /No data available/.test(stderr)
      ? "ENODATA"
      : /Input\/output error/.test(stderr)
      ? "EIO"
      : stderr;
    assertEquals([i, got], [i, outcome]);
  }
  assert(logged.length >= 4 && logged.length <= 10, logged.join("\n"));
});

Deno.test("a backend that never answers one request goes on answering others, and can be destroyed", async () => {
  const backend: Backend = {
    sizeBytes,
    read: (_, offset) => offset === 700 * block ? new Promise<void>(() => {}) : undefined,
    write: () => {},
  };
  const device = await serve(backend, { name: "sdk1", timeoutMs: 0 });
  // Not where a partition table may be, which is read before the disk is there.
  const stuck = sh(`dd if=${device.path} of=/dev/null bs=4k count=1 skip=700 iflag=direct`, { check: false });
  await waitFor("the read is stuck", () => infoOf("sdk1")!.handed_count === 1);
  await sh(`dd if=${device.path} of=/dev/null bs=4k count=1 skip=2 iflag=direct status=none`);
  await assertRejects(() => device.close(), DblockError, "in use");
  const started = performance.now();
  await device.close({ force: true });
  assertWithin(5_000, performance.now() - started, "closed");
  assertEquals([(await stuck).status, exists(device.path)], [1, false]);
});

Deno.test("a backend in a module is served by Workers", async () => {
  await Deno.writeTextFile(
    "/tmp/module-backend.ts",
    `export default (data) => {
      const store = new Uint8Array(data.shared);
      return {
        sizeBytes: store.length,
        read: (buffer, offset) => buffer.set(store.subarray(offset, offset + buffer.length)),
        write: (buffer, offset) => store.set(buffer, offset),
      };
    };`,
  );
  const shared = new SharedArrayBuffer(sizeBytes);
  {
    const module = new URL("file:///tmp/module-backend.ts");
    await using device = await serve({ module, data: { shared } }, { name: "sdk2", queues: 2 });
    assertEquals(device.queueCount, Math.min(2, navigator.hardwareConcurrency));
    await sh(
      `head -c ${sizeBytes} /dev/urandom >/tmp/sdk2; dd if=/tmp/sdk2 of=${device.path} bs=64k oflag=direct status=none`,
    );
    await sh(`blockdev --flushbufs ${device.path}; cmp /tmp/sdk2 ${device.path}`);
  }
  assertEquals(new Uint8Array(shared, 0, 4096).slice(), (await Deno.readFile("/tmp/sdk2")).slice(0, 4096));
  await sh("rm /tmp/sdk2 /tmp/module-backend.ts");
});

/** A backend that does this when its block at 64 KiB is read. */
const broken = (deed: string) =>
  `export default ({ sizeBytes }) => ({
  sizeBytes,
  read: (buffer, offset) => {
    if (offset !== 65536) return;
    ${deed}
    return new Promise(() => {});
  },
  write: () => {},
});`;

const deaths = [
  { onDeath: "remove", deed: `setTimeout(() => { throw new Error("boom"); });`, said: /boom/ },
  { onDeath: "hold", deed: `setTimeout(() => { throw new Error("boom"); });`, said: /boom/ },
  { onDeath: "remove", deed: "self.close();", said: /self\.close\(\)/ },
  { onDeath: "hold", deed: "Deno.exit(0);", said: /Deno\.exit\(\)/ },
] as const;

for (const { onDeath, deed, said } of deaths) {
  Deno.test(`a Worker that ends by ${deed} is its disk's death, with the policy ${onDeath}`, async () => {
    await Deno.writeTextFile("/tmp/broken-backend.ts", broken(deed));
    const module = new URL(`file:///tmp/broken-backend.ts#${onDeath}-${said.source}`);
    const device = await serve({ module, data: { sizeBytes } }, { name: "sdk4", onDeath, log: () => {} });
    const read = sh(`dd if=${device.path} of=/dev/null bs=64k count=1 skip=1 iflag=direct`, { check: false });
    const ending = await device.closed;
    assert(ending.reason === "failed", ending.reason);
    assertMatch(String(ending.error), said);
    if (onDeath === "hold") {
      await waitFor("the device is held", () => infoOf("sdk4")!.state === DBLOCK_STATE_HELD);
      await device.close({ force: true }); // it is the next server's
      assertEquals(infoOf("sdk4")!.state, DBLOCK_STATE_HELD);
      // The read that was open is another server's to answer.
      const good: Backend = { sizeBytes, read: () => {}, write: () => {} };
      await using _next = await serve(good, { name: "sdk4", existing: "recover" });
      assertEquals((await read).status, 0);
    } else {
      assertEquals((await read).status, 1);
      await waitFor("the device is gone", () => infoOf("sdk4") === undefined && !exists("/dev/sdk4"));
    }
    await Deno.remove("/tmp/broken-backend.ts");
  });
}

Deno.test("serve() says what is wrong, in a bounded time, and leaves nothing behind", async () => {
  const good: Backend = { sizeBytes, read: () => {}, write: () => {} };
  using control = new Control();
  assertEquals(control.create(params("sdk3")).errno, 0);
  await assertRejects(() => serve(good, { name: "sdk3" }), DblockError, "the name is in use");
  assertEquals((await control.destroy("sdk3")).errno, 0);
  await assertRejects(() => serve(good, { name: "a/b" }), DblockError, "a/b");
  await assertRejects(() => serve({ ...good, sizeBytes: 511 }, { name: "sdk3" }), DblockError, "sizeBytes");
  await assertRejects(() => serve(good, { name: "sdk3", depth: 1025 }), DblockError, "depth");

  // The partition scan asks, and nobody answers.
  const mute: Backend = { ...good, read: () => new Promise<void>(() => {}) };
  const started = performance.now();
  const signal = AbortSignal.timeout(2_000);
  await assertRejects(() => serve(mute, { name: "sdk3", timeoutMs: 0, signal }));
  assertWithin(10_000, performance.now() - started, "refused");
  assertEquals([infoOf("sdk3"), exists("/dev/sdk3"), exists("/dev/sdk3-ctl")], [undefined, false, false]);
});
