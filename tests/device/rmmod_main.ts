/** The other side of the race in rmmod_test.ts: creates and destroys whenever the module is there. Prints how often. */
import * as abi from "../../src/module/abi.ts";
import { exists } from "./harness.ts";
import { call, params } from "./server.ts";
import { close, O_RDWR, open } from "./syscall.ts";

let created = 0;
while (!exists("/tmp/rmmod-over")) {
  const fd = open(abi.DBLOCK_CONTROL_PATH, O_RDWR);
  if (fd < 0) continue;
  const { errno } = call(fd, abi.DBLOCK_IOC_CREATE, abi.dblock_create, params("rmmod1"));
  if (errno === 0) created++;
  call(fd, abi.DBLOCK_IOC_DESTROY, abi.dblock_destroy, { name: "rmmod1", flags: abi.DBLOCK_DESTROY_FORCE });
  close(fd);
  await new Promise((resolve) => setTimeout(resolve, 1));
}
console.log(created);
