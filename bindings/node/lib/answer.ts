/** An answer while it is made: its parts on the event loop, its end as a promise. */

import type { NativeMessage, NativeSampling, NativeSequence } from './native.js';

/** A part of an answer. */
export interface Part {
  kind: 'content' | 'reasoning' | 'call';
  /** The text; the name of the tool where the part is a call. */
  text: string;
  /** The arguments of a call, as the text of a JSON object. */
  arguments?: string;
}

/** A whole answer. */
export interface Answer {
  /** The answer without its thought and its calls. */
  text: string;
  reasoning: string;
  calls: { name: string; arguments: string }[];
  /** Why it ended: `stop`, `length`, `context`, `loop`, or `interrupt` where a signal aborted it or its sequence was disposed of. */
  reason: string;
  promptTokens: number;
  /** Tokens of the prompt that the sequence did not hold from the answer before. */
  computedTokens: number;
  answerTokens: number;
}

/** How an answer is chosen and when it ends. What is absent is the recommendation of the model. */
export interface AnswerOptions {
  /** Most tokens of the answer; 512 where nothing is given. */
  maxTokens?: number;
  /** Divides the logits; 0 always takes the most likely token. */
  temperature?: number;
  topP?: number;
  minP?: number;
  topK?: number;
  /** Start of the random numbers; the same seed gives the same answer. */
  seed?: number;
  repeatPenalty?: number;
  /** Texts that end the answer and are no part of it. */
  customStopTriggers?: readonly string[];
  /** Whether an answer that repeats itself is ended; true where nothing is given. */
  detectLoops?: boolean;
  /** Ends the answer within two layers of a forward pass. The promise is then rejected with the reason of the signal. */
  signal?: AbortSignal;
  /** Whether an aborted answer is returned up to there instead. */
  stopOnAbortSignal?: boolean;
  /** Gets each piece of the text. */
  onTextChunk?: (text: string) => void;
  /** Gets each part of the answer: thought, text and calls. */
  onResponseChunk?: (part: Part) => void;
}

/** A prompt: a text to continue, or a conversation as JSON. */
export type Ask = { text: string } | { conversation: string };

/** Answers a prompt. */
export function answer(sequence: NativeSequence, ask: Ask, options: AnswerOptions): Promise<Answer> {
  const { signal } = options;
  if (signal?.aborted && !options.stopOnAbortSignal) {
    return Promise.reject(signal.reason);
  }
  return new Promise((resolve, reject) => {
    const made: Answer = emptyAnswer();
    let failure: { error: unknown } | undefined;
    const abort = () => running.cancel();
    const onMessage = (message: NativeMessage) => {
      if (message.kind !== 'end' && message.kind !== 'error') {
        try {
          take(made, message as Part, options);
        } catch (error) {
          failure ??= { error };
          running.cancel();
        }
        return;
      }
      signal?.removeEventListener('abort', abort);
      if (failure) {
        reject(failure.error);
      } else if (message.kind === 'error') {
        reject(new Error(message.text));
      } else if (signal?.aborted && !options.stopOnAbortSignal) {
        reject(signal.reason);
      } else {
        made.reason = message.text;
        [made.promptTokens, made.computedTokens, made.answerTokens] = message.counts ?? [0, 0, 0];
        resolve(made);
      }
    };
    const text = 'text' in ask ? ask.text : null;
    const conversation = 'conversation' in ask ? ask.conversation : null;
    const running = sequence.start(text, conversation, sampling(options), onMessage);
    signal?.addEventListener('abort', abort, { once: true });
    if (signal?.aborted) {
      abort();
    }
  });
}

/** The pieces of the text of an answer. Leaving the loop ends the answer. */
export async function* pieces(
  sequence: NativeSequence,
  ask: Ask,
  options: AnswerOptions,
): AsyncGenerator<string, Answer> {
  const queue: string[] = [];
  let wake: () => void = () => {};
  let ended: { answer: Answer } | { error: unknown } | undefined;
  const left = new AbortController();
  const forward = () => left.abort(options.signal?.reason);
  options.signal?.addEventListener('abort', forward, { once: true });
  if (options.signal?.aborted) {
    forward();
  }
  const onTextChunk = (text: string) => {
    queue.push(text);
    options.onTextChunk?.(text);
    wake();
  };
  const running = answer(sequence, ask, { ...options, onTextChunk, signal: left.signal }).then(
    (whole) => { ended = { answer: whole }; },
    (error: unknown) => { ended = { error }; },
  ).finally(() => wake());
  try {
    for (;;) {
      const piece = queue.shift();
      if (piece !== undefined) {
        yield piece;
      } else if (ended && 'error' in ended) {
        throw ended.error;
      } else if (ended) {
        return ended.answer;
      } else {
        await new Promise<void>((resolve) => { wake = resolve; });
      }
    }
  } finally {
    options.signal?.removeEventListener('abort', forward);
    left.abort();
    await running;
  }
}

function emptyAnswer(): Answer {
  return { text: '', reasoning: '', calls: [], reason: '', promptTokens: 0, computedTokens: 0, answerTokens: 0 };
}

function take(made: Answer, part: Part, options: AnswerOptions): void {
  if (part.kind === 'content') {
    made.text += part.text;
    options.onTextChunk?.(part.text);
  } else if (part.kind === 'reasoning') {
    made.reasoning += part.text;
  } else {
    made.calls.push({ name: part.text, arguments: part.arguments ?? '{}' });
  }
  options.onResponseChunk?.(part);
}

function sampling(options: AnswerOptions): NativeSampling {
  const { maxTokens, temperature, topP, minP, topK, seed, repeatPenalty, detectLoops } = options;
  const all = { maxTokens, temperature, topP, minP, topK, seed, repeatPenalty, detectLoops, stop: undefined as string[] | undefined };
  for (const [name, value] of Object.entries({ maxTokens, topK, seed })) {
    if (value !== undefined && !(Number.isInteger(value) && value >= 0 && value < 2 ** 32)) {
      throw new RangeError(`${name} = ${value} is no whole number between 0 and 4294967295`);
    }
  }
  if (options.customStopTriggers) {
    all.stop = [...options.customStopTriggers];
  }
  return Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined)) as NativeSampling;
}
