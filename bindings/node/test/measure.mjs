// Measures the package as a part of a process, and prints one PASS or MISS line per figure.

import assert from 'node:assert/strict';
import { join } from 'node:path';
import { monitorEventLoopDelay, performance } from 'node:perf_hooks';
import { pathToFileURL } from 'node:url';

const { loadModel } = await import(pathToFileURL(process.env.CRAFTSMAN_PACKAGE));
const model = await loadModel({ path: join(process.env.CRAFTSMAN_ROOT, 'fixtures/craftsman-mini'), threads: 1 });
const context = await model.createContext();
const sequence = context.getSequence();
const endless = { temperature: 0, maxTokens: 3500, detectLoops: false };

// The line is read up to the first colon with a space behind it, so a name holds none.
function figure(passed, name, value) {
  assert.ok(!name.includes(': '), name);
  console.log(`${passed ? 'PASS' : 'MISS'} ${name}: ${value}`);
}

// The event loop while tokens are made.
const delay = monitorEventLoopDelay({ resolution: 1 });
delay.enable();
await sequence.complete('A vector is', { ...endless, maxTokens: 400 });
delay.disable();
const median = delay.percentile(50) / 1e6;
const worst = delay.max / 1e6;
figure(median < 20, 'median delay of the event loop of Node while an answer is made, below 20 ms',
  `${median.toFixed(2)} ms, worst ${worst.toFixed(1)} ms, ${delay.count} turns`);

// From an abort while a long prompt is read to the end of the answer.
const prompt = 'A vector is an array that grows at its end. '.repeat(160);
const started = performance.now();
const whole = await sequence.complete(prompt, { temperature: 0, maxTokens: 1 });
const layer = (performance.now() - started) / Math.ceil(whole.promptTokens / 256) / model.layers;
const waits = [];
for (const wait of [20, 40, 60, 80, 100]) {
  sequence.clearHistory();
  const controller = new AbortController();
  let at = 0;
  setTimeout(() => { at = performance.now(); controller.abort(); }, wait);
  await sequence.complete(prompt, { ...endless, signal: controller.signal }).catch(() => {});
  waits.push(performance.now() - at);
}
waits.sort((a, b) => a - b);
figure(waits[2] <= 2 * layer + 10, 'from an abort to the end of the answer in Node, at most two layers and 10 ms',
  `median ${waits[2].toFixed(1)} ms, worst ${waits[4].toFixed(1)} ms, a layer of 256 tokens takes ${layer.toFixed(1)} ms`);
context.dispose();
model.dispose();
