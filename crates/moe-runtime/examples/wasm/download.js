// Fetches files for the workers of the example pages.

/** The bytes behind `url`. Calls `tell(done, total)` as they arrive; `total` is 0 where the server does not say it. */
export async function download(url, tell) {
  const response = await fetch(url);
  if (!response.ok) throw new Error(`${url}: ${response.status} ${response.statusText}`);
  const total = Number(response.headers.get("content-length"));
  const parts = [];
  let done = 0;
  for await (const part of stream(response.body.getReader())) {
    parts.push(part);
    done += part.length;
    tell(done, total);
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
