/** Another process of owner_test.ts: tries each call on descriptors 8 (control) and 9 (server node), prints the errnos. */
import * as abi from "../../src/module/abi.ts";
import { params } from "./server.ts";
import { encode } from "../../src/system/struct.ts";
import { ioctl, Memory } from "./syscall.ts";

const [control, node] = [8, 9];
const name = Deno.args[0]!;
const [ring, buffer] = [new Memory(4096), new Memory(16 * 128 * 1024)];
const attachment = {
  ring_address: ring.address,
  ring_bytes: abi.DBLOCK_RING_BYTES(16),
  buffer_address: buffer.address,
  buffer_bytes: buffer.bytes.length,
};

const results = {
  VERSION: ioctl(control, abi.DBLOCK_IOC_VERSION, encode(abi.dblock_version)),
  CREATE: ioctl(control, abi.DBLOCK_IOC_CREATE, encode(abi.dblock_create, params(name))),
  DESTROY: ioctl(control, abi.DBLOCK_IOC_DESTROY, encode(abi.dblock_destroy, { name: "absent" })),
  LIST: ioctl(control, abi.DBLOCK_IOC_LIST, encode(abi.dblock_list)),
  "INFO by name": ioctl(control, abi.DBLOCK_IOC_INFO, encode(abi.dblock_info, { name })),
  ATTACH: ioctl(node, abi.DBLOCK_IOC_ATTACH, encode(abi.dblock_attach, attachment)),
  START: ioctl(node, abi.DBLOCK_IOC_START, encode(abi.dblock_start, { flags: abi.DBLOCK_START_NO_WAIT })),
  RESIZE: ioctl(node, abi.DBLOCK_IOC_RESIZE, encode(abi.dblock_resize, { size_bytes: 16 * 2 ** 20 })),
  INFO: ioctl(node, abi.DBLOCK_IOC_INFO, encode(abi.dblock_info)),
  EXCHANGE: ioctl(node, abi.DBLOCK_IOC_EXCHANGE, 0),
  COMMIT: ioctl(node, abi.DBLOCK_IOC_COMMIT, encode(abi.dblock_commit)),
};
console.log(JSON.stringify(results, (_, value) => typeof value === "number" ? Math.max(0, -value) : value));
