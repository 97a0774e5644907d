/** The native library, and its types for the classes around it. */

import { createRequire } from 'node:module';

export interface NativeMessage {
  kind: 'content' | 'reasoning' | 'call' | 'end' | 'error';
  text: string;
  arguments?: string;
  counts?: [number, number, number];
}

export interface NativeSampling {
  maxTokens?: number;
  temperature?: number;
  topP?: number;
  minP?: number;
  topK?: number;
  seed?: number;
  repeatPenalty?: number;
  stop?: string[];
  detectLoops?: boolean;
}

export interface NativeAnswer {
  cancel(): void;
}

export interface NativeSequence {
  start(
    text: string | null,
    conversation: string | null,
    sampling: NativeSampling,
    onMessage: (message: NativeMessage) => void,
  ): NativeAnswer;
  embed(text: string): Promise<number[]>;
  tokenCount(): number;
  clear(): void;
  dispose(): void;
}

export interface NativeFacts {
  architecture: string;
  layers: number;
  hidden: number;
  vocabulary: number;
  trainContextSize: number;
}

export interface NativeModel {
  facts(): NativeFacts;
  tokenize(text: string, special: boolean): number[];
  detokenize(tokens: number[], special: boolean): string;
  sequence(contextSize?: number): NativeSequence;
  dispose(): void;
}

export interface NativeLoadOptions {
  path: string;
  threads?: number;
  memory?: number;
  layout?: string;
  contextSize?: number;
  allowZero?: boolean;
}

interface Native {
  loadNativeModel(options: NativeLoadOptions): Promise<NativeModel>;
}

export const native = createRequire(import.meta.url)('../craftsman.node') as Native;
