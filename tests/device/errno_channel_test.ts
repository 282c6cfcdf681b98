// ATTACH, START, EXCHANGE, COMMIT and RESIZE refuse every bad field, and every call out of turn, with the exact errno; and
// mmap() is refused. Hard cases C8, C9: nothing of the module's can be mapped.
import { assertEquals } from "@std/assert";
import * as abi from "../../src/module/abi.ts";
import { ERRNO } from "../../src/disk/errors.ts";
import { encode } from "../../src/system/struct.ts";
import { TestDisk } from "./disk.ts";
import { call, createDevice, destroyDevice, oneAt, params, Queue, resizeDevice, startDevice } from "./server.ts";
import {
  ioctl,
  MAP_PRIVATE,
  MAP_SHARED,
  Memory,
  NR,
  PAGE_BYTES,
  PROT_NONE,
  PROT_READ,
  PROT_READ_WRITE,
  syscall,
} from "./syscall.ts";

const { EALREADY, EBUSY, EFAULT, EINVAL, ENODEV, ENOTCONN, ENOTTY, EOPNOTSUPP } = ERRNO;
const kernelAddress = 0xffff888000000000n;

Deno.test("ATTACH checks every field, and a queue and a file have one another only once", async () => {
  const created = createDevice(params("chan0", { queue_count: 2 }));
  using queue = new Queue(created, 0);
  const ring = queue.ring.address;
  const buffer = queue.buffer!;
  for (let bit = 3; bit < 32; bit++) assertEquals(queue.attach({ flags: 2 ** bit }), EOPNOTSUPP);
  for (let i = 0; i < 7; i++) assertEquals(queue.attach({ reserved: oneAt(i, 7) }), EINVAL);
  assertEquals(queue.attach({ event_fd: 1 }), EINVAL);
  assertEquals(queue.attach({ file_fd: 1 }), EINVAL);
  assertEquals(queue.attach({ queue: created.queue_count }), EINVAL);
  assertEquals(queue.attach({ queue: 2 ** 32 - 1 }), EINVAL);
  for (const off of [-8, -1, 1, 8]) assertEquals(queue.attach({ ring_bytes: queue.ring.bytes.length + off }), EINVAL);
  for (const off of [1, 4]) assertEquals(queue.attach({ ring_address: ring + off }), EINVAL);
  assertEquals(queue.attach({ buffer_address: buffer.address + 512 }), EINVAL);
  assertEquals(queue.attach({ buffer_address: 0 }), EINVAL);
  for (const off of [-4096, 4096]) assertEquals(queue.attach({ buffer_bytes: buffer.bytes.length + off }), EINVAL);
  assertEquals(queue.attach({ ring_address: 0 }), EFAULT);
  const { ring_address, buffer_address } = abi.dblock_attach.fields;
  for (const { offset } of [ring_address, buffer_address]) {
    assertEquals(queue.attach({}, (view) => view.setBigUint64(offset, kernelAddress, true)), EFAULT);
  }
  queue.ring.protect(PROT_READ);
  assertEquals(queue.attach(), EFAULT);
  queue.ring.protect(3);

  assertEquals(queue.attach(), 0);
  using second = new Queue(created, 0);
  assertEquals(second.attach(), EBUSY);
  assertEquals(queue.attach({ queue: 1 }), EBUSY);
  assertEquals(queue.attach(), 0);
  assertEquals(await destroyDevice("chan0"), 0);
  assertEquals(queue.attach(), ENODEV);
  assertEquals(second.attach(), ENODEV);
});

Deno.test("ATTACH of a direct device takes no buffer", async () => {
  const created = createDevice(params("chan1", { flags: abi.DBLOCK_DEVICE_DIRECT }));
  using queue = new Queue(created, 0);
  using memory = new Memory(16 * 4096);
  assertEquals(queue.attach({ buffer_address: memory.address }), EINVAL);
  assertEquals(queue.attach({ buffer_address: memory.address, buffer_bytes: memory.bytes.length }), EINVAL);
  assertEquals(queue.attach({ buffer_bytes: memory.bytes.length }), EINVAL);
  assertEquals(queue.attach(), 0);
  assertEquals(await destroyDevice("chan1"), 0);
});

Deno.test("before ATTACH and START, and after the end, calls say what is missing", async () => {
  const created = createDevice(params("chan2", { queue_count: 2 }));
  const queues = Array.from({ length: created.queue_count }, (_, i) => new Queue(created, i));
  const [first] = queues as [Queue];
  const size = created.size_bytes;
  assertEquals(first.exchange().result, -ENOTCONN);
  assertEquals(first.commit([]).errno, ENOTCONN);
  assertEquals(startDevice(first.fd), ENOTCONN);
  assertEquals(resizeDevice(first.fd, size), ENODEV);
  assertEquals(first.attach(), 0);
  if (queues.length > 1) assertEquals(startDevice(first.fd), ENOTCONN);
  assertEquals(first.exchange().header.error, ERRNO.EAGAIN);
  assertEquals(resizeDevice(first.fd, size), ENODEV);
  assertEquals(await destroyDevice("chan2"), 0);
  assertEquals(first.exchange().result, -ENODEV);
  assertEquals(first.commit([]).errno, ENODEV);
  assertEquals(startDevice(first.fd), ENODEV);
  assertEquals(resizeDevice(first.fd, size), ENODEV);
  for (const queue of queues) queue[Symbol.dispose]();
});

Deno.test("START, EXCHANGE, COMMIT and RESIZE of a live disk check every field", async () => {
  await using disk = await TestDisk.start({ name: "chan3", queue_depth: 8 });
  await disk.pause();
  const queue = disk.queues[0]!;
  assertEquals(startDevice(queue.fd), EALREADY);
  for (let bit = 1; bit < 32; bit++) assertEquals(startDevice(queue.fd, 2 ** bit), EOPNOTSUPP);
  for (let i = 0; i < 4; i++) {
    assertEquals(call(queue.fd, abi.DBLOCK_IOC_START, abi.dblock_start, { reserved: oneAt(i, 4) }).errno, EINVAL);
  }

  for (const count of [9, 2 ** 16, 2 ** 31, 2 ** 32 + 1, -1]) {
    assertEquals([count, ioctl(queue.fd, abi.DBLOCK_IOC_EXCHANGE, count)], [count, -EINVAL]);
  }
  assertEquals(queue.commit([], { count: 9 }).errno, EINVAL);
  assertEquals(queue.commit([], { count: 2 ** 32 - 1 }).errno, EINVAL);
  for (let i = 0; i < 3; i++) assertEquals(queue.commit([], { reserved: oneAt(i, 3) }).errno, EINVAL);
  for (let bit = 2; bit < 32; bit++) assertEquals(queue.commit([], { flags: 2 ** bit }).errno, EOPNOTSUPP);
  assertEquals(queue.commit([], { flags: abi.DBLOCK_COMMIT_FLUSHED | abi.DBLOCK_COMMIT_LEAVES }).errno, 0);
  assertEquals(queue.commit([], { completions_address: queue.ring.address + 4 }).errno, EINVAL);
  assertEquals(queue.commit([], { count: 1, completions_address: 0 }).errno, EFAULT);
  using hole = new Memory(4096);
  hole.protect(PROT_NONE);
  assertEquals(queue.commit([], { count: 1, completions_address: hole.address }).errno, EFAULT);
  assertEquals(queue.commit([], { count: 0, completions_address: 0 }).errno, 0);

  for (let bit = 0; bit < 32; bit++) assertEquals(resizeDevice(queue.fd, 4096, 2 ** bit), EOPNOTSUPP);
  for (const size of [0, 511, 513, 2 ** 53 - 1]) assertEquals(resizeDevice(queue.fd, size), EINVAL);
  const sizeAt = abi.dblock_resize.fields.size_bytes.offset;
  for (const size of [2n ** 60n + 512n, 2n ** 63n, 2n ** 64n - 512n]) {
    const patch = (view: DataView) => view.setBigUint64(sizeAt, size, true);
    assertEquals(call(queue.fd, abi.DBLOCK_IOC_RESIZE, abi.dblock_resize, {}, patch).errno, EINVAL);
  }
  disk.serve();
});

Deno.test("what is no ioctl of a server's node is ENOTTY, and an unreadable argument EFAULT", async () => {
  const created = createDevice(params("chan4"));
  using queue = new Queue(created, 0);
  const known = [
    abi.DBLOCK_IOC_ATTACH,
    abi.DBLOCK_IOC_START,
    abi.DBLOCK_IOC_COMMIT,
    abi.DBLOCK_IOC_RESIZE,
    abi.DBLOCK_IOC_INFO,
  ];
  const argument = encode(abi.dblock_info);
  for (const request of known) {
    for (const address of [0n, kernelAddress, 2n ** 64n - 8n]) assertEquals(ioctl(queue.fd, request, address), -EFAULT);
    for (const other of [request + 2 ** 16, (request ^ 0xc0000000) >>> 0, request ^ 0x100, request | 0x40]) {
      assertEquals([other, ioctl(queue.fd, other, argument)], [other, -ENOTTY]);
    }
  }
  for (const other of [abi.DBLOCK_IOC_VERSION, abi.DBLOCK_IOC_CREATE, abi.DBLOCK_IOC_DESTROY, abi.DBLOCK_IOC_LIST]) {
    assertEquals(ioctl(queue.fd, other, argument), -ENOTTY);
  }
  assertEquals(await destroyDevice("chan4"), 0);
});

Deno.test("a server's node, before and after ATTACH, cannot be mapped", async () => {
  const created = createDevice(params("chan5"));
  using queue = new Queue(created, 0);
  for (const isAttached of [false, true]) {
    if (isAttached) assertEquals(queue.attach(), 0);
    for (const protection of [PROT_NONE, PROT_READ, PROT_READ_WRITE]) {
      for (const sharing of [MAP_SHARED, MAP_PRIVATE]) {
        const mapped = syscall(NR.mmap, 0, PAGE_BYTES, protection, sharing, queue.fd, 0);
        assertEquals([isAttached, protection, sharing, mapped], [isAttached, protection, sharing, -ENODEV]);
      }
    }
  }
  assertEquals(await destroyDevice("chan5"), 0);
});
