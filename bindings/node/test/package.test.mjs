// The package as a user has it: answers, streams, aborts, functions, embeddings, and the event loop meanwhile.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { after, before, test } from 'node:test';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { fileURLToPath } from 'node:url';

const { ChatSession, loadModel } = await import(process.env.CRAFTSMAN_PACKAGE ?? '../dist/index.js');

const root = process.env.CRAFTSMAN_ROOT ?? join(dirname(fileURLToPath(import.meta.url)), '../../..');
const teacher = join(root, 'fixtures/craftsman-mini');
const PROMPT = 'A vector is';
const QUESTION = 'What is a vector?';
const greedy = { temperature: 0, maxTokens: 40 };

/** The command line of the same sources: the variable BITNET, or a build in the folder `target`. */
function bitnet() {
  const built = ['release', 'checked'].map((profile) => join(root, 'target', profile, 'bitnet'));
  const found = process.env.BITNET ?? built.find((path) => existsSync(path));
  assert.ok(found, 'there is no `bitnet` to compare with: build it, or set BITNET');
  return found;
}

function run(...args) {
  const all = ['run', teacher, '--temp', '0', '--threads', '1', '-n', '40', ...args];
  const printed = execFileSync(bitnet(), all, { stdio: ['ignore', 'pipe', 'ignore'] });
  return printed.toString().replace(/\n$/, '');
}

let model;
before(async () => {
  model = await loadModel({ path: teacher, threads: 1 });
});
after(() => model.dispose());

test('a greedy answer is that of the command line', async () => {
  const context = await model.createContext();
  const sequence = context.getSequence();
  const completed = await sequence.complete(PROMPT, greedy);
  assert.equal(completed.text, run('--raw', '-p', PROMPT));
  const chunks = [];
  const chat = new ChatSession({ contextSequence: sequence });
  const onTextChunk = (text) => chunks.push(text);
  const text = await chat.prompt(QUESTION, { ...greedy, thinking: false, onTextChunk });
  assert.equal(text, run('--think', 'off', '-p', QUESTION));
  assert.equal(chunks.join(''), text);
  assert.ok(chunks.length > 3);
  assert.deepEqual(chat.getChatHistory().map(({ role }) => role), ['user', 'assistant']);
  assert.equal((await sequence.complete(PROMPT, greedy)).text, completed.text);
  context.dispose();
});

test('an async loop reads the pieces and may be left', async () => {
  const context = await model.createContext();
  const sequence = context.getSequence();
  const whole = (await sequence.complete(PROMPT, greedy)).text;
  let text = '';
  for await (const piece of sequence.stream(PROMPT, greedy)) {
    text += piece;
  }
  assert.equal(text, whole);
  for await (const piece of sequence.stream(PROMPT, { ...greedy, maxTokens: 3000, detectLoops: false })) {
    assert.ok(whole.startsWith(piece));
    break;
  }
  assert.ok(sequence.tokenCount < 1000, 'the answer ended with the loop');
  assert.equal((await sequence.complete(PROMPT, greedy)).text, whole, 'the sequence is free again');
  context.dispose();
});

test('a signal ends an answer', async () => {
  const context = await model.createContext();
  const sequence = context.getSequence();
  const endless = { temperature: 0, maxTokens: 3500, detectLoops: false };
  const abort = (count) => {
    const controller = new AbortController();
    let left = count;
    const onTextChunk = () => {
      left -= 1;
      if (left === 0) controller.abort(new Error('enough'));
    };
    return { ...endless, signal: controller.signal, onTextChunk };
  };
  await assert.rejects(sequence.complete(PROMPT, abort(3)), /enough/);
  const cut = await sequence.complete(PROMPT, { ...abort(3), stopOnAbortSignal: true });
  assert.equal(cut.reason, 'interrupt');
  assert.ok(cut.answerTokens >= 3 && cut.answerTokens < 1000);
  const chat = new ChatSession({ contextSequence: sequence });
  await assert.rejects(chat.prompt(QUESTION, { ...abort(3), thinking: false }), /enough/);
  assert.deepEqual(chat.getChatHistory(), [], 'an aborted prompt leaves the history as it was');
  await assert.rejects(sequence.complete(PROMPT, { signal: AbortSignal.abort(new Error('before')) }), /before/);
  const failing = { ...endless, onTextChunk: () => { throw new Error('in the callback'); } };
  await assert.rejects(sequence.complete(PROMPT, failing), /in the callback/);
  const busy = sequence.complete(PROMPT, { temperature: 0, maxTokens: 8 });
  await assert.rejects(sequence.complete(PROMPT, greedy), /is answering/);
  await busy;
  context.dispose();
});

test('the event loop turns while an answer is made', async () => {
  const context = await model.createContext();
  const sequence = context.getSequence();
  const delay = monitorEventLoopDelay({ resolution: 1 });
  delay.enable();
  await sequence.complete(PROMPT, { temperature: 0, maxTokens: 200, detectLoops: false });
  delay.disable();
  assert.ok(delay.count > 5, 'the loop turned');
  const median = delay.percentile(50) / 1e6;
  console.log(`median delay of the event loop: ${median.toFixed(1)} ms`);
  assert.ok(median < 20, `${median} ms`);
  context.dispose();
});

test('functions are called and their results are read', async () => {
  const asked = [];
  const scripted = {
    native: {
      start(text, conversation, sampling, onMessage) {
        asked.push(JSON.parse(conversation));
        const messages = asked.length === 1
          ? [{ kind: 'call', text: 'weather', arguments: '{"city":"Bern"}' }, { kind: 'call', text: 'none' }]
          : [{ kind: 'content', text: 'It is sunny.' }];
        setImmediate(() => [...messages, { kind: 'end', text: 'stop', counts: [1, 1, 1] }].forEach(onMessage));
        return { cancel() {} };
      },
    },
  };
  const chat = new ChatSession({ contextSequence: scripted, systemPrompt: 'Be brief.' });
  const weather = { description: 'the weather', params: { type: 'object' }, handler: ({ city }) => ({ city, sun: true }) };
  assert.equal(await chat.prompt('Weather?', { functions: { weather } }), 'It is sunny.');
  assert.equal(asked[0].tools[0].function.name, 'weather');
  const results = asked[1].messages.filter(({ role }) => role === 'tool').map(({ content }) => JSON.parse(content));
  assert.deepEqual(results, [{ city: 'Bern', sun: true }, { error: 'there is no function none' }]);
  assert.equal(chat.getChatHistory().at(-1).content, 'It is sunny.');
  const before = chat.getChatHistory();
  asked.length = 0;
  const impatient = { functions: { weather }, maxFunctionRounds: 0 };
  await assert.rejects(chat.prompt('Weather?', impatient), /still calls weather, none after 0 rounds/);
  assert.deepEqual(chat.getChatHistory(), before, 'a failed prompt leaves the history as it was');
});

test('sequences, embeddings, tokens and failures', async () => {
  const context = await model.createContext({ sequences: 2, contextSize: 32 });
  const [one, two] = [context.getSequence(), context.getSequence()];
  assert.throws(() => context.getSequence(), /no sequence left/);
  const endless = two.complete(PROMPT, { temperature: 0, maxTokens: 3500, detectLoops: false });
  two.dispose();
  assert.equal((await endless).reason, 'interrupt', 'its answer ends');
  assert.equal(context.sequencesLeft, 1);
  const stale = new ChatSession({ contextSequence: two });
  await assert.rejects(stale.prompt(QUESTION), /the sequence is disposed of/);
  assert.throws(() => two.tokenCount, /the sequence is disposed of/);
  const [a, b] = await Promise.all([one, context.getSequence()].map((s) => s.complete(PROMPT, { ...greedy, maxTokens: 8 })));
  assert.equal(a.text, b.text);
  await assert.rejects(one.complete('A vector is '.repeat(30)), /do not fit the context of 32/);
  await assert.rejects(one.complete(PROMPT, { temperature: -1 }), /temperature/);
  await assert.rejects(async () => one.complete(PROMPT, { maxTokens: -1 }), /maxTokens/);
  context.dispose();
  await assert.rejects(async () => one.complete(PROMPT), /disposed of/);
  const tokens = model.tokenize('A vector');
  assert.equal(model.detokenize(tokens), 'A vector');
  const embedding = await model.createEmbeddingContext();
  const [x, y] = await Promise.all(['a gate', 'a river'].map((text) => embedding.getEmbeddingFor(text)));
  assert.equal(x.vector.length, model.embeddingVectorSize);
  assert.equal(model.architecture, 'glm4_moe_lite');
  assert.ok(model.vocabularySize > Math.max(...tokens) && model.trainContextSize >= 4096 && model.layers === 5);
  assert.notDeepEqual(x.vector, y.vector);
  embedding.dispose();
  await assert.rejects(loadModel({ path: '/nowhere/model.gguf' }), /nowhere/);
  await assert.rejects(loadModel({ path: teacher, layout: 'best' }), /layout/);
});

test('the documented example runs', () => {
  const example = join(dirname(fileURLToPath(import.meta.url)), '../examples/answer.mjs');
  const printed = execFileSync(process.execPath, [example, teacher], { stdio: ['ignore', 'pipe', 'inherit'] }).toString();
  assert.match(printed, /What is a vector\?\n.+\n/);
  assert.match(printed, /4 messages/);
});

test('`using` disposes of models, contexts and sequences', async () => {
  const context = await model.createContext();
  const sequence = context.getSequence();
  sequence[Symbol.dispose]();
  sequence[Symbol.dispose]();
  assert.equal(context.sequencesLeft, 1, 'a sequence comes back once');
  const last = context.getSequence();
  context[Symbol.dispose]();
  last.dispose();
  assert.equal(context.sequencesLeft, 0, 'a context that is disposed of stays empty');
  assert.throws(() => context.getSequence(), /no sequence left/);
  const other = await loadModel({ path: teacher, threads: 1 });
  other[Symbol.dispose]();
  assert.throws(() => other.tokenize('A'), /disposed of/);
});
