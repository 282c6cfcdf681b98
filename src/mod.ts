// SPDX-License-Identifier: MIT
/**
 * dblock: block devices served by TypeScript. This is the public interface: a `Backend` is the disk, `serve()` puts it into
 * /dev, and filters, sets and stores are backends as well. It takes root and the kernel module dblock.ko.
 *
 * ```ts no-run
 * import { type Backend, serve } from "./mod.ts";
 *
 * const store = new Uint8Array(64 * 2 ** 20);
 * const disk: Backend = {
 *   sizeBytes: store.length,
 *   read: (buffer, offset) => buffer.set(store.subarray(offset, offset + buffer.length)),
 *   write: (buffer, offset) => store.set(buffer, offset),
 * };
 * await using device = await serve(disk, { name: "scratch" });
 * console.log(`${device.path} is there`);
 * await device.closed; // until somebody destroys it
 * ```
 *
 * @module
 */
export type {
  Backend,
  CallOptions,
  CloseReason,
  Completed,
  Extent,
  Figure,
  Limits,
  RequestOptions,
} from "./disk/backend.ts";
export { FileBackend, type FileBackendOptions } from "./backends/file.ts";
export { RawBackend, type RawBackendOptions, type RawData } from "./backends/raw.ts";
export { MemoryBackend, type MemoryBackendOptions } from "./backends/memory.ts";
export { NbdBackend, type NbdBackendOptions, type NbdClientTls } from "./backends/nbd.ts";
export { RbdBackend, type RbdBackendOptions } from "./backends/rbd.ts";
export type { RbdAddress } from "./backends/rbd_image.ts";
export { NullBackend, type NullBackendOptions } from "./backends/null.ts";
export { PatternBackend, type PatternBackendOptions } from "./backends/pattern.ts";
export { concat } from "./backends/concat.ts";
export { MirrorBackend } from "./backends/mirror.ts";
export type { MirrorBackendOptions } from "./backends/mirror_assembly.ts";
export type { HalfState, MirrorDisk } from "./backends/mirror_half.ts";
export type { MirrorHalfStatus, MirrorStatus } from "./backends/mirror_status.ts";
export { type Slice, slice, type SliceOptions } from "./backends/slice.ts";
export { stripe, type StripeOptions } from "./backends/stripe.ts";
export { destroy, type DestroyOptions } from "./module/destroy.ts";
export type { CloseOptions, Device, Ending } from "./module/device.ts";
export { type BlockErrno, DblockError, type DblockErrorOptions, ERRNO, type ErrnoName } from "./disk/errors.ts";
export type { FailureFields, LoggingOptions } from "./disk/log.ts";
export type { Operation, Priority } from "./disk/operation.ts";
export { requestOptions } from "./disk/request.ts";
export type { BackendFactory, BackendModule, MappedBackend, Mapping, Servable } from "./disk/servable.ts";
export type { DeviceOrigin, ExistingPolicy } from "./module/existing.ts";
export { type DeviceInfo, info, list, type ModuleVersion, moduleVersion, type RequestCount } from "./module/info.ts";
export { Cache, type CacheOptions, type CacheReport } from "./filters/cache.ts";
export { Checksum, type ChecksumOptions } from "./filters/checksum.ts";
export { delay, type DelayOptions } from "./filters/delay.ts";
export { Fault, type FaultKind, type FaultOptions } from "./filters/fault.ts";
export { Filter, type FilteredRequest, type Offers } from "./filters/filter.ts";
export type { Doubling } from "./filters/histogram.ts";
export { intercept, type InterceptedAnswer, type InterceptedRequest } from "./filters/intercept.ts";
export { log, type LogOptions } from "./filters/log.ts";
export { rate, type RateOptions } from "./filters/rate.ts";
export { readahead, type ReadaheadOptions } from "./filters/readahead.ts";
export { readOnly } from "./filters/read_only.ts";
export { retry, type RetryOptions } from "./filters/retry.ts";
export { type OperationStats, Stats, type StatsOptions, type StatsReport } from "./filters/stats.ts";
export { type PowerCut, type PowerOffOptions, WriteCache, type WriteCacheOptions } from "./filters/write_cache.ts";
export { holdersOf } from "./system/holders.ts";
export type { DeviceOptions } from "./module/plan.ts";
export { serve, type ServeOptions } from "./module/serve.ts";
export { WorkerPool, type WorkerPoolOptions } from "./module/worker_pool.ts";
export type { DeviceState, OnDeath } from "./module/words.ts";
export {
  formatNbdAddress,
  formatNbdUri,
  type NbdAddress,
  type NbdUri,
  parseNbdAddress,
  parseNbdUri,
} from "./nbd/address.ts";
export { type NbdServer, type NbdServerOptions, type NbdTls, serveNbd } from "./nbd/server.ts";
