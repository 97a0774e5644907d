// node browser.mjs CHROMIUM WASM GGUF TOKENS: uses the page as a person would, in a headless browser: waits until the
// model is loaded, types a prompt, sends it, and compares the answer with the golden tokens.

import { readFileSync } from "node:fs";
import { argv } from "node:process";

import { visit } from "./page.mjs";
import { serve } from "./serve.mjs";

const [chromium, wasm, gguf, golden] = argv.slice(2);
const entry = JSON.parse(readFileSync(golden)).prompts[0];

await visit(chromium, await serve(wasm, gguf), async ({ evaluate, text, until }) => {
  await until("Ready");
  // A prompt beyond the context is refused, and the page can be used as before.
  await evaluate(`document.getElementById("prompt").value = "a ".repeat(5000)`);
  await evaluate(`document.getElementById("go").click()`);
  await until("Error");
  await evaluate(`document.getElementById("prompt").value = ${JSON.stringify(entry.text)}`);
  await evaluate(`document.getElementById("n").value = ${entry["a8-block"].length}`);
  await evaluate(`document.getElementById("go").click()`);
  const status = await until("Done");
  const ids = (await text("ids")).trim();
  if (ids !== entry["a8-block"].join(" ")) throw new Error(`the page shows\n  ${ids}\nnot\n  ${entry["a8-block"]}`);
  console.log(`${entry.text}|${await text("answer")} (${status})`);
});
