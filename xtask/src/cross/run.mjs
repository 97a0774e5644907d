// node run.mjs WASM: runs a test binary. WASM has no standard output: a failed test ends with a stack of calls that
// names it.

import { readFileSync } from "node:fs";
import { argv, exit } from "node:process";

const { instance } = await WebAssembly.instantiate(readFileSync(argv[2]), {});
exit(instance.exports.main(0, 0));
