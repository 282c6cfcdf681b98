// SPDX-License-Identifier: MIT
/** The calls on a device by its name: CREATE, DESTROY, INFO, LIST; and RESIZE. */
import {
  DBLOCK_ABI_VERSION,
  dblock_create,
  dblock_destroy,
  DBLOCK_DESTROY_FORCE,
  DBLOCK_DEVICE_DIRECT,
  dblock_info,
  DBLOCK_IOC_CREATE,
  DBLOCK_IOC_DESTROY,
  DBLOCK_IOC_INFO,
  DBLOCK_IOC_LIST,
  DBLOCK_IOC_RESIZE,
  DBLOCK_IOC_VERSION,
  dblock_list,
  dblock_resize,
  DBLOCK_STATE_CREATED,
  DBLOCK_STATE_GONE,
  dblock_version,
} from "../../src/module/abi.ts";
import { ERRNO } from "../../src/disk/errors.ts";
import { decode, encode } from "../../src/system/struct.ts";
import { answer, describe, type FakeDevice, hasDisk, isDevice, write } from "./fake_device.ts";
import { FakeQueue, memoryAt, type Mischief } from "./fake_queue.ts";
import type { Random } from "./random.ts";

const QUEUE_COUNT_MAX = 8;

/** What a `FakeControl` is made of. */
export interface FakeControlOptions {
  readonly abiVersion: number | undefined;
  readonly mischief: Mischief;
  readonly random: Random;
  /** A device has gone: who waits for it has to know. */
  readonly onRemoved: () => void;
}

/** The devices that there are, by name. */
export class FakeControl {
  readonly devices = new Map<string, FakeDevice>();
  readonly #options: FakeControlOptions;
  #nextId = 2 ** 52;

  constructor(options: FakeControlOptions) {
    this.#options = options;
  }

  /** @param own the device whose node the file is, if it is one's */
  ioctl(request: number, structure: Uint8Array, own: FakeDevice | undefined): number {
    switch (request) {
      case DBLOCK_IOC_VERSION:
        return write(dblock_version, structure, {
          abi_version: this.#options.abiVersion ?? DBLOCK_ABI_VERSION,
          queue_count_max: QUEUE_COUNT_MAX,
          device_count_max: 1024,
        });
      case DBLOCK_IOC_CREATE:
        return this.#create(structure);
      case DBLOCK_IOC_DESTROY:
        return this.#destroy(structure);
      case DBLOCK_IOC_INFO:
        return this.#info(structure, own);
      case DBLOCK_IOC_LIST:
        return this.#list(structure);
      case DBLOCK_IOC_RESIZE:
        return this.#resize(structure, own);
      default:
        return -1;
    }
  }

  #create(structure: Uint8Array): number {
    const params = decode(dblock_create, structure);
    const { mischief, random } = this.#options;
    if (this.devices.has(params.name)) return answer(structure, ERRNO.EEXIST);
    params.queue_count = Math.min(params.queue_count, QUEUE_COUNT_MAX);
    params.id = this.#nextId++;
    const direct = (params.flags & DBLOCK_DEVICE_DIRECT) !== 0;
    const queues = Array.from(
      { length: params.queue_count },
      () => new FakeQueue(params.queue_depth, params.max_io_bytes, direct, mischief, random),
    );
    this.devices.set(params.name, {
      params,
      queues,
      state: DBLOCK_STATE_CREATED,
      openCount: 0,
      serverPid: 0,
      isFlushed: false,
      isLeft: false,
    });
    return write(dblock_create, structure, params);
  }

  #destroy(structure: Uint8Array): number {
    const { name, flags, id } = decode(dblock_destroy, structure);
    const device = this.devices.get(name);
    if (device === undefined) return answer(structure, ERRNO.ENOENT);
    if (!isDevice(device, id)) return answer(structure, ERRNO.ESTALE);
    if (device.openCount > 0 && (flags & DBLOCK_DESTROY_FORCE) === 0) {
      write(dblock_destroy, structure, { name, flags, open_count: device.openCount });
      return answer(structure, ERRNO.EBUSY);
    }
    this.remove(device);
    return answer(structure, 0);
  }

  /** Its disk and its queues end. */
  remove(device: FakeDevice): void {
    device.state = DBLOCK_STATE_GONE;
    this.devices.delete(device.params.name);
    for (const queue of device.queues) queue.end();
    this.#options.onRemoved();
  }

  #info(structure: Uint8Array, own: FakeDevice | undefined): number {
    const { name, id } = decode(dblock_info, structure);
    const device = own ?? this.devices.get(name);
    if (device === undefined) return answer(structure, ERRNO.ENOENT);
    if (!isDevice(device, id)) return answer(structure, ERRNO.ESTALE);
    return write(dblock_info, structure, describe(device));
  }

  #resize(structure: Uint8Array, device: FakeDevice | undefined): number {
    const { id, size_bytes } = decode(dblock_resize, structure);
    if (device !== undefined && !isDevice(device, id)) return answer(structure, ERRNO.ESTALE);
    if (!hasDisk(device)) return answer(structure, ERRNO.ENODEV);
    device.params.size_bytes = size_bytes;
    return answer(structure, 0);
  }

  #list(structure: Uint8Array): number {
    const list = decode(dblock_list, structure);
    const devices = [...this.devices.values()];
    const count = Math.min(list.capacity, devices.length);
    devices.slice(0, count).forEach((device, i) => {
      memoryAt(list.infos_address + i * dblock_info.size, dblock_info.size)
        .set(encode(dblock_info, describe(device)));
    });
    return write(dblock_list, structure, { ...list, count, total: devices.length });
  }
}
