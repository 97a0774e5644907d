// Keeps the page responsive: fetches, loads and generates, and tells the page about each step.

import { download } from "./download.js";
import { Model } from "./model.js";

let model;

async function load({ mode }) {
  const file = (url) => download(url, (done, total) => postMessage({ type: "progress", url, done, total }));
  const module = await WebAssembly.compile(await file("wasm.wasm"));
  const bytes = await file("student.gguf");
  model = new Model(module);
  model.load(bytes, mode);
  postMessage({ type: "ready" });
}

function generate({ text, n }) {
  const start = performance.now();
  let count = 0;
  model.prompt(text);
  for (const { id, text } of model.tokens(n)) {
    count += 1;
    postMessage({ type: "token", id, text });
  }
  postMessage({ type: "done", count, seconds: (performance.now() - start) / 1000 });
}

onmessage = async ({ data }) => {
  try {
    await (data.type === "load" ? load(data) : generate(data));
  } catch (error) {
    postMessage({ type: "error", message: error.message });
  }
};
