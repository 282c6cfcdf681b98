// SPDX-License-Identifier: MIT
// Clients of an NBD server that say anything: options and requests that are right, nearly right, or noise, in pieces of any size,
// and that may leave at any byte. Whatever the seed: nothing throws, the connection ends, each slot and each buffer is given
// back, and no more memory is lent than the limit. Not covered: TLS, and what a socket does (tests/unit/nbd has both).
import { assert, assertEquals } from "@std/assert";
import type { Backend } from "../../src/disk/backend.ts";
import { MemoryBackend } from "../../src/backends/memory.ts";
import { DblockError } from "../../src/disk/errors.ts";
import type { Mapping } from "../../src/disk/servable.ts";
import { describeExport, type Export, exportOf, geometryOf } from "../../src/nbd/export.ts";
import { greet } from "../../src/nbd/greeting.ts";
import { BufferPool } from "../../src/nbd/pool.ts";
import * as p from "../../src/nbd/protocol.ts";
import { Session } from "../../src/nbd/session.ts";
import { ConnWire, type Wire } from "../../src/nbd/wire.ts";
import { forEachSeed, type Random } from "./random.ts";

const POOL_BYTES = 2 ** 20;
const SIZE_BYTES = 2 ** 20;
/** What is before and behind a disk in memory, and never a client's. */
const GUARD_BYTES = 2 ** 17;
const GUARD = 0xa5;
/** What payloads consist of. */
const PAYLOAD = 0x5a;
const OPTIONS = [1, 2, 3, 5, 6, 7, 8, 9, 10, 11, 99];
const NUMBERS = [0, 1, 511, 512, 4096, 65_536, SIZE_BYTES - 512, SIZE_BYTES, 2 ** 31, 2 ** 32 - 1];

/** The server's end of a connection whose client sends `input`, takes what comes, and leaves. */
class PlayedWire implements Wire {
  readonly fd = undefined;
  #input: Uint8Array;
  readonly #random: Random;
  isClosed = false;
  writtenBytes = 0;

  constructor(input: Uint8Array, random: Random) {
    this.#input = input;
    this.#random = random;
  }

  async read(into: Uint8Array): Promise<number> {
    if (this.#random.chance(0.2)) await Promise.resolve();
    if (this.isClosed) throw new Deno.errors.BadResource("closed");
    assert(into.length > 0, "a read of nothing looks like the end");
    const most = this.#random.chance(0.3) ? 1 + this.#random.below(64) : into.length;
    const count = Math.min(most, into.length, this.#input.length);
    into.set(this.#input.subarray(0, count));
    this.#input = this.#input.subarray(count);
    if (count === 0 && this.#random.chance(0.3)) throw new Deno.errors.ConnectionReset("reset");
    return count;
  }

  async write(bytes: Uint8Array): Promise<void> {
    if (this.#random.chance(0.2)) await Promise.resolve();
    if (this.isClosed || this.#random.chance(0.01)) throw new Deno.errors.BrokenPipe("gone");
    this.writtenBytes += bytes.length;
  }

  silentMs(): number {
    return 0;
  }

  close(): void {
    this.isClosed = true;
  }
}

/** Bytes, one number after the other. */
class Bytes {
  readonly list: number[] = [];

  put(bits: 16 | 32 | 64, value: number | bigint): this {
    const wide = BigInt.asUintN(bits, BigInt(value));
    for (let shift = bits - 8; shift >= 0; shift -= 8) this.list.push(Number(wide >> BigInt(shift) & 255n));
    return this;
  }

  text(text: string): this {
    for (const byte of new TextEncoder().encode(text)) this.list.push(byte);
    return this;
  }

  /** All of them, and zeroes behind. */
  done(zeroes = 0): Uint8Array {
    const bytes = new Uint8Array(this.list.length + zeroes);
    bytes.set(this.list);
    return bytes;
  }
}

function option(random: Random, number: number): Uint8Array {
  const data = new Bytes();
  let zeroes = 0;
  const name = random.pick(["", "disk", "disk", "other", "\0", "x".repeat(5000)]);
  switch (random.chance(0.9) ? number : random.pick(OPTIONS)) {
    case p.NBD_OPT_EXPORT_NAME:
      data.text(name);
      break;
    case p.NBD_OPT_INFO:
    case p.NBD_OPT_GO: {
      const asked = random.below(4);
      data.put(32, random.chance(0.9) ? name.length : random.pick(NUMBERS)).text(name).put(16, asked);
      for (let i = 0; i < asked; i++) data.put(16, random.below(5));
      break;
    }
    case p.NBD_OPT_LIST_META_CONTEXT:
    case p.NBD_OPT_SET_META_CONTEXT: {
      const query = random.pick(["base:allocation", "base:", "qemu:dirty-bitmap:x", "nocolon", ""]);
      data.put(32, name.length).text(name).put(32, random.chance(0.9) ? 1 : random.pick(NUMBERS));
      data.put(32, random.chance(0.9) ? query.length : random.pick(NUMBERS)).text(query);
      break;
    }
    default:
      zeroes = random.chance(0.8) ? 0 : random.below(40_000);
  }
  const head = new Bytes().put(64, random.chance(0.98) ? p.IHAVEOPT : p.NBDMAGIC).put(32, number);
  head.put(32, random.chance(0.97) ? data.list.length + zeroes : random.pick(NUMBERS));
  head.list.push(...data.list);
  return head.done(zeroes);
}

function request(random: Random, extended: boolean): Uint8Array {
  const command = random.chance(0.97) ? random.below(8) : random.below(65_536);
  const lengthBytes = random.chance(0.6) ? random.pick([512, 4096, 65_536]) : random.pick(NUMBERS);
  const offset = random.chance(0.7) ? 512 * random.below(SIZE_BYTES / 512) : random.pick([...NUMBERS, 2n ** 64n - 1n]);
  const carries = command === p.NBD_CMD_WRITE && random.chance(0.95);
  let flags = random.chance(0.7) ? 0 : random.chance(0.9) ? random.below(64) : random.below(65_536);
  if (extended && carries) flags |= p.NBD_CMD_FLAG_PAYLOAD_LEN;
  const wrong = random.chance(0.01);
  const magic = extended !== wrong ? p.NBD_EXTENDED_REQUEST_MAGIC : p.NBD_REQUEST_MAGIC;
  const bytes = new Bytes().put(32, magic).put(16, flags).put(16, command).put(64, random.below(2 ** 32)).put(
    64,
    offset,
  );
  if (extended) bytes.put(64, lengthBytes);
  else bytes.put(32, lengthBytes);
  return bytes.done(carries ? Math.min(lengthBytes, 70_000) : 0).fill(PAYLOAD, bytes.list.length);
}

/** Everything that one client says. */
function script(random: Random): Uint8Array {
  const flags = random.chance(0.97) ? random.below(4) : random.below(2 ** 32);
  const said = [new Bytes().put(32, flags).done()];
  const extended = random.chance(0.4);
  if (extended) said.push(option(random, p.NBD_OPT_EXTENDED_HEADERS));
  else if (random.chance(0.6)) said.push(option(random, p.NBD_OPT_STRUCTURED_REPLY));
  for (let i = random.below(4); i > 0; i--) said.push(option(random, random.pick(OPTIONS)));
  // Most clients come through, else their requests would be read as options.
  if (random.chance(0.9)) {
    const go = new Bytes().put(64, p.IHAVEOPT).put(32, p.NBD_OPT_GO).put(32, 10).put(32, 4).text("disk").put(16, 0);
    said.push(go.done());
  }
  for (let i = random.below(12); i > 0; i--) said.push(request(random, extended));
  const bytes = new Uint8Array(said.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of said) {
    bytes.set(part, at);
    at += part.length;
  }
  for (let i = random.chance(0.2) ? 1 + random.below(4) : 0; i > 0; i--) {
    bytes[random.below(bytes.length)] = random.below(256);
  }
  return random.chance(0.3) ? bytes.subarray(0, random.below(bytes.length)) : bytes;
}

/** Memory for all disks that are in memory, which a server on a socket fills and sends by itself. */
const memory = new MemoryBackend({ sizeBytes: GUARD_BYTES + SIZE_BYTES + GUARD_BYTES });
const guards = [memory.bytes(0, GUARD_BYTES), memory.bytes(GUARD_BYTES + SIZE_BYTES)];
for (const guard of guards) guard.fill(GUARD);
const mapping: Mapping = { ...memory.mapping, address: memory.mapping.address + GUARD_BYTES, sizeBytes: SIZE_BYTES };

/** A disk that answers at once, later, or not at all; half of them are in memory. */
function disk(random: Random): Backend {
  const answer = (): void | Promise<void> => {
    if (random.chance(0.05)) throw random.chance(0.5) ? new DblockError("ENOSPC") : new Error("trouble");
    if (random.chance(0.5)) return;
    return Promise.resolve().then(() => {
      if (random.chance(0.05)) throw new DblockError("EIO");
    });
  };
  return {
    sizeBytes: SIZE_BYTES,
    ...(random.chance(0.5) ? { mapping } : {}),
    limits: { maxIoBytes: random.pick([4096, 65_536, 2 ** 20]) },
    readOnly: random.chance(0.1),
    read: answer,
    write: answer,
    ...(random.chance(0.8) ? { flush: answer } : {}),
    ...(random.chance(0.8) ? { discard: answer } : {}),
    ...(random.chance(0.5) ? { writeZeroes: answer } : {}),
    ...(random.chance(0.5)
      ? {
        extents: () => random.chance(0.1) ? [] : [{ lengthBytes: 512 * (1 + random.below(9)), kind: "zero" as const }],
      }
      : {}),
  };
}

/** How far a client came. */
interface Course {
  readonly transmitted: boolean;
  readonly writtenBytes: number;
}

/** A client whose every byte is played: pieces, pauses and ends come from the seed. */
async function play(random: Random): Promise<Course> {
  const wire = new PlayedWire(script(random), random);
  const transmitted = await serveTo(wire, random);
  if (transmitted) assert(wire.isClosed);
  return { transmitted, writtenBytes: wire.writtenBytes };
}

/** The same client on a real socket, where a server makes system calls of its own; when what arrives is the kernel's to say. */
async function playOverSocket(random: Random, listener: Deno.Listener, path: string): Promise<Course> {
  const connecting = Deno.connect({ transport: "unix", path });
  const wire = new ConnWire(await listener.accept(), { isAccepted: true });
  assert(wire.fd !== undefined, "the server has to use system calls of its own");
  const client = await connecting;
  let writtenBytes = 0;
  const hear = async () => {
    const into = new Uint8Array(65_536);
    for (let count; (count = await client.read(into)) !== null;) writtenBytes += count;
  };
  const say = async () => {
    for (let rest = script(random); rest.length > 0;) {
      const piece = rest.subarray(0, random.chance(0.3) ? 1 + random.below(64) : rest.length);
      for (let done = 0; done < piece.length;) done += await client.write(piece.subarray(done));
      rest = rest.subarray(piece.length);
    }
    if (random.chance(0.5)) await client.closeWrite();
    else client.close();
  };
  const heard = hear().catch(() => {}); // the connection has ended
  const said = say().catch(() => {});
  const transmitted = await serveTo(wire, random);
  wire.close();
  await Promise.all([heard, said]);
  try {
    client.close();
  } catch {
    // It has left by itself.
  }
  return { transmitted, writtenBytes };
}

/** Serves one client to its end. @returns whether it came to its requests */
async function serveTo(wire: Wire, random: Random): Promise<boolean> {
  const one: Export = exportOf("disk", disk(random), false);
  const found = () => describeExport(one);
  const directory = {
    list: () => [found()],
    find: (name: string) => name === "" || name === "disk" ? found() : undefined,
    isClosing: false,
  };
  const pool = new BufferPool(POOL_BYTES);
  let transmitted = false;
  let greeted: Awaited<ReturnType<typeof greet>>;
  try {
    greeted = await greet(wire, directory, { mode: "off", options: {} });
  } catch (error) {
    if (!(error instanceof Deno.errors.ConnectionReset || error instanceof Deno.errors.BrokenPipe)) throw error;
  }
  if (greeted !== undefined) {
    transmitted = true;
    const { negotiated, rest } = greeted;
    const geometry = geometryOf(one, negotiated.export.sizeBytes);
    const session = new Session({ wire, negotiated, backend: one.backend, geometry, pool, log: () => {} });
    if (random.chance(0.1)) void Promise.resolve().then(() => random.chance(0.5) ? session.stop() : session.cut());
    await session.run(rest);
    assertEquals(session.stalledMs(performance.now()), 0);
  }
  assertEquals(pool.usedBytes, 0, "memory that nobody gave back");
  return transmitted;
}

Deno.test("NBD: whatever a client says, its connection ends and nothing is left", async () => {
  let [clients, transmitted, writtenBytes] = [0, 0, 0];
  const before = Deno.memoryUsage().rss;
  await forEachSeed(3_000, "tests/sim/nbd_fuzz_test.ts", async (random) => {
    const over = Promise.withResolvers<never>();
    const timer = setTimeout(() => over.reject(new Error("the connection does not end")), 60_000);
    const course = await Promise.race([play(random), over.promise]);
    clearTimeout(timer);
    clients++;
    if (course.transmitted) transmitted++;
    writtenBytes += course.writtenBytes;
  });
  const grownMiB = (Deno.memoryUsage().rss - before) / 2 ** 20;
  console.log(
    `${clients} clients, ${transmitted} came to their requests, ${writtenBytes} bytes answered, +${
      grownMiB.toFixed(0)
    } MiB`,
  );
  if (Deno.env.get("DBLOCK_SEED") !== undefined) return;
  assert(transmitted > clients / 4, "too few came to their requests for this to test anything");
  assert(grownMiB < 1024, `${grownMiB} MiB more than before`);
});

Deno.test("NBD: whatever a client says on a socket, its connection ends and nothing is left", async () => {
  const path = `${await Deno.makeTempDir()}/nbd.sock`;
  using listener = Deno.listen({ transport: "unix", path }) as unknown as Deno.Listener;
  let [clients, transmitted] = [0, 0];
  await forEachSeed(1_000, "tests/sim/nbd_fuzz_test.ts", async (random) => {
    const over = Promise.withResolvers<never>();
    const timer = setTimeout(() => over.reject(new Error("the connection does not end")), 60_000);
    const course = await Promise.race([playOverSocket(random, listener, path), over.promise]);
    clearTimeout(timer);
    clients++;
    if (course.transmitted) transmitted++;
  });
  console.log(`${clients} clients, ${transmitted} came to their requests`);
  assert(guards.every((guard) => guard.every((byte) => byte === GUARD)), "a client reached what is not the disk's");
  if (Deno.env.get("DBLOCK_SEED") !== undefined) return;
  assert(memory.bytes(GUARD_BYTES, SIZE_BYTES).includes(PAYLOAD), "no payload went to a disk's memory by itself");
  // Usually 0.25 to 0.31: half of them close before they have heard what they waited for.
  assert(transmitted > clients / 8, "too few came to their requests for this to test anything");
});
