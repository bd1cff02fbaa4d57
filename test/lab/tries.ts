// Inside the lab: connections of an app, made by guest/connect.c with the C library's own resolver.
import { spawn } from 'node:child_process';

/** One connection, as guest/connect.c reports it. */
export type Try = {
  name: string;
  protocol: 'tcp' | 'udp';
  family: '4' | '6' | 'any';
  address: string;
  resolveMs: number;
  connectMs: number;
  totalMs: number;
  stage: '' | 'getaddrinfo' | 'socket' | 'connect' | 'send' | 'receive';
  error: string;
  retransmits: number;
};

export type Wish = Pick<Try, 'name' | 'protocol' | 'family'>;

/** Every name by every protocol and address family. */
export function everyWay(names: string[]): Wish[] {
  return names.flatMap(name =>
    (['tcp', 'udp'] as const).flatMap(protocol =>
      (['4', '6'] as const).map(family => ({ name, protocol, family })),
    ),
  );
}

/** Makes the connections from a host, `jobs` at a time; a UDP try sends one datagram and waits for its echo. */
export function connectAll(
  host: string,
  wishes: Wish[],
  port: number,
  jobs = 1,
  patienceMillis = 6000,
): Promise<Try[]> {
  const app = spawn('on', [host, 'connect', 'try', String(port), String(patienceMillis), String(jobs)], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  let output = '';
  app.stdout.setEncoding('utf8').on('data', chunk => {
    output += chunk;
  });
  app.stdin.end(wishes.map(({ protocol, family, name }) => `${protocol} ${family} ${name}\n`).join(''));
  return new Promise((resolve, reject) => {
    app.on('error', reject);
    app.on('close', status => {
      const tries = output.split('\n').filter(Boolean);
      if (status !== 0 || tries.length !== wishes.length) {
        reject(
          new Error(`the app ended with status ${status} after ${tries.length} of ${wishes.length} tries`),
        );
      } else resolve(tries.map(line => JSON.parse(line)));
    });
  });
}

/** The figures by which Holdfast is judged. */
export type TryCount = { tries: number; eagain: number; lostSyn: number; failed: number };

/** eagain: connect() or send() said EAGAIN. lostSyn: TCP had to send something twice. failed: no byte came back. */
export function countTries(tries: Try[]): TryCount {
  const count = (which: (one: Try) => boolean) => tries.filter(which).length;
  return {
    tries: tries.length,
    eagain: count(({ stage, error }) => error === 'EAGAIN' && (stage === 'connect' || stage === 'send')),
    lostSyn: count(({ retransmits }) => retransmits > 0),
    failed: count(({ error }) => error !== ''),
  };
}
