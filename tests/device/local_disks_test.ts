// One program serves more disks with its event loop than Deno's pool has threads: they start together, answer, and leave
// threads to everything else.
import { assertEquals } from "@std/assert";
import { serve } from "../../src/mod.ts";
import { assertWithin, exists, sh } from "./harness.ts";
import { MIB } from "./server.ts";

const count = 40;

Deno.test(`${count} disks of one program start, answer and end beside each other`, async () => {
  const names = Array.from({ length: count }, (_, i) => `local${i}`);
  const stores = names.map((_, i) => new Uint8Array(MIB).fill(i));
  const devices = await Promise.all(names.map((name, i) => {
    const store = stores[i]!;
    return serve({
      sizeBytes: store.length,
      read: (buffer, at) => buffer.set(store.subarray(at, at + buffer.length)),
      write: (buffer, at) => store.set(buffer, at),
    }, { name });
  }));
  // Idle, they hold none of the pool's threads.
  const started = performance.now();
  await Deno.readTextFile("/proc/self/stat");
  assertEquals((await devices[0]!.info()).name, "local0");
  assertWithin(1_000, performance.now() - started, "asked");
  await sh(
    `for i in $(seq 0 ${count - 1}); do
       printf 'x%03d' $i | dd of=/dev/local$i bs=512 conv=sync oflag=direct status=none &
     done; wait`,
    { timeoutMs: 60_000 },
  );
  assertEquals(
    stores.map((store) => new TextDecoder().decode(store.subarray(0, 4))),
    names.map((_, i) => `x${String(i).padStart(3, "0")}`),
  );
  await Promise.all(devices.map((device) => device.close()));
  assertEquals(names.filter((name) => exists(`/dev/${name}`)), []);
});
