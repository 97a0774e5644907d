// Keeps the page responsive: fetches and loads the encoder, embeds the text and answers queries.

import { download } from "./download.js";
import { Encoder } from "./encoder.js";

let encoder;

const tasks = {
  async load({ precision }) {
    const file = (url) =>
      download(url, (done, total) => postMessage({ type: "progress", what: `Loading ${url}`, done, total }));
    const module = await WebAssembly.compile(await file("wasm.wasm"));
    const [config, tokenizer] = [await file("config.json"), await file("tokenizer.json")];
    encoder = new Encoder(module);
    encoder.load({ config, tokenizer, weights: await file("model.safetensors") }, precision);
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
