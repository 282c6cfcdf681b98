// SPDX-License-Identifier: MIT
/** An image as a disk of ours beside rbd-nbd and fio's rbd engine: rbd_speed_main.ts in the VM, which says what it prints. */
import { runBesideCluster, whyNoRbdVm } from "./rbd_vm.ts";

const why = whyNoRbdVm();
if (why !== undefined) {
  console.error(`Cannot measure: ${why}`);
  Deno.exit(1);
}
await runBesideCluster("tests/interop/rbd_speed_main.ts", Deno.args);
