// The sockets that ask others: connected UDP, TCP that Node connects, and both past policies that block everything else.
import assert from 'node:assert/strict';
import dgram from 'node:dgram';
import { once } from 'node:events';
import net, { type AddressInfo } from 'node:net';
import test from 'node:test';
import { openConnectedUdp, openTcpDescriptor } from '../../kernel/client-sockets.ts';
import { native } from '../../kernel/native/binding.ts';
import type { SocketEndpoint } from '../../kernel/sockets.ts';
import { KernelError, Xfrm } from '../../kernel/xfrm.ts';
import { inOwnNamespace, ip } from './namespace.ts';

const at = (last: number, port: number): SocketEndpoint => ({
  address: { family: 4, bytes: Uint8Array.of(10, 9, 0, last) },
  port,
});
const loopback = (port: number): SocketEndpoint => ({
  address: { family: 4, bytes: Uint8Array.of(127, 0, 0, 1) },
  port,
});

const neverCalled = {
  message: () => assert.fail('a message'),
  error: (code: string) => assert.fail(code),
};

async function echoServer() {
  const server = dgram.createSocket('udp4');
  server.on('message', (message, from) => server.send(message, from.port, from.address));
  server.bind(0, '127.0.0.1');
  await once(server, 'listening');
  return { server, port: server.address().port };
}

if (inOwnNamespace(import.meta.url)) {
  test('what the peer sends is handed out, what others send is not, and the port is the kernel’s', async () => {
    const { server, port } = await echoServer();
    const got: string[] = [];
    const three = Promise.withResolvers<void>();
    const socket = openConnectedUdp(
      { remote: loopback(port), bypassPolicy: false },
      {
        message: octets => {
          if (got.push(Buffer.from(octets).toString()) === 3) three.resolve();
        },
        error: code => assert.fail(code),
      },
    );
    assert.equal(socket.local, '7f000001');
    const stranger = dgram.createSocket('udp4');
    const own = Promise.withResolvers<number>();
    server.once('message', (_, from) => own.resolve(from.port));
    for (const text of ['one', 'two']) assert.equal(socket.send(Buffer.from(text)), undefined);
    const ownPort = await own.promise;
    await new Promise<void>(resolve => stranger.send('forged', ownPort, '127.0.0.1', () => resolve()));
    socket.send(Buffer.from('three'));
    await three.promise;
    assert.deepEqual(got, ['one', 'two', 'three']);
    socket.close();
    socket.close();
    assert.equal(socket.send(Buffer.from('late')), 'EBADF');
    stranger.close();
    server.close();
  });

  test('a closed port is told of', async () => {
    const { server, port } = await echoServer();
    await new Promise<void>(resolve => server.close(() => resolve()));
    const told = Promise.withResolvers<string>();
    const socket = openConnectedUdp(
      { remote: loopback(port), bypassPolicy: false },
      { message: () => {}, error: told.resolve },
    );
    socket.send(Buffer.from('anyone?'));
    assert.equal(await told.promise, 'ECONNREFUSED');
    socket.close();
  });

  test('a datagram longer than any we ask for comes cut, and does no harm', async () => {
    const { server, port } = await echoServer();
    const got = Promise.withResolvers<number>();
    const socket = openConnectedUdp(
      { remote: loopback(port), bypassPolicy: false },
      { ...neverCalled, message: octets => got.resolve(octets.length) },
    );
    socket.send(Buffer.alloc(20_000));
    assert.equal(await got.promise, 4096);
    socket.close();
    server.close();
  });

  test('Node connects the TCP socket, and it is Node’s to close', async () => {
    const server = net.createServer(socket => socket.pipe(socket)).listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address() as AddressInfo;
    const fd = openTcpDescriptor({ remote: loopback(port), bypassPolicy: false });
    assert.ok(native().close(fd) < 0, 'no longer the addon’s');
    const options = { fd, readable: true, writable: true, manualStart: true };
    const socket = new net.Socket(options).connect({ host: '127.0.0.1', port });
    socket.write('question');
    const [echo] = await once(socket, 'data');
    assert.equal(String(echo), 'question');
    socket.destroy();
    server.close();
  });

  test('past policies that block all else: only the sockets that may leave', async () => {
    ip('link', 'add', 'one', 'type', 'veth', 'peer', 'name', 'other');
    ip('addr', 'add', '10.9.0.1/24', 'dev', 'one');
    ip('link', 'set', 'one', 'up');
    ip('link', 'set', 'other', 'up');
    const xfrm = Xfrm.open();
    const any = new Uint8Array(4);
    const selector = {
      family: 4 as const,
      source: any,
      sourcePrefix: 0,
      destination: at(0, 0).address.bytes,
      destinationPrefix: 24,
    };
    xfrm.installPolicy({ selector, direction: 'out', action: 'block', priority: 1000, index: 0x48000009 });
    assert.throws(
      () => openConnectedUdp({ remote: at(2, 53), bypassPolicy: false }, neverCalled),
      (error: KernelError) => error instanceof KernelError && error.code === 'EPERM',
    );
    const free = openConnectedUdp(
      { remote: at(2, 53), bypassPolicy: true },
      { ...neverCalled, error: () => {} },
    );
    assert.equal(free.local, '0a090001');
    assert.equal(free.send(Buffer.from('question')), undefined);
    free.close();
    const connect = (bypassPolicy: boolean) => {
      const options = { fd: openTcpDescriptor({ remote: at(2, 53), bypassPolicy }), manualStart: true };
      const socket = new net.Socket({ ...options, readable: true, writable: true });
      const refused = once(socket, 'error').then(([error]) => error.code as string);
      socket.connect({ host: '10.9.0.2', port: 53 });
      return { socket, refused };
    };
    assert.equal(await connect(false).refused, 'EPERM');
    const { socket } = connect(true);
    assert.equal(socket.connecting, true, 'its SYN is on the way to nobody');
    socket.on('error', () => {}).destroy();
    xfrm.close();
  });
}
