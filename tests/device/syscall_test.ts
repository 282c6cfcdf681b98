// A direct system call returns the kernel's errno itself, on this thread and on another.
import { assertEquals } from "@std/assert";
import { ERRNO } from "../../src/disk/errors.ts";
import { close, ioctl, Memory, NR, O_RDWR, open, syscall, syscallAsync } from "./syscall.ts";

Deno.test("syscall() returns results and negative errnos", async () => {
  assertEquals(syscall(NR.getpid), Deno.pid);
  assertEquals(open("/absent", O_RDWR), -ERRNO.ENOENT);
  assertEquals(await syscallAsync(NR.close, 999), -ERRNO.EBADF);
  const fd = open("/dev/dblockctl", O_RDWR);
  assertEquals(ioctl(fd, 0x1234, 0), -ERRNO.ENOTTY);
  assertEquals(close(fd), 0);
  using memory = new Memory(4096);
  memory.bytes[4095] = 7;
  assertEquals(memory.bytes[4095], 7);
});
