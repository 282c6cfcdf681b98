// SPDX-License-Identifier: MIT
/** A headless Chromium for a test, spoken to by its own protocol (DevTools) over a WebSocket. */

const LIMIT_MS = 60_000;

/** Where it is, or undefined: Debian's package chromium brings it. */
export function findChromium(): string | undefined {
  for (const path of ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"]) {
    try {
      if (Deno.statSync(path).isFile) return path;
    } catch {
      // The next one.
    }
  }
  return undefined;
}

type Parameters = Readonly<Record<string, unknown>>;
type Listener = (parameters: Record<string, unknown>) => void;

/** A running browser. */
export class Browser implements AsyncDisposable {
  readonly #child: Deno.ChildProcess;
  readonly #socket: WebSocket;
  readonly #folder: string;
  readonly #waiting = new Map<number, PromiseWithResolvers<Record<string, unknown>>>();
  readonly #listeners = new Map<string, Listener>();
  #number = 0;

  private constructor(child: Deno.ChildProcess, socket: WebSocket, folder: string) {
    this.#child = child;
    this.#socket = socket;
    this.#folder = folder;
    socket.onmessage = ({ data }) => this.#hear(JSON.parse(data));
  }

  /** Starts one that leaves nothing behind. */
  static async start(path: string): Promise<Browser> {
    const folder = await Deno.makeTempDir();
    const child = new Deno.Command(path, {
      args: [
        "--headless=new",
        "--no-sandbox", // the tests run as root
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--hide-scrollbars",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        `--user-data-dir=${folder}`,
        "--remote-debugging-port=0",
        "about:blank",
      ],
      stdin: "null",
      stdout: "null",
      stderr: "piped",
    }).spawn();
    const reader = child.stderr.pipeThrough(new TextDecoderStream()).getReader();
    let said = "";
    let url: string | undefined;
    const timer = setTimeout(() => child.kill("SIGKILL"), LIMIT_MS);
    while (url === undefined) {
      const { value, done } = await reader.read();
      if (done) throw new Error(`${path} does not start: ${said}`);
      said += value;
      url = /DevTools listening on (ws:\S+)/.exec(said)?.[1];
    }
    clearTimeout(timer);
    void (async () => {
      while (!(await reader.read()).done);
    })();
    const socket = new WebSocket(url);
    await new Promise((resolve, reject) => {
      socket.onopen = resolve;
      socket.onerror = reject;
    });
    return new Browser(child, socket, folder);
  }

  /** Opens a page of its own, without cookies of others. */
  async open(): Promise<Page> {
    const { browserContextId } = await this.send("Target.createBrowserContext");
    const { targetId } = await this.send("Target.createTarget", { url: "about:blank", browserContextId });
    const { sessionId } = await this.send("Target.attachToTarget", { targetId, flatten: true });
    const page = new Page(this, sessionId as string);
    await page.begin();
    return page;
  }

  /** Asks for something by the protocol. */
  async send(method: string, params: Parameters = {}, sessionId?: string): Promise<Record<string, unknown>> {
    const id = ++this.#number;
    const answer = Promise.withResolvers<Record<string, unknown>>();
    this.#waiting.set(id, answer);
    this.#socket.send(JSON.stringify({ id, method, params, ...(sessionId === undefined ? {} : { sessionId }) }));
    const timer = setTimeout(() => answer.reject(new Error(`${method} is not answered`)), LIMIT_MS);
    try {
      return await answer.promise;
    } finally {
      clearTimeout(timer);
      this.#waiting.delete(id);
    }
  }

  /** Hears events of a page. */
  listen(sessionId: string, method: string, listener: Listener): void {
    this.#listeners.set(`${sessionId} ${method}`, listener);
  }

  #hear(message: {
    readonly id?: number;
    readonly result?: Record<string, unknown>;
    readonly error?: { readonly message: string };
    readonly method?: string;
    readonly params?: Record<string, unknown>;
    readonly sessionId?: string;
  }): void {
    const { id, result, error, method, params, sessionId } = message;
    if (id === undefined) return this.#listeners.get(`${sessionId} ${method}`)?.(params ?? {});
    const waiting = this.#waiting.get(id);
    if (error === undefined) waiting?.resolve(result ?? {});
    else waiting?.reject(new Error(error.message));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const closed = new Promise((resolve) => this.#socket.onclose = resolve);
    await this.send("Browser.close").catch(() => this.#child.kill("SIGKILL"));
    await Promise.all([this.#child.status, closed]);
    await Deno.remove(this.#folder, { recursive: true });
  }
}

/** A page in it. */
export class Page {
  /** What went wrong in it: exceptions, what the policy refused, messages of errors. */
  readonly complaints: string[] = [];
  /** All addresses that it has asked for. */
  readonly asked: string[] = [];
  readonly #browser: Browser;
  readonly #session: string;

  constructor(browser: Browser, session: string) {
    this.#browser = browser;
    this.#session = session;
  }

  /** Listens to what happens in it. */
  async begin(): Promise<void> {
    const listen = (method: string, listener: Listener) => this.#browser.listen(this.#session, method, listener);
    listen("Runtime.exceptionThrown", (event) => void this.complaints.push(JSON.stringify(event)));
    listen("Log.entryAdded", ({ entry }) => {
      const { level, text, url } = entry as { readonly level: string; readonly text: string; readonly url?: string };
      if (level === "error" || level === "warning") this.complaints.push(`${level}: ${text} ${url ?? ""}`);
    });
    listen("Network.requestWillBeSent", ({ request }) => void this.asked.push((request as { url: string }).url));
    for (const domain of ["Page", "Runtime", "Log", "Network"]) await this.send(`${domain}.enable`);
  }

  /** Asks for something by the protocol. */
  async send(method: string, params: Parameters = {}): Promise<Record<string, unknown>> {
    return await this.#browser.send(method, params, this.#session);
  }

  /** Goes to an address. */
  async go(url: string): Promise<void> {
    const { errorText } = await this.send("Page.navigate", { url });
    if (errorText !== undefined) throw new Error(`${url}: ${errorText}`);
  }

  /** The value of an expression in the page; a promise is waited for. */
  async evaluate<T>(expression: string): Promise<T> {
    const { result, exceptionDetails } = await this.send("Runtime.evaluate", {
      expression,
      awaitPromise: true,
      returnByValue: true,
    });
    if (exceptionDetails !== undefined) throw new Error(`${expression}: ${JSON.stringify(exceptionDetails)}`);
    return (result as { readonly value: T }).value;
  }

  /** Waits until an expression has a value that is true. */
  async until<T>(expression: string): Promise<T> {
    const begun = performance.now();
    for (;;) {
      const value = await this.evaluate<T>(expression);
      if (value) return value;
      if (performance.now() - begun > LIMIT_MS) {
        const text = await this.evaluate<string>("document.body.innerText");
        throw new Error(`${expression} does not come true; the page says: ${text}`);
      }
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }

  /** The size of its window, and whether it is a phone's. */
  async size(width: number, height: number, phone = false): Promise<void> {
    const metrics = { width, height, deviceScaleFactor: phone ? 2 : 1, mobile: phone };
    await this.send("Emulation.setDeviceMetricsOverride", metrics);
  }

  /** What the system prefers. */
  async prefer(scheme: "dark" | "light"): Promise<void> {
    const features = [{ name: "prefers-color-scheme", value: scheme }];
    await this.send("Emulation.setEmulatedMedia", { features });
  }

  /** A picture of it, as a PNG. */
  async picture(whole = false): Promise<Uint8Array> {
    const { data } = await this.send("Page.captureScreenshot", { format: "png", captureBeyondViewport: whole });
    return Uint8Array.fromBase64(data as string);
  }
}
