/** Real answers: nsd's, over zones signed by BIND's dnssec-signzone (record.ts made the file). */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

export type Recorded = {
  anchors: string;
  /** When all signatures were valid. */
  unixSeconds: number;
  exchanges: { name: string; type: number; answer: string }[];
};

export const file = 'answers.json';

export function recordedAnswers(): Omit<Recorded, 'exchanges'> & {
  exchanges: { name: string; type: number; answer: Uint8Array }[];
} {
  const recorded = JSON.parse(readFileSync(join(import.meta.dirname, file), 'utf8')) as Recorded;
  return {
    ...recorded,
    exchanges: recorded.exchanges.map(({ name, type, answer }) => ({
      name,
      type,
      answer: new Uint8Array(Buffer.from(answer, 'base64')),
    })),
  };
}
