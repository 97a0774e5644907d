// Keeps the page responsive: fetches and loads the encoder, embeds the text and answers queries.

import { Encoder } from "./encoder.js";

let encoder;

/** Fetches `url` and posts how far it is; the bytes. */
async function download(url) {
  const response = await fetch(url);
  if (!response.ok) throw new Error(`${url}: ${response.status} ${response.statusText}`);
  const total = Number(response.headers.get("content-length"));
  const bytes = new Uint8Array(total);
  let done = 0;
  const reader = response.body.getReader();
  for (let read = await reader.read(); !read.done; read = await reader.read()) {
    bytes.set(read.value, done);
    done += read.value.length;
    postMessage({ type: "progress", what: `Loading ${url}`, done, total });
  }
  return bytes;
}

const tasks = {
  async load({ precision }) {
    const module = await WebAssembly.compile(await download("wasm.wasm"));
    const [config, tokenizer] = [await download("config.json"), await download("tokenizer.json")];
    encoder = new Encoder(module);
    encoder.load({ config, tokenizer, weights: await download("model.safetensors") }, precision);
    postMessage({ type: "ready" });
  },

  embed({ text }) {
    const start = performance.now();
    const total = encoder.text(text);
    for (let i = 0; i < total; i++) {
      encoder.embed(i);
      postMessage({ type: "progress", what: "Embedding", done: i + 1, total });
    }
    postMessage({ type: "embedded", total, seconds: (performance.now() - start) / 1000 });
  },

  search({ query }) {
    const start = performance.now();
    const { found } = encoder.query(query);
    postMessage({ type: "found", found, ms: performance.now() - start });
  },
};

onmessage = async ({ data }) => {
  try {
    await tasks[data.type](data);
  } catch (error) {
    postMessage({ type: "error", message: error.message });
  }
};
