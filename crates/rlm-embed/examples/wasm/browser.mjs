// node browser.mjs CHROMIUM WASM FOLDER: uses the page as a person would, in a headless browser: waits until the encoder is loaded,
// pastes a text, embeds it and searches it.

import { argv } from "node:process";

import { visit } from "../../../moe-runtime/examples/wasm/page.mjs";
import { serve } from "./serve.mjs";

const [chromium, wasm, folder] = argv.slice(2);
const TEXT = "The Orra bridge is open to carts.\n\nA violin has four strings.\n\nBread needs flour and water.";
const QUERY = "A violin has four strings.";

await visit(chromium, await serve(wasm, folder), async ({ evaluate, until }) => {
  await until("Ready");
  await evaluate(`document.getElementById("text").value = ${JSON.stringify(TEXT)}`);
  await evaluate(`document.getElementById("go").click()`);
  const embedded = await until("Embedded: 3 passages");
  await evaluate(`document.getElementById("query").value = ${JSON.stringify(QUERY)}`);
  await evaluate(`document.getElementById("find").click()`);
  const status = await until("Found");
  const first = await evaluate(`document.querySelector("#found li")?.textContent ?? ""`);
  if (!first.startsWith(QUERY)) throw new Error(`the page found: ${first}`);

  // A word above the limit of a text is refused, and the page can be used as before.
  await evaluate(`document.getElementById("query").value = "a".repeat((1 << 20) + 1)`);
  await evaluate(`document.getElementById("find").click()`);
  await until("Error");
  await evaluate(`document.getElementById("query").value = ${JSON.stringify(QUERY)}`);
  await evaluate(`document.getElementById("find").click()`);
  await until("Found");
  console.log(`${QUERY} -> ${first} (${embedded} ${status})`);
});
