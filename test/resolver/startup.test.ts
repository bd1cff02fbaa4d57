import assert from 'node:assert/strict';
import { createSocket } from 'node:dgram';
import { createServer } from 'node:net';
import test from 'node:test';
import { loadConfiguration } from '../../resolver/config.ts';
import {
  cannotListen,
  checkBeforeStart,
  hasCapability,
  noEsp,
  whoHolds,
} from '../../resolver/startup-checks.ts';
import { StartupError } from '../../resolver/startup-error.ts';
import { machineWith } from './config/machine.ts';

const listening = <S extends { once(event: 'error', listener: (error: Error) => void): unknown }>(
  socket: S,
  open: (socket: S, done: () => void) => void,
) =>
  new Promise<S>((resolve, reject) => {
    socket.once('error', reject);
    open(socket, () => resolve(socket));
  });

test('who has the port: found by /proc, named in the sentence', async t => {
  const udp = await listening(createSocket('udp4'), (socket, done) => socket.bind(0, '127.0.0.1', done));
  const tcp = await listening(createServer(), (socket, done) => socket.listen(0, '::1', done));
  t.after(() => {
    udp.close();
    tcp.close();
  });
  const { port } = udp.address();
  const holder = whoHolds(port, 'udp');
  assert.equal(holder?.pid, process.pid);
  assert.equal(whoHolds((tcp.address() as { port: number }).port, 'tcp')?.pid, process.pid);
  const error = await listening(createSocket('udp4'), (socket, done) =>
    socket.bind(port, '127.0.0.1', done),
  ).catch(e => e);
  const told = cannotListen({ address: '127.0.0.1', port }, 'udp', error);
  assert.equal(
    told.message,
    `cannot listen on 127.0.0.1:${port} (udp): ${holder?.command} (process ${process.pid}) has the port; stop ${holder?.command}, or choose another address with --listen`,
  );
});

test('every reason says what to do', () => {
  const at = { address: '::1', port: 53 };
  const coded = (code: string) => Object.assign(new Error(code), { code });
  assert.match(cannotListen(at, 'tcp', coded('EACCES')).message, /CAP_NET_BIND_SERVICE; start with sudo/);
  assert.match(cannotListen(at, 'tcp', coded('EADDRNOTAVAIL')).message, /no such address; correct --listen/);
  assert.match(cannotListen(at, 'tcp', coded('EIO')).message, /^cannot listen on \[::1\]:53 \(tcp\): EIO/);
  assert.match(noEsp('EPROTONOSUPPORT').message, /--dataplane none/);
});

test('nobody to ask: refused before anything is touched', () => {
  checkBeforeStart(
    loadConfiguration({ environment: {}, flags: { dataplane: 'none' }, machine: machineWith({}) }),
  ); // the network may come later
  const nobody = loadConfiguration({ environment: {}, flags: { upstream: [] }, machine: machineWith({}) });
  assert.throws(
    () => checkBeforeStart(nobody),
    (error: StartupError) => {
      assert.ok(error instanceof StartupError);
      assert.match(error.message, /^there is nobody to ask: .*; name a resolver with --upstream/);
      return true;
    },
  );
});

test('without CAP_NET_ADMIN only dataplane none may start', () => {
  const flags = { upstream: '192.0.2.53' };
  const load = (dataplane: string) =>
    loadConfiguration({ environment: {}, flags: { ...flags, dataplane }, machine: machineWith({}) });
  checkBeforeStart(load('none'));
  if (hasCapability('CAP_NET_ADMIN')) checkBeforeStart(load('auto'));
  else assert.throws(() => checkBeforeStart(load('auto')), /CAP_NET_ADMIN; start with sudo/);
});
