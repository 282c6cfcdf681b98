/** Counts the waits for each event that is opened meanwhile: an event may be waited for once at a time. */
import { linux } from "../../../src/system/libc.ts";

/** What there was. */
export class CountedWaits implements Disposable {
  /** Waits that are not over. */
  openCount = 0;
  /** The most for one event at once. */
  most = 0;
  readonly #openEvent = linux.openEvent;

  constructor() {
    linux.openEvent = () => {
      const event = this.#openEvent();
      if (event === undefined) return undefined;
      const wait = event.wait.bind(event);
      let count = 0;
      event.wait = async () => {
        this.openCount++;
        this.most = Math.max(this.most, ++count);
        await wait();
        count--;
        this.openCount--;
      };
      return event;
    };
  }

  [Symbol.dispose](): void {
    linux.openEvent = this.#openEvent;
  }
}
