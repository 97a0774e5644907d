/** Conversations: the history, the chat template of the model, and functions that the model may call. */

import { answer, pieces, type Answer, type AnswerOptions } from './answer.js';
import type { Sequence } from './model.js';

/** A message in the shape of OpenAI's chat API. */
export interface Message {
  role: 'system' | 'user' | 'assistant' | 'tool';
  content: string | null;
  [more: string]: unknown;
}

/** A function that the model may call. */
export interface ChatFunction {
  description?: string;
  /** The JSON schema of its arguments. */
  params?: object;
  /** Gets the arguments; its result, as JSON, is what the model reads. */
  handler: (args: any) => unknown;
}

/** How a prompt of a conversation is answered. */
export interface PromptOptions extends AnswerOptions {
  /** Whether the model thinks first; by default, as its template says. */
  thinking?: boolean;
  functions?: Record<string, ChatFunction>;
  /** Most rounds of calls before the answer has to come; 8 where nothing is given. Calls after that are an error. */
  maxFunctionRounds?: number;
}

/** A conversation over a sequence. */
export class ChatSession {
  readonly #sequence: Sequence;
  #history: Message[] = [];

  constructor(options: { contextSequence: Sequence; systemPrompt?: string }) {
    this.#sequence = options.contextSequence;
    if (options.systemPrompt !== undefined) {
      this.#history.push({ role: 'system', content: options.systemPrompt });
    }
  }

  /** The messages so far. */
  getChatHistory(): Message[] {
    return structuredClone(this.#history);
  }

  /** Puts other messages in place of those so far. */
  setChatHistory(history: Message[]): void {
    this.#history = structuredClone(history);
  }

  /** Adds a text of the user and returns the text of the answer. A failed or aborted prompt leaves the history as it was. */
  async prompt(text: string, options: PromptOptions = {}): Promise<string> {
    return (await this.promptWithMeta(text, options)).text;
  }

  /** As `prompt`, with the thought, the calls and the counts of the last answer. */
  async promptWithMeta(text: string, options: PromptOptions = {}): Promise<Answer> {
    const history: Message[] = [...this.#history, { role: 'user', content: text }];
    const functions = options.functions ?? {};
    for (let round = 0; ; round += 1) {
      const made = await answer(this.#sequence.native, this.#ask(history, options), options);
      const calls = made.calls.map((call, index) => ({ ...call, id: `call_${round}_${index}` }));
      history.push(messageOf(made, calls));
      if (calls.length === 0) {
        this.#history = history;
        return made;
      }
      const most = options.maxFunctionRounds ?? 8;
      if (round >= most) {
        const names = calls.map(({ name }) => name).join(', ');
        throw new Error(`the model still calls ${names} after ${most} rounds of calls; raise \`maxFunctionRounds\``);
      }
      for (const call of calls) {
        const called = Object.hasOwn(functions, call.name) ? functions[call.name] : undefined;
        const result = called
          ? await called.handler(JSON.parse(call.arguments))
          : { error: `there is no function ${call.name}` };
        history.push({ role: 'tool', tool_call_id: call.id, content: JSON.stringify(result) ?? 'null' });
      }
    }
  }

  /** Answers piece by piece, without functions. A loop that is left early keeps the answer out of the history. */
  async *stream(text: string, options: Omit<PromptOptions, 'functions'> = {}): AsyncGenerator<string, Answer> {
    const history: Message[] = [...this.#history, { role: 'user', content: text }];
    const made = yield* pieces(this.#sequence.native, this.#ask(history, options), options);
    this.#history = [...history, messageOf(made, [])];
    return made;
  }

  #ask(messages: Message[], options: PromptOptions): { conversation: string } {
    const tools = Object.entries(options.functions ?? {}).map(([name, { description, params }]) => ({
      type: 'function', function: { name, description, parameters: params },
    }));
    const now = Math.floor(Date.now() / 1000);
    return { conversation: JSON.stringify({ messages, tools, thinking: options.thinking, now }) };
  }
}

/** An answer as a message of the history. */
function messageOf(made: Answer, calls: { id: string; name: string; arguments: string }[]): Message {
  const message: Message = { role: 'assistant', content: made.text };
  if (made.reasoning) {
    message.reasoning_content = made.reasoning;
  }
  if (calls.length > 0) {
    message.tool_calls = calls.map(({ id, name, arguments: args }) => ({
      id, type: 'function', function: { name, arguments: args },
    }));
  }
  return message;
}
