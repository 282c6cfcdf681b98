// SPDX-License-Identifier: MIT
// deno-lint-ignore-file camelcase -- the names are those of the C header.
/**
 * The contract with dblock.ko: kmod/uapi/dblock.h, mirrored by hand under the
 * same names. The header explains every field; here are only the numbers, and
 * tests/abi compares all of them with what a C compiler makes of the header.
 */
import { struct, text, u16, u32, u32s, u64, u64s, u8 } from "../system/struct.ts";

export const DBLOCK_ABI_VERSION = 2;
export const DBLOCK_CONTROL_PATH = "/dev/dblockctl";

export const DBLOCK_NAME_BYTES = 32;
export const DBLOCK_QUEUE_COUNT_MAX = 64;
export const DBLOCK_QUEUE_DEPTH_MAX = 1024;
export const DBLOCK_BLOCK_BYTES_MIN = 512;
export const DBLOCK_BLOCK_BYTES_MAX = 4096;
export const DBLOCK_IO_BYTES_MIN = 4096;
export const DBLOCK_IO_BYTES_MAX = 16 * 2 ** 20;
export const DBLOCK_SIZE_BYTES_MAX = 2 ** 60;
export const DBLOCK_TIMEOUT_MS_MIN = 1000;
export const DBLOCK_TIMEOUT_MS_MAX = 1_200_000;
export const DBLOCK_RANGE_BYTES_MAX = 2 ** 31;

export const DBLOCK_FEATURE_READ_ONLY = 2 ** 0;
export const DBLOCK_FEATURE_WRITE_CACHE = 2 ** 1;
export const DBLOCK_FEATURE_FUA = 2 ** 2;
export const DBLOCK_FEATURE_DISCARD = 2 ** 3;
export const DBLOCK_FEATURE_WRITE_ZEROES = 2 ** 4;
export const DBLOCK_FEATURE_ROTATIONAL = 2 ** 5;
export const DBLOCK_FEATURE_DIRECT = 2 ** 6;
export const DBLOCK_FEATURE_NO_PART_SCAN = 2 ** 7;
export const DBLOCK_FEATURE_TIMEOUT_IS_DEATH = 2 ** 8;
export const DBLOCK_FEATURE_CACHE_SURVIVES = 2 ** 9;
export const DBLOCK_FEATURE_ON_DEATH = 2 ** 32;
export const DBLOCK_FEATURE_RESIZE = 2 ** 33;
export const DBLOCK_FEATURE_TAKE_OVER = 2 ** 34;
export const DBLOCK_FEATURE_COMMIT_FLUSHED = 2 ** 35;
export const DBLOCK_FEATURE_EVENTFD = 2 ** 36;
export const DBLOCK_FEATURE_LINGER = 2 ** 37;
export const DBLOCK_FEATURE_COMMIT_LEAVES = 2 ** 38;
export const DBLOCK_FEATURE_ATTACH_FILE = 2 ** 39;

export const dblock_version = struct("dblock_version", 56, {
  error: u32(0),
  abi_version: u32(4),
  features: u64(8),
  queue_count_max: u32(16),
  device_count_max: u32(20),
  reserved: u64s(24, 4),
});

export const DBLOCK_DEVICE_READ_ONLY = 1 << 0;
export const DBLOCK_DEVICE_WRITE_CACHE = 1 << 1;
export const DBLOCK_DEVICE_FUA = 1 << 2;
export const DBLOCK_DEVICE_DISCARD = 1 << 3;
export const DBLOCK_DEVICE_WRITE_ZEROES = 1 << 4;
export const DBLOCK_DEVICE_ROTATIONAL = 1 << 5;
export const DBLOCK_DEVICE_DIRECT = 1 << 6;
export const DBLOCK_DEVICE_NO_PART_SCAN = 1 << 7;
export const DBLOCK_DEVICE_TIMEOUT_IS_DEATH = 1 << 8;
export const DBLOCK_DEVICE_CACHE_SURVIVES = 1 << 9;

export const DBLOCK_ON_DEATH_REMOVE = 0;
export const DBLOCK_ON_DEATH_FAIL = 1;
export const DBLOCK_ON_DEATH_HOLD = 2;

export const dblock_create = struct("dblock_create", 176, {
  error: u32(0),
  flags: u32(4),
  name: text(8, DBLOCK_NAME_BYTES),
  id: u64(40),
  size_bytes: u64(48),
  logical_block_bytes: u32(56),
  physical_block_bytes: u32(60),
  io_opt_bytes: u32(64),
  max_io_bytes: u32(68),
  queue_count: u32(72),
  queue_depth: u32(76),
  timeout_ms: u32(80),
  on_death: u32(84),
  discard_granularity_bytes: u32(88),
  max_discard_bytes: u32(92),
  max_write_zeroes_bytes: u32(96),
  minor: u32(100),
  reserved: u64s(104, 9),
});

export const DBLOCK_DESTROY_FORCE = 1 << 0;

export const dblock_destroy = struct("dblock_destroy", 80, {
  error: u32(0),
  flags: u32(4),
  name: text(8, DBLOCK_NAME_BYTES),
  id: u64(40),
  open_count: u32(48),
  reserved: u32s(52, 7),
});

export const DBLOCK_STATE_CREATED = 0;
export const DBLOCK_STATE_STARTING = 1;
export const DBLOCK_STATE_LIVE = 2;
export const DBLOCK_STATE_HELD = 3;
export const DBLOCK_STATE_FAILED = 4;
export const DBLOCK_STATE_REMOVING = 5;
export const DBLOCK_STATE_GONE = 6;

export const DBLOCK_OPERATION_READ = 0;
export const DBLOCK_OPERATION_WRITE = 1;
export const DBLOCK_OPERATION_FLUSH = 2;
export const DBLOCK_OPERATION_DISCARD = 3;
export const DBLOCK_OPERATION_WRITE_ZEROES = 4;
export const DBLOCK_OPERATION_COUNT = 5;

export const dblock_info = struct("dblock_info", 376, {
  error: u32(0),
  flags: u32(4),
  name: text(8, DBLOCK_NAME_BYTES),
  id: u64(40),
  size_bytes: u64(48),
  logical_block_bytes: u32(56),
  physical_block_bytes: u32(60),
  io_opt_bytes: u32(64),
  max_io_bytes: u32(68),
  queue_count: u32(72),
  queue_depth: u32(76),
  timeout_ms: u32(80),
  on_death: u32(84),
  discard_granularity_bytes: u32(88),
  max_discard_bytes: u32(92),
  max_write_zeroes_bytes: u32(96),
  minor: u32(100),
  state: u32(104),
  open_count: u32(108),
  server_pid: u32(112),
  attached_count: u32(116),
  waiting_count: u32(120),
  handed_count: u32(124),
  quarantined_count: u32(128),
  disk_major: u32(132),
  disk_minor: u32(136),
  death_count: u32(140),
  requests: u64s(144, DBLOCK_OPERATION_COUNT),
  bytes: u64s(184, DBLOCK_OPERATION_COUNT),
  error_count: u64(224),
  timeout_count: u64(232),
  stale_count: u64(240),
  refused_count: u64(248),
  replayed_count: u64(256),
  batch_count: u64(264),
  handed_total: u64(272),
  leave_count: u64(280),
  passed_count: u64(288),
  reserved: u64s(296, 10),
});

export const dblock_list = struct("dblock_list", 56, {
  error: u32(0),
  capacity: u32(4),
  count: u32(8),
  total: u32(12),
  infos_address: u64(16),
  reserved: u64s(24, 4),
});

export const dblock_ring_header = struct("dblock_ring_header", 64, {
  error: u32(0),
  request_count: u32(4),
  completion_count: u32(8),
  refused_count: u32(12),
  state: u32(16),
  queue: u32(20),
  id: u64(24),
  reserved: u64s(32, 4),
});

export const DBLOCK_REQUEST_FUA = 1 << 0;
export const DBLOCK_REQUEST_REPLAYED = 1 << 1;
export const DBLOCK_REQUEST_NO_UNMAP = 1 << 2;
export const DBLOCK_REQUEST_META = 1 << 16;
export const DBLOCK_REQUEST_SYNC = 1 << 17;
export const DBLOCK_REQUEST_READ_AHEAD = 1 << 18;
export const DBLOCK_REQUEST_SWAP = 1 << 19;

export const DBLOCK_PRIORITY_CLASS_SHIFT = 3;
export const DBLOCK_PRIORITY_LEVEL_MASK = 7;

export const dblock_request = struct("dblock_request", 32, {
  offset_bytes: u64(0),
  length_bytes: u32(8),
  generation: u32(12),
  slot: u16(16),
  operation: u8(18),
  priority: u8(19),
  flags: u32(20),
  reserved: u64(24),
});

export const DBLOCK_STATUS_TAKEN = 0;
export const DBLOCK_STATUS_UNKNOWN = 1;
export const DBLOCK_STATUS_STALE = 2;
export const DBLOCK_STATUS_BAD_LENGTH = 3;
export const DBLOCK_STATUS_BAD_FIELD = 4;
export const DBLOCK_STATUS_FAULT = 5;

export const dblock_completion = struct("dblock_completion", 32, {
  address: u64(0),
  length_bytes: u32(8),
  generation: u32(12),
  slot: u16(16),
  status: u16(18),
  error: u32(20),
  reserved: u64(24),
});

export const DBLOCK_ATTACH_TAKE_OVER = 1 << 0;
export const DBLOCK_ATTACH_EVENTFD = 1 << 1;
export const DBLOCK_ATTACH_FILE = 1 << 2;

export const dblock_attach = struct("dblock_attach", 88, {
  error: u32(0),
  flags: u32(4),
  id: u64(8),
  ring_address: u64(16),
  ring_bytes: u64(24),
  buffer_address: u64(32),
  buffer_bytes: u64(40),
  queue: u32(48),
  event_fd: u32(52),
  file_fd: u32(56),
  reserved: u32s(60, 7),
});

export const DBLOCK_START_NO_WAIT = 1 << 0;

export const dblock_start = struct("dblock_start", 48, {
  error: u32(0),
  flags: u32(4),
  id: u64(8),
  reserved: u64s(16, 4),
});

export const DBLOCK_COMMIT_FLUSHED = 1 << 0;
export const DBLOCK_COMMIT_LEAVES = 1 << 1;

export const dblock_commit = struct("dblock_commit", 40, {
  error: u32(0),
  count: u32(4),
  completion_count: u32(8),
  refused_count: u32(12),
  completions_address: u64(16),
  flags: u32(24),
  reserved: u32s(28, 3),
});

export const dblock_resize = struct("dblock_resize", 56, {
  error: u32(0),
  flags: u32(4),
  id: u64(8),
  size_bytes: u64(16),
  reserved: u64s(24, 4),
});

/** Every structure of the header, in its order. */
export const STRUCTS = [
  dblock_version,
  dblock_create,
  dblock_destroy,
  dblock_info,
  dblock_list,
  dblock_ring_header,
  dblock_request,
  dblock_completion,
  dblock_attach,
  dblock_start,
  dblock_commit,
  dblock_resize,
] as const;

const IOC_NONE = 0;
const IOC_WRITE = 1;
const IOC_READ = 2;

/** An ioctl number as <asm-generic/ioctl.h> makes it on x86_64 and aarch64. */
function _IOC(
  direction: number,
  type: number,
  number: number,
  sizeBytes: number,
): number {
  return ((direction << 30) | (sizeBytes << 16) | (type << 8) | number) >>> 0;
}

const _IO = (type: number, number: number) => _IOC(IOC_NONE, type, number, 0);
const _IOR = (type: number, number: number, layout: { size: number }) => _IOC(IOC_READ, type, number, layout.size);
const _IOWR = (type: number, number: number, layout: { size: number }) =>
  _IOC(IOC_READ | IOC_WRITE, type, number, layout.size);

export const DBLOCK_IOC_TYPE = 0xdb;
export const DBLOCK_IOC_VERSION = _IOR(DBLOCK_IOC_TYPE, 0x00, dblock_version);
export const DBLOCK_IOC_CREATE = _IOWR(DBLOCK_IOC_TYPE, 0x01, dblock_create);
export const DBLOCK_IOC_DESTROY = _IOWR(DBLOCK_IOC_TYPE, 0x02, dblock_destroy);
export const DBLOCK_IOC_LIST = _IOWR(DBLOCK_IOC_TYPE, 0x03, dblock_list);
export const DBLOCK_IOC_INFO = _IOWR(DBLOCK_IOC_TYPE, 0x04, dblock_info);
export const DBLOCK_IOC_ATTACH = _IOWR(DBLOCK_IOC_TYPE, 0x10, dblock_attach);
export const DBLOCK_IOC_START = _IOWR(DBLOCK_IOC_TYPE, 0x11, dblock_start);
export const DBLOCK_IOC_EXCHANGE = _IO(DBLOCK_IOC_TYPE, 0x12);
export const DBLOCK_EXCHANGE_ARM = 2 ** 31;
export const DBLOCK_EXCHANGE_LINGER = 2 ** 30;
export const DBLOCK_IOC_COMMIT = _IOWR(DBLOCK_IOC_TYPE, 0x13, dblock_commit);
export const DBLOCK_IOC_RESIZE = _IOWR(DBLOCK_IOC_TYPE, 0x14, dblock_resize);

/** Bytes of a ring for `queueDepth` requests (1 to DBLOCK_QUEUE_DEPTH_MAX). */
export function DBLOCK_RING_BYTES(queueDepth: number): number {
  return dblock_ring_header.size +
    queueDepth * (dblock_request.size + dblock_completion.size);
}
