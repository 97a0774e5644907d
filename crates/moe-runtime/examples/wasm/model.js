// The module of lib.rs behind a small class, for pages, workers and Node alike.

const FAILED = -1;
const ENDED = -2;

export class Model {
  /** `module`: a compiled WebAssembly.Module. */
  constructor(module) {
    this.exports = new WebAssembly.Instance(module, {}).exports;
  }

  /** Takes the bytes of a GGUF. `mode`: "a8-block" for INT8 activations, "f32" for none. */
  load(bytes, mode = "a8-block") {
    this.#input(bytes);
    this.#check(this.exports.load(mode === "f32" ? 0 : 1));
  }

  /** Starts over with a text to continue; its tokens. */
  prompt(text) {
    this.#input(new TextEncoder().encode(text));
    const n = this.#check(this.exports.prompt());
    return Array.from({ length: n }, (_, i) => this.exports.prompt_token(i));
  }

  /** The likeliest continuation, token by token, at most `n`: `{ id, text }`. */
  *tokens(n) {
    for (let i = 0; i < n; i++) {
      const id = this.exports.next();
      if (id === ENDED) return;
      this.#check(id);
      yield { id, text: this.#output() };
    }
  }

  #input(bytes) {
    const address = this.exports.input(bytes.length);
    // The view is made after the call: it may have moved the memory.
    new Uint8Array(this.exports.memory.buffer, address, bytes.length).set(bytes);
  }

  #output() {
    const { memory, output, output_len } = this.exports;
    return new TextDecoder().decode(new Uint8Array(memory.buffer, output(), output_len()));
  }

  #check(result) {
    if (result === FAILED) throw new Error(this.#output());
    return result;
  }
}
