// SPDX-License-Identifier: MIT
/**
 * The turns of several queues that one thread serves: they are looked at together (epoll), each gets one EXCHANGE a round, and
 * the thread sleeps once for all. Of many disks, few have more than a request or two at a time, and a wake of the event loop
 * for each would cost more than all else.
 *
 * In the main program a queue that is alone has its turns by itself (eventloop.ts). A Worker of a pool has nothing but this to
 * do (pool_worker.ts): it waits inside the kernel as long as nobody answers later.
 */
import type { FileSet, Kernel } from "../system/libc.ts";
import type { WaitedEvent } from "../system/loop_event.ts";
import { servers } from "../system/servers.ts";
import type { Channel } from "./channel.ts";
import { immediate, TURN_MS } from "./turn.ts";

/** Files that their thread may wait for in the kernel; another thread may close them. */
export interface OwnFiles extends Omit<FileSet, typeof Symbol.dispose> {
  /** Whether it is still there. */
  has(fd: number): boolean;
  /** Somebody waits for them on another thread, who may be told of the bell instead of this one. */
  readonly isWaited: boolean;
  /** Waits, and blocks this thread, until one has something to read or has failed: how many {@linkcode ready} has. */
  waitHere(): number;
}

/** A queue, as the rounds see it. */
export interface Member {
  /** It has attached. */
  readonly channel: Channel;
  /** How many of its requests are answered later. */
  readonly openCount: number;
  /** The rounds' own: it has something to do. */
  isActive: boolean;
  /** Whether it is served no more. */
  readonly isEnded: boolean;
  /**
   * One EXCHANGE; what it brings is given to the backend.
   *
   * @param sleeps the event is to tell, if nothing comes
   * @param lingers nobody else is served meanwhile
   * @returns how many requests it brought
   */
  step(sleeps: boolean, lingers: boolean): number;
  /** COMMIT of what is in the ring. */
  commitAll(): void;
  /** It is alone from now on, or not any more. */
  wake(): void;
  /** Serves it no more. */
  leave(): void;
}

/** A thread that does nothing but this. */
export interface OwnThread {
  /** Somebody else's, with a bell in them. */
  readonly files: OwnFiles;
  /** Whether the thread has nothing else to do now. */
  mayBlock(): boolean;
}

/** After so many rounds of one queue alone, the others have to wait for a moment when they come back: a guess. */
const LONE_ROUNDS = 32;

/** All queues of a thread that have their turns together. */
export class Rounds {
  static readonly #ofKernel = new WeakMap<Kernel, Rounds>();

  readonly #kernel: Kernel;
  readonly #own: OwnThread | undefined;
  readonly #members = new Map<number, Member>();
  /** Those that have something to do: answers in their ring, or requests that wait. Each once, in `#active` or nowhere. */
  #active: Member[] = [];
  #next: Member[] = [];
  /** The only one of the last rounds, and how many those were. */
  #lone: Member | undefined;
  #loneRounds = 0;
  #lookedMs = 0;
  /** Where there are several. */
  #files: FileSet | OwnFiles | undefined;
  #opened: FileSet | undefined;
  #event: WaitedEvent | undefined;
  #eventUsers = 0;
  /** One of them has no event: the files themselves are waited for. */
  #waitsForFiles = false;
  /** Some answers have come later: the thread waits in the kernel no more. */
  #answersLater = false;
  /** Somebody has left, which it takes a promise to say. */
  #hasLeft = false;
  #isRunning = false;
  #endsMs = 0;
  #isScheduled = false;
  /** Ends the wait of #run(). */
  #wake: () => void = () => {};

  /** @param own whose files are used from the first member on */
  constructor(kernel: Kernel, own?: OwnThread) {
    this.#kernel = kernel;
    this.#own = own;
    this.#files = own?.files;
  }

  /** Those of the main program, which has one kernel. */
  static of(kernel: Kernel): Rounds {
    let rounds = Rounds.#ofKernel.get(kernel);
    if (rounds === undefined) Rounds.#ofKernel.set(kernel, rounds = new Rounds(kernel));
    return rounds;
  }

  /** What wakes the event loop for any of them, until it is disposed; undefined where it cannot be had. */
  openEvent(): WaitedEvent | undefined {
    const event = this.#event ??= this.#kernel.openEvent();
    if (event === undefined) return undefined;
    this.#eventUsers++;
    return {
      fd: event.fd,
      wait: () => event.wait(),
      [Symbol.dispose]: () => {
        if (--this.#eventUsers > 0) return;
        this.#event = undefined;
        event[Symbol.dispose]();
      },
    };
  }

  /**
   * One more.
   *
   * @throws {DblockError} EMFILE: there is no room to wait for several.
   */
  join(member: Member): void {
    if (this.#members.size > 0 && this.#files === undefined) this.#files = this.#opened = this.#openFiles();
    this.#files?.add(member.channel.fd);
    this.#members.set(member.channel.fd, member);
    this.#waitsForFiles ||= !member.channel.hasEvent;
    if (this.#members.size === 2) { for (const each of this.#members.values()) each.wake(); }
    this.#wake(); // nobody has armed it
  }

  #openFiles(): FileSet {
    const files = this.#kernel.openFileSet();
    try {
      for (const fd of this.#members.keys()) files.add(fd);
    } catch (error) {
      files[Symbol.dispose]();
      throw error;
    }
    return files;
  }

  /** It is served no more. @returns whether its file was still open */
  leave(member: Member): boolean {
    const { fd } = member.channel;
    if (this.#members.get(fd) !== member) return true;
    this.#members.delete(fd);
    if (member.isActive) this.#active = this.#active.filter((each) => each !== member);
    if (this.#lone === member) this.#lone = undefined;
    this.#hasLeft = true;
    const wasOpen = this.#files?.remove(fd) ?? true;
    this.#waitsForFiles = this.#members.values().some(({ channel }) => !channel.hasEvent);
    if (!this.areShared) this.#end();
    return wasOpen;
  }

  /** Lets those leave whose files the main program has closed: they say nothing by themselves. */
  lookForClosed(): void {
    const files = this.#own?.files;
    if (files === undefined) return; // the main program's own are closed by those who leave first
    for (const [fd, member] of [...this.#members]) if (!files.has(fd)) member.leave();
  }

  /** The last one, if there is one, is alone. */
  #end(): void {
    this.#opened?.[Symbol.dispose]();
    this.#opened = undefined;
    this.#files = this.#own?.files;
    this.#wake();
    for (const member of this.#members.values()) member.wake();
  }

  /** Whether they have their turns here. */
  get areShared(): boolean {
    return this.#members.size > (this.#own === undefined ? 1 : 0);
  }

  /** Gives them their turns, if nobody does so yet, for as long as they are shared. Never throws. */
  begin(): void {
    if (this.#isRunning || !this.areShared) return;
    this.#isRunning = true;
    void this.#run().finally(() => {
      this.#isRunning = false;
      this.begin();
    });
  }

  /** It has put an answer into its ring, outside of a step: EXCHANGE follows a microtask later, for all that have. */
  answered(member: Member): void {
    this.#activate(member);
    if (this.#isScheduled) return;
    this.#isScheduled = true;
    queueMicrotask(() => {
      this.#isScheduled = false;
      // After a turn's time new requests wait for #run(), so that backends that answer in microtasks keep nobody waiting.
      if (this.#kernel.now() < this.#endsMs) this.#turn(false);
      else this.#commitAll();
    });
  }

  async #run(): Promise<void> {
    for (let wasAsleep = false; this.areShared;) {
      while (this.#mayBlock()) this.#blockedRound();
      this.#endsMs = this.#kernel.now() + TURN_MS;
      // Whoever was woken for nothing does not know whose event it was.
      const isBusy: boolean = this.#turn(true) || !this.#mayWait(wasAsleep);
      wasAsleep = !isBusy && !this.#hasLeft;
      await (wasAsleep ? this.#wait() : immediate());
      this.#hasLeft = false;
    }
  }

  /** One round of a thread that has nothing else to do: it waits for that. */
  #blockedRound(): void {
    const files = this.#own!.files;
    if (this.#active.length === 0) this.#found(files, files.waitHere());
    else if (!this.#isLone || this.#kernel.now() >= this.#lookedMs + TURN_MS) this.#found(files, files.look());
    this.#round();
  }

  #mayBlock(): boolean {
    return this.#own !== undefined && !this.#answersLater && !this.#hasLeft && !this.#own.files.isWaited &&
      this.#own.mayBlock();
  }

  /**
   * Rounds until nothing is left, or their time is over. No answer is left behind.
   *
   * @param looks for requests of those that have no answers; false between two turns of the event loop
   * @returns whether anything was there
   */
  #turn(looks: boolean): boolean {
    let isBusy = false;
    for (let isFirst = true;; isFirst = false) {
      if (looks) this.#find(isFirst, isBusy);
      if (this.#active.length === 0) return isBusy;
      if (this.#round()) isBusy = true;
      if (this.#kernel.now() >= this.#endsMs) break;
    }
    this.#commitAll();
    return true;
  }

  /** Adds those that have requests. The files are looked at each time, unless one queue alone is used: then once a while. */
  #find(isFirst: boolean, isBusy: boolean): void {
    const lone = this.#isLone ? this.#lone : undefined;
    if (lone !== undefined && (isFirst ? this.#kernel.now() < this.#lookedMs + TURN_MS : isBusy)) {
      if (isFirst) this.#activate(lone);
      return;
    }
    const files = this.#files;
    if (files === undefined) return;
    this.#found(files, files.look());
  }

  /** Adds those whose files were found. */
  #found(files: FileSet | OwnFiles, count: number): void {
    this.#lookedMs = this.#kernel.now();
    for (let i = 0; i < count; i++) {
      const member = this.#members.get(files.ready(i)); // the bell is nobody's
      if (member !== undefined) this.#activate(member);
    }
  }

  #activate(member: Member): void {
    if (member.isActive) return;
    member.isActive = true;
    this.#active.push(member);
  }

  /** @returns whether there was anything: requests, or answers */
  #round(): boolean {
    const now = this.#active;
    this.#active = this.#next;
    this.#next = now;
    this.#notice(now);
    const lingers = this.#isLone;
    let isBusy = false;
    for (let i = 0; i < now.length; i++) {
      const member = now[i]!;
      member.isActive = false;
      if (member.isEnded) continue;
      const { ring } = member.channel;
      const hadAnswers = ring.pending > 0;
      if (member.step(false, lingers) > 0 || hadAnswers) isBusy = true;
      if (member.openCount > 0) this.#answersLater = true;
      if (ring.pending > 0 && !member.isEnded) this.#activate(member);
    }
    now.length = 0;
    return isBusy;
  }

  #notice(now: readonly Member[]): void {
    const only = now.length === 1 ? now[0] : undefined;
    if (only === undefined || only !== this.#lone) this.#loneRounds = 0;
    else this.#loneRounds++;
    this.#lone = only;
  }

  /** Whether one queue alone is used: what a thread does that serves one, it may do for that. */
  get #isLone(): boolean {
    return this.#loneRounds >= LONE_ROUNDS && servers.count === this.#members.size;
  }

  #commitAll(): void {
    for (const member of this.#active) {
      member.isActive = false;
      member.commitAll();
    }
    this.#active.length = 0;
  }

  /**
   * Tells the kernel of all of them that the loop will sleep.
   *
   * @param isUnsure also of those that it was told of before
   * @returns false if there is something to do first
   */
  #mayWait(isUnsure: boolean): boolean {
    if (this.#waitsForFiles) return true; // they say what is there already
    let isQuiet = true;
    for (const member of [...this.#members.values()]) {
      if (member.channel.isArmed && !isUnsure) continue;
      member.step(true, this.#isLone && member === this.#lone);
      if (member.isEnded || member.channel.isArmed) continue;
      isQuiet = false;
      if (member.channel.ring.pending > 0) this.#activate(member);
    }
    return isQuiet;
  }

  /** Not Promise.race: a promise for the end would keep every loser. */
  #wait(): Promise<void> {
    return new Promise((resolve) => {
      this.#wake = resolve;
      if (!this.areShared) return resolve();
      void (this.#waitsForFiles ? this.#files : this.#event)?.wait().then(resolve);
    });
  }
}
