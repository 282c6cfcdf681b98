// SPDX-License-Identifier: MIT
/**
 * `dblock top --web`: a page for people that shows what all disks do. This file answers HTTP: the page's files, what the page
 * is told each second, and what it may ask for. Everything that a browser gets comes from here.
 */
import { DblockError, describe, quietly } from "../disk/errors.ts";
import { UsageError } from "./cli.ts";
import { destroyOne } from "./destroy.ts";
import { type HttpPlan, type HttpServer, serveHttp } from "./http.ts";
import { Lookout } from "./lookout.ts";
import { diskSize } from "./parameters.ts";
import { resizeOne } from "./resize.ts";
import { checkName } from "./words.ts";
import cardText from "./page/card.ts" with { type: "text" };
import chartsText from "./page/charts.ts" with { type: "text" };
import coloursStyle from "./page/colours.css" with { type: "text" };
import controlText from "./page/control.ts" with { type: "text" };
import darkStyle from "./page/dark.css" with { type: "text" };
import diskStyle from "./page/disk.css" with { type: "text" };
import iconText from "./page/icon.svg" with { type: "text" };
import mapText from "./page/map.ts" with { type: "text" };
import modelText from "./page/model.ts" with { type: "text" };
import orderText from "./page/order.ts" with { type: "text" };
import pageStyle from "./page/page.css" with { type: "text" };
import pageText from "./page/page.ts" with { type: "text" };
import plotStyle from "./page/uplot/uPlot.min.css" with { type: "text" };
import plotText from "./page/uplot/uPlot.iife.min.js" with { type: "text" };
import plotLicence from "./page/uplot/LICENSE" with { type: "text" };
import termsText from "./page/terms.ts" with { type: "text" };
import unitsText from "./page/units.ts" with { type: "text" };
import htmlText from "./page/index.html" with { type: "text" };

/** How the page is served. */
export interface WebPlan extends HttpPlan {
  /** Whether the page may change disks. */
  readonly control: boolean;
}

/** More pages at once are refused. */
const WATCHERS_MAX = 64;
/** A page that is so many moments behind is cut off; it comes back, and begins anew. */
const BEHIND_MAX = 30;
const ASKED_BYTES_MAX = 4096;

/** What a page may load, and from where: this server, and nothing that is written into the page. */
const POLICY = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "img-src 'self'",
  "connect-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
  "require-trusted-types-for 'script'",
].join("; ");

const SAFE_HEADERS: Readonly<Record<string, string>> = {
  "content-security-policy": POLICY,
  "x-content-type-options": "nosniff",
  "referrer-policy": "no-referrer",
  "cross-origin-opener-policy": "same-origin",
  "cross-origin-resource-policy": "same-origin",
  "cache-control": "no-store",
};

const SCRIPT = "text/javascript; charset=utf-8";
const STYLE = "text/css; charset=utf-8";

/** By path. A browser knows no types, so they are taken out: V8 does that, and lines stay where they are. */
const FILES: Readonly<Record<string, readonly [type: string, text: () => string | Promise<string>]>> = {
  "/": ["text/html; charset=utf-8", () => htmlText],
  "/colours.css": [STYLE, () => coloursStyle],
  "/dark.css": [STYLE, () => darkStyle],
  "/disk.css": [STYLE, () => diskStyle],
  "/page.css": [STYLE, () => pageStyle],
  "/icon.svg": ["image/svg+xml", () => iconText],
  "/page.ts": [SCRIPT, () => withoutTypes(pageText)],
  "/order.ts": [SCRIPT, () => withoutTypes(orderText)],
  "/card.ts": [SCRIPT, () => withoutTypes(cardText)],
  "/charts.ts": [SCRIPT, () => withoutTypes(chartsText)],
  "/control.ts": [SCRIPT, () => withoutTypes(controlText)],
  "/map.ts": [SCRIPT, () => withoutTypes(mapText)],
  "/model.ts": [SCRIPT, () => withoutTypes(modelText)],
  "/terms.ts": [SCRIPT, () => withoutTypes(termsText)],
  "/units.ts": [SCRIPT, () => withoutTypes(unitsText)],
  "/uplot/uPlot.iife.min.js": [SCRIPT, () => plotText],
  "/uplot/uPlot.min.css": [STYLE, () => plotStyle],
  "/uplot/LICENSE": ["text/plain; charset=utf-8", () => plotLicence],
};

/**
 * Serves the page until it is disposed.
 *
 * @throws {DblockError} what `serveHttp()` throws
 */
export async function serveWeb(plan: WebPlan, lookout = new Lookout()): Promise<HttpServer> {
  const { control } = plan;
  const page: Page = { lookout, control, closeStreams: new Set() };
  const server = await serveHttp(plan, async (request) => {
    const response = await answer(request, page);
    for (const [name, value] of Object.entries(SAFE_HEADERS)) response.headers.set(name, value);
    return response;
  });
  return {
    address: server.address,
    url: server.url,
    async [Symbol.asyncDispose]() {
      lookout[Symbol.dispose]();
      for (const close of page.closeStreams) close();
      await server[Symbol.asyncDispose]();
    },
  };
}

interface Page {
  readonly lookout: Lookout;
  readonly control: boolean;
  /** End the streams that are open. */
  readonly closeStreams: Set<() => void>;
}

async function answer(request: Request, page: Page): Promise<Response> {
  const { pathname } = new URL(request.url);
  if (pathname.startsWith("/control/")) return await answerControl(request, pathname, page.control);
  if (request.method !== "GET") return plain("only GET", 405, { allow: "GET" });
  if (pathname === "/events") return events(page);
  const file = Object.hasOwn(FILES, pathname) ? FILES[pathname] : undefined;
  if (file === undefined) return plain("there is /", 404);
  const [type, text] = file;
  return new Response(await text(), { headers: { "content-type": type } });
}

async function withoutTypes(code: string): Promise<string> {
  // Not at the program's start: a bundle that imports anything is read as a whole then (src/build/README.md).
  const { stripTypeScriptTypes } = await import("node:module");
  return stripTypeScriptTypes(code);
}

function plain(text: string, status: number, headers: Record<string, string> = {}): Response {
  return new Response(`${text}\n`, { status, headers: { "content-type": "text/plain; charset=utf-8", ...headers } });
}

/** What the page is told: first all that is known, then each moment, as an event stream (text/event-stream). */
function events({ lookout, control, closeStreams }: Page): Response {
  if (lookout.watcherCount >= WATCHERS_MAX) return plain(`${WATCHERS_MAX} pages are open, and that is enough`, 503);
  let end = () => {};
  const encoder = new TextEncoder();
  const body = new ReadableStream<Uint8Array>({
    start(controller) {
      const send = (event: string, data: unknown) =>
        controller.enqueue(encoder.encode(`event: ${event}\ndata: ${JSON.stringify(data)}\n\n`));
      const close = () => {
        end();
        controller.close();
      };
      send("beginning", lookout.beginning(control));
      const watched = lookout.watch((moment) => {
        if ((controller.desiredSize ?? 0) > -BEHIND_MAX) send("moment", moment);
        else close();
      });
      closeStreams.add(close);
      end = () => {
        watched[Symbol.dispose]();
        closeStreams.delete(close);
      };
    },
    cancel: () => end(),
  });
  return new Response(body, { headers: { "content-type": "text/event-stream" } });
}

/** What is asked for a disk. */
interface Asked {
  readonly disk: string;
  readonly id?: number;
  readonly force?: boolean;
  readonly size?: string;
}

const say = quietly(console.log);

/** Changes a disk, if this is allowed, and if the page itself asks. */
async function answerControl(request: Request, pathname: string, control: boolean): Promise<Response> {
  if (!control) return plain("this page only looks: it was started without --control", 403);
  const refused = whyNotThePage(request);
  if (refused !== undefined) return plain(refused, 403);
  const asked = await readAsked(request);
  if (asked === undefined) return plain("that is not understood", 400);
  try {
    const name = checkName(asked.disk);
    switch (pathname) {
      case "/control/destroy": {
        const done = `${await destroyOne(name, asked.force ?? false, asked.id)} is destroyed`;
        say(`${done}, as the page asked`);
        return plain(done, 200);
      }
      case "/control/resize": {
        const done = await resizeOne(name, diskSize(asked.size ?? ""), asked.id);
        say(`${done}, as the page asked`);
        return plain(done, 200);
      }
      default:
        return plain("there is /control/destroy and /control/resize", 404);
    }
  } catch (error) {
    if (error instanceof UsageError) return plain(error.message, 400);
    if (error instanceof DblockError) return plain(describe(error), 409);
    throw error;
  }
}

/**
 * A page of somebody else's in the same browser can send requests here, with the cookie if it is on this machine too. It cannot
 * set a header of its own without being asked first (CORS), and cannot hide where it is from.
 */
function whyNotThePage(request: Request): string | undefined {
  const { headers } = request;
  if (request.method !== "POST") return "only POST";
  if (headers.get("x-dblock-control") !== "1") return "the header X-Dblock-Control: 1 is missing";
  const site = headers.get("sec-fetch-site");
  if (site !== null && site !== "same-origin") return "another page asks";
  const origin = headers.get("origin");
  if (origin !== null && hostOf(origin) !== headers.get("host")) return "another page asks";
  return undefined;
}

function hostOf(origin: string): string | undefined {
  try {
    return new URL(origin).host;
  } catch {
    return undefined; // "null"
  }
}

async function readAsked(request: Request): Promise<Asked | undefined> {
  try {
    if (Number(request.headers.get("content-length") ?? Infinity) > ASKED_BYTES_MAX) return undefined;
    const asked: unknown = await request.json();
    return isAsked(asked) ? asked : undefined;
  } catch {
    return undefined;
  }
}

function isAsked(value: unknown): value is Asked {
  if (typeof value !== "object" || value === null) return false;
  const { disk, id, force, size } = value as Partial<Record<keyof Asked, unknown>>;
  return typeof disk === "string" && (id === undefined || Number.isSafeInteger(id)) &&
    (force === undefined || typeof force === "boolean") && (size === undefined || typeof size === "string");
}
