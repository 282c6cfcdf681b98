// An image of a Ceph cluster as a disk under /dev: its server is killed again and again, OSDs and the monitor go and come back, and
// neither fio verify nor the oracle of acknowledged writes sees an error; Ceph's own client reads the same bytes.
import { assert, assertEquals, assertMatch } from "@std/assert";
import type { RbdReport } from "./rbd_disk_main.ts";
import { runBesideCluster, whyNoRbdVm } from "./rbd_vm.ts";

/** DBLOCK_RBD_KILLS=20 for more; each takes seconds. */
const KILLS = Number(Deno.env.get("DBLOCK_RBD_KILLS") ?? 4);
const why = whyNoRbdVm();
if (why !== undefined) console.log(`skipped: ${why}`);

Deno.test({
  name: `a disk of a Ceph cluster under /dev outlives ${KILLS} kills of its server, its OSDs and its monitor`,
  ignore: why !== undefined,
  async fn() {
    const said = await runBesideCluster("tests/interop/rbd_disk_main.ts", [`${KILLS}`]);
    const report = JSON.parse(said.trimEnd().split("\n").at(-1)!) as RbdReport;
    assertEquals([report.errors, report.lost, report.deviceErrors, report.fio], [0, 0, 0, ""]);
    assertEquals(report.deaths, KILLS + 1);
    assert(report.replayed > 0, "no kill met a write in the server's hands");
    assert(report.checked > 50, `the oracle checked ${report.checked} blocks only`);
    assertEquals(report.digests[0], report.digests[1]);
    assertMatch(
      report.withoutMonitor.stderr,
      /^dblock serve: Cannot open rbd:rbd\/disk: no monitor of the cluster answers[^\n]*$/m,
    );
    assertEquals(report.withoutMonitor.status, 1);
    console.log(
      `deaths ${report.deaths}, writes acknowledged ${report.acknowledged}, lost ${report.lost}, replayed ${report.replayed}, ` +
        `longest ${(report.longestMs / 1000).toFixed(1)} s`,
    );
  },
});
