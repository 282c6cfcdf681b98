// SPDX-License-Identifier: MIT
/** epoll(7), as far as this program uses it: numbers of sys/epoll.h, and the layout of an event. */

export const EPOLL_CLOEXEC = 0o2000000;
export const EPOLL_CTL_ADD = 1;
export const EPOLL_CTL_DEL = 2;
export const EPOLL_CTL_MOD = 3;
export const EPOLLIN = 0x1;
export const EPOLLONESHOT: number = 1 << 30;
export const EPOLLET: number = 2 ** 31;
/** struct epoll_event { u32 events; u64 data; } is packed on x86_64 and nowhere else. */
export const DATA_OFFSET: number = Deno.build.arch === "x86_64" ? 4 : 8;
export const EVENT_BYTES: number = DATA_OFFSET + 8;

/** The system call, as library.ts has it. */
export interface EpollControl {
  epoll_ctl(epoll: number, operation: number, fd: number, event: BufferSource): number;
}

/** epoll_ctl(2), with an event that carries `data`. @returns whether it went well */
export function controlEpoll(
  calls: EpollControl,
  epoll: number,
  operation: number,
  fd: number,
  events: number,
  data: bigint,
): boolean {
  const event = new DataView(new ArrayBuffer(EVENT_BYTES));
  event.setUint32(0, events, true);
  event.setBigUint64(DATA_OFFSET, data, true);
  return calls.epoll_ctl(epoll, operation, fd, event) === 0;
}
