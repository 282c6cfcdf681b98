// SPDX-License-Identifier: MIT
/** What systemd hears of `dblock serve` once the disks are there, and while the machine stops. The rest is in tests/device/debian_unit_test.ts. */
import { assert, assertEquals } from "@std/assert";
import { Service } from "../../../src/command/service.ts";
import { NullBackend } from "../../../src/backends/null.ts";
import type { Device } from "../../../src/module/device.ts";
import { serveOn } from "../../../src/module/serve.ts";
import { FakeKernel } from "../../sim/fake_kernel.ts";
import { DatagramListener } from "../system/datagram_listener.ts";

/** This process as a service, whose environment has these variables too, and what systemd hears of it. */
function started(variables: Readonly<Record<string, string>> = {}) {
  const socket = `@dblock-service-test-${Deno.pid}`;
  const listener = new DatagramListener(socket);
  const environment = { ...variables, NOTIFY_SOCKET: socket };
  for (const [name, value] of Object.entries(environment)) Deno.env.set(name, value);
  const service = Service.here();
  for (const name of Object.keys(environment)) Deno.env.delete(name);
  assert(service !== undefined);
  return {
    service,
    heard: () => Array.from({ length: 1_000 }, () => listener.heard()).filter((notice) => notice !== undefined),
    [Symbol.dispose]: () => {
      service[Symbol.dispose]();
      listener[Symbol.dispose]();
    },
  };
}

/** The same with a disk that is mounted. */
async function mounted() {
  const one = started();
  const kernel = new FakeKernel();
  const device = await serveOn(kernel, new NullBackend({ sizeBytes: 4096 }), { name: "a", log: () => {} });
  const inside = kernel.devices.get("a")!;
  inside.openCount = 1;
  // The fake module counts no requests.
  let writes = 0;
  const counting: Device = Object.create(device, {
    path: { value: device.path },
    info: {
      value: async () => {
        const info = await device.info();
        return { ...info, requests: { ...info.requests, write: { count: writes, bytes: 0 } } };
      },
    },
  });
  return {
    service: one.service,
    heard: one.heard,
    devices: () => [counting],
    write: () => writes++,
    unmount: () => inside.openCount = 0,
    [Symbol.asyncDispose]: async () => {
      one[Symbol.dispose]();
      await device.close();
    },
  };
}

const delay = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

Deno.test("ready() says that the disks are there; then the watchdog hears of this process three times in its time", async () => {
  const watchdogMs = 600;
  using one = started({ WATCHDOG_USEC: `${watchdogMs * 1000}`, WATCHDOG_PID: `${Deno.pid}` });
  await delay(watchdogMs);
  assertEquals(one.heard(), [], "a service that is not ready is not watched");
  const began = performance.now();
  one.service.ready(["/dev/a is ready", "/dev/b is ready"]);
  const ready = `READY=1\nMAINPID=${Deno.pid}\nSTATUS=/dev/a is ready; /dev/b is ready`;
  assertEquals(one.heard(), [ready]);
  // Said once more, after a reload that failed: nobody hears of this process twice as often.
  one.service.ready(["/dev/a is ready", "/dev/b is ready"]);
  await delay(2 * watchdogMs);
  const wordsMax = Math.ceil((performance.now() - began) / (watchdogMs / 3));
  const [again, ...words] = one.heard();
  assertEquals([again, ...new Set(words)], [ready, "WATCHDOG=1"]);
  assert(words.length >= 3 && words.length <= wordsMax, `${words.length} words, at most ${wordsMax}`);
  one.service[Symbol.dispose]();
  one.heard();
  await delay(watchdogMs);
  assertEquals(one.heard(), []);
});

Deno.test("a thread that is busy for good does not feed the watchdog", async () => {
  using one = started({ WATCHDOG_USEC: "300000" });
  one.service.ready([]);
  await delay(400);
  assert(one.heard().includes("WATCHDOG=1"));
  for (const until = performance.now() + 600; performance.now() < until;);
  assertEquals(one.heard(), []);
});

Deno.test("a watchdog of another process, or none, hears nothing", async () => {
  for (const variables of [{}, { WATCHDOG_USEC: "150000", WATCHDOG_PID: "1" }]) {
    using one = started(variables);
    one.service.ready(["/dev/a is ready"]);
    await delay(200);
    assertEquals(one.heard().length, 1);
  }
});

Deno.test("while a disk is unmounted as the machine stops, systemd gives its server more time, asked now and then", async () => {
  await using all = await mounted();
  const wordMs = 300;
  const began = performance.now();
  const stopping = all.service.stopping(all.devices, { isMachineStopping: () => Promise.resolve(true), wordMs });
  await new Promise((resolve) => setTimeout(resolve, 1_000));
  all.unmount();
  await stopping;
  const wordsMax = Math.ceil((performance.now() - began) / wordMs);
  const [first, ...words] = all.heard();
  assertEquals(first, "STOPPING=1");
  assert(words.length >= 2 && words.length <= wordsMax, `${words.length} words, at most ${wordsMax}`);
  const [word] = words;
  assertEquals(word, "EXTEND_TIMEOUT_USEC=20000000\nSTATUS=the machine stops: waiting for /dev/a to be unmounted");
  assertEquals(new Set(words).size, 1);
});

Deno.test("systemd is asked for more time while there is I/O, and a while after that: a disk that nobody unmounts ends", async () => {
  await using all = await mounted();
  const isMachineStopping = () => Promise.resolve(true);
  const stopping = all.service.stopping(all.devices, { isMachineStopping, wordMs: 100, idleMs: 500 });
  const heardDuring = async (ms: number, isBusy: boolean) => {
    all.heard();
    for (const until = performance.now() + ms; performance.now() < until;) {
      if (isBusy) all.write();
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    return all.heard().length > 0;
  };
  const busy = [await heardDuring(1_000, true), await heardDuring(1_000, true)];
  await heardDuring(1_500, false);
  assertEquals([...busy, await heardDuring(500, false)], [true, true, false]);
  all.unmount();
  await stopping;
});

Deno.test("a service that stops alone does not wait for who uses its disks", async () => {
  await using all = await mounted();
  await all.service.stopping(all.devices, { isMachineStopping: () => Promise.resolve(false) });
  assertEquals(all.heard(), ["STOPPING=1"]);
  all.unmount();
});
