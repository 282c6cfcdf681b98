// SPDX-License-Identifier: MIT
// A disk in a cluster whose lock is not to be had at first. What librbd says is made up here: a cluster cannot be made to say it
// at a given moment. tests/interop/rbd_test.ts has a real one.
import { assertEquals, assertRejects } from "@std/assert";
import { RbdBackend } from "../../../src/backends/rbd.ts";
import type { RbdImage } from "../../../src/backends/rbd_image.ts";
import { DblockError, ERRNO } from "../../../src/disk/errors.ts";
import { RBD_FEATURE_EXCLUSIVE_LOCK } from "../../../src/system/ceph.ts";

const LOCK = "127.0.0.1:0/1";
/** This very process, which lives. */
const NOTE = JSON.stringify({
  lock: LOCK,
  host: "here",
  boot: Deno.readTextFileSync("/proc/sys/kernel/random/boot_id").trim(),
  namespace: Deno.readLinkSync("/proc/self/ns/pid"),
  pid: Deno.pid,
  started: Number(Deno.readTextFileSync("/proc/self/stat").replace(/^.*\) /s, "").split(" ")[19]),
});
const lockText = new TextEncoder().encode(`${LOCK}\0`);

/** An image. `owner` says who has the lock: somebody who lives, nobody, or an errno. */
function image(owner: () => Promise<"living" | "nobody" | number>) {
  let isOurs = false;
  const number = (value: bigint) => (_handle: bigint, out: BigUint64Array) => {
    out[0] = value;
    return Promise.resolve(0);
  };
  const calls = {
    rbd_get_size: number(65_536n),
    rbd_get_stripe_unit: number(65_536n),
    rbd_get_features: number(RBD_FEATURE_EXCLUSIVE_LOCK),
    async rbd_lock_get_owners(_handle: bigint, _mode: Int32Array, owners: BigUint64Array, count: BigUint64Array) {
      const said = isOurs ? "living" : await owner();
      if (said === "nobody") return -ERRNO.ENOENT;
      if (said !== "living") return -said;
      owners[0] = BigInt(Deno.UnsafePointer.value(Deno.UnsafePointer.of(lockText)));
      count[0] = 1n;
      return 0;
    },
    rbd_lock_get_owners_cleanup: () => {},
    rbd_metadata_get(_handle: bigint, _key: Uint8Array, value: Uint8Array) {
      new TextEncoder().encodeInto(`${NOTE}\0`, value);
      return Promise.resolve(0);
    },
    rbd_metadata_set: () => Promise.resolve(0),
    rbd_lock_acquire: () => (isOurs = true, Promise.resolve(0)),
    rbd_aio_read: () => 0,
  };
  const call = (_what: string, _buffer: unknown, start: (completion: bigint) => number) => Promise.resolve(start(1n));
  return { calls, handle: 1n, name: "pool/image", call } as unknown as RbdImage;
}

/** Time that passes as a test wants it to. */
class Clock implements Disposable {
  readonly #now = performance.now;
  #addedMs = 0;

  constructor() {
    performance.now = () => this.#now.call(performance) + this.#addedMs;
  }

  pass(ms: number): void {
    this.#addedMs += ms;
  }

  [Symbol.dispose](): void {
    performance.now = this.#now;
  }
}

const read = (disk: RbdBackend) => disk.read(new Uint8Array(512), 0);

Deno.test("RbdBackend: a lock that could not be had is asked for again with the next request", async () => {
  using clock = new Clock();
  let owner: "living" | "nobody" | number = "living";
  const disk = await RbdBackend.ofImage(
    image(() => {
      clock.pass(4_000); // slow, and there: 40 s are over soon
      return Promise.resolve(owner);
    }),
    { lock: "first-request" },
  );
  const [one, two] = [read(disk), read(disk)];
  const busy = await assertRejects(() => one, DblockError, "has the image");
  assertEquals([busy.code, await two.catch(({ code }) => code)], ["EBUSY", "EBUSY"]);
  owner = ERRNO.EIO;
  assertEquals((await assertRejects(() => read(disk), DblockError)).code, "EIO");
  owner = "nobody";
  assertEquals(await read(disk), 0);
});

Deno.test("RbdBackend: the time of a take-over begins anew when the cluster is back", async () => {
  using clock = new Clock();
  let asked = 0;
  const disk = await RbdBackend.ofImage(
    image(() => {
      // It blocks while the cluster is away; the server before has to end, too, when it is back.
      if (++asked === 2) clock.pass(300_000);
      return Promise.resolve(asked < 5 ? "living" : "nobody");
    }),
    { lock: "first-request" },
  );
  assertEquals([await read(disk), asked], [0, 5]);
});
