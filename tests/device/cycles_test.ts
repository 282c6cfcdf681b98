// 200 create/serve/read/destroy/destroy cycles by four processes, on two names that they fight for, leave nothing behind.
// Hard case C4.
import { assert, assertEquals } from "@std/assert";
import { ERRNO } from "../../src/disk/errors.ts";
import { figure, scaled, sh } from "./harness.ts";
import { infoOf } from "./server.ts";

const processes = 4;
const cycles = scaled(50);

/** How often each errno came, by call. */
type Tally = Record<string, number>;

Deno.test(`${processes * cycles} create and destroy cycles from four processes`, async () => {
  const script = "tests/device/cycles_main.ts";
  const runs = Array.from(
    { length: processes },
    (_, i) =>
      sh(`exec deno run -A --no-check --import-map=src/build/standins/import_map.json ${script} ${i} ${cycles}`, {
        timeoutMs: 100_000 * cycles / 50,
      }),
  );
  const tallies = (await Promise.all(runs)).map((run) => JSON.parse(run.stdout) as Tally);
  const total = (key: string) => tallies.reduce((sum, tally) => sum + (tally[key] ?? 0), 0);
  assertEquals(total("cycles"), processes * cycles);
  // Somebody won each round, and two at once on one name were refused now and then.
  assert(total("create 0") >= cycles, JSON.stringify(tallies));
  assert(total(`create ${ERRNO.EEXIST}`) > 0, `nobody ever met another: ${JSON.stringify(tallies)}`);
  console.log(JSON.stringify(tallies));
  assert(total("read 0") > 0, "nobody ever read a disk");
  assert(total(`destroy again ${ERRNO.ENOENT}`) > 0, "no second destroy found nothing");
  const left = [infoOf("cycle0"), infoOf("cycle1")].filter((info) => info !== undefined).length;
  figure({
    "create/destroy races": total("cycles"),
    "disks read meanwhile": total("read 0"),
    "devices left behind": left,
  });
  assertEquals(left, 0);
});
