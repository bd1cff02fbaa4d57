// Policies, events and the data plane's rollback against the machine's own kernel, in a network namespace of their own.
// No ESP is needed here; what needs it is in xfrm.guest.test.ts.
import assert from 'node:assert/strict';
import test from 'node:test';
import { XfrmDataPlane } from '../../kernel/dataplane.ts';
import { type KernelEvent, openEvents } from '../../kernel/events.ts';
import { openUdp } from '../../kernel/sockets.ts';
import { KernelError, type Policy, Xfrm } from '../../kernel/xfrm.ts';
import { inOwnNamespace, ip } from './namespace.ts';

const alice = Uint8Array.of(10, 9, 0, 1);
const bob = Uint8Array.of(10, 9, 0, 2);

function policy(last: number, index: number, more: Partial<Policy> = {}): Policy {
  const destination = Uint8Array.of(10, 9, 0, last);
  return {
    selector: { family: 4, source: alice, sourcePrefix: 32, destination, destinationPrefix: 32 },
    direction: 'out',
    action: 'allow',
    priority: 1000,
    index,
    template: { source: alice, destination, reqid: 0x48460001, mode: 'transport' },
    ...more,
  };
}

function refusal(act: () => void): KernelError {
  try {
    act();
  } catch (error) {
    assert.ok(error instanceof KernelError, String(error));
    return error;
  }
  assert.fail('the kernel accepted');
}

function indexes(xfrm: Xfrm): number[] {
  return xfrm
    .dumpPolicies()
    .map(({ index }) => index)
    .sort((a, b) => a - b);
}

if (inOwnNamespace(import.meta.url)) {
  test('a policy goes in, reads back, is switched and goes out by index', () => {
    const xfrm = Xfrm.open();
    xfrm.installPolicy(policy(2, 0x48000009));
    const read = xfrm.getPolicy({ direction: 'out', index: 0x48000009 });
    assert.equal(read.templates[0]!.reqid, 0x48460001);
    assert.deepEqual(read.selector.destination, bob);
    assert.match(ip('xfrm', 'policy'), /dir out priority 1000[\s\S]*reqid 1212547073 mode transport/);
    const template = { source: alice, destination: bob, reqid: 0x48460002, mode: 'tunnel' as const };
    xfrm.updatePolicy(policy(2, 0x48000009, { template }));
    const [switched] = xfrm.dumpPolicies();
    assert.deepEqual([switched!.index, switched!.templates[0]!.reqid], [0x48000009, 0x48460002]);
    assert.equal(switched!.templates[0]!.mode, 'tunnel');
    xfrm.removePolicy({ direction: 'out', index: 0x48000009 });
    assert.deepEqual(xfrm.dumpPolicies(), []);
    xfrm.close();
  });

  test('a refusal is a KernelError with the errno and the kernel’s own words', () => {
    const xfrm = Xfrm.open();
    const wrong = refusal(() => xfrm.installPolicy(policy(2, 0x48000008)));
    assert.deepEqual([wrong.verb, wrong.code, wrong.errno], ['NEWPOLICY', 'EINVAL', 22]);
    assert.match(wrong.extack ?? '', /direction/);
    xfrm.installPolicy(policy(2, 0x48000009));
    assert.equal(refusal(() => xfrm.installPolicy(policy(2, 0x48000011))).code, 'EEXIST');
    xfrm.removePolicy({ direction: 'out', selector: policy(2, 0).selector });
    assert.equal(refusal(() => xfrm.removePolicy({ direction: 'out', index: 0x48000009 })).code, 'ENOENT');
    assert.equal(refusal(() => xfrm.getSa({ spi: 0x1234, destination: bob })).code, 'ESRCH');
    xfrm.close();
    xfrm.close();
    assert.equal(refusal(() => xfrm.dumpPolicies()).code, 'EBADF');
  });

  test('a dump of many datagrams is whole', () => {
    const xfrm = Xfrm.open();
    const many = Array.from({ length: 2000 }, (_, i) => 0x48100001 + 8 * i);
    for (const [i, index] of many.entries()) {
      const destination = Uint8Array.of(10, 10, i >> 8, i & 255);
      const selector = { ...policy(2, 0).selector, destination };
      xfrm.installPolicy({ selector, direction: 'out', action: 'allow', priority: 5, index });
    }
    assert.deepEqual(indexes(xfrm), many);
    for (const index of many) xfrm.removePolicy({ direction: 'out', index });
    assert.deepEqual(xfrm.dumpPolicies(), []);
    assert.equal(xfrm.dropped, 0);
    xfrm.close();
  });

  test('hash thresholds are set and read', () => {
    const xfrm = Xfrm.open();
    xfrm.setHashThresholds({ ipv4: [0, 32], ipv6: [0, 128] });
    assert.deepEqual(xfrm.getHashThresholds(), { ipv4: [0, 32], ipv6: [0, 128] });
    xfrm.setHashThresholds({ ipv4: [32, 32], ipv6: [128, 128] });
    xfrm.close();
  });

  test('exemptions go in once, and out with everything', () => {
    const xfrm = Xfrm.open();
    const plane = new XfrmDataPlane(xfrm);
    plane.installExemptions();
    const first = indexes(xfrm);
    // 2 IKE ports × 2 families × 2 ways, 2 ICMPv6 types × 2 ways, loopback × 2 × 2 ways
    assert.equal(first.length, 8 + 4 + 4);
    plane.installExemptions();
    assert.deepEqual(indexes(xfrm), first);
    assert.equal(plane.status().exemptions, 16);
    assert.deepEqual(plane.removeEverything(), []);
    assert.deepEqual(indexes(xfrm), []);
    xfrm.close();
  });

  test('an equal exemption of somebody else serves and stays; one that contradicts is named', () => {
    const xfrm = Xfrm.open();
    const icmp = ['src', '::/0', 'dst', '::/0', 'proto', '58', 'type', '135', 'dir', 'in'];
    ip('xfrm', 'policy', 'add', ...icmp, 'priority', '1');
    const plane = new XfrmDataPlane(xfrm);
    plane.installExemptions();
    assert.equal(plane.status().exemptions, 15);
    plane.removeEverything();
    assert.equal(xfrm.dumpPolicies().length, 1);
    ip('xfrm', 'policy', 'update', ...icmp, 'priority', '1', 'action', 'block');
    const refused = refusal(() => plane.installExemptions());
    assert.equal(refused.code, 'EEXIST');
    assert.match(refused.message, /not ours.*ICMPv6 135 in.*action block/);
    plane.removeEverything();
    ip('xfrm', 'policy', 'delete', ...icmp);
    xfrm.close();
  });

  test('resync puts flushed exemptions back', () => {
    const xfrm = Xfrm.open();
    const plane = new XfrmDataPlane(xfrm);
    plane.installExemptions();
    const before = indexes(xfrm).length;
    ip('xfrm', 'policy', 'flush');
    assert.deepEqual(plane.resync(), { missing: [], exemptionsRestored: before, strays: 0 });
    assert.equal(indexes(xfrm).length, before);
    plane.removeEverything();
    xfrm.close();
  });

  test('leftovers of an earlier run go, foreign policies stay', () => {
    const xfrm = Xfrm.open();
    ip('xfrm', 'policy', 'add', 'src', '10.9.0.1/32', 'dst', '10.9.0.7/32', 'dir', 'out', 'priority', '7');
    new XfrmDataPlane(xfrm).installExemptions();
    xfrm.installPolicy(policy(2, 0x48000009 + 8 * 100));
    // Our index by chance, but another's reqid: not ours.
    const template = { source: alice, destination: bob, reqid: 7, mode: 'transport' as const };
    xfrm.installPolicy(policy(3, 0x48000009 + 8 * 101, { template }));
    const plane = new XfrmDataPlane(xfrm);
    const found = plane.adoptLeftovers();
    assert.deepEqual([found.policies, found.sas, found.described.length], [17, 0, 17]);
    assert.ok(found.described.some(line => /dst 10\.9\.0\.2\/32 dir out .* reqid 0x48460001/.test(line)));
    assert.equal(xfrm.dumpPolicies().length, 2);
    assert.deepEqual(plane.adoptLeftovers(), { policies: 0, sas: 0, described: [], blocked: [] });
    ip('xfrm', 'policy', 'flush');
    xfrm.close();
  });

  test('a socket that bypasses policy sends where another one is refused', () => {
    const xfrm = Xfrm.open();
    const destination = { address: { family: 4 as const, bytes: Uint8Array.of(10, 9, 0, 9) }, port: 9 };
    ip('link', 'add', 'near', 'type', 'veth', 'peer', 'name', 'far');
    ip('address', 'add', '10.9.0.1/24', 'dev', 'near');
    for (const name of ['near', 'far']) ip('link', 'set', name, 'up');
    xfrm.installPolicy({ ...policy(9, 0x48000009), action: 'block' });
    const plain = openUdp({ family: 4 });
    const bypassing = openUdp({ family: 4, bypassPolicy: true });
    assert.equal(plain.send(Uint8Array.of(1), destination), 'EPERM');
    assert.equal(bypassing.send(Uint8Array.of(1), destination), undefined);
    assert.equal(plain.sendBatch([{ data: Uint8Array.of(1), remote: destination }]), 0);
    assert.deepEqual([plain.counters.sendErrors, bypassing.counters.sent], [2, 1]);
    plain.close();
    bypassing.close();
    xfrm.removePolicy({ direction: 'out', index: 0x48000009 });
    xfrm.close();
  });

  test('ACQUIRE tells which flow wants which policy', async () => {
    const xfrm = Xfrm.open();
    xfrm.installPolicy(policy(8, 0x48000009));
    const event = await new Promise<KernelEvent>(resolve => {
      const events = openEvents(event => {
        events.close();
        resolve(event);
      });
      const socket = openUdp({ family: 4 });
      socket.send(Uint8Array.of(1), {
        address: { family: 4, bytes: Uint8Array.of(10, 9, 0, 8) },
        port: 7777,
      });
      socket.close();
    });
    assert.equal(event.kind, 'acquire');
    assert.equal(event.policyIndex, 0x48000009);
    assert.equal(event.reqid, 0x48460001);
    assert.deepEqual(event.destination, Uint8Array.of(10, 9, 0, 8));
    assert.equal(event.selector?.destinationPort, 7777);
    const [larval] = xfrm.dumpSas();
    assert.equal(larval?.larval, true);
    xfrm.removePolicy({ direction: 'out', index: 0x48000009 });
    xfrm.close();
  });

  test('what others do to policies is told, what we do ourselves is not', async () => {
    const [xfrm, other] = [Xfrm.open(), Xfrm.open()];
    assert.notEqual(xfrm.portId, other.portId);
    const seen: KernelEvent[] = [];
    const flushed = Promise.withResolvers<void>();
    const events = openEvents(
      event => {
        seen.push(event);
        if (event.kind === 'flushed') flushed.resolve();
      },
      { own: [xfrm.portId] },
    );
    for (const [last, index] of [
      [8, 0x48000009],
      [9, 0x48000011],
      [10, 0x48000019],
    ] as const)
      xfrm.installPolicy(policy(last, index));
    xfrm.removePolicy({ direction: 'out', index: 0x48000009 });
    other.removePolicy({ direction: 'out', index: 0x48000011 });
    other.updatePolicy({ ...policy(10, 0x48000019), action: 'block' });
    other.installPolicy(policy(11, 0x48000021));
    ip('xfrm', 'policy', 'flush');
    await flushed.promise;
    assert.deepEqual(
      seen.filter(({ kind }) => kind !== 'expire'),
      [
        { kind: 'policyChanged', index: 0x48000011, direction: 'out' },
        { kind: 'policyChanged', index: 0x48000019, direction: 'out' },
        { kind: 'flushed', what: 'policies' },
      ],
    );
    assert.equal(events.dropped, 0);
    events.close();
    xfrm.close();
    other.close();
  });

  test('POLEXPIRE tells of a policy’s end', async () => {
    const xfrm = Xfrm.open();
    const event = await new Promise<KernelEvent>(resolve => {
      const events = openEvents(event => {
        if (event.kind !== 'policyExpire') return; // the place holder of the test before may expire meanwhile
        events.close();
        resolve(event);
      });
      xfrm.installPolicy(policy(2, 0x48000009, { hardSeconds: 1 }));
    });
    assert.deepEqual(event, {
      kind: 'policyExpire',
      index: 0x48000009,
      direction: 'out',
      selector: policy(2, 0).selector,
      hard: true,
    });
    assert.deepEqual(xfrm.dumpPolicies(), []);
    xfrm.close();
  });

  test('an overrun event socket says so, and goes on', async () => {
    const xfrm = Xfrm.open();
    const seen: KernelEvent[] = [];
    let wake = () => {};
    const events = openEvents(
      event => {
        seen.push(event);
        wake();
      },
      { receiveBufferOctets: 4096 },
    );
    const until = async (done: () => boolean) => {
      while (!done()) await new Promise<void>(resolve => (wake = resolve));
    };
    const many = Array.from({ length: 100 }, (_, i) =>
      policy(100 + i, 0x48200001 + 8 * i, { hardSeconds: 1 }),
    );
    for (const each of many) xfrm.installPolicy(each);
    // Nobody reads while the policies expire, so the small buffer overruns.
    for (let sleeps = 0; xfrm.dumpPolicies().length > 0 && sleeps < 100; sleeps++) {
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 50);
    }
    await until(() => seen.some(({ kind }) => kind === 'overflow'));
    assert.ok(seen.filter(({ kind }) => kind === 'policyExpire').length < many.length);
    xfrm.installPolicy(policy(2, 0x48000009, { hardSeconds: 1 }));
    await until(() => seen.some(event => event.kind === 'policyExpire' && event.index === 0x48000009));
    events.close();
    events.close();
    xfrm.close();
  });
}
