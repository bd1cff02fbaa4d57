// SAs in a real kernel with ESP: traffic in every cipher and mode, switching, what passes and what does not, and events.
// Two namespaces with a wire between them: this process, and esp-peer.ts.
import assert from 'node:assert/strict';
import { createCipheriv, createSecretKey, randomBytes } from 'node:crypto';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import test, { after, afterEach, before } from 'node:test';
import { type Child, XfrmDataPlane } from '../../kernel/dataplane.ts';
import { type KernelEvent, openEvents } from '../../kernel/events.ts';
import { probeKernel } from '../../kernel/probe.ts';
import { openUdp, type SocketEndpoint, type UdpSocket } from '../../kernel/sockets.ts';
import { type Mode, type Sa, type SaCipher, Xfrm } from '../../kernel/xfrm.ts';
import { ECHO_PORT, EspPeer } from './esp-peer.ts';
import { inOwnNamespace, ip } from './namespace.ts';

const near = { 4: Uint8Array.of(10, 9, 1, 1), 6: v6(1) } as const;
const far = { 4: Uint8Array.of(10, 9, 1, 2), 6: v6(2) } as const;

function v6(last: number): Uint8Array {
  return Uint8Array.of(0xfd, 9, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last);
}

function endpoint(family: 4 | 6, port: number): SocketEndpoint {
  return { address: { family, bytes: far[family] }, port };
}

const aead = (name: 'aes-gcm-16' | 'chacha20-poly1305', octets: number): SaCipher => ({
  kind: 'aead',
  name,
  key: randomBytes(octets),
  icvBits: 128,
});
const cbc = (bits: 256 | 384 | 512, key: number): SaCipher => ({
  kind: 'cbc-hmac',
  cipher: 'aes-cbc',
  cipherKey: randomBytes(key),
  integrity: `hmac-sha2-${bits}`,
  integrityKey: randomBytes(bits / 8),
  icvBits: (bits / 2) as 128 | 192 | 256,
});

let nextId = 1;

/** The two ends' views of one new Child SA. */
function childPair(
  family: 4 | 6,
  mode: Mode,
  cipher: () => SaCipher,
  more: Partial<Child> = {},
): [Child, Child] {
  const id = nextId++;
  const toFar = { spi: 0x1000 + id, cipher: cipher() };
  const toNear = { spi: 0x9000 + id, cipher: cipher() };
  const common = { id, mode, esn: true, ...more };
  return [
    { ...common, pair: { local: near[family], remote: far[family] }, inboundSa: toNear, outboundSa: toFar },
    { ...common, pair: { local: far[family], remote: near[family] }, inboundSa: toFar, outboundSa: toNear },
  ];
}

const gcm = () => aead('aes-gcm-16', 20);

function whyNot(): string | undefined {
  const probe = probeKernel();
  return probe.esp4 ? undefined : probe.why[0];
}

if (inOwnNamespace(import.meta.url, whyNot)) {
  const xfrm = Xfrm.open();
  const plane = new XfrmDataPlane(xfrm);
  let peer: EspPeer;

  before(async () => {
    peer = await EspPeer.start();
    ip('link', 'add', 'near', 'type', 'veth', 'peer', 'name', 'far', 'netns', String(peer.pid));
    const here = [
      ['address', 'add', '10.9.1.1/24', 'dev', 'near'],
      ['address', 'add', 'fd09:1::1/64', 'dev', 'near', 'nodad'],
      ['link', 'set', 'near', 'up'],
    ];
    const there = [
      ['address', 'add', '10.9.1.2/24', 'dev', 'far'],
      ['address', 'add', 'fd09:1::2/64', 'dev', 'far', 'nodad'],
      ['link', 'set', 'far', 'up'],
    ];
    for (const words of here) ip(...words);
    for (const words of there) await peer.order({ verb: 'run', words });
    plane.installExemptions();
  });

  after(async () => {
    plane.removeEverything();
    xfrm.close();
    await peer.stop();
  });

  afterEach(() => {
    const { pairs } = plane.status();
    const sas = xfrm.dumpSas().filter(({ larval }) => !larval);
    // Whatever a failed test left must not make the next one fail.
    plane.removeEverything();
    for (const sa of sas) if (pairs.length === 0) xfrm.removeSa(sa);
    plane.installExemptions();
    assert.deepEqual([pairs, sas], [[], []]);
  });

  /** One datagram there and back; undefined when nothing came back in time. */
  async function echo(
    to: SocketEndpoint,
    data = 'hello',
    patienceMillis = 5000,
  ): Promise<string | undefined> {
    const answer = Promise.withResolvers<string | undefined>();
    const read = (socket: UdpSocket) => {
      for (const { data } of socket.receiveBatch()) answer.resolve(Buffer.from(data).toString());
    };
    const socket = openUdp({ family: to.address.family, onReadable: read });
    const timer = setTimeout(answer.resolve, patienceMillis, undefined);
    const refused = socket.send(Buffer.from(data), to);
    if (refused) answer.resolve(refused);
    const said = await answer.promise;
    clearTimeout(timer);
    socket.close();
    return said;
  }

  /** The first event that fits, while `act` makes it happen. */
  async function eventOf(
    fits: (event: KernelEvent) => boolean,
    act: () => void | Promise<void>,
  ): Promise<KernelEvent> {
    const found = Promise.withResolvers<KernelEvent>();
    const events = openEvents(event => fits(event) && found.resolve(event));
    await act();
    const event = await found.promise;
    events.close();
    return event;
  }

  test('the probe finds all there is, and leaves nothing', () => {
    const probe = probeKernel();
    assert.deepEqual([probe.netAdmin, probe.xfrm, probe.esp4, probe.why.join()], [true, true, true, '']);
    assert.deepEqual(xfrm.dumpSas(), []);
  });

  const ciphers: [string, () => SaCipher][] = [
    ['AES-128-GCM', gcm],
    ['AES-256-GCM', () => aead('aes-gcm-16', 36)],
    ['ChaCha20-Poly1305', () => aead('chacha20-poly1305', 36)],
    ['AES-128-CBC, HMAC-SHA2-256', () => cbc(256, 16)],
    ['AES-256-CBC, HMAC-SHA2-384', () => cbc(384, 32)],
    ['AES-256-CBC, HMAC-SHA2-512', () => cbc(512, 32)],
  ];
  const cases: [string, 4 | 6, Mode, () => SaCipher, Partial<Child>][] = [
    ...ciphers.map(([name, cipher]): (typeof cases)[number] => [name, 4, 'transport', cipher, {}]),
    ['without ESN', 4, 'transport', gcm, { esn: false }],
    ['tunnel IPv4', 4, 'tunnel', gcm, {}],
    ['transport IPv6', 6, 'transport', gcm, {}],
    ['tunnel IPv6', 6, 'tunnel', gcm, {}],
    ['ESP in UDP, transport', 4, 'transport', gcm, { encapsulation: { localPort: 4500, remotePort: 4500 } }],
    ['ESP in UDP, tunnel', 4, 'tunnel', gcm, { encapsulation: { localPort: 4500, remotePort: 4500 } }],
  ];
  for (const [name, family, mode, cipher, more] of cases) {
    test(`a datagram goes there and back by ESP: ${name}`, async () => {
      const [here, there] = childPair(family, mode, cipher, more);
      const encap = more.encapsulation && openUdp({ family: 4, port: 4500, udpEncap: true });
      await peer.order({ verb: 'install', child: there });
      plane.installPair(here);
      assert.equal(await echo(endpoint(family, ECHO_PORT)), 'hello');
      const usage = plane.usage(here.id)!;
      assert.deepEqual([usage.inPackets, usage.outPackets], [1, 1]);
      assert.ok(usage.inBytes > 0 && usage.outBytes > 0);
      assert.ok(usage.lastUsedSeconds! > 1_600_000_000);
      const [sa] = xfrm.dumpSas();
      assert.deepEqual([sa!.mode, sa!.replayWindow, sa!.esn], [mode, 128, here.esn]);
      assert.deepEqual(plane.resync(), { missing: [], exemptionsRestored: 0, strays: 0 });
      plane.removePair(here.id);
      await peer.order({ verb: 'remove', id: here.id });
      encap?.close();
    });
  }

  /** The far end as a gateway of 10.9.2.2 and fd09:2::2, which it has itself; by ESP between the outer addresses. */
  const protectedBy: [string, inner: 4 | 6, outer: 4 | 6, Partial<Child>][] = [
    ['IPv4 in IPv4', 4, 4, {}],
    ['IPv6 in IPv6', 6, 6, {}],
    ['IPv6 in IPv4', 6, 4, {}],
    ['IPv4 in IPv6', 4, 6, {}],
    ['IPv4 in UDP', 4, 4, { encapsulation: { localPort: 4500, remotePort: 4500 } }],
  ];
  for (const [name, inner, outer, more] of protectedBy) {
    test(`a host behind a gateway: ${name}, and nothing of it comes in without ESP`, async () => {
      const behind = {
        4: Uint8Array.of(10, 9, 2, 2),
        6: Uint8Array.of(0xfd, 9, 0, 2, ...new Uint8Array(11), 2),
      };
      const there = ['address', 'add', inner === 4 ? '10.9.2.2/32' : 'fd09:2::2/128', 'dev', 'lo'];
      await peer.order({ verb: 'run', words: there });
      const via = inner === 4 ? ['10.9.2.0/24', 'via', '10.9.1.2'] : ['fd09:2::/64', 'via', 'fd09:1::2'];
      ip('route', 'add', ...via);
      const [hereSas, thereSas] = childPair(outer, 'tunnel', gcm, more);
      const pair = { local: near[inner], remote: behind[inner] };
      const encap = more.encapsulation && openUdp({ family: 4, port: 4500, udpEncap: true });
      const opposite = { local: pair.remote, remote: pair.local };
      await peer.order({ verb: 'install', child: { ...thereSas, pair: opposite, outer: thereSas.pair } });
      plane.installPair({ ...hereSas, pair, outer: hereSas.pair });

      assert.equal(
        await echo({ address: { family: inner, bytes: behind[inner] }, port: ECHO_PORT }),
        'hello',
      );
      const usage = plane.usage(hereSas.id)!;
      assert.deepEqual([usage.inPackets, usage.outPackets], [1, 1]);
      assert.equal(await echo(endpoint(inner, ECHO_PORT)), 'hello', 'the gateway itself is reached in clear');
      assert.deepEqual(plane.usage(hereSas.id)!.outPackets, 1);

      const got: string[] = [];
      const woken = Promise.withResolvers<void>();
      const socket = openUdp({
        family: inner,
        port: 5000,
        onReadable: readable => {
          for (const { data } of readable.receiveBatch()) got.push(Buffer.from(data).toString());
          woken.resolve();
        },
      });
      const send = (source: Uint8Array, text: string) => {
        const to = { bytes: near[inner], port: 5000 };
        const data = Buffer.from(text);
        return peer.order({ verb: 'send', family: inner, from: 6000, source, to, data });
      };
      await send(behind[inner], 'in clear from the host');
      await send(far[inner], 'in clear from the gateway');
      await woken.promise;
      assert.deepEqual(got, ['in clear from the gateway']);

      socket.close();
      encap?.close();
      plane.removePair(hereSas.id);
      await peer.order({ verb: 'remove', id: hereSas.id });
      ip('route', 'del', ...via);
      await peer.order({ verb: 'run', words: there.with(1, 'del') });
    });
  }

  test('what goes out follows the child that carries, what comes in may use any', async () => {
    const [here1, there1] = childPair(4, 'transport', gcm);
    const [here2, there2] = childPair(4, 'transport', gcm);
    for (const child of [there1, there2]) await peer.order({ verb: 'install', child });
    plane.installPair(here1);
    plane.installPair(here2);
    assert.equal(await echo(endpoint(4, ECHO_PORT)), 'hello');
    assert.deepEqual([plane.usage(here1.id)!.outPackets, plane.usage(here2.id)!.outPackets], [1, 0]);
    plane.carry(here2.id);
    assert.equal(await echo(endpoint(4, ECHO_PORT)), 'hello');
    assert.deepEqual([plane.usage(here1.id)!.outPackets, plane.usage(here2.id)!.outPackets], [1, 1]);
    assert.deepEqual([plane.usage(here1.id)!.inPackets, plane.usage(here2.id)!.inPackets], [2, 0]);
    plane.removePair(here1.id);
    await peer.order({ verb: 'remove', id: here1.id });
    assert.equal(await echo(endpoint(4, ECHO_PORT)), 'hello', 'the other child serves on');
    plane.removePair(here2.id);
    await peer.order({ verb: 'remove', id: here2.id });
  });

  test('a connected socket of an app goes on while the pair is installed, switched and removed under it', async () => {
    const app = createSocket('udp4');
    app.connect(ECHO_PORT, '10.9.1.2');
    await once(app, 'connect');
    const talk = async (text: string) => {
      app.send(text);
      const [answer] = await once(app, 'message');
      assert.equal(String(answer), text);
    };
    await talk('in clear');
    const [here1, there1] = childPair(4, 'transport', gcm);
    const [here2, there2] = childPair(4, 'tunnel', gcm);
    await peer.order({ verb: 'install', child: there1 });
    plane.installPair(here1);
    await talk('transport');
    assert.equal(plane.usage(here1.id)!.outPackets, 1);
    await peer.order({ verb: 'install', child: there2 });
    await peer.order({ verb: 'carry', id: there2.id });
    plane.installPair(here2);
    plane.carry(here2.id);
    await talk('tunnel');
    assert.equal(plane.usage(here2.id)!.outPackets, 1);
    for (const id of [here1.id, here2.id]) {
      plane.removePair(id);
      await peer.order({ verb: 'remove', id });
    }
    await talk('in clear again');
    app.close();
  });

  test('under a block what is sealed goes, and what is not gives EPERM: from another address, or when the seal is gone', async () => {
    const remote = Uint8Array.of(10, 9, 1, 2);
    const [here, there] = childPair(4, 'transport', gcm);
    await peer.order({ verb: 'install', child: there });
    plane.installPair(here);
    plane.blocks.block(remote);
    assert.equal(await echo(endpoint(4, ECHO_PORT)), 'hello');
    const refusal = (address?: Uint8Array) => {
      const socket = openUdp({ family: 4, ...(address && { address }) });
      const code = socket.send(Buffer.from('x'), endpoint(4, ECHO_PORT));
      socket.close();
      return code;
    };
    assert.equal(refusal(), undefined);
    const other = Uint8Array.of(10, 9, 1, 77);
    ip('address', 'add', '10.9.1.77/32', 'dev', 'lo');
    assert.equal(refusal(other), 'EPERM');
    ip('address', 'del', '10.9.1.77/32', 'dev', 'lo');
    plane.removePair(here.id);
    assert.equal(refusal(), 'EPERM');
    plane.blocks.unblock(remote);
    assert.equal(refusal(), undefined);
    await peer.order({ verb: 'remove', id: here.id });
  });

  test('beside a sealed pair IKE passes in clear; other clear packets do not, whatever port they come from', async () => {
    const [here] = childPair(4, 'transport', gcm);
    const got: string[] = [];
    const open = (port: number) =>
      openUdp({
        family: 4,
        port,
        onReadable: socket => {
          for (const { data } of socket.receiveBatch()) got.push(Buffer.from(data).toString());
          woken.resolve();
        },
      });
    const woken = Promise.withResolvers<void>();
    const sockets = [open(500), open(5000)];
    plane.installPair(here);
    const send = (from: number, port: number, text: string) =>
      peer.order({ verb: 'send', family: 4, from, to: { bytes: near[4], port }, data: Buffer.from(text) });
    await send(6000, 5000, 'clear');
    await send(501, 5000, 'clear from a port near IKE');
    await send(4501, 5000, 'clear');
    await send(6000, 500, 'IKE');
    await woken.promise;
    assert.deepEqual(got, ['IKE']);
    for (const socket of sockets) socket.close();
    plane.removePair(here.id);
  });

  test('IPv6 neighbours are found again under a sealed pair without an answer', async () => {
    const [here] = childPair(6, 'transport', gcm);
    plane.installPair(here);
    ip('-6', 'neigh', 'flush', 'dev', 'near');
    await peer.order({ verb: 'run', words: ['-6', 'neigh', 'flush', 'dev', 'far'] });
    const bypass = openUdp({
      family: 6,
      bypassPolicy: true,
      onReadable: socket => got.resolve(socket.receiveBatch().length),
    });
    const got = Promise.withResolvers<number>();
    bypass.send(Buffer.from('found'), endpoint(6, ECHO_PORT));
    assert.equal(await got.promise, 1);
    bypass.close();
    plane.removePair(here.id);
  });

  test('an SPI that is taken: the half-installed child is taken back', () => {
    const [here] = childPair(4, 'transport', gcm);
    const [other] = childPair(4, 'transport', gcm);
    plane.installPair(here);
    const clash = { ...other, outboundSa: { ...other.outboundSa, spi: here.outboundSa.spi } };
    assert.throws(() => plane.installPair(clash), { name: 'KernelError', verb: 'NEWSA', code: 'EEXIST' });
    assert.equal(xfrm.dumpSas().length, 2);
    plane.installPair(other);
    plane.removePair(here.id);
    plane.removePair(other.id);
  });

  test('an earlier run’s SAs and policies are removed, foreign ones stay', () => {
    const [here] = childPair(4, 'transport', gcm);
    const [foreign] = childPair(4, 'transport', gcm);
    const earlier = new XfrmDataPlane(xfrm);
    earlier.installPair(here);
    const id = { spi: foreign.inboundSa.spi, destination: near[4] };
    const { cipher } = foreign.inboundSa;
    xfrm.installSa({
      ...id,
      source: far[4],
      reqid: 7,
      mode: 'transport',
      cipher,
      esn: false,
      replayWindow: 32,
    });
    assert.deepEqual(plane.resync().strays, 4);
    const { policies, sas, described } = plane.adoptLeftovers();
    assert.deepEqual([policies, sas, described.length], [2, 2, 4]);
    assert.deepEqual(
      xfrm.dumpSas().map(({ reqid, replayWindow, algorithm }) => [reqid, replayWindow, algorithm]),
      [[7, 32, 'rfc4106(gcm(aes))']],
    );
    xfrm.removeSa(id);
  });

  test('EXPIRE tells of a soft limit and of the end', async () => {
    const [here] = childPair(4, 'transport', gcm);
    const sa: Sa = {
      spi: 0x7777,
      source: near[4],
      destination: far[4],
      reqid: 0x4846fff0,
      mode: 'transport',
      cipher: here.outboundSa.cipher,
      esn: false,
      replayWindow: 0,
    };
    for (const hard of [false, true]) {
      const lifetime = hard ? { hardSeconds: 1 } : { softSeconds: 1, hardSeconds: 1000 };
      const fits = (event: KernelEvent) => event.kind === 'expire' && event.spi === sa.spi;
      const event = await eventOf(fits, () => xfrm.installSa({ ...sa, lifetime }));
      const { spi, source, destination, reqid } = sa;
      assert.deepEqual(event, { kind: 'expire', spi, source, destination, reqid, protocol: 50, hard });
      if (!hard) xfrm.removeSa(sa);
    }
    assert.throws(() => xfrm.getSa(sa), { code: 'ESRCH' });
  });

  test('ACQUIRE comes once for each place holder, and again when it was removed', async () => {
    const template = { source: near[4], destination: far[4], reqid: 0x48460001, mode: 'transport' as const };
    const selector = {
      family: 4 as const,
      source: near[4],
      sourcePrefix: 32,
      destination: far[4],
      destinationPrefix: 32,
    };
    const index = 0x48fffff1;
    xfrm.installPolicy({ selector, direction: 'out', action: 'allow', priority: 2000, index, template });
    const socket = openUdp({ family: 4 });
    for (let i = 0; i < 3; i++) {
      const acquire = await eventOf(
        event => event.kind === 'acquire',
        () => {
          socket.send(Uint8Array.of(i), endpoint(4, 9));
        },
      );
      assert.ok(acquire.kind === 'acquire');
      assert.deepEqual([acquire.policyIndex, acquire.reqid, acquire.mode], [index, 0x48460001, 'transport']);
      const { source, destination, reqid, sequence } = acquire;
      assert.equal(xfrm.dumpSas().length, 1);
      xfrm.removeLarval({ source, destination, reqid, mode: 'transport', sequence });
      assert.equal(xfrm.dumpSas().length, 0);
    }
    socket.close();
    xfrm.removePolicy({ direction: 'out', index });
  });

  test('MAPPING tells the new address and port of a peer behind a NAT', async () => {
    const source = Uint8Array.of(127, 0, 0, 2);
    const destination = Uint8Array.of(127, 0, 0, 1);
    const key = randomBytes(20);
    const cipher: SaCipher = { kind: 'aead', name: 'aes-gcm-16', key, icvBits: 128 };
    const encapsulation = { sourcePort: 4500, destinationPort: 4500 };
    const sa = { spi: 0x8888, source, destination, reqid: 0x48460009, mode: 'transport' as const };
    xfrm.installSa({ ...sa, cipher, esn: false, replayWindow: 32, encapsulation });
    const receiver = openUdp({ family: 4, port: 4500, udpEncap: true });
    const sender = openUdp({ family: 4, address: source });
    const event = await eventOf(
      event => event.kind === 'mapping',
      () => {
        sender.send(espOf(sa.spi, key), { address: { family: 4, bytes: destination }, port: 4500 });
      },
    );
    assert.deepEqual(event, {
      kind: 'mapping',
      spi: sa.spi,
      destination,
      reqid: sa.reqid,
      oldSource: source,
      newSource: source,
      oldPort: 4500,
      newPort: sender.port,
    });
    const remapped = { sourcePort: sender.port, destinationPort: 4500 };
    xfrm.updateSa({ ...sa, cipher, esn: false, replayWindow: 32, encapsulation: remapped });
    assert.deepEqual(xfrm.getSa(sa).encapsulation, remapped);
    sender.close();
    receiver.close();
    xfrm.removeSa(sa);
  });

  test('garbage under a known SPI is counted at the SA and goes no further', async () => {
    const [here, there] = childPair(4, 'transport', gcm, {
      encapsulation: { localPort: 4500, remotePort: 4500 },
    });
    const encap = openUdp({ family: 4, port: 4500, udpEncap: true });
    plane.installPair(here);
    await peer.order({ verb: 'install', child: there });
    const forged = espOf(here.inboundSa.spi, randomBytes(20));
    await peer.order({
      verb: 'send',
      family: 4,
      from: 4501,
      to: { bytes: near[4], port: 4500 },
      data: forged,
    });
    assert.equal(await echo(endpoint(4, ECHO_PORT)), 'hello');
    const sa = xfrm.getSa({ spi: here.inboundSa.spi, destination: near[4] });
    assert.deepEqual([sa.integrityFailures, sa.packets], [1, 1]);
    plane.removePair(here.id);
    await peer.order({ verb: 'remove', id: here.id });
    encap.close();
  });
}

/** RFC 4303 with RFC 4106: SPI, sequence number 1, IV, an enciphered UDP header with trailer, ICV. */
function espOf(spi: number, keyAndSalt: Uint8Array): Uint8Array {
  const header = Buffer.alloc(8);
  header.writeUInt32BE(spi, 0);
  header.writeUInt32BE(1, 4);
  const iv = randomBytes(8);
  const key = createSecretKey(keyAndSalt.subarray(0, 16));
  const cipher = createCipheriv('aes-128-gcm', key, Buffer.concat([keyAndSalt.subarray(16), iv]));
  cipher.setAAD(header);
  const udp = Buffer.from('1b5f1b5f00080000', 'hex'); // from 7007 to 7007, no data, no checksum
  const trailer = Buffer.from([1, 2, 2, 17]); // two octets of padding, their number, next header UDP
  return Buffer.concat([
    header,
    iv,
    cipher.update(udp),
    cipher.update(trailer),
    cipher.final(),
    cipher.getAuthTag(),
  ]);
}
