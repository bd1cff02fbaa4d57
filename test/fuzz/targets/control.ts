import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Name } from '../../../resolver/dns/name.ts';
import { ControlServer } from '../../../resolver/control/server.ts';
import { explanation, statusReport } from '../../resolver/control/reports.ts';
import type { Target } from '../target.ts';
import { octets } from '../target.ts';

/** Requests over the real socket: each gets an answer of HTTP or is hung up on, and never a 5xx. */
const requests: Target = {
  name: 'control/request',
  oneIn: 100,
  async open() {
    const directory = mkdtempSync(join(tmpdir(), 'holdfast-fuzz-'));
    const path = join(directory, 'control.sock');
    const server = new ControlServer({
      path,
      backend: {
        status: () => statusReport,
        explain: async name => {
          Name.parseText(name);
          return explanation;
        },
        forget: () => ({ peers: 0, failures: 0, answers: 0 }),
        allowPortal: () => statusReport.network,
      },
    });
    await server.start();
    return {
      corpus: [
        'GET /status HTTP/1.1\r\nhost: control\r\n\r\n',
        'GET /explain?name=www.example.org&type=AAAA HTTP/1.1\r\nhost: control\r\n\r\n',
        'POST /portal HTTP/1.1\r\nhost: control\r\ncontent-length: 44\r\n\r\n{"name": "login.hotel.example","millis":1000}',
        'POST /forget HTTP/1.1\r\nhost: control\r\ncontent-length: 27\r\n\r\n{"name": "www.example.org"}',
        'POST /forget HTTP/1.1\r\nhost: control\r\ntransfer-encoding: chunked\r\n\r\nd\r\n{"all": true}\r\n0\r\n\r\n',
      ].map(octets),
      words: [
        '\r\n',
        '%00',
        '%',
        '//',
        '?',
        '\\',
        'http://',
        '*',
        '{',
        '"name":',
        'content-length: 9\r\n',
        '\0',
      ].map(octets),
      async check(bytes) {
        const answer = await sendRaw(path, bytes);
        assert.match(answer, /^$|^HTTP\/1\.1 [1-4]\d\d /);
      },
      async close() {
        await server.close();
        rmSync(directory, { recursive: true });
      },
    };
  },
};

function sendRaw(path: string, bytes: Uint8Array): Promise<string> {
  return new Promise(resolve => {
    let answer = '';
    const socket = connect(path, () => socket.end(bytes));
    socket.on('data', chunk => {
      answer += chunk.toString('latin1');
    });
    socket.on('error', () => {});
    socket.on('close', () => resolve(answer));
  });
}

export const controlTargets: readonly Target[] = [requests];
