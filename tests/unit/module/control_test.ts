// SPDX-License-Identifier: MIT
import { assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import {
  DBLOCK_ABI_VERSION,
  DBLOCK_CONTROL_PATH,
  DBLOCK_IOC_ATTACH,
  DBLOCK_IOC_CREATE,
  DBLOCK_IOC_DESTROY,
  DBLOCK_IOC_VERSION,
} from "../../../src/module/abi.ts";
import { Channel } from "../../../src/module/channel.ts";
import { Control, whyBadName } from "../../../src/module/control.ts";
import { destroyOn } from "../../../src/module/destroy.ts";
import { DblockError, ERRNO, type ErrnoName } from "../../../src/disk/errors.ts";
import { FakeKernel } from "../../sim/fake_kernel.ts";

const params = {
  size_bytes: 4096,
  logical_block_bytes: 512,
  max_io_bytes: 4096,
  queue_count: 1,
  queue_depth: 1,
};

async function messageOf(code: string, run: () => Promise<unknown>): Promise<string> {
  const error = await assertRejects(run, DblockError);
  assertEquals(error.code, code);
  return error.message;
}

Deno.test("Control creates, describes, lists and destroys", async () => {
  const kernel = new FakeKernel();
  using control = await Control.open("Cannot test", kernel);
  assertEquals((await control.version()).abi_version, DBLOCK_ABI_VERSION);
  assertEquals(await control.list(), []);
  const names = Array.from({ length: 40 }, (_, i) => `disk${i}`);
  for (const name of names) await control.create({ ...params, name });
  assertEquals((await control.list()).map((info) => info.name), names);
  const info = await control.info("disk7");
  assertEquals([info.name, info.size_bytes, info.queue_count], ["disk7", 4096, 1]);
  for (const name of names) await control.destroy(name);
  assertEquals(await control.list(), []);
});

const opens: [errno: ErrnoName, parts: string[]][] = [
  ["ENOENT", ["Cannot test: the dblock module is not loaded", "dblock doctor says how to load it"]],
  ["EACCES", ["Cannot test: /dev/dblockctl is for root only", "sudo"]],
  ["EMFILE", ["Cannot test: open /dev/dblockctl: EMFILE"]],
];
for (const [errno, parts] of opens) {
  Deno.test(`Control.open() says what to do about ${errno}`, async () => {
    const kernel = new FakeKernel();
    kernel.refusedPaths.set(DBLOCK_CONTROL_PATH, ERRNO[errno]);
    const message = await messageOf(errno, () => Control.open("Cannot test", kernel));
    for (const part of parts) assertStringIncludes(message, part);
  });
}

Deno.test("Control.open() refuses a module that speaks another version, and closes its file", async () => {
  const [own, pairs] = [DBLOCK_ABI_VERSION, { module: -1, program: 1 }];
  for (const [older, step] of Object.entries(pairs)) {
    const kernel = new FakeKernel({ abiVersion: own + step });
    const message = await messageOf("EPROTO", () => Control.open("Cannot test", kernel));
    const sides = older === "module"
      ? "the loaded module is older than this program"
      : "this program is older than the loaded module";
    assertEquals(
      message,
      `Cannot test: ${sides}: the module speaks ABI ${
        own + step
      }, the program ${own} (dblock doctor says what to type)`,
    );
    assertEquals(kernel.files.size, 0);
  }
});

Deno.test("Control.open() refuses a node that does not know the call", async () => {
  const kernel = new FakeKernel();
  kernel.ioctl = () => -1; // as for ENOTTY: nothing is written
  assertStringIncludes(await messageOf("ENOTTY", () => Control.open("Cannot test", kernel)), "does not know this call");
});

const creates: [errno: ErrnoName, part: string][] = [
  ["EEXIST", "Cannot create /dev/a: the name is in use"],
  ["ENOSPC", "as many devices as it may"],
  ["EPERM", "this takes root (CAP_SYS_ADMIN) (try again with sudo)"],
  ["EINVAL", "the kernel refuses a value"],
  ["EOPNOTSUPP", "cannot do all that is asked"],
  ["ENOMEM", "out of memory"],
];
for (const [errno, part] of creates) {
  Deno.test(`Control.create() says what ${errno} means`, async () => {
    const kernel = new FakeKernel();
    using control = await Control.open("Cannot test", kernel);
    kernel.refusedIoctls.set(DBLOCK_IOC_CREATE, ERRNO[errno]);
    assertStringIncludes(await messageOf(errno, () => control.create({ ...params, name: "a" })), part);
  });
}

Deno.test("Control.destroy() and info() say that there is no such device", async () => {
  using control = await Control.open("Cannot test", new FakeKernel());
  assertEquals(
    await messageOf("ENOENT", () => control.destroy("a")),
    "Cannot destroy /dev/a: there is no such device",
  );
  assertEquals(await messageOf("ENOENT", () => control.info("a")), "Cannot ask about /dev/a: there is no such device");
});

Deno.test("Control.destroy() goes on waiting after a signal", async () => {
  const kernel = new FakeKernel();
  using control = await Control.open("Cannot test", kernel);
  await control.create({ ...params, name: "a" });
  kernel.refusedIoctls.set(DBLOCK_IOC_DESTROY, ERRNO.EINTR);
  const destroyed = control.destroy("a");
  setTimeout(() => {
    kernel.remove("a");
    kernel.refusedIoctls.clear();
  }, 10);
  await destroyed; // ENOENT after an EINTR: the removal went on by itself
});

Deno.test("destroy() waits for who has it open only for a moment, and refuses those who stay", async () => {
  const kernel = new FakeKernel();
  using control = await Control.open("Cannot test", kernel);
  for (const name of ["a", "b", "c"]) await control.create({ ...params, name });
  for (const device of kernel.devices.values()) device.openCount = 1;
  setTimeout(() => {
    const device = kernel.devices.get("a");
    if (device !== undefined) device.openCount = 0;
  }, 60);
  await destroyOn(kernel, "a");
  const message = await messageOf("EBUSY", () => destroyOn(kernel, "b", { waitMs: 60 }));
  assertStringIncludes(message, "Cannot destroy /dev/b: it is in use (1 open)");
  await destroyOn(kernel, "c", { force: true });
  assertEquals([...kernel.devices.keys()], ["b"]);
});

Deno.test("Channel.attach() says when a queue has a server already, or the device is gone", async () => {
  const kernel = new FakeKernel();
  using control = await Control.open("Cannot test", kernel);
  await control.create({ ...params, name: "a" });
  const options = { name: "a", queue: 0, depth: 1, slotBytes: 4096, kernel };
  using first = new Channel(options);
  first.attach();
  using second = new Channel(options);
  const attach = () => Promise.resolve().then(() => second.attach());
  assertEquals(await messageOf("EBUSY", attach), "Cannot serve queue 0 of /dev/a: it has a server already");
  kernel.refusedIoctls.set(DBLOCK_IOC_ATTACH, ERRNO.ENODEV);
  assertEquals(await messageOf("ENODEV", attach), "Cannot serve queue 0 of /dev/a: the device is gone");
});

Deno.test("Control passes on the errors of a version it cannot ask for", async () => {
  const kernel = new FakeKernel();
  kernel.refusedIoctls.set(DBLOCK_IOC_VERSION, ERRNO.EFAULT);
  assertStringIncludes(await messageOf("EFAULT", () => Control.open("Cannot test", kernel)), "EFAULT");
  assertEquals(kernel.files.size, 0);
});

Deno.test("whyBadName() takes the names the kernel takes", () => {
  for (const name of ["a", "0", "a.b_c-d", "x".repeat(31), "ctl", "a-ctl-b"]) assertEquals(whyBadName(name), undefined);
  for (const name of ["", ".", "-a", "_a", "a b", "a/b", "ä", "a\0", "x".repeat(32), "a-ctl"]) {
    assertEquals(typeof whyBadName(name), "string", name);
  }
});
