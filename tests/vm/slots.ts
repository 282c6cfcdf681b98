/** Places for work that goes on at the same time: so much of it and no more. What finds no place waits for its turn. */
export class Slots {
  readonly #count: number;
  #freeCount: number;
  /** In the order in which it has come. */
  readonly #waiting: { readonly count: number; readonly begin: () => void }[] = [];

  /** @param count of the places */
  constructor(count: number) {
    this.#count = count;
    this.#freeCount = count;
  }

  /**
   * Does the work as soon as there is room for it, and for all that has come before it.
   *
   * @param count how many places it takes; where there are fewer in all, it takes those
   */
  async use<T>(work: () => Promise<T>, count = 1): Promise<T> {
    const taken = Math.min(count, this.#count);
    await new Promise<void>((begin) => {
      this.#waiting.push({ count: taken, begin });
      this.#beginWaiting();
    });
    try {
      return await work();
    } finally {
      this.#freeCount += taken;
      this.#beginWaiting();
    }
  }

  #beginWaiting(): void {
    for (let next = this.#waiting[0]; next !== undefined && next.count <= this.#freeCount; next = this.#waiting[0]) {
      this.#waiting.shift();
      this.#freeCount -= next.count;
      next.begin();
    }
  }
}
