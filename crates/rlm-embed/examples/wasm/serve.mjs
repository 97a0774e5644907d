// node serve.mjs WASM FOLDER [PORT]: serves the page with this module and the encoder in FOLDER on the local machine.

import { basename, join } from "node:path";
import { argv } from "node:process";
import { fileURLToPath } from "node:url";

import { serve as serveFiles } from "../../../moe-runtime/examples/wasm/files.mjs";

const SHARED = "../../../moe-runtime/examples/wasm/";

/** A server of exactly the files of the page. */
export function serve(wasm, folder, port = 0) {
  const files = { "/wasm.wasm": wasm };
  for (const name of ["config.json", "tokenizer.json", "model.safetensors"]) files[`/${name}`] = join(folder, name);
  const page = ["index.html", "worker.js", "encoder.js", `${SHARED}download.js`];
  for (const name of page) files[`/${basename(name)}`] = fileURLToPath(new URL(name, import.meta.url));
  return serveFiles({ ...files, "/": files["/index.html"] }, port);
}

if (argv[1] === fileURLToPath(import.meta.url)) {
  const server = await serve(argv[2], argv[3], Number(argv[4] ?? 8000));
  console.log(`http://127.0.0.1:${server.address().port}/`);
}
