// VERSION, DESTROY, LIST, INFO, everything that is no ioctl of the control node, and mmap(): each mistake has its exact
// errno. Hard cases C8, C9: nothing of the module's can be mapped.
import { assertEquals } from "@std/assert";
import * as abi from "../../src/module/abi.ts";
import { ERRNO } from "../../src/disk/errors.ts";
import { decode, encode } from "../../src/system/struct.ts";
import { call, Control, createDevice, destroyDevice, oneAt, params } from "./server.ts";
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

const { EFAULT, EINVAL, ENODEV, ENOENT, ENOTTY, EOPNOTSUPP } = ERRNO;
const kernelAddress = 0xffff888000000000n;

Deno.test("VERSION tells the ABI, the limits, and a feature for every flag", () => {
  using control = new Control();
  const { errno, out } = call(control.fd, abi.DBLOCK_IOC_VERSION, abi.dblock_version);
  assertEquals(errno, 0);
  const features = Object.entries(abi).filter(([name]) => name.startsWith("DBLOCK_FEATURE_"))
    .reduce((sum, [, bit]) => sum + Number(bit), 0);
  assertEquals(out, {
    error: 0,
    abi_version: abi.DBLOCK_ABI_VERSION,
    features,
    queue_count_max: navigator.hardwareConcurrency,
    device_count_max: 1024,
    reserved: [0, 0, 0, 0],
  });
});

Deno.test("DESTROY refuses unknown flags, reserved fields, bad and absent names", () => {
  using control = new Control();
  const destroy = (values: Parameters<typeof encode<typeof abi.dblock_destroy>>[1]) =>
    call(control.fd, abi.DBLOCK_IOC_DESTROY, abi.dblock_destroy, values).errno;
  for (let bit = 1; bit < 32; bit++) assertEquals(destroy({ name: "absent", flags: 2 ** bit }), EOPNOTSUPP);
  for (let i = 0; i < 7; i++) assertEquals(destroy({ name: "absent", reserved: oneAt(i, 7) }), EINVAL);
  assertEquals(destroy({ name: "" }), EINVAL);
  assertEquals(destroy({ name: "a/b" }), EINVAL);
  assertEquals(destroy({ name: "absent-ctl" }), EINVAL);
  assertEquals(destroy({ name: "absent" }), ENOENT);
  assertEquals(destroy({ name: "absent", flags: 1, open_count: 99, error: 99 }), ENOENT);
});

Deno.test("INFO by name refuses bad and absent names, and reserved fields", async () => {
  using control = new Control();
  const info = (name: string, reserved?: number[]) =>
    call(control.fd, abi.DBLOCK_IOC_INFO, abi.dblock_info, { name, ...(reserved && { reserved }) }).errno;
  assertEquals([info(""), info("a/b"), info("x-ctl"), info("absent")], [EINVAL, EINVAL, EINVAL, ENOENT]);
  const { name } = createDevice(params("reserved0"));
  try {
    assertEquals(info(name), 0);
    for (let i = 0; i < 10; i++) assertEquals(info(name, oneAt(i, 10)), EINVAL);
  } finally {
    await destroyDevice(name);
  }
});

Deno.test("LIST writes as many as fit, says how many there are, and refuses what it cannot use", async () => {
  using control = new Control();
  const names = ["list0", "list1", "list2"];
  for (const name of names) createDevice(params(name));
  try {
    using memory = new Memory(3 * PAGE_BYTES);
    const list = (values: Parameters<typeof encode<typeof abi.dblock_list>>[1]) => {
      const { errno, out } = call(control.fd, abi.DBLOCK_IOC_LIST, abi.dblock_list, values);
      return [errno, out.count, out.total];
    };
    assertEquals(list({}), [0, 0, 3]);
    assertEquals(list({ capacity: 2, infos_address: memory.address }), [0, 2, 3]);
    assertEquals(list({ capacity: 8, infos_address: memory.address }), [0, 3, 3]);
    const found = names.map((_, i) => decode(abi.dblock_info, memory.bytes.subarray(i * abi.dblock_info.size)).name);
    assertEquals(found.sort(), names);
    for (let i = 0; i < 4; i++) assertEquals(list({ reserved: oneAt(i, 4) })[0], EINVAL);
    assertEquals(list({ capacity: 1 })[0], EFAULT);
    // The second of them does not fit before the hole.
    memory.protect(PROT_NONE, PAGE_BYTES);
    assertEquals(list({ capacity: 3, infos_address: memory.address + PAGE_BYTES - abi.dblock_info.size })[0], EFAULT);
  } finally {
    for (const name of names) await destroyDevice(name);
  }
});

Deno.test("an argument that cannot be read is EFAULT, and does nothing", () => {
  using control = new Control();
  using memory = new Memory(4096);
  memory.protect(PROT_NONE);
  const calls = [
    abi.DBLOCK_IOC_VERSION,
    abi.DBLOCK_IOC_CREATE,
    abi.DBLOCK_IOC_DESTROY,
    abi.DBLOCK_IOC_LIST,
    abi.DBLOCK_IOC_INFO,
  ];
  for (const request of calls) {
    for (const address of [0n, 8n, BigInt(memory.address), kernelAddress, 2n ** 63n, 2n ** 64n - 8n]) {
      assertEquals(ioctl(control.fd, request, address), -EFAULT);
    }
  }
});

Deno.test("what is no ioctl of the control node is ENOTTY", () => {
  using control = new Control();
  const argument = encode(abi.dblock_info);
  const known = [
    abi.DBLOCK_IOC_VERSION,
    abi.DBLOCK_IOC_CREATE,
    abi.DBLOCK_IOC_DESTROY,
    abi.DBLOCK_IOC_LIST,
    abi.DBLOCK_IOC_INFO,
  ];
  // Another size, another direction, another type, another number: each is another ioctl.
  const unknown = known.flatMap((
    request,
  ) => [request + 2 ** 16, request ^ 0xc0000000, request ^ 0x100, request | 0x40]);
  const others = [
    abi.DBLOCK_IOC_ATTACH,
    abi.DBLOCK_IOC_START,
    abi.DBLOCK_IOC_EXCHANGE,
    abi.DBLOCK_IOC_COMMIT,
    abi.DBLOCK_IOC_RESIZE,
    0,
    2 ** 32 - 1,
  ];
  for (const request of [...unknown, ...others]) {
    assertEquals([request >>> 0, ioctl(control.fd, request >>> 0, argument)], [request >>> 0, -ENOTTY]);
  }
});

Deno.test("the control node cannot be mapped", () => {
  using control = new Control();
  for (const protection of [PROT_NONE, PROT_READ, PROT_READ_WRITE]) {
    for (const sharing of [MAP_SHARED, MAP_PRIVATE]) {
      for (const offset of [0, PAGE_BYTES]) {
        const mapped = syscall(NR.mmap, 0, PAGE_BYTES, protection, sharing, control.fd, offset);
        assertEquals([protection, sharing, offset, mapped], [protection, sharing, offset, -ENODEV]);
      }
    }
  }
});
