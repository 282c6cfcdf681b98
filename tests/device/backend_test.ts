// A plain asynchronous Backend is served from one event loop by serve(): data, flush, discard, and errors of its own.
import { assert, assertEquals } from "@std/assert";
import { type Backend, DblockError, serve } from "../../src/mod.ts";
import { fio } from "./fio.ts";
import { exists, sh } from "./harness.ts";
import { MIB } from "./server.ts";

const sizeBytes = 32 * MIB;
/** Writes here fail with an errno of the backend's choice; reads here throw something without one. */
const badOffset = 24 * MIB;

/** Answers a moment later, and so out of order. */
class SlowStore implements Backend {
  readonly sizeBytes = sizeBytes;
  readonly #store = new Uint8Array(sizeBytes);
  flushCount = 0;
  discardedBytes = 0;
  openCount = 0;
  mostOpen = 0;
  closed = false;

  async read(buffer: Uint8Array, offset: number): Promise<void> {
    await this.#later();
    if (offset === badOffset) throw new Error("the backend's own trouble");
    buffer.set(this.#store.subarray(offset, offset + buffer.length));
  }
  async write(buffer: Uint8Array, offset: number): Promise<number> {
    await this.#later();
    if (offset === badOffset) throw new DblockError("ENOSPC", "Cannot write", "the store is full");
    this.#store.set(buffer, offset);
    return buffer.length;
  }
  async flush(): Promise<void> {
    await this.#later();
    this.flushCount++;
  }
  discard(offset: number, lengthBytes: number): void {
    this.#store.fill(0, offset, offset + lengthBytes);
    this.discardedBytes += lengthBytes;
  }
  close(): void {
    this.closed = true;
  }

  async #later(): Promise<void> {
    this.mostOpen = Math.max(this.mostOpen, ++this.openCount);
    await new Promise((resolve) => setTimeout(resolve, Math.random() * 4));
    this.openCount--;
  }
}

Deno.test("serve() serves an asynchronous Backend from one event loop", async () => {
  const store = new SlowStore();
  const logged: string[] = [];
  {
    await using device = await serve(store, { name: "backend0", log: (message) => logged.push(message) });
    assertEquals(device.queueCount, 1);
    const verified = await fio(
      `--name=verify --filename=${device.path} --direct=1 --ioengine=io_uring --rw=randwrite --bs=16k --iodepth=16 ` +
        `--size=8M --verify=crc32c --verify_fatal=1`,
    );
    assertEquals([verified.status, verified.jobs[0]!.error], [0, 0], verified.stderr);
    assert(store.mostOpen > 1, "requests never overlapped");

    const full = await sh(`dd if=/dev/zero of=${device.path} bs=64k count=1 seek=${badOffset / 65536} oflag=direct`, {
      check: false,
    });
    assertEquals([full.status, /No space left on device/.test(full.stderr)], [1, true], full.stderr);
    const broken = await sh(`dd if=${device.path} of=/dev/null bs=64k count=1 skip=${badOffset / 65536} iflag=direct`, {
      check: false,
    });
    assertEquals([broken.status, /Input\/output error/.test(broken.stderr)], [1, true], broken.stderr);
    assertEquals(logged.filter((line) => line.includes("the backend's own trouble")).length, 1, logged.join("\n"));

    await sh(`dd if=/dev/zero of=${device.path} bs=4k count=4 conv=fsync status=none`);
    assert(store.flushCount > 0, "fsync did not flush");
    await sh(`blkdiscard --offset ${MIB} --length ${2 * MIB} ${device.path}`);
    assertEquals(store.discardedBytes, 2 * MIB);
    await sh(`mkfs.ext4 -q -b 4096 ${device.path} 20M && fsck.ext4 -fn ${device.path}`);
  }
  assertEquals([store.closed, store.openCount, exists("/dev/backend0")], [true, 0, false]);
});
