// SPDX-License-Identifier: MIT
/**
 * librados and librbd, Ceph's client libraries: the calls that a disk in a cluster needs. Opened at the first use and never
 * at import, because most machines do not have them. No policy is here.
 *
 * Every function of theirs returns a negative errno itself. Those that may wait for the cluster run on another thread.
 */
import { DblockError, describe } from "../disk/errors.ts";

const RADOS = {
  // int rados_create(rados_t *cluster, const char *id)
  rados_create: { parameters: ["buffer", "buffer"], result: "i32" },
  // int rados_conf_read_file(rados_t, const char *path); NULL: where every client looks
  rados_conf_read_file: { parameters: ["usize", "buffer"], result: "i32" },
  // int rados_conf_set(rados_t, const char *option, const char *value)
  rados_conf_set: { parameters: ["usize", "buffer", "buffer"], result: "i32" },
  // int rados_conf_get(rados_t, const char *option, char *value, size_t length)
  rados_conf_get: { parameters: ["usize", "buffer", "buffer", "usize"], result: "i32" },
  // int rados_connect(rados_t)
  rados_connect: { parameters: ["usize"], result: "i32", nonblocking: true },
  // void rados_shutdown(rados_t)
  rados_shutdown: { parameters: ["usize"], result: "void", nonblocking: true },
  // int rados_ioctx_create(rados_t, const char *pool, rados_ioctx_t *)
  rados_ioctx_create: { parameters: ["usize", "buffer", "buffer"], result: "i32", nonblocking: true },
  // void rados_ioctx_set_namespace(rados_ioctx_t, const char *)
  rados_ioctx_set_namespace: { parameters: ["usize", "buffer"], result: "void" },
  // void rados_ioctx_destroy(rados_ioctx_t)
  rados_ioctx_destroy: { parameters: ["usize"], result: "void", nonblocking: true },
} as const satisfies Deno.ForeignLibraryInterface;

const RBD = {
  // int rbd_open(rados_ioctx_t, const char *name, rbd_image_t *, const char *snapshot)
  rbd_open: { parameters: ["usize", "buffer", "buffer", "buffer"], result: "i32", nonblocking: true },
  rbd_open_read_only: { parameters: ["usize", "buffer", "buffer", "buffer"], result: "i32", nonblocking: true },
  // int rbd_close(rbd_image_t)
  rbd_close: { parameters: ["usize"], result: "i32", nonblocking: true },
  // int rbd_get_size(rbd_image_t, uint64_t *)
  rbd_get_size: { parameters: ["usize", "buffer"], result: "i32", nonblocking: true },
  // int rbd_get_features(rbd_image_t, uint64_t *)
  rbd_get_features: { parameters: ["usize", "buffer"], result: "i32", nonblocking: true },
  // int rbd_get_stripe_unit(rbd_image_t, uint64_t *)
  rbd_get_stripe_unit: { parameters: ["usize", "buffer"], result: "i32", nonblocking: true },
  // int rbd_resize2(rbd_image_t, uint64_t size, bool allow_shrink, progress, void *)
  rbd_resize2: { parameters: ["usize", "u64", "bool", "usize", "usize"], result: "i32", nonblocking: true },
  // int rbd_set_image_notification(rbd_image_t, int fd, int type)
  rbd_set_image_notification: { parameters: ["usize", "i32", "i32"], result: "i32" },
  // int rbd_lock_acquire(rbd_image_t, rbd_lock_mode_t)
  rbd_lock_acquire: { parameters: ["usize", "i32"], result: "i32", nonblocking: true },
  // int rbd_lock_release(rbd_image_t)
  rbd_lock_release: { parameters: ["usize"], result: "i32", nonblocking: true },
  // int rbd_lock_get_owners(rbd_image_t, rbd_lock_mode_t *, char **owners, size_t *count)
  rbd_lock_get_owners: { parameters: ["usize", "buffer", "buffer", "buffer"], result: "i32", nonblocking: true },
  // void rbd_lock_get_owners_cleanup(char **owners, size_t count)
  rbd_lock_get_owners_cleanup: { parameters: ["buffer", "usize"], result: "void" },
  // int rbd_lock_break(rbd_image_t, rbd_lock_mode_t, const char *owner)
  rbd_lock_break: { parameters: ["usize", "i32", "buffer"], result: "i32", nonblocking: true },
  // int rbd_watchers_list(rbd_image_t, rbd_image_watcher_t *, size_t *count)
  rbd_watchers_list: { parameters: ["usize", "buffer", "buffer"], result: "i32", nonblocking: true },
  // void rbd_watchers_list_cleanup(rbd_image_watcher_t *, size_t count)
  rbd_watchers_list_cleanup: { parameters: ["buffer", "usize"], result: "void" },
  // int rbd_metadata_get(rbd_image_t, const char *key, char *value, size_t *length)
  rbd_metadata_get: { parameters: ["usize", "buffer", "buffer", "buffer"], result: "i32", nonblocking: true },
  // int rbd_metadata_set(rbd_image_t, const char *key, const char *value)
  rbd_metadata_set: { parameters: ["usize", "buffer", "buffer"], result: "i32", nonblocking: true },
  // int rbd_metadata_remove(rbd_image_t, const char *key)
  rbd_metadata_remove: { parameters: ["usize", "buffer"], result: "i32", nonblocking: true },
  // int rbd_diff_iterate2(rbd_image_t, const char *from, uint64_t offset, uint64_t length, uint8_t include_parent,
  //                       uint8_t whole_object, int (*)(uint64_t, size_t, int, void *), void *)
  rbd_diff_iterate2: {
    parameters: ["usize", "usize", "u64", "u64", "u8", "u8", "function", "usize"],
    result: "i32",
    nonblocking: true,
  },
  // int rbd_aio_create_completion(void *argument, rbd_callback_t, rbd_completion_t *)
  rbd_aio_create_completion: { parameters: ["usize", "usize", "buffer"], result: "i32" },
  // int rbd_aio_read(rbd_image_t, uint64_t offset, size_t length, char *buffer, rbd_completion_t)
  rbd_aio_read: { parameters: ["usize", "u64", "usize", "buffer", "usize"], result: "i32" },
  rbd_aio_write: { parameters: ["usize", "u64", "usize", "buffer", "usize"], result: "i32" },
  // int rbd_aio_discard(rbd_image_t, uint64_t offset, uint64_t length, rbd_completion_t)
  rbd_aio_discard: { parameters: ["usize", "u64", "u64", "usize"], result: "i32" },
  // int rbd_aio_write_zeroes(rbd_image_t, uint64_t offset, size_t length, rbd_completion_t, int zero_flags, int op_flags)
  rbd_aio_write_zeroes: { parameters: ["usize", "u64", "usize", "usize", "i32", "i32"], result: "i32" },
  // int rbd_aio_flush(rbd_image_t, rbd_completion_t)
  rbd_aio_flush: { parameters: ["usize", "usize"], result: "i32" },
  // int rbd_poll_io_events(rbd_image_t, rbd_completion_t *, int capacity)
  rbd_poll_io_events: { parameters: ["usize", "buffer", "i32"], result: "i32" },
  // ssize_t rbd_aio_get_return_value(rbd_completion_t), of less than 2 GiB: the lower half says all, and is no bigint
  rbd_aio_get_return_value: { parameters: ["usize"], result: "i32" },
  // void rbd_aio_release(rbd_completion_t)
  rbd_aio_release: { parameters: ["usize"], result: "void" },
} as const satisfies Deno.ForeignLibraryInterface;

/** Of rbd/librbd.h. */
export const RBD_EVENT_TYPE_EVENTFD = 2;
export const RBD_LOCK_MODE_EXCLUSIVE = 0;
export const RBD_FEATURE_EXCLUSIVE_LOCK = 1n << 2n;
export const RBD_WRITE_ZEROES_FLAG_THICK_PROVISION = 1;
/** What every call gets once another client has fenced this one: ESHUTDOWN on Linux. */
export const EBLOCKLISTED = 108;

/** The calls of both libraries. */
export type Ceph =
  & Deno.DynamicLibrary<typeof RADOS>["symbols"]
  & Deno.DynamicLibrary<typeof RBD>["symbols"];

let opened: Ceph | undefined;

/**
 * Both libraries, opened once.
 *
 * @param attempted what the caller wants to do, for the error
 * @throws {DblockError} ENOENT if they are not installed.
 */
export function ceph(attempted: string): Ceph {
  if (opened !== undefined) return opened;
  try {
    opened = { ...Deno.dlopen("librados.so.2", RADOS).symbols, ...Deno.dlopen("librbd.so.1", RBD).symbols };
    return opened;
  } catch (cause) {
    if (cause instanceof Deno.errors.NotCapable) throw cause;
    const isMissing = /No such file/.test(describe(cause));
    throw new DblockError(
      "ENOENT",
      attempted,
      isMissing ? "Ceph's client library is not installed" : describe(cause),
      { hint: "apt install librbd1", cause },
    );
  }
}

/** A string as C has it. */
export function cText(text: string): Uint8Array<ArrayBuffer> {
  return new TextEncoder().encode(`${text}\0`);
}

/** What C has put into `bytes`, up to the NUL. */
export function fromCText(bytes: Uint8Array): string {
  const end = bytes.indexOf(0);
  return new TextDecoder().decode(end < 0 ? bytes : bytes.subarray(0, end));
}
