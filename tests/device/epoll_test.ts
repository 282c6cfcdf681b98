// An epoll set that got the server's file before ATTACH is woken by the first request, and by the end. Hard case I5.
// Not covered: edge-triggered sets.
import { assertEquals } from "@std/assert";
import * as abi from "../../src/module/abi.ts";
import { createDevice, destroyDevice, done, params, Queue, startDevice } from "./server.ts";
import { assertWithin, sh } from "./harness.ts";
import { close, NR, O_CLOEXEC, syscall, syscallAsync } from "./syscall.ts";

const [EPOLLIN, EPOLLERR, EPOLLHUP, EPOLL_CTL_ADD] = [1, 8, 16, 1];

/** An epoll set of one file. */
class Epoll implements Disposable {
  readonly #fd = syscall(NR.epoll_create1, O_CLOEXEC);
  readonly #events = new Uint8Array(new ArrayBuffer(128));

  constructor(fd: number) {
    const event = new Uint8Array(new ArrayBuffer(128));
    new DataView(event.buffer).setUint32(0, EPOLLIN, true);
    assertEquals(syscall(NR.epoll_ctl, this.#fd, EPOLL_CTL_ADD, fd, event), 0);
  }

  /** The events of its file, on another thread; 0 after that time. */
  async wait(timeoutMs: number): Promise<number> {
    const count = await syscallAsync(NR.epoll_pwait, this.#fd, this.#events, 1, timeoutMs, 0, 0);
    return count === 1 ? new DataView(this.#events.buffer).getUint32(0, true) : 0;
  }

  [Symbol.dispose](): void {
    close(this.#fd);
  }
}

Deno.test("a file added before ATTACH wakes its epoll set with the first request and with the end", async () => {
  using queue = new Queue(createDevice(params("epoll0")), 0);
  using epoll = new Epoll(queue.fd);
  assertEquals(await epoll.wait(0), EPOLLERR);
  assertEquals(queue.attach(), 0);
  // The look that finds nothing to do takes it off the list of what is ready.
  assertEquals(await epoll.wait(0), 0);
  const first = epoll.wait(10_000);
  const started = performance.now();
  assertEquals(startDevice(queue.fd, abi.DBLOCK_START_NO_WAIT), 0);
  assertEquals(await first, EPOLLIN, "nobody was told of the partition table's read");
  assertWithin(5_000, performance.now() - started, "told");

  let { header, requests } = queue.exchange();
  while (header.state === abi.DBLOCK_STATE_STARTING) {
    ({ header, requests } = queue.exchange(requests.map((request) => done(request))));
    if (requests.length === 0) await epoll.wait(20);
  }
  const second = epoll.wait(10_000);
  const reading = sh("dd if=/dev/epoll0 of=/dev/null bs=4k count=1 iflag=direct status=none", { check: false });
  assertEquals(await second, EPOLLIN);
  queue.answerAll();
  await reading;

  const last = epoll.wait(10_000);
  assertEquals(await destroyDevice("epoll0"), 0);
  assertEquals(await last, EPOLLIN | EPOLLHUP);
});

Deno.test("a file that is attached again and again is told of the end of a device that never started", async () => {
  using queue = new Queue(createDevice(params("epoll1")), 0);
  using epoll = new Epoll(queue.fd);
  assertEquals(await epoll.wait(0), EPOLLERR);
  for (let i = 0; i < 3; i++) assertEquals(queue.attach(), 0);
  assertEquals(await epoll.wait(0), 0);
  const event = epoll.wait(10_000);
  assertEquals(await destroyDevice("epoll1"), 0);
  assertEquals(await event, EPOLLIN | EPOLLHUP);
});
