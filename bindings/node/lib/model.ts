/** Models, contexts and their sequences. */

import { answer, pieces, type Answer, type AnswerOptions } from './answer.js';
import { native, type NativeModel, type NativeSequence } from './native.js';

/** How a model is loaded. */
export interface LoadOptions {
  /** A checkpoint folder or a GGUF file. */
  path: string;
  /** Threads that compute; one per physical core where nothing is given. */
  threads?: number;
  /** Most bytes that the model may take; one that needs more is refused. */
  memory?: number;
  /** Where ternary weights lie: in the file, packed in memory, or packed as far as the memory allows. */
  layout?: 'auto' | 'file' | 'packed';
  /** Tokens of a context that does not say otherwise; 4096, or less where the model was made for less. */
  contextSize?: number;
  /** Whether weights may be missing. */
  allowZero?: boolean;
}

/** How a context is made. */
export interface ContextOptions {
  /** How many sequences the context has; 1 where nothing is given. */
  sequences?: number;
  /** Tokens that fit each of them. */
  contextSize?: number;
}

/** Loads a model away from the event loop. */
export async function loadModel(options: LoadOptions): Promise<Model> {
  return new Model(await native.loadNativeModel(options));
}

/** A loaded model; its memory is given back when it and its contexts are disposed of. */
export class Model {
  readonly #native: NativeModel;

  /** Made by `loadModel`. */
  constructor(loaded: NativeModel) {
    this.#native = loaded;
  }

  get architecture(): string {
    return this.#native.facts().architecture;
  }

  get layers(): number {
    return this.#native.facts().layers;
  }

  /** Number of values of an embedding. */
  get embeddingVectorSize(): number {
    return this.#native.facts().hidden;
  }

  get vocabularySize(): number {
    return this.#native.facts().vocabulary;
  }

  /** Tokens of the context that the model was made for. */
  get trainContextSize(): number {
    return this.#native.facts().trainContextSize;
  }

  /** The tokens of a text; with `specialTokens`, texts of control tokens become those tokens. */
  tokenize(text: string, specialTokens = false): number[] {
    return this.#native.tokenize(text, specialTokens);
  }

  /** The text of tokens; control tokens are left out unless `specialTokens`. */
  detokenize(tokens: readonly number[], specialTokens = false): string {
    return this.#native.detokenize([...tokens], specialTokens);
  }

  async createContext(options: ContextOptions = {}): Promise<Context> {
    const { sequences = 1, contextSize } = options;
    if (!Number.isInteger(sequences) || sequences < 1 || sequences > 256) {
      throw new RangeError(`sequences = ${sequences} is no whole number between 1 and 256`);
    }
    return new Context(sequences, () => this.#native.sequence(contextSize));
  }

  async createEmbeddingContext(options: { contextSize?: number } = {}): Promise<EmbeddingContext> {
    return new EmbeddingContext(this.#native.sequence(options.contextSize));
  }

  dispose(): void {
    this.#native.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

/** Sequences over a model. */
export class Context {
  readonly #make: () => NativeSequence;
  /** Those that were made and not taken yet. */
  readonly #ready: NativeSequence[];
  readonly #taken = new Set<Sequence>();
  #left: number;

  /** Made by `Model.createContext`. */
  constructor(sequences: number, make: () => NativeSequence) {
    this.#make = make;
    this.#ready = Array.from({ length: sequences }, make);
    this.#left = sequences;
  }

  /** How many sequences can be taken. */
  get sequencesLeft(): number {
    return this.#left;
  }

  /** Takes an empty sequence. When it is disposed of, another one can be taken. */
  getSequence(): Sequence {
    if (this.#left === 0) {
      throw new Error('the context has no sequence left; dispose of one, or create a context with more `sequences`');
    }
    const sequence: Sequence = new Sequence(this.#ready.pop() ?? this.#make(), () => {
      if (this.#taken.delete(sequence)) {
        this.#left += 1;
      }
    });
    this.#left -= 1;
    this.#taken.add(sequence);
    return sequence;
  }

  dispose(): void {
    this.#ready.forEach((sequence) => sequence.dispose());
    this.#ready.length = 0;
    const taken = [...this.#taken];
    this.#taken.clear();
    taken.forEach((sequence) => sequence.dispose());
    this.#left = 0;
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

/** One sequence of tokens. A prompt that begins as the last one did is computed from where they differ. */
export class Sequence {
  /** The native sequence, for the classes of this package. */
  readonly native: NativeSequence;
  readonly #onDispose: () => void;

  /** Made by `Context.getSequence`. */
  constructor(sequence: NativeSequence, onDispose: () => void) {
    this.native = sequence;
    this.#onDispose = onDispose;
  }

  /** Number of tokens that the sequence holds. */
  get tokenCount(): number {
    return this.native.tokenCount();
  }

  /** Continues a text. */
  async complete(text: string, options: AnswerOptions = {}): Promise<Answer> {
    return answer(this.native, { text }, options);
  }

  /** Continues a text piece by piece; leaving the loop ends the answer. */
  stream(text: string, options: AnswerOptions = {}): AsyncGenerator<string, Answer> {
    return pieces(this.native, { text }, options);
  }

  /** Forgets all tokens. */
  clearHistory(): void {
    this.native.clear();
  }

  /** Ends what runs and gives the memory back. Every later call throws. */
  dispose(): void {
    this.native.dispose();
    this.#onDispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

/** Turns texts into vectors. */
export class EmbeddingContext {
  readonly #native: NativeSequence;
  #last: Promise<unknown> = Promise.resolve();

  /** Made by `Model.createEmbeddingContext`. */
  constructor(sequence: NativeSequence) {
    this.#native = sequence;
  }

  /** The mean of the final hidden states of a text. Calls queue up. */
  async getEmbeddingFor(text: string): Promise<{ vector: number[] }> {
    const next = this.#last.then(() => this.#native.embed(text));
    this.#last = next.catch(() => undefined);
    return { vector: await next };
  }

  dispose(): void {
    this.#native.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}
