// node serve.mjs WASM GGUF [PORT]: serves the page with this module and this model on the local machine.

import { argv } from "node:process";
import { fileURLToPath } from "node:url";

import { serve as serveFiles } from "./files.mjs";

/** A server of exactly the files of the page. */
export function serve(wasm, gguf, port = 0) {
  const files = { "/wasm.wasm": wasm, "/student.gguf": gguf };
  for (const name of ["index.html", "worker.js", "download.js", "model.js"]) files[`/${name}`] = fileURLToPath(new URL(name, import.meta.url));
  return serveFiles({ ...files, "/": files["/index.html"] }, port);
}

if (argv[1] === fileURLToPath(import.meta.url)) {
  const server = await serve(argv[2], argv[3], Number(argv[4] ?? 8000));
  console.log(`http://127.0.0.1:${server.address().port}/`);
}
