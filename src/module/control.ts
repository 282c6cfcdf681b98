// SPDX-License-Identifier: MIT
/**
 * /dev/dblockctl: makes, removes and describes devices, with errors that say
 * what to do. It serves nothing.
 */
import {
  DBLOCK_ABI_VERSION,
  DBLOCK_CONTROL_PATH,
  dblock_create,
  dblock_destroy,
  DBLOCK_DESTROY_FORCE,
  dblock_info,
  DBLOCK_IOC_CREATE,
  DBLOCK_IOC_DESTROY,
  DBLOCK_IOC_INFO,
  DBLOCK_IOC_LIST,
  DBLOCK_IOC_VERSION,
  dblock_list,
  DBLOCK_NAME_BYTES,
  dblock_version,
} from "./abi.ts";
import { DblockError, ERRNO, errnoName } from "../disk/errors.ts";
import { type Kernel, linux, O_RDWR } from "../system/libc.ts";
import { decode, type Decoded, encode, type Struct } from "../system/struct.ts";

/** Everything about a device as the module says it: struct dblock_info. In words: info.ts. */
export type RawInfo = Decoded<typeof dblock_info>;
/** What the module speaks: struct dblock_version. */
export type RawVersion = Decoded<typeof dblock_version>;
/** What a device is made with: struct dblock_create. */
export type CreateOptions = Partial<Decoded<typeof dblock_create>> & {
  readonly name: string;
};

/** "/dev/disk0" for "disk0". */
export function devicePath(name: string): string {
  return `/dev/${name}`;
}

const NAME = /^[A-Za-z0-9][A-Za-z0-9._-]*$/;

/** What is wrong with a device's name, or undefined. */
export function whyBadName(name: string): string | undefined {
  if (name === "") return "it is empty";
  if (!NAME.test(name)) {
    return "it takes a letter or digit, then letters, digits, '.', '_' and '-'";
  }
  if (name.length >= DBLOCK_NAME_BYTES) {
    return `it takes at most ${DBLOCK_NAME_BYTES - 1} characters, not ${name.length}`;
  }
  if (name.endsWith("-ctl")) return `it cannot end in "-ctl"`;
  return undefined;
}

/**
 * Opens a node of the module.
 *
 * @throws {DblockError} ENOENT, EACCES, or whatever open(2) says.
 */
export function openNode(
  kernel: Kernel,
  path: string,
  flags: number,
  attempted: string,
): number {
  const fd = kernel.open(path, flags);
  if (fd >= 0) return fd;
  const isControl = path === DBLOCK_CONTROL_PATH;
  switch (-fd) {
    case ERRNO.ENOENT:
    case ERRNO.ENXIO:
    case ERRNO.ENODEV:
      throw isControl
        ? new DblockError(
          -fd,
          attempted,
          `the dblock module is not loaded, there is no ${path}`,
          { hint: "dblock doctor says how to load it" },
        )
        : new DblockError(-fd, attempted, `there is no ${path}`);
    case ERRNO.EACCES:
    case ERRNO.EPERM:
      throw new DblockError(-fd, attempted, `${path} is for root only`, {
        hint: "try again with sudo",
      });
    default:
      throw new DblockError(-fd, attempted, `open ${path}: ${errnoName(-fd)}`);
  }
}

/** What an errno of the module means, where it is the same for every call. */
const MEANINGS = new Map<number, string>([
  [ERRNO.EEXIST, "the name is in use"],
  [ERRNO.EFAULT, "the kernel cannot read or write the server's memory"],
  [ERRNO.EINVAL, "the kernel refuses a value"],
  [ERRNO.ENODEV, "the device is gone"],
  [ERRNO.ENOMEM, "the kernel is out of memory"],
  [ERRNO.ENOTCONN, "a queue has no server"],
  [ERRNO.ESTALE, "the device is gone, and another one has its name"],
]);

/**
 * The error for an ioctl that returned -1.
 *
 * @param errno what its structure says; 0 means that the kernel could not say, so that the call or the node is not known
 */
export function ioctlError(errno: number, attempted: string): DblockError {
  if (errno === 0) {
    return new DblockError("ENOTTY", attempted, "the module does not know this call", {
      hint: "dblock doctor says how to load the one of this program",
    });
  }
  if (errno === ERRNO.EPERM) {
    return new DblockError(errno, attempted, "this takes root (CAP_SYS_ADMIN)", { hint: "try again with sudo" });
  }
  const meaning = MEANINGS.get(errno);
  return new DblockError(
    errno,
    attempted,
    meaning === undefined ? errnoName(errno) : `${meaning} (${errnoName(errno)})`,
  );
}

/** Module and program speak different versions of the ABI. */
export class AbiError extends DblockError {
  /** What the loaded module speaks. */
  readonly moduleAbi: number;

  /**
   * @param attempted begins the message
   * @param moduleAbi what the module says
   */
  constructor(attempted: string, moduleAbi: number) {
    const [older, newer] = moduleAbi < DBLOCK_ABI_VERSION
      ? ["the loaded module", "this program"]
      : ["this program", "the loaded module"];
    const wrong =
      `${older} is older than ${newer}: the module speaks ABI ${moduleAbi}, the program ${DBLOCK_ABI_VERSION}`;
    super("EPROTO", attempted, wrong, { hint: "dblock doctor says what to type" });
    this.moduleAbi = moduleAbi;
  }
}

/** An open /dev/dblockctl. */
export class Control implements Disposable {
  readonly #kernel: Kernel;
  readonly #fd: number;

  private constructor(kernel: Kernel, fd: number) {
    this.#kernel = kernel;
    this.#fd = fd;
  }

  /**
   * Opens the control node and checks that module and program speak the same ABI.
   *
   * @param attempted begins the message of an error: "Cannot create /dev/disk0"
   * @throws {DblockError} ENOENT (module not loaded), EACCES (not root), EPROTO
   * (another version).
   */
  static async open(
    attempted: string,
    kernel: Kernel = linux,
  ): Promise<Control> {
    const fd = openNode(kernel, DBLOCK_CONTROL_PATH, O_RDWR, attempted);
    const control = new Control(kernel, fd);
    try {
      const { abi_version } = await control.version(attempted);
      if (abi_version !== DBLOCK_ABI_VERSION) {
        throw new AbiError(attempted, abi_version);
      }
      return control;
    } catch (error) {
      control[Symbol.dispose]();
      throw error;
    }
  }

  [Symbol.dispose](): void {
    this.#kernel.close(this.#fd);
  }

  /** One ioctl: 0 and what the kernel wrote, or an errno with it. */
  async #ioctl<S extends Struct>(
    request: number,
    layout: S,
    values: Partial<Decoded<S>>,
    attempted: string,
  ): Promise<{ errno: number; out: Decoded<S> }> {
    const bytes = encode(layout, values);
    const result = await this.#kernel.ioctlAsync(this.#fd, request, bytes);
    const out = decode(layout, bytes);
    if (result >= 0) return { errno: 0, out };
    const errno = (out as { error?: number }).error ?? 0;
    if (errno === 0) throw ioctlError(0, attempted);
    return { errno, out };
  }

  /** What the loaded module speaks and can do. */
  async version(
    attempted = "Cannot ask the module for its version",
  ): Promise<RawVersion> {
    const { errno, out } = await this.#ioctl(
      DBLOCK_IOC_VERSION,
      dblock_version,
      {},
      attempted,
    );
    if (errno !== 0) throw ioctlError(errno, attempted);
    return out;
  }

  /**
   * Makes a device; its disk appears at START.
   *
   * @returns what the kernel made of it: `queue_count` may be lower, `id` and `minor` are set
   * @throws {DblockError} EPERM, EINVAL, EOPNOTSUPP, EEXIST, ENOSPC, ENOMEM.
   */
  async create(
    options: CreateOptions,
  ): Promise<Decoded<typeof dblock_create>> {
    const attempted = `Cannot create ${devicePath(options.name)}`;
    const { errno, out } = await this.#ioctl(
      DBLOCK_IOC_CREATE,
      dblock_create,
      options,
      attempted,
    );
    switch (errno) {
      case 0:
        return out;
      case ERRNO.EEXIST:
        throw new DblockError(errno, attempted, "the name is in use", {
          hint: "take another name, or destroy that device first",
        });
      case ERRNO.ENOSPC:
        throw new DblockError(errno, attempted, "the module has as many devices as it may", {
          hint: "destroy one, or load it with a higher max_devices",
        });
      case ERRNO.EOPNOTSUPP:
        throw new DblockError(errno, attempted, "the loaded module cannot do all that is asked", {
          hint: "dblock doctor says how to load the one of this program",
        });
      default:
        throw ioctlError(errno, attempted);
    }
  }

  /**
   * Removes a device and returns when it is gone and its name free.
   *
   * @param options.force even if somebody has it open: they get I/O errors
   * @param options.id only this device
   * @throws {DblockError} ENOENT (no such device), ESTALE (another device has the name), EBUSY (it is open).
   */
  async destroy(
    name: string,
    options: { readonly force?: boolean; readonly id?: number } = {},
  ): Promise<void> {
    const attempted = `Cannot destroy ${devicePath(name)}`;
    let interrupted = false;
    for (;;) {
      const { errno, out } = await this.#ioctl(
        DBLOCK_IOC_DESTROY,
        dblock_destroy,
        { name, flags: options.force ? DBLOCK_DESTROY_FORCE : 0, id: options.id ?? 0 },
        attempted,
      );
      switch (errno) {
        case 0:
          return;
        case ERRNO.EINTR: // the removal goes on: wait for its end
          interrupted = true;
          continue;
        case ERRNO.ENOENT:
          if (interrupted) return;
          throw new DblockError(errno, attempted, "there is no such device");
        case ERRNO.ESTALE:
          if (interrupted) return;
          throw new DblockError(errno, attempted, "the device is gone, and another one has its name");
        case ERRNO.EBUSY:
          throw new DblockError(
            errno,
            attempted,
            `it is in use (${out.open_count} open)`,
            { hint: "unmount it, or force it and lose what is not written" },
          );
        default:
          throw ioctlError(errno, attempted);
      }
    }
  }

  /**
   * Everything about one device.
   *
   * @param id only this device; 0: whatever has the name
   * @throws {DblockError} ENOENT (no such device), ESTALE (another device has the name), EPERM.
   */
  async info(name: string, id = 0): Promise<RawInfo> {
    const attempted = `Cannot ask about ${devicePath(name)}`;
    const { errno, out } = await this.#ioctl(
      DBLOCK_IOC_INFO,
      dblock_info,
      { name, id },
      attempted,
    );
    if (errno === ERRNO.ENOENT) {
      throw new DblockError(errno, attempted, "there is no such device");
    }
    if (errno !== 0) throw ioctlError(errno, attempted);
    return out;
  }

  /** Everything about every device. */
  async list(): Promise<RawInfo[]> {
    const attempted = "Cannot list the devices";
    for (let capacity = 16;;) {
      const infos = new Uint8Array(
        new ArrayBuffer(capacity * dblock_info.size),
      );
      const infos_address = addressOf(infos);
      const { errno, out } = await this.#ioctl(
        DBLOCK_IOC_LIST,
        dblock_list,
        { capacity, infos_address },
        attempted,
      );
      if (errno !== 0) throw ioctlError(errno, attempted);
      if (out.total > out.count) {
        capacity = out.total + 16;
        continue;
      }
      return Array.from(
        { length: out.count },
        (_, i) => decode(dblock_info, infos.subarray(i * dblock_info.size)),
      );
    }
  }
}

/** The address of memory that has an ArrayBuffer of its own. */
export function addressOf(bytes: Uint8Array<ArrayBuffer>): number {
  return Number(Deno.UnsafePointer.value(Deno.UnsafePointer.of(bytes)));
}
