/** Craftsman Ultra: run and embed with ternary language models on a CPU. */

export type { Answer, AnswerOptions, Part } from './answer.js';
export { ChatSession, type ChatFunction, type Message, type PromptOptions } from './chat.js';
export {
  Context,
  EmbeddingContext,
  loadModel,
  Model,
  Sequence,
  type ContextOptions,
  type LoadOptions,
} from './model.js';
