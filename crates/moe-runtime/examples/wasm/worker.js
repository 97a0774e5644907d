// Keeps the page responsive: fetches, loads and generates, and tells the page about each step.

import { Model } from "./model.js";

let model;

/** Fetches `url` and posts how far it is; the bytes. */
async function download(url) {
  const response = await fetch(url);
  if (!response.ok) throw new Error(`${url}: ${response.status} ${response.statusText}`);
  const total = Number(response.headers.get("content-length"));
  const parts = [];
  let done = 0;
  for await (const part of stream(response.body.getReader())) {
    parts.push(part);
    done += part.length;
    postMessage({ type: "progress", url, done, total });
  }
  const bytes = new Uint8Array(done);
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}

async function* stream(reader) {
  for (let read = await reader.read(); !read.done; read = await reader.read()) yield read.value;
}

async function load({ mode }) {
  const module = await WebAssembly.compile(await download("wasm.wasm"));
  const bytes = await download("student.gguf");
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
