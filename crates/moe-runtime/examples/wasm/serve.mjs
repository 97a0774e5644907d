// node serve.mjs WASM GGUF [PORT]: serves the page with this module and this model on the local machine.

import { readFileSync, statSync } from "node:fs";
import { createServer } from "node:http";
import { argv } from "node:process";
import { fileURLToPath } from "node:url";

const TYPES = { html: "text/html", js: "text/javascript", wasm: "application/wasm", gguf: "application/octet-stream" };

/** A server of exactly the files of the page. */
export function serve(wasm, gguf, port = 0) {
  const here = (name) => fileURLToPath(new URL(name, import.meta.url));
  const files = { "/wasm.wasm": wasm, "/student.gguf": gguf };
  for (const name of ["index.html", "worker.js", "model.js"]) files[`/${name}`] = here(name);
  files["/"] = files["/index.html"];
  const server = createServer((request, response) => {
    const file = files[new URL(request.url, "http://localhost").pathname];
    if (!file) return response.writeHead(404).end();
    const type = TYPES[file.split(".").pop()];
    response.writeHead(200, { "content-type": type, "content-length": statSync(file).size });
    response.end(readFileSync(file));
  });
  return new Promise((ready) => server.listen(port, "127.0.0.1", () => ready(server)));
}

if (argv[1] === fileURLToPath(import.meta.url)) {
  const server = await serve(argv[2], argv[3], Number(argv[4] ?? 8000));
  console.log(`http://127.0.0.1:${server.address().port}/`);
}
