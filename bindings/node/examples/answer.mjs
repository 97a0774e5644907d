// Answers a question with a local model: node answer.mjs MODEL

import { ChatSession, loadModel } from 'craftsman-ultra';

const model = await loadModel({ path: process.argv[2] });
const context = await model.createContext();
const chat = new ChatSession({ contextSequence: context.getSequence() });

const question = 'What is a vector?';
console.log(question);
await chat.prompt(question, {
  maxTokens: 64,
  temperature: 0,
  thinking: false,
  signal: AbortSignal.timeout(60_000),
  onTextChunk: (text) => process.stdout.write(text),
});
console.log();

for await (const piece of chat.stream('And a matrix?', { maxTokens: 64, temperature: 0, thinking: false })) {
  process.stdout.write(piece);
}
console.log(`\n${chat.getChatHistory().length} messages`);

context.dispose();
model.dispose();
