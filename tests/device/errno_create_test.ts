// CREATE takes every field up to its limit, and refuses one past it, unknown flags and reserved fields, with the exact errno.
import { assertEquals } from "@std/assert";
import * as abi from "../../src/module/abi.ts";
import { ERRNO } from "../../src/disk/errors.ts";
import { encode } from "../../src/system/struct.ts";
import { Control, type CreateParams, destroyDevice, KIB, MIB, oneAt, params } from "./server.ts";
import { ioctl, Memory, PAGE_BYTES, PROT_READ, PROT_READ_WRITE } from "./syscall.ts";

const { EINVAL, EOPNOTSUPP } = ERRNO;
const GIB = 2 ** 30;
const discard = { flags: abi.DBLOCK_DEVICE_DISCARD, discard_granularity_bytes: 4096, max_discard_bytes: MIB };
const zeroes = { flags: abi.DBLOCK_DEVICE_WRITE_ZEROES, max_write_zeroes_bytes: MIB };

/** What is tried beside the good values of params(); the errno is 0 for what must be taken. */
const cases: readonly [CreateParams, number][] = [
  ...["x", "0", "a.b_c-d", "n".repeat(31), "ctl", "x-ctls"].map((name) => [{ name }, 0] as [CreateParams, number]),
  ...["", "-x", ".x", "_x", "..", "a/b", "a b", "x-ctl", "-ctl", "ä", "x\n", "x%s*"].map((name) =>
    [{ name }, EINVAL] as [CreateParams, number]
  ),
  ...[512, 1024, MIB, 2 ** 50, abi.DBLOCK_SIZE_BYTES_MAX / 512].map((size_bytes) =>
    [{ size_bytes }, 0] as [CreateParams, number]
  ),
  ...[0, 1, 511, 513, MIB + 256].map((size_bytes) => [{ size_bytes }, EINVAL] as [CreateParams, number]),
  ...[512, 1024, 2048, 4096].map((bytes) => [{ logical_block_bytes: bytes }, 0] as [CreateParams, number]),
  ...[0, 1, 256, 511, 513, 1536, 8192, 2 ** 31].map((bytes) =>
    [{ logical_block_bytes: bytes, physical_block_bytes: bytes }, EINVAL] as [CreateParams, number]
  ),
  [{ logical_block_bytes: 4096, size_bytes: 4096 }, 0],
  [{ logical_block_bytes: 4096, size_bytes: 4096 + 512 }, EINVAL],
  [{ physical_block_bytes: 512 }, 0],
  [{ physical_block_bytes: MIB }, 0],
  [{ physical_block_bytes: 2 * MIB }, EINVAL],
  [{ physical_block_bytes: 6144 }, EINVAL],
  [{ physical_block_bytes: 0 }, EINVAL],
  [{ logical_block_bytes: 4096, physical_block_bytes: 2048 }, EINVAL],
  [{ io_opt_bytes: 4096 }, 0],
  [{ io_opt_bytes: abi.DBLOCK_IO_BYTES_MAX }, 0],
  [{ io_opt_bytes: abi.DBLOCK_IO_BYTES_MAX + 4096 }, EINVAL],
  [{ io_opt_bytes: 2048 }, EINVAL],
  [{ max_io_bytes: Math.max(abi.DBLOCK_IO_BYTES_MIN, PAGE_BYTES) }, 0],
  [{ max_io_bytes: abi.DBLOCK_IO_BYTES_MAX }, 0],
  ...[0, 512, 4095, 4097, 6144, abi.DBLOCK_IO_BYTES_MAX + 4096, 2 ** 32 - 1].map((max_io_bytes) =>
    [{ max_io_bytes }, EINVAL] as [CreateParams, number]
  ),
  [{ queue_count: abi.DBLOCK_QUEUE_COUNT_MAX }, 0],
  ...[0, abi.DBLOCK_QUEUE_COUNT_MAX + 1, 2 ** 32 - 1].map((queue_count) =>
    [{ queue_count }, EINVAL] as [CreateParams, number]
  ),
  [{ queue_depth: 1 }, 0],
  [{ queue_depth: abi.DBLOCK_QUEUE_DEPTH_MAX }, 0],
  ...[0, abi.DBLOCK_QUEUE_DEPTH_MAX + 1, 2 ** 32 - 1].map((queue_depth) =>
    [{ queue_depth }, EINVAL] as [CreateParams, number]
  ),
  ...[0, abi.DBLOCK_TIMEOUT_MS_MIN, abi.DBLOCK_TIMEOUT_MS_MAX].map((timeout_ms) =>
    [{ timeout_ms }, 0] as [CreateParams, number]
  ),
  ...[1, abi.DBLOCK_TIMEOUT_MS_MIN - 1, abi.DBLOCK_TIMEOUT_MS_MAX + 1, 4_294_968, 2 ** 32 - 1].map((timeout_ms) =>
    [{ timeout_ms }, EINVAL] as [CreateParams, number]
  ),
  [{ on_death: abi.DBLOCK_ON_DEATH_HOLD }, 0],
  [{ on_death: abi.DBLOCK_ON_DEATH_HOLD + 1 }, EINVAL],
  [{ on_death: 2 ** 32 - 1 }, EINVAL],
  [discard, 0],
  [{ ...discard, discard_granularity_bytes: GIB, max_discard_bytes: abi.DBLOCK_RANGE_BYTES_MAX }, 0],
  [{ ...discard, discard_granularity_bytes: 2 * GIB }, EINVAL],
  [{ ...discard, discard_granularity_bytes: MIB }, 0],
  [{ ...discard, discard_granularity_bytes: 2 * MIB }, EINVAL],
  [{ ...discard, physical_block_bytes: MIB, max_discard_bytes: 512 * KIB }, EINVAL],
  [{ ...discard, discard_granularity_bytes: 0 }, EINVAL],
  [{ ...discard, discard_granularity_bytes: 256 }, EINVAL],
  [{ ...discard, discard_granularity_bytes: 12 * KIB }, EINVAL],
  [{ ...discard, max_discard_bytes: abi.DBLOCK_RANGE_BYTES_MAX + 512 }, EINVAL],
  [{ ...discard, max_discard_bytes: 0 }, EINVAL],
  [{ ...discard, max_discard_bytes: 513 }, EINVAL],
  [{ ...discard, flags: 0, max_discard_bytes: 0 }, EINVAL],
  [{ ...discard, flags: 0, discard_granularity_bytes: 0 }, EINVAL],
  [zeroes, 0],
  [{ ...zeroes, max_write_zeroes_bytes: abi.DBLOCK_RANGE_BYTES_MAX }, 0],
  [{ ...zeroes, max_write_zeroes_bytes: abi.DBLOCK_RANGE_BYTES_MAX + 512 }, EINVAL],
  [{ ...zeroes, max_write_zeroes_bytes: 0 }, EINVAL],
  [{ ...zeroes, flags: 0 }, EINVAL],
  [{ flags: abi.DBLOCK_DEVICE_WRITE_CACHE | abi.DBLOCK_DEVICE_FUA }, 0],
  [{ flags: abi.DBLOCK_DEVICE_FUA }, EINVAL],
  ...[abi.DBLOCK_DEVICE_READ_ONLY, abi.DBLOCK_DEVICE_ROTATIONAL, abi.DBLOCK_DEVICE_DIRECT].map((flags) =>
    [{ flags }, 0] as [CreateParams, number]
  ),
  [{ flags: abi.DBLOCK_DEVICE_NO_PART_SCAN }, 0],
  [{ flags: abi.DBLOCK_DEVICE_TIMEOUT_IS_DEATH, timeout_ms: 1000 }, 0],
  [{ flags: abi.DBLOCK_DEVICE_TIMEOUT_IS_DEATH }, EINVAL],
  [{ flags: abi.DBLOCK_DEVICE_CACHE_SURVIVES | abi.DBLOCK_DEVICE_WRITE_CACHE }, 0],
  [{ flags: abi.DBLOCK_DEVICE_CACHE_SURVIVES }, EINVAL],
  ...Array.from({ length: 22 }, (_, i) => [{ flags: 2 ** (10 + i) }, EOPNOTSUPP] as [CreateParams, number]),
  ...Array.from({ length: 9 }, (_, i) => [{ reserved: oneAt(i, 9) }, EINVAL] as [CreateParams, number]),
];

/** Fields that are written by the kernel: what the caller has there does not matter. */
const ignored: readonly CreateParams[] = [{ error: 77 }, { id: 12345 }, { minor: 12345 }];

Deno.test("CREATE checks every field", async () => {
  using control = new Control();
  for (const [values, errno] of [...cases, ...ignored.map((values) => [values, 0] as const)]) {
    const request = params("errno0", values);
    const label = JSON.stringify(values);
    assertEquals([label, control.create(request).errno], [label, errno]);
    assertEquals([label, await destroyDevice(request.name!)], [
      label,
      errno === 0 ? 0 : expectedDestroy(request.name!),
    ]);
  }
});

/** A name that CREATE refuses, DESTROY refuses as well; any other is not there. */
function expectedDestroy(name: string): number {
  return /^[A-Za-z0-9][A-Za-z0-9._-]*$/.test(name) && !name.endsWith("-ctl") ? ERRNO.ENOENT : EINVAL;
}

Deno.test("CREATE refuses sizes that a number cannot hold, and names without their NUL", () => {
  using control = new Control();
  const sizeAt = abi.dblock_create.fields.size_bytes.offset;
  for (const size of [2n ** 60n + 512n, 2n ** 63n, 2n ** 64n - 512n, 2n ** 64n - 1n]) {
    const { errno } = control.create(params("errno0"), (view) => view.setBigUint64(sizeAt, size, true));
    assertEquals([size, errno], [size, EINVAL]);
  }
  const nameAt = abi.dblock_create.fields.name.offset;
  const unterminated = control.create(params("errno0"), (view) => {
    for (let i = 0; i < abi.DBLOCK_NAME_BYTES; i++) view.setUint8(nameAt + i, 97);
  });
  assertEquals(unterminated.errno, EINVAL);
  const trailing = control.create(params("errno0"), (view) => view.setUint8(nameAt + 31, 97));
  assertEquals(trailing.errno, EINVAL);
});

Deno.test("CREATE takes the largest size, and says how many queues it made", async () => {
  using control = new Control();
  const sizeAt = abi.dblock_create.fields.size_bytes.offset;
  const largest = control.create(
    params("errno0"),
    (view) => view.setBigUint64(sizeAt, BigInt(abi.DBLOCK_SIZE_BYTES_MAX), true),
  );
  assertEquals(largest.errno, 0);
  assertEquals(await destroyDevice("errno0"), 0);
  const most = control.create(params("errno0", { queue_count: abi.DBLOCK_QUEUE_COUNT_MAX }));
  assertEquals([most.errno, most.out.queue_count], [0, Math.min(64, navigator.hardwareConcurrency)]);
  assertEquals(await destroyDevice("errno0"), 0);
});

Deno.test("CREATE that cannot write its answer is EFAULT, and makes no device", async () => {
  using control = new Control();
  using memory = new Memory(PAGE_BYTES);
  memory.bytes.set(encode(abi.dblock_create, params("silent")));
  memory.protect(PROT_READ);
  assertEquals(ioctl(control.fd, abi.DBLOCK_IOC_CREATE, memory.address), -ERRNO.EFAULT);
  assertEquals(control.info("silent"), undefined);
  memory.protect(PROT_READ_WRITE);
  assertEquals(ioctl(control.fd, abi.DBLOCK_IOC_CREATE, memory.address), 0);
  assertEquals(await destroyDevice("silent"), 0);
});
