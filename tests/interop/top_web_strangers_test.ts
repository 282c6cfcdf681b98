// SPDX-License-Identifier: MIT
// What `dblock top --web` keeps from others in a headless Chromium: a disk's name that would be a script, and a page of somebody
// else's.
import { assert, assertEquals, assertMatch } from "@std/assert";
import { Browser } from "./browser.ts";
import { cardOf, chromium, dir, ignore, served, topWeb } from "./top_web.ts";

Deno.test({
  name: "a disk's name is text; what gets into the page cannot run, and cannot call anybody",
  ignore,
  async fn() {
    const name = '<img src="x" onerror="window.ran = 2"><script>window.ran = 3</script>';
    await using _disk = (await served("markup", { name })).server;
    await using top = await topWeb();
    await using browser = await Browser.start(chromium!);
    const page = await browser.open();
    await page.go(top.url);
    // A name is text, whatever it is made of.
    await page.until(
      `[...document.querySelectorAll(".disk h2")].some((one) => one.textContent === ${JSON.stringify(name)})`,
    );
    assertEquals(await page.evaluate(`document.querySelectorAll("main img, main script").length`), 0);
    let called = 0;
    await using other = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen: () => {} }, () => {
      called++;
      return new Response("x", { headers: { "access-control-allow-origin": "*" } });
    });
    const elsewhere = `http://127.0.0.1:${other.addr.port}/`;
    const refused = await page.evaluate<string[]>(`(async () => {
      const refused = [];
      addEventListener("securitypolicyviolation", ({ effectiveDirective }) => refused.push(effectiveDirective));
      const attempts = [
        () => { const script = document.createElement("script"); script.textContent = "window.ran = 1"; document.body.append(script); },
        () => { document.body.innerHTML += "<i></i>"; },
        () => { new Image().src = "${elsewhere}image"; },
        () => { const frame = document.createElement("iframe"); frame.src = "${elsewhere}frame"; document.body.append(frame); },
        () => fetch("${elsewhere}fetch").catch(() => {}),
        () => { const link = document.createElement("link"); link.rel = "stylesheet"; link.href = "${elsewhere}style"; document.head.append(link); },
      ];
      for (const attempt of attempts) { try { await attempt(); } catch {} }
      await new Promise((resolve) => setTimeout(resolve, 1000));
      return refused;
    })()`);
    assertEquals(await page.evaluate(`window.ran === undefined`), true);
    assertEquals(called, 0);
    for (const what of ["require-trusted-types-for", "img-src", "frame-src", "connect-src", "style-src-elem"]) {
      assert(refused.includes(what), `${what} is not among ${refused}`);
    }
  },
});

Deno.test({
  name: "a page of somebody else's cannot read it, frame it, or use the cookie of one that may change disks",
  ignore,
  async fn() {
    const token = `${dir}/token`;
    await Deno.writeTextFile(token, "0123456789abcdef\n", { mode: 0o600 });
    await using _disk = (await served("mine")).server;
    await using top = await topWeb("--control", "--token", token);
    await using browser = await Browser.start(chromium!);
    const page = await browser.open();
    await page.go(top.url);
    await page.until(`document.body.innerText.includes("the secret is missing")`);
    await page.go(`${top.url}?token=0123456789abcdef`);
    await page.until(`document.querySelector("#live")?.textContent === "live"`);
    assertEquals(await page.evaluate("location.search"), "", "the secret stays in no address");
    assertEquals(await page.evaluate("document.cookie"), "", "no script reads the cookie");
    // An export is not destroyed from here; the page's own requests get as far as the disk.
    await page.until(`${cardOf("mine")} !== null`);
    assertEquals(await page.evaluate(`${cardOf("mine")}.querySelectorAll("header button").length`), 0);
    const own = await page.evaluate<string>(
      `fetch("control/destroy", { method: "POST", headers: { "x-dblock-control": "1" },
      body: JSON.stringify({ disk: "none" }) }).then(async (response) => response.status + " " + await response.text())`,
    );
    assertMatch(own, /^409 Cannot destroy \/dev\/none/);

    // The same browser, with the cookie: another port of this machine is another origin, and not another site.
    await using other = Deno.serve(
      { hostname: "127.0.0.1", port: 0, onListen: () => {} },
      () => new Response("<!DOCTYPE html><title>other</title>", { headers: { "content-type": "text/html" } }),
    );
    await page.go(`http://127.0.0.1:${other.addr.port}/`);
    await page.until(`document.title === "other"`);
    const said = await page.evaluate<string[]>(`(async () => {
      const target = ${JSON.stringify(top.url)};
      const attempt = (path, init) => fetch(target + path, { credentials: "include", ...init })
        .then(async (response) => response.type + " " + response.status + " " + (await response.text()).length, () => "refused");
      const frame = document.createElement("iframe");
      frame.src = target;
      document.body.append(frame);
      await new Promise((resolve) => { frame.onload = resolve; setTimeout(resolve, 3000); });
      let framed = "closed";
      try { framed = frame.contentDocument === null ? "closed" : "open"; } catch {}
      return [
        await attempt("events", {}),
        await attempt("", { mode: "no-cors" }),
        await attempt("control/destroy", { method: "POST", headers: { "x-dblock-control": "1" }, body: "{}" }),
        await attempt("control/destroy", { method: "POST", mode: "no-cors", body: JSON.stringify({ disk: "none" }) }),
        framed,
      ];
    })()`);
    // What is sent without asking is refused by the server; the browser shows nothing of it.
    for (const one of said.slice(0, 4)) assertMatch(one, /^(refused|opaque 0 0)$/);
    assertEquals(said[4], "closed");
  },
});
