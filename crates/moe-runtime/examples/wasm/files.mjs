// A server of fixed files on the local machine, for the pages of the examples.

import { readFileSync, statSync } from "node:fs";
import { createServer } from "node:http";

const TYPES = { html: "text/html", js: "text/javascript", json: "application/json", wasm: "application/wasm" };

/** Serves exactly `files`: an object of paths of the server and paths of files. */
export function serve(files, port = 0) {
  const server = createServer((request, response) => {
    const file = files[new URL(request.url, "http://localhost").pathname];
    if (!file) return response.writeHead(404).end();
    const type = TYPES[file.split(".").pop()] ?? "application/octet-stream";
    response.writeHead(200, { "content-type": type, "content-length": statSync(file).size });
    response.end(readFileSync(file));
  });
  return new Promise((ready) => server.listen(port, "127.0.0.1", () => ready(server)));
}
