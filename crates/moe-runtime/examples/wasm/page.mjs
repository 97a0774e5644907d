// A page in a headless browser, driven as a person would use it. Speaks the browser's own protocol over a pipe.

import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const DEADLINE_MS = 120_000;

/**
 * Opens the page of `server` in the browser `chromium` and hands `use` three functions: `evaluate(expression)`, `text(id)`, and
 * `until(start)`, which waits until the element `status` begins with a text. Ends the browser and the server afterwards.
 */
export async function visit(chromium, server, use) {
  const profile = mkdtempSync(join(tmpdir(), "page-"));
  const flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"];
  flags.push("--disable-background-networking", "--disable-component-update", "--disable-sync");
  flags.push(`--user-data-dir=${profile}`, "--remote-debugging-pipe", "about:blank");
  const browser = spawn(chromium, flags, { stdio: ["ignore", "ignore", "ignore", "pipe", "pipe"] });

  // Messages are JSON, each ended by a zero byte.
  const waiting = new Map();
  let unread = Buffer.alloc(0);
  browser.stdio[4].on("data", (data) => {
    unread = Buffer.concat([unread, data]);
    for (let end = unread.indexOf(0); end >= 0; end = unread.indexOf(0)) {
      const message = JSON.parse(unread.subarray(0, end));
      unread = unread.subarray(end + 1);
      waiting.get(message.id)?.(message);
    }
  });
  let calls = 0;
  function call(method, params = {}, sessionId = undefined) {
    const id = ++calls;
    browser.stdio[3].write(`${JSON.stringify({ id, method, params, sessionId })}\0`);
    return new Promise((resolve, reject) => {
      waiting.set(id, ({ error, result }) => (error ? reject(new Error(`${method}: ${error.message}`)) : resolve(result)));
    });
  }

  async function open() {
    const url = `http://127.0.0.1:${server.address().port}/`;
    const { targetId } = await call("Target.createTarget", { url });
    const { sessionId } = await call("Target.attachToTarget", { targetId, flatten: true });
    const evaluate = async (expression) => (await call("Runtime.evaluate", { expression }, sessionId)).result.value;
    const text = (id) => evaluate(`document.getElementById("${id}")?.textContent ?? ""`);
    const until = async (start) => {
      const deadline = Date.now() + DEADLINE_MS;
      for (;;) {
        const status = await text("status");
        if (status.startsWith(start)) return status;
        if (status.startsWith("Error") || Date.now() > deadline) throw new Error(`the page says: ${status}`);
        await new Promise((later) => setTimeout(later, 50));
      }
    };
    await use({ evaluate, text, until });
  }

  try {
    const gone = new Promise((_, reject) => browser.once("exit", (code) => reject(new Error(`the browser ended: ${code}`))));
    await Promise.race([open(), gone]);
    browser.removeAllListeners("exit");
  } finally {
    // After `Browser.close` the browser waits for its own processes; removing the profile earlier could fail, because
    // they still write to it.
    const exited = new Promise((done) => browser.once("exit", done));
    call("Browser.close").catch(() => browser.kill());
    if (browser.exitCode === null) await exited;
    server.close();
    server.closeAllConnections();
    rmSync(profile, { recursive: true, force: true, maxRetries: 20, retryDelay: 250 });
  }
}
