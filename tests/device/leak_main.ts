/**
 * The process of leak_test.ts that makes devices: its argument says how many. Its own memory ends with it, so what the
 * kernel has more of afterwards, the kernel has lost.
 */
import { assertEquals } from "@std/assert";
import { DiskSet } from "./disk_set.ts";
import { waitFor } from "./harness.ts";
import { Control, params } from "./server.ts";

/** Disks that are there at once: the waits of their removal overlap. */
const atOnce = 20;

/** Devices that never got a server: CREATE and DESTROY alone. */
async function createAndDestroy(count: number): Promise<void> {
  using control = new Control();
  const oneAfterAnother = async (name: string) => {
    for (let i = 0; i < count / atOnce; i++) {
      assertEquals(control.create(params(name)).errno, 0);
      assertEquals((await control.destroy(name)).errno, 0);
    }
  };
  await Promise.all(Array.from({ length: atOnce }, (_, i) => oneAfterAnother(`leak${i}`)));
}

/** Disks that were there: half of them destroyed, half of them gone with their server's files. */
async function liveAndDie(count: number): Promise<void> {
  using set = new DiskSet(atOnce);
  for (let made = 0; made < count; made += atOnce) {
    for (let i = 0; i < atOnce; i++) set.add(`leak${i}`);
    await set.destroyLast(atOnce / 2);
    set.abandonLast(atOnce / 2);
    await waitFor("the devices without a server go", () => set.control.list().length === 0);
  }
}

const [kind, count] = [Deno.args[0], Number(Deno.args[1])];
await (kind === "live" ? liveAndDie(count) : createAndDestroy(count));
