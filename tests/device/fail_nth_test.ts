// Every call in a device's life with each of its allocations and copies failing, one at a time: it fails cleanly or works all the same.
// Covers what happens below the module's functions in the calling thread and in its works. Not: interrupts, and two failures at once.
// time limit: 200 s
// dmesg may have: Call Trace:|kobject_add_internal failed|at lib/dynamic_debug\.c
import { assert, assertEquals } from "@std/assert";
import * as abi from "../../src/module/abi.ts";
import { ERRNO } from "../../src/disk/errors.ts";
import { assertExcused, Faults, hasFaultInjection, sweep } from "./faults.ts";
import { exists, requires, sh, waitFor } from "./harness.ts";
import { findLeaks, hasKmemleak } from "../vm/kmemleak.ts";
import {
  call,
  type Completion,
  Control,
  createDevice,
  destroyDevice,
  done,
  infoOf,
  KIB,
  params,
  pollFds,
  Queue,
  resizeDevice,
  startDevice,
} from "./server.ts";
import { close, Memory, NR, O_DIRECT, O_RDONLY, O_RDWR, open, openAsync, syscall, syscallAsync } from "./syscall.ts";

const name = "nth0";
const path = `/dev/${name}`;
const ignore = !requires("a kernel with fault injection (fail-nth)", hasFaultInjection());

async function untilGone(): Promise<void> {
  await waitFor(`${path} is gone`, () => infoOf(name) === undefined && !exists(path) && !exists(`${path}-ctl`));
}

/** A created device with a server on its only queue. */
function attached(overrides: Parameters<typeof params>[1] = {}): Queue {
  const queue = new Queue(createDevice(params(name, overrides)), 0);
  assertEquals(queue.attach(), 0);
  return queue;
}

/** Answers whatever is asked until the device has left STARTING. Returns its state then. */
async function serveStart(queue: Queue): Promise<number> {
  let completions: Completion[] = [];
  for (;;) {
    const { result, header, requests } = queue.exchange(completions);
    if (result < 0) return abi.DBLOCK_STATE_GONE;
    completions = requests.map((request) => done(request));
    if (requests.length > 0) continue;
    if (header.state !== abi.DBLOCK_STATE_STARTING) return header.state;
    await pollFds([queue.fd], 20);
  }
}

async function startedDevice(overrides: Parameters<typeof params>[1] = {}): Promise<Queue> {
  const queue = attached(overrides);
  assertEquals(startDevice(queue.fd, abi.DBLOCK_START_NO_WAIT), 0);
  assertEquals(await serveStart(queue), abi.DBLOCK_STATE_LIVE);
  return queue;
}

async function destroy(): Promise<void> {
  assertEquals(await destroyDevice(name), 0, "DESTROY without a failure");
  await untilGone();
}

/** The disk, opened by another thread, as this one serves it. */
class OpenDisk implements Disposable {
  #fd: number;

  private constructor(fd: number) {
    this.#fd = fd;
  }

  static async open(): Promise<OpenDisk> {
    const fd = await openAsync(path, O_RDWR | O_DIRECT);
    assert(fd >= 0, `open ${path}: errno ${-fd}`);
    return new OpenDisk(fd);
  }

  get fd(): number {
    return this.#fd;
  }

  close(): void {
    if (this.#fd >= 0) close(this.#fd);
    this.#fd = -1;
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

function failTest(title: string, body: (faults: Faults) => Promise<void>): void {
  Deno.test({
    name: title,
    ignore,
    async fn() {
      try {
        using faults = new Faults();
        await body(faults);
      } finally {
        await destroyDevice(name);
      }
    },
  });
}

Deno.test({
  name: "memory that leaked before is known",
  ignore: !hasKmemleak(),
  async fn() {
    await findLeaks();
  },
});

failTest("CREATE makes a device or nothing, whatever fails in it", async (faults) => {
  using control = new Control();
  await sweep("CREATE", async (n) => {
    const { value: { errno }, hasFailed } = faults.fail(n, () => control.create(params(name, { queue_count: 2 })));
    assertExcused(errno, `CREATE, step ${n}`);
    // EFAULT: the answer could not be written, so the caller has to look.
    if (errno === 0) assert(infoOf(name) !== undefined, `CREATE, step ${n}: no device`);
    if (errno === ERRNO.ENOMEM) assertEquals(infoOf(name), undefined, `CREATE, step ${n}: a device after ENOMEM`);
    await destroyDevice(name);
    await untilGone();
    return hasFailed;
  });
});

failTest("VERSION, INFO and LIST answer or fail, and nothing else", async (faults) => {
  createDevice(params(name));
  using control = new Control();
  using infos = new Memory(64 * KIB);
  // Present, so that no copy to it has a page to allocate, which may fail without harm.
  infos.bytes.fill(1);
  const fd = open(`${path}-ctl`, O_RDWR);
  const calls: Readonly<Record<string, () => number>> = {
    "VERSION": () => call(control.fd, abi.DBLOCK_IOC_VERSION, abi.dblock_version).errno,
    "INFO by name": () => call(control.fd, abi.DBLOCK_IOC_INFO, abi.dblock_info, { name }).errno,
    "INFO of a node": () => call(fd, abi.DBLOCK_IOC_INFO, abi.dblock_info).errno,
    "LIST": () =>
      call(control.fd, abi.DBLOCK_IOC_LIST, abi.dblock_list, { capacity: 16, infos_address: infos.address }).errno,
  };
  for (const [what, make] of Object.entries(calls)) {
    await sweep(what, (n) => {
      const { value: errno, hasFailed } = faults.fail(n, make);
      assertExcused(errno, `${what}, step ${n}`);
      assert((errno === 0) !== hasFailed, `${what}, step ${n}: errno ${errno}`);
      return hasFailed;
    });
  }
  close(fd);
  await destroy();
});

failTest("opening a device's node fails with ENOMEM", async (faults) => {
  createDevice(params(name));
  await sweep("open", (n) => {
    const { value: fd, hasFailed } = faults.fail(n, () => open(`${path}-ctl`, O_RDWR));
    if (fd >= 0) close(fd);
    assert(fd >= 0 || fd === -ERRNO.ENOMEM, `open, step ${n}: errno ${-fd}`);
    return hasFailed;
  });
  await destroy();
});

failTest("ATTACH gives the queue to this file or leaves it free", async (faults) => {
  await sh("truncate -s 1M /tmp/content");
  const file_fd = open("/tmp/content", O_RDWR | O_DIRECT);
  const withFile = { flags: abi.DBLOCK_ATTACH_FILE, file_fd };
  for (const [flags, values] of [[0, {}], [abi.DBLOCK_DEVICE_DIRECT, withFile]] as const) {
    await sweep("ATTACH", async (n) => {
      using queue = new Queue(createDevice(params(name, { flags })), 0);
      const { value: errno, hasFailed } = faults.fail(n, () => queue.attach(values));
      assertExcused(errno, `ATTACH, step ${n}`);
      // Whatever it said, the same file can attach (again).
      assertEquals(queue.attach(values), 0, `ATTACH after step ${n}`);
      assertEquals(infoOf(name)!.attached_count, 1);
      await destroy();
      return hasFailed;
    });
  }
  close(file_fd);
});

failTest("START's own thread", async (faults) => {
  await sweep("START", async (n) => {
    using queue = attached();
    const { value: errno, hasFailed } = faults.fail(n, () => startDevice(queue.fd, abi.DBLOCK_START_NO_WAIT));
    assertExcused(errno, `START, step ${n}`);
    if (errno !== 0) {
      const again = startDevice(queue.fd, abi.DBLOCK_START_NO_WAIT);
      assert([0, ERRNO.EALREADY].includes(again), `START after step ${n}: errno ${again}`);
    }
    assertEquals(await serveStart(queue), abi.DBLOCK_STATE_LIVE);
    await destroy();
    return hasFailed;
  });
});

failTest("START brings the disk or removes the device, whatever fails in its work", async (faults) => {
  let missed = 0;
  await sweep("START's work", async (n) => {
    for (;;) {
      using queue = attached();
      const { value: state, outcome } = await faults.failWorkers(n, async () => {
        assertEquals(startDevice(queue.fd, abi.DBLOCK_START_NO_WAIT), 0);
        return await serveStart(queue);
      });
      if (state === abi.DBLOCK_STATE_LIVE) await destroy();
      else await untilGone();
      if (outcome !== "untouched") return outcome === "failed";
      assert(missed++ < 100, "START's work runs in threads that are not known");
    }
  });
});

failTest("DESTROY's own thread", async (faults) => {
  using control = new Control();
  await sweep("DESTROY", async (n) => {
    using _queue = await startedDevice();
    await waitFor("the scan of its partitions lets go of it", () => infoOf(name)?.open_count === 0);
    const { value: { errno }, hasFailed } = faults.fail(
      n,
      () => call(control.fd, abi.DBLOCK_IOC_DESTROY, abi.dblock_destroy, { name }),
    );
    assertExcused(errno, `DESTROY, step ${n}`);
    if (errno !== 0) await destroyDevice(name);
    await untilGone();
    return hasFailed;
  });
});

failTest("DESTROY's work removes the disk whatever fails", async (faults) => {
  let missed = 0;
  await sweep("DESTROY's work", async (n) => {
    for (;;) {
      using _queue = await startedDevice();
      const { value: errno, outcome } = await faults.failWorkers(n, () => destroyDevice(name));
      assertEquals(errno, 0, `DESTROY, step ${n}`);
      await untilGone();
      if (outcome !== "untouched") return outcome === "failed";
      // Removal may have nothing that can fail.
      if (missed++ >= 10) return n === 1;
    }
  });
});

failTest("RESIZE", async (faults) => {
  using queue = await startedDevice();
  let sizeBytes = 16 * KIB * KIB;
  await sweep("RESIZE", (n) => {
    sizeBytes += 1024 * KIB;
    const { value: errno, hasFailed } = faults.fail(n, () => resizeDevice(queue.fd, sizeBytes));
    assertExcused(errno, `RESIZE, step ${n}`);
    if (errno === 0) assertEquals(infoOf(name)!.size_bytes, sizeBytes);
    return hasFailed;
  });
  await destroy();
});

failTest("a request whose EXCHANGE or COMMIT failed is neither lost nor answered twice", async (faults) => {
  using queue = await startedDevice();
  using disk = await OpenDisk.open();
  using memory = new Memory(64 * KIB);
  for (const [what, number] of [["a READ", NR.pread64], ["a WRITE", NR.pwrite64]] as const) {
    for (const answer of ["EXCHANGE", "COMMIT"] as const) {
      await sweep(`${what} answered by ${answer}`, async (n) => {
        const io = syscallAsync(number, disk.fd, memory.address, memory.bytes.length, 0);
        const hasFailed = await serveUnderFaults(faults, queue, n, answer);
        const result = await io;
        assert(
          [memory.bytes.length, -ERRNO.EIO].includes(result),
          `${what}, ${answer}, step ${n}: the I/O ended with ${result}`,
        );
        return hasFailed;
      });
    }
  }
  const { handed_count, waiting_count, quarantined_count } = infoOf(name)!;
  assertEquals([handed_count, waiting_count, quarantined_count], [0, 0, 0]);
  disk.close();
  await destroy();
});

failTest("a request that its server's file does ends, whatever fails on the way", async (faults) => {
  await sh("modprobe loop && truncate -s 16M /tmp/content");
  const store = (await sh("losetup --find --show /tmp/content")).stdout.trim();
  const file_fd = await openAsync(store, O_RDWR | O_DIRECT);
  {
    using queue = await startedDevice({ flags: abi.DBLOCK_DEVICE_DIRECT | abi.DBLOCK_DEVICE_NO_PART_SCAN });
    assertEquals(queue.attach({ flags: abi.DBLOCK_ATTACH_FILE, file_fd }), 0);
    using disk = await OpenDisk.open();
    using memory = new Memory(64 * KIB);
    for (const [what, number] of [["a READ", NR.pread64], ["a WRITE", NR.pwrite64]] as const) {
      await sweep(`${what} of a file`, async (n) => {
        const io = syscallAsync(number, disk.fd, memory.address, memory.bytes.length, 0);
        const hasFailed = await serveUnderFaults(faults, queue, n, "COMMIT");
        const result = await io;
        assert(
          [memory.bytes.length, -ERRNO.EIO, -ERRNO.ENOMEM].includes(result),
          `${what} of a file, step ${n}: the I/O ended with ${result}`,
        );
        return hasFailed;
      });
    }
    const { handed_count, passed_count } = infoOf(name)!;
    assertEquals([handed_count, passed_count], [0, 0]);
    disk.close();
    await destroy();
  }
  close(file_fd);
  await sh(`losetup -d ${store}`);
});

/** Takes one request and answers it; the n-th step of either call fails, and then it is made again. */
async function serveUnderFaults(
  faults: Faults,
  queue: Queue,
  n: number,
  answer: "EXCHANGE" | "COMMIT",
): Promise<boolean> {
  const failures: boolean[] = [];
  await queue.poll(5_000);
  const first = faults.fail(n, () => queue.exchange());
  failures.push(first.hasFailed);
  let request = first.value.requests[0];
  if (request === undefined) {
    assert(first.hasFailed && first.value.result === -ERRNO.EFAULT, `step ${n}: ${first.value.result} and no request`);
    request = queue.exchange().requests[0];
  }
  assert(request !== undefined, `step ${n}: the request is not handed out again`);
  const completion = done(request);
  const respond = () => answer === "COMMIT" ? queue.commit([completion]) : queue.exchange([completion]);
  failures.push(faults.fail(n, respond).hasFailed);
  // Told again, it is either news or known as stale.
  const { statuses } = queue.commit([completion]);
  assert(
    [abi.DBLOCK_STATUS_TAKEN, abi.DBLOCK_STATUS_STALE, abi.DBLOCK_STATUS_FAULT].includes(statuses[0]!),
    `step ${n}: status ${statuses[0]}`,
  );
  return failures.includes(true);
}

failTest("recovery: a held device takes a new server, and the I/O that waits is done", async (faults) => {
  let server = await startedDevice({ on_death: abi.DBLOCK_ON_DEATH_HOLD });
  using disk = await OpenDisk.open();
  using memory = new Memory(4 * KIB);
  await sweep("recovery", async (n) => {
    const io = syscallAsync(NR.pread64, disk.fd, memory.address, memory.bytes.length, 0);
    await server.poll(5_000);
    assertEquals(server.exchange().result, 1);
    const death = faults.fail(n, () => close(server.fd));
    assertEquals(infoOf(name)!.state, abi.DBLOCK_STATE_HELD, `recovery, step ${n}`);
    server = new Queue(infoOf(name)!, 0);
    const attach = faults.fail(n, () => server.attach());
    assertExcused(attach.value, `ATTACH of recovery, step ${n}`);
    if (attach.value !== 0) assertEquals(server.attach(), 0, `ATTACH of recovery after step ${n}`);
    const start = faults.fail(n, () => startDevice(server.fd));
    assertExcused(start.value, `START of recovery, step ${n}`);
    if (start.value !== 0) {
      const again = startDevice(server.fd);
      assert([0, ERRNO.EALREADY].includes(again), `START of recovery after step ${n}: errno ${again}`);
    }
    await server.poll(5_000);
    const { requests: [request] } = server.exchange();
    assert(request !== undefined && request.flags & abi.DBLOCK_REQUEST_REPLAYED, "the request is handed out again");
    assertEquals(server.exchange([done(request)]).statuses, [abi.DBLOCK_STATUS_TAKEN]);
    assertEquals(await io, memory.bytes.length, `recovery, step ${n}: the I/O that waited`);
    return [death, attach, start].some(({ hasFailed }) => hasFailed);
  });
  disk.close();
  await destroy();
  server[Symbol.dispose]();
});

failTest("a server's death removes its device, whatever fails meanwhile", async (faults) => {
  let missed = 0;
  await sweep("death", async (n) => {
    for (;;) {
      const queue = await startedDevice();
      const { outcome } = await faults.failWorkers(n, async () => {
        close(queue.fd);
        await untilGone();
      });
      if (outcome !== "untouched") return outcome === "failed";
      if (missed++ >= 10) return n === 1;
    }
  });
});

Deno.test({
  name: "loading the module fails cleanly or works, whatever fails in it",
  ignore,
  async fn() {
    const file = "kmod/dblock.ko";
    await sh("rmmod dblock");
    const faults = new Faults("all");
    const empty = new Uint8Array(new ArrayBuffer(128));
    try {
      await sweep("loading", async (n) => {
        const fd = open(file, O_RDONLY);
        const { value, hasFailed } = faults.fail(n, () => syscall(NR.finit_module, fd, empty, 0));
        close(fd);
        assertExcused(-value, `loading, step ${n}`);
        if (value === 0) await sh("rmmod dblock");
        assert(
          !exists("/sys/module/dblock") && !exists(abi.DBLOCK_CONTROL_PATH),
          `loading, step ${n}: a rest is there`,
        );
        return hasFailed;
      });
    } finally {
      faults[Symbol.dispose]();
      if (!exists("/sys/module/dblock")) await sh(`insmod ${file}`);
    }
  },
});

Deno.test({
  name: "nothing has leaked",
  ignore: !hasKmemleak(),
  async fn() {
    assertEquals(await findLeaks(), "");
  },
});
