// The module of lib.rs behind a small class, for pages, workers and Node alike.

const FAILED = -1;
const PRECISIONS = Object.freeze({ __proto__: null, f32: 0, q8_0: 1 });

export class Encoder {
  /** `module`: a compiled WebAssembly.Module. */
  constructor(module) {
    this.exports = new WebAssembly.Instance(module, {}).exports;
  }

  /** Takes the bytes of the three files of a checkpoint. Texts are cut after `tokens` tokens. */
  load({ config, tokenizer, weights }, precision = "f32", tokens = 256) {
    if (!(precision in PRECISIONS)) throw new Error(`precision ${precision}: choose ${Object.keys(PRECISIONS).join(" or ")}`);
    this.#input(config);
    this.exports.config();
    this.#input(tokenizer);
    this.exports.tokenizer();
    this.#input(weights);
    this.#check(this.exports.load(PRECISIONS[precision], tokens));
  }

  /** Cuts a text into passages of at most `words` words; their number. */
  text(text, words = 60) {
    this.#input(new TextEncoder().encode(text));
    return this.#check(this.exports.text(words));
  }

  /** Embeds passage `i`; its vector. */
  embed(i) {
    this.#check(this.exports.embed(i));
    return this.#vector();
  }

  /** The nearest passages to a query: `{ vector, found: [{ text, score }] }`. */
  query(text, k = 5) {
    this.#input(new TextEncoder().encode(text));
    const n = this.#check(this.exports.query(k));
    const vector = this.#vector();
    const found = Array.from({ length: n }, (_, i) => {
      this.#check(this.exports.found(i));
      return { text: this.#output(), score: this.exports.score(i) };
    });
    return { vector, found };
  }

  #input(bytes) {
    const address = this.exports.input(bytes.length);
    // The view is made after the call: it may have moved the memory.
    new Uint8Array(this.exports.memory.buffer, address, bytes.length).set(bytes);
  }

  #vector() {
    const { memory, vector, dims } = this.exports;
    return new Float32Array(memory.buffer, vector(), dims()).slice();
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
