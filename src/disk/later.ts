// SPDX-License-Identifier: MIT
/** Answers that come now or later: code for both that stays synchronous where the answer is there at once. */

/** True for a promise, or what behaves like one. */
export function isPromise<T>(answer: T | Promise<T>): answer is Promise<T> {
  return typeof answer === "object" && answer !== null && "then" in answer && typeof answer.then === "function";
}

/** Goes on with an answer: at once if it is there, else when it comes. */
export function whenDone<T, U>(answer: T | Promise<T>, next: (answer: T) => U | Promise<U>): U | Promise<U> {
  return isPromise(answer) ? answer.then(next) : next(answer);
}

/**
 * Does `work` and reports how it ended, at once or later. What `work` throws is thrown again after `ended` has heard of it;
 * what `ended` throws is thrown instead.
 */
export function watched<T>(
  work: () => T | Promise<T>,
  ended: (outcome: { readonly value: T } | { readonly error: unknown }) => void,
): T | Promise<T> {
  let answer: T | Promise<T>;
  try {
    answer = work();
  } catch (error) {
    ended({ error });
    throw error;
  }
  if (!isPromise(answer)) {
    ended({ value: answer });
    return answer;
  }
  return answer.then(
    (value) => {
      ended({ value });
      return value;
    },
    (error: unknown) => {
      ended({ error });
      throw error;
    },
  );
}

/**
 * Does everything, all at the same time, and ends when all of it has ended: a buffer that several share is free only then.
 * Synchronous if everything is.
 *
 * @throws what failed first in the order of the list, after everything has ended.
 */
export function everything<T>(works: readonly (() => T | Promise<T>)[]): T[] | Promise<T[]> {
  const answers: (T | Promise<T>)[] = [];
  const failed: { readonly error: unknown }[] = [];
  let isLate = false;
  for (const work of works) {
    try {
      const answer = work();
      isLate ||= isPromise(answer);
      answers.push(answer);
    } catch (error) {
      failed.push({ error });
    }
  }
  if (!isLate) {
    if (failed[0] !== undefined) throw failed[0].error;
    return answers as T[];
  }
  return Promise.allSettled(answers).then((settled) => {
    const values: T[] = [];
    for (const result of settled) {
      if (result.status === "fulfilled") values.push(result.value);
      else failed.push({ error: result.reason });
    }
    if (failed[0] !== undefined) throw failed[0].error;
    return values;
  });
}
