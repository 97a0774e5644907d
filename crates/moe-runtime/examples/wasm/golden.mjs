// node golden.mjs WASM GGUF TOKENS: the module gives the golden tokens of the model, or this fails.

import { readFileSync } from "node:fs";
import { argv } from "node:process";

import { Model } from "./model.js";

const [wasm, gguf, golden] = argv.slice(2);
const module = new WebAssembly.Module(readFileSync(wasm));
const same = (what, got, expected) => {
  if (`${got}` !== `${expected}`) throw new Error(`${what} are\n  ${got}\nnot\n  ${expected}`);
};

for (const mode of ["a8-block", "f32"]) {
  const model = new Model(module);
  model.load(readFileSync(gguf), mode);
  for (const entry of JSON.parse(readFileSync(golden)).prompts) {
    if (!(mode in entry)) continue;
    const start = performance.now();
    same("the prompt's tokens", model.prompt(entry.text), entry.prompt);
    const tokens = [...model.tokens(entry[mode].length)];
    same(`${mode}: the tokens after "${entry.text}"`, tokens.map(({ id }) => id), entry[mode]);
    const seconds = ((performance.now() - start) / 1000).toFixed(2);
    console.log(`${mode}: ${entry.text}|${tokens.map(({ text }) => text).join("")} (${seconds} s)`);
  }
}
