// node golden.mjs WASM FOLDER TEXTS VECTORS [PRECISION LEAST]: the module gives the vectors that transformers gives, or this fails.
// FOLDER is a checkpoint, TEXTS a JSON array, VECTORS a safetensors file with the tensor `vectors`.

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { argv } from "node:process";

import { Encoder } from "./encoder.js";

const [wasm, folder, texts, vectors, precision = "f32", least = "0.99999"] = argv.slice(2);

/** The F32 tensor `vectors` of a safetensors file. */
function golden(path) {
  const bytes = readFileSync(path);
  const end = 8 + Number(bytes.readBigUInt64LE());
  const { data_offsets: [from, to] } = JSON.parse(bytes.subarray(8, end)).vectors;
  return new Float32Array(new Uint8Array(bytes.subarray(end + from, end + to)).buffer);
}

/** `use` must fail with a message that begins with `said`. */
function refuses(use, said) {
  try {
    use();
  } catch ({ message }) {
    if (message.startsWith(said)) return;
    throw new Error(`"${message}" in place of "${said}"`);
  }
  throw new Error(`"${said}" was expected`);
}

const encoder = new Encoder(new WebAssembly.Module(readFileSync(wasm)));
const file = (name) => readFileSync(join(folder, name));
const files = { config: file("config.json"), tokenizer: file("tokenizer.json"), weights: file("model.safetensors") };
for (const other of ["q4_0", "toString", ""]) refuses(() => encoder.load(files, other), `precision ${other}`);
if (encoder.exports.load(2, 256) !== -1) throw new Error("the module takes precision 2");
encoder.load(files, precision);

const expected = golden(vectors);
const all = JSON.parse(readFileSync(texts));
let lowest = 1;
const start = performance.now();
all.forEach((text, i) => {
  const { vector } = encoder.query(text);
  const cosine = vector.reduce((sum, x, at) => sum + x * expected[i * vector.length + at], 0);
  // NaN is no cosine, and not above the least one either.
  if (!(cosine >= Number(least) && cosine <= 1.00001)) throw new Error(`text ${i}: cosine ${cosine}`);
  lowest = Math.min(lowest, cosine);
});
const seconds = ((performance.now() - start) / 1000).toFixed(2);
if (all.length * encoder.exports.dims() !== expected.length) throw new Error("texts and vectors are not as many");

const n = encoder.text("The Orra bridge is open to carts.\n\nA violin has four strings.\n\nBread needs flour and water.");
for (let i = 0; i < n; i++) encoder.embed(i);
const { found } = encoder.query("A violin has four strings.", 2);
if (n !== 3 || found.length !== 2 || found[0].text !== "A violin has four strings." || !(found[0].score > 0.999)) {
  throw new Error(`found ${JSON.stringify(found)}`);
}
console.log(`${precision}: lowest cosine of ${all.length} texts ${lowest.toFixed(7)} (${seconds} s)`);
