// SPDX-License-Identifier: MIT
/** What systemd hears of `dblock serve` while the machine stops. Starts and reloads are in tests/device/debian_unit_test.ts. */
import { assert, assertEquals } from "@std/assert";
import { Service } from "../../../src/command/service.ts";
import { NullBackend } from "../../../src/backends/null.ts";
import type { Device } from "../../../src/module/device.ts";
import { serveOn } from "../../../src/module/serve.ts";
import { FakeKernel } from "../../sim/fake_kernel.ts";
import { DatagramListener } from "../system/datagram_listener.ts";

/** This process as a service, a disk of it that is mounted, and what systemd hears. */
async function mounted() {
  const socket = `@dblock-service-test-${Deno.pid}`;
  const listener = new DatagramListener(socket);
  Deno.env.set("NOTIFY_SOCKET", socket);
  const service = Service.here();
  Deno.env.delete("NOTIFY_SOCKET");
  assert(service !== undefined);
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
    service,
    devices: () => [counting],
    write: () => writes++,
    unmount: () => inside.openCount = 0,
    heard: () => Array.from({ length: 1_000 }, () => listener.heard()).filter((notice) => notice !== undefined),
    [Symbol.asyncDispose]: async () => {
      service[Symbol.dispose]();
      listener[Symbol.dispose]();
      await device.close();
    },
  };
}

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
