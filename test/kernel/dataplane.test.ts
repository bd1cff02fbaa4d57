// The data plane against a kernel of values that refuses when told to: whatever is asked in whatever order, and whichever
// step fails, what the kernel holds is what the data plane says, and foreign policies are never touched.
import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { type Child, XfrmDataPlane, type XfrmVerbs } from '../../kernel/dataplane.ts';
import { isOurReqid } from '../../kernel/marks.ts';
import {
  KernelError,
  type Policy,
  type PolicyId,
  type PolicyStatus,
  type Sa,
  type SaId,
  type SaStatus,
  type Selector,
} from '../../kernel/xfrm.ts';

const local = Uint8Array.of(10, 9, 0, 1);
const peers = [Uint8Array.of(10, 9, 0, 2), Uint8Array.of(10, 9, 0, 3)];
const gateways = [90, 91].map(last => ({ local, remote: Uint8Array.of(10, 9, 0, last) }));

function child(id: number, more: Partial<Child> = {}): Child {
  const cipher = {
    kind: 'aead' as const,
    name: 'aes-gcm-16' as const,
    key: new Uint8Array(20),
    icvBits: 128 as const,
  };
  return {
    id,
    pair: { local, remote: peers[0]! },
    mode: 'transport',
    inboundSa: { spi: 0x1000 + id, cipher },
    outboundSa: { spi: 0x2000 + id, cipher },
    esn: true,
    ...more,
  };
}

/** SAD and SPD as two maps, with the kernel's rules of what is taken and what is missing. */
class PlainKernel implements XfrmVerbs {
  readonly sas = new Map<string, Sa>();
  readonly policies = new Map<string, Policy>();
  /** Refuses the n-th change from now on (0 is the next). */
  refuseAt = -1;

  installSa(sa: Sa): void {
    this.#maybeRefuse('NEWSA');
    const key = saKey(sa);
    if (this.sas.has(key)) throw new KernelError('NEWSA', 17);
    this.sas.set(key, sa);
  }

  updateSa(sa: Sa): void {
    const known = this.sas.get(saKey(sa));
    if (!known) throw new KernelError('UPDSA', 3);
    this.sas.set(saKey(sa), { ...known, ...(sa.encapsulation && { encapsulation: sa.encapsulation }) });
  }

  removeSa(id: SaId): void {
    if (!this.sas.delete(saKey(id))) throw new KernelError('DELSA', 3);
  }

  getSa(id: SaId): SaStatus {
    const sa = this.sas.get(saKey(id));
    if (!sa) throw new KernelError('GETSA', 3);
    return statusOf(sa);
  }

  dumpSas(): SaStatus[] {
    return [...this.sas.values()].map(statusOf);
  }

  installPolicy(policy: Policy): void {
    this.#maybeRefuse('NEWPOLICY');
    const key = policyKey(policy.direction, policy.selector);
    if (this.policies.has(key)) throw new KernelError('NEWPOLICY', 17);
    assert.ok(
      ![...this.policies.values()].some(({ index }) => index === policy.index),
      'an index is used twice',
    );
    this.policies.set(key, policy);
  }

  updatePolicy(policy: Policy): void {
    this.#maybeRefuse('UPDPOLICY');
    const key = policyKey(policy.direction, policy.selector);
    this.policies.set(key, { ...policy, index: this.policies.get(key)?.index ?? policy.index! });
  }

  removePolicy(id: PolicyId): void {
    this.policies.delete(this.#find(id, 'DELPOLICY'));
  }

  getPolicy(id: PolicyId): PolicyStatus {
    return policyStatus(this.policies.get(this.#find(id, 'GETPOLICY'))!);
  }

  dumpPolicies(): PolicyStatus[] {
    return [...this.policies.values()].map(policyStatus);
  }

  #find(id: PolicyId, verb: string): string {
    for (const [key, { direction, index, selector }] of this.policies) {
      if (direction !== id.direction) continue;
      if (
        'index' in id
          ? id.index === index
          : policyKey(direction, selector) === policyKey(direction, id.selector)
      ) {
        return key;
      }
    }
    throw new KernelError(verb, 2);
  }

  #maybeRefuse(verb: string): void {
    if (this.refuseAt-- === 0) throw new KernelError(verb, 12, 'told to');
  }
}

function saKey({ destination, spi }: SaId): string {
  return `${destination} ${spi}`;
}

function policyKey(direction: string, selector: Selector): string {
  return JSON.stringify([direction, Object.entries(selector).sort()]);
}

function statusOf(sa: Sa): SaStatus {
  const { cipher: _, lifetime: __, ...rest } = sa;
  const counters = {
    bytes: 0,
    packets: 0,
    addedSeconds: 0,
    usedSeconds: 0,
    replayDrops: 0,
    integrityFailures: 0,
  };
  return { ...rest, ...counters, protocol: 50, larval: false };
}

function policyStatus({ template, hardSeconds: _, index, ...rest }: Policy): PolicyStatus {
  return { ...rest, index: index!, templates: template ? [template] : [], addedSeconds: 0, usedSeconds: 0 };
}

/** What must hold at any time: each child has two SAs, each pair two policies that name reqids of living SAs. */
function assertConsistent(kernel: PlainKernel, plane: XfrmDataPlane, foreign = 0): void {
  const { pairs, exemptions } = plane.status();
  const children = pairs.flatMap(pair => pair.children);
  assert.equal(kernel.sas.size, 2 * children.length);
  assert.equal(kernel.policies.size, 2 * pairs.length + exemptions + foreign);
  assert.deepEqual(plane.resync(), { missing: [], exemptionsRestored: 0, strays: 0 });
  const outReqids = [...kernel.sas.values()].filter(sa => sa.source === local).map(sa => sa.reqid);
  assert.equal(new Set(outReqids).size, outReqids.length, 'outbound SAs share a reqid');
  for (const pair of pairs) {
    const policies = [...kernel.policies.values()].filter(
      ({ selector }) =>
        `${selector.source}` === `${pair.remote}` || `${selector.destination}` === `${pair.remote}`,
    );
    for (const { direction, template } of policies) {
      const sas = [...kernel.sas.values()].filter(sa => sa.reqid === template!.reqid);
      assert.ok(isOurReqid(template!.reqid));
      assert.equal(template!.mode, pair.mode);
      assert.equal(sas.length, direction === 'in' ? pair.children.length : 1);
      if (direction === 'out') assert.equal(plane.childOf(sas[0]!), pair.carrying);
    }
  }
}

test('a pair: SAs before policies, one inbound reqid, an outbound one for each child', () => {
  const kernel = new PlainKernel();
  const plane = new XfrmDataPlane(kernel);
  plane.installPair(child(1));
  assert.equal(plane.status().pairs[0]!.carrying, 1, 'the first child carries');
  plane.installPair(child(2));
  assert.equal(plane.status().pairs[0]!.carrying, 1);
  assertConsistent(kernel, plane);
  plane.installPair(child(3));
  plane.carry(3);
  assert.equal(plane.status().pairs[0]!.carrying, 3);
  plane.carry(2);
  assertConsistent(kernel, plane);
  plane.removePair(2);
  assert.equal(plane.status().pairs[0]!.carrying, 3, 'the youngest that is left carries');
  assertConsistent(kernel, plane);
  plane.removePair(3);
  plane.removePair(1);
  plane.removePair(1);
  assert.deepEqual([kernel.sas.size, kernel.policies.size], [0, 0]);
});

test('a child follows the NAT before its peer to another port, and to no other address', () => {
  const kernel = new PlainKernel();
  const plane = new XfrmDataPlane(kernel);
  plane.installPair(child(1, { encapsulation: { localPort: 4500, remotePort: 31_000 } }));
  plane.installPair(child(2, { encapsulation: { localPort: 4500, remotePort: 31_000 } }));
  const mapping = { kind: 'mapping', spi: 0x1001, destination: local, reqid: 0, oldPort: 31_000 } as const;
  const told = { ...mapping, oldSource: peers[0]!, newSource: peers[0]!, newPort: 32_000 };
  const ports = () =>
    [...kernel.sas.values()].map(sa => [sa.encapsulation?.sourcePort, sa.encapsulation?.destinationPort]);
  const other = [
    [31_000, 4500],
    [4500, 31_000],
  ];
  assert.equal(plane.follow({ ...told, newSource: peers[1]! }), false);
  assert.equal(plane.follow({ ...told, spi: 0x9999 }), false);
  assert.deepEqual(ports(), [...other, ...other]);
  assert.equal(plane.follow(told), true);
  assert.deepEqual(ports(), [[32_000, 4500], [4500, 32_000], ...other]);
  assertConsistent(kernel, plane);
  kernel.removeSa({ spi: 0x2001, destination: peers[0]! });
  assert.equal(plane.follow({ ...told, newPort: 33_000 }), false);
});

test('tunnel children have host selectors; the policies take the mode of the child that carries', () => {
  const kernel = new PlainKernel();
  const plane = new XfrmDataPlane(kernel);
  plane.installPair(child(1));
  plane.installPair(child(2, { mode: 'tunnel', encapsulation: { localPort: 4500, remotePort: 31_000 } }));
  plane.carry(2);
  assertConsistent(kernel, plane);
  const tunnels = [...kernel.sas.values()].filter(({ mode }) => mode === 'tunnel');
  assert.deepEqual(
    tunnels.map(({ source, encapsulation, selector }) => [source, encapsulation, selector?.sourcePrefix]),
    [
      [peers[0], { sourcePort: 31_000, destinationPort: 4500 }, 32],
      [local, { sourcePort: 4500, destinationPort: 31_000 }, 32],
    ],
  );
  assert.ok([...kernel.policies.values()].every(({ template }) => template!.mode === 'tunnel'));
  plane.removePair(2);
  assertConsistent(kernel, plane);
});

test('a child by a gateway: selectors of the two hosts, SAs and templates between the outer addresses', () => {
  const local6 = Uint8Array.of(0xfd, 9, ...new Uint8Array(13), 1);
  const remote6 = Uint8Array.of(0xfd, 9, ...new Uint8Array(13), 7);
  for (const pair of [
    { local, remote: peers[0]! },
    { local: local6, remote: remote6 },
  ]) {
    const kernel = new PlainKernel();
    const plane = new XfrmDataPlane(kernel);
    const [outer] = gateways;
    plane.installPair(child(1, { mode: 'tunnel', pair, outer: outer! }));
    assertConsistent(kernel, plane);
    const family = pair.local.length === 4 ? 4 : 6;
    for (const { source, destination, selector } of kernel.sas.values()) {
      const outbound = source === local;
      assert.deepEqual([source, destination].sort(), [local, outer!.remote].sort());
      const ends = outbound ? [pair.local, pair.remote] : [pair.remote, pair.local];
      assert.deepEqual([selector?.family, selector?.source, selector?.destination], [family, ...ends]);
      assert.equal(selector?.destinationPrefix, 8 * pair.local.length);
    }
    for (const { selector, direction, template } of kernel.policies.values()) {
      const inner = direction === 'out' ? [pair.local, pair.remote] : [pair.remote, pair.local];
      assert.deepEqual([selector.source, selector.destination], inner);
      const ends = direction === 'out' ? [local, outer!.remote] : [outer!.remote, local];
      assert.deepEqual([template!.source, template!.destination], ends);
    }
    assert.deepEqual(plane.status().pairs[0]!.outer, outer);
    plane.removePair(1);
    assert.deepEqual([kernel.sas.size, kernel.policies.size], [0, 0]);
  }
});

test('only a tunnel can have a gateway, and the outer addresses are a pair too', () => {
  const kernel = new PlainKernel();
  const plane = new XfrmDataPlane(kernel);
  const [outer] = gateways;
  assert.throws(() => plane.installPair(child(1, { outer: outer! })), { code: 'EINVAL' });
  const mixed = { local, remote: new Uint8Array(16) };
  for (const wrong of [mixed, { local, remote: local }]) {
    assert.throws(() => plane.installPair(child(1, { mode: 'tunnel', outer: wrong })), { code: 'EINVAL' });
  }
  assert.equal(kernel.sas.size, 0);
});

test('switching between gateways, and between a gateway and the host itself, switches both policies', () => {
  const kernel = new PlainKernel();
  const plane = new XfrmDataPlane(kernel);
  const direct = { local, remote: peers[0]! };
  const outers = [gateways[0]!, gateways[1]!, direct, direct];
  plane.installPair(child(0, { mode: 'tunnel', outer: outers[0]! }));
  plane.installPair(child(1, { mode: 'tunnel', outer: outers[1]! }));
  plane.installPair(child(2, { mode: 'tunnel' }));
  plane.installPair(child(3));
  for (const carrying of [0, 1, 2, 0, 3, 1]) {
    plane.carry(carrying);
    assertConsistent(kernel, plane);
    const { remote } = outers[carrying]!;
    const templates = [...kernel.policies.values()].map(({ direction, template }) =>
      direction === 'in' ? template!.source : template!.destination,
    );
    assert.deepEqual(templates, [remote, remote]);
  }
  // The second of the two refuses: the first is put back.
  const before = new Map(kernel.policies);
  kernel.refuseAt = 1;
  assert.throws(() => plane.carry(0), { code: 'ENOMEM' });
  assert.deepEqual([kernel.policies, plane.status().pairs[0]!.carrying], [before, 1]);
});

test('a refusal at any step of an installation leaves everything as it was, and says why', () => {
  const cases: [Child[], number][] = [
    [[], 4],
    [[child(1)], 2],
    [[child(1, { mode: 'tunnel' })], 2],
  ];
  for (const [before, steps] of cases) {
    for (let step = 0; step < steps; step++) {
      const kernel = new PlainKernel();
      const plane = new XfrmDataPlane(kernel);
      for (const each of before) plane.installPair(each);
      const [sas, policies, status] = [new Map(kernel.sas), new Map(kernel.policies), plane.status()];
      kernel.refuseAt = step;
      assert.throws(() => plane.installPair(child(9)), {
        name: 'KernelError',
        code: 'ENOMEM',
        extack: 'told to',
      });
      kernel.refuseAt = -1;
      assert.deepEqual([kernel.sas, kernel.policies, plane.status()], [sas, policies, status]);
      plane.installPair(child(9));
      assertConsistent(kernel, plane);
    }
  }
});

test('an SPI that is taken is refused, and the SA that has it stays', () => {
  const kernel = new PlainKernel();
  const plane = new XfrmDataPlane(kernel);
  plane.installPair(child(1));
  const { outboundSa } = child(1);
  assert.throws(() => plane.installPair(child(2, { outboundSa })), { code: 'EEXIST' });
  assertConsistent(kernel, plane);
});

test('a policy of somebody else for the pair is neither replaced nor removed', () => {
  const kernel = new PlainKernel();
  const selector: Selector = {
    family: 4,
    source: local,
    sourcePrefix: 32,
    destination: peers[0]!,
    destinationPrefix: 32,
  };
  kernel.installPolicy({ selector, direction: 'out', action: 'block', priority: 5, index: 9 });
  const plane = new XfrmDataPlane(kernel);
  assert.throws(() => plane.installPair(child(1)), { code: 'EEXIST' });
  assert.deepEqual([kernel.sas.size, kernel.policies.size], [0, 1]);
  // And one that somebody put there after ours was flushed:
  kernel.policies.clear();
  plane.installPair(child(1));
  kernel.policies.clear();
  kernel.installPolicy({ selector, direction: 'out', action: 'block', priority: 5, index: 9 });
  plane.installPair(child(2));
  assert.equal(plane.stands(1), false);
  assert.throws(() => plane.carry(2), { code: 'ENOENT' });
  plane.removePair(1);
  plane.removePair(2);
  assert.deepEqual(plane.removeEverything(), []);
  assert.deepEqual([kernel.sas.size, [...kernel.policies.values()].map(({ index }) => index)], [0, [9]]);
});

test('what somebody flushed is named by resync and can be removed and installed again', () => {
  const kernel = new PlainKernel();
  const plane = new XfrmDataPlane(kernel);
  plane.installPair(child(1));
  plane.installPair(child(2, { pair: { local, remote: peers[1]! } }));
  plane.installPair(child(3));
  kernel.removeSa({ spi: 0x1001, destination: local });
  assert.deepEqual(plane.resync().missing, [1]);
  assert.equal(plane.usage(1), undefined);
  kernel.policies.clear();
  assert.deepEqual(plane.resync().missing, [1, 2, 3]);
  for (const id of [3, 2, 1]) plane.removePair(id);
  assert.equal(kernel.sas.size, 0);
  plane.installPair(child(1));
  assertConsistent(kernel, plane);
});

test('SAs of our reqids that an earlier run left are removed, others stay', () => {
  const kernel = new PlainKernel();
  new XfrmDataPlane(kernel).installPair(child(1));
  kernel.installSa({ ...[...kernel.sas.values()][0]!, spi: 0x99, reqid: 99 });
  const plane = new XfrmDataPlane(kernel);
  const found = plane.adoptLeftovers();
  assert.deepEqual([found.policies, found.sas], [2, 2]);
  assert.match(
    found.described.join('\n'),
    /state src 10\.9\.0\.2 dst 10\.9\.0\.1 proto esp spi 0x1001 reqid 0x4846/,
  );
  assert.deepEqual([kernel.sas.size, kernel.policies.size], [1, 0]);
});

test('a child stands until somebody takes one of its SAs or policies', () => {
  for (const take of [
    (kernel: PlainKernel) => kernel.removeSa({ spi: 0x1001, destination: local }),
    (kernel: PlainKernel) => kernel.removeSa({ spi: 0x2001, destination: peers[0]! }),
    (kernel: PlainKernel) => kernel.policies.delete([...kernel.policies.keys()][0]!),
    (kernel: PlainKernel) => kernel.policies.delete([...kernel.policies.keys()][1]!),
  ]) {
    const kernel = new PlainKernel();
    const plane = new XfrmDataPlane(kernel);
    assert.equal(plane.stands(1), false);
    plane.installPair(child(1));
    assert.equal(plane.stands(1), true);
    take(kernel);
    assert.equal(plane.stands(1), false);
    plane.removePair(1);
    plane.installPair(child(1));
    assert.equal(plane.stands(1), true);
  }
});

test('blocks stand below the seals, come back after a flush, and survive a crash', () => {
  const kernel = new PlainKernel();
  const plane = new XfrmDataPlane(kernel);
  plane.blocks.block(peers[0]!);
  plane.blocks.block(peers[0]!);
  const [block] = [...kernel.policies.values()];
  assert.deepEqual(
    [kernel.policies.size, block!.action, block!.direction, block!.selector.sourcePrefix, block!.template],
    [1, 'block', 'out', 0, undefined],
  );
  plane.installPair(child(1));
  const sealed = [...kernel.policies.values()].find(
    ({ template, direction }) => template && direction === 'out',
  );
  assert.ok(sealed!.priority < block!.priority, 'a lower number is stronger');
  plane.removePair(1);
  assert.deepEqual([...kernel.policies.values()], [block]);
  kernel.policies.clear();
  assert.equal(plane.resync().exemptionsRestored, 1);
  assert.equal(kernel.policies.size, 1);
  plane.installPair(child(1));

  const next = new XfrmDataPlane(kernel);
  const left = next.adoptLeftovers();
  assert.deepEqual([left.policies, left.sas, left.blocked], [2, 2, [peers[0]]]);
  assert.deepEqual(
    [...kernel.policies.values()].map(({ action }) => action),
    ['block'],
  );
  next.blocks.unblock(peers[0]!);
  next.blocks.unblock(peers[0]!);
  assert.equal(kernel.policies.size, 0);
  next.blocks.block(peers[1]!);
  assert.deepEqual(next.removeEverything(), []);
  assert.equal(kernel.policies.size, 0);
});

test('a pair of one address, or of two families, is refused', () => {
  const plane = new XfrmDataPlane(new PlainKernel());
  assert.throws(() => plane.installPair(child(1, { pair: { local, remote: local } })), { code: 'EINVAL' });
  const mixed = { local, remote: new Uint8Array(16) };
  assert.throws(() => plane.installPair(child(1, { pair: mixed })), { code: 'EINVAL' });
});

test('any order of requests and refusals keeps kernel and table the same', () => {
  const id = fc.integer({ min: 1, max: 6 });
  const request = fc.oneof(
    {
      weight: 3,
      arbitrary: fc.tuple(fc.constant('install' as const), id, fc.nat(1), fc.nat(3), fc.boolean()),
    },
    fc.tuple(fc.constant('remove' as const), id),
    fc.tuple(fc.constant('carry' as const), id),
    fc.tuple(fc.constant('refuse' as const), fc.nat(4)),
  );
  fc.assert(
    fc.property(fc.array(request, { maxLength: 40 }), requests => {
      const kernel = new PlainKernel();
      const any = new Uint8Array(4);
      const selector: Selector = {
        family: 4,
        source: any,
        sourcePrefix: 0,
        destination: any,
        destinationPrefix: 0,
      };
      kernel.installPolicy({ selector, direction: 'fwd', action: 'allow', priority: 1, index: 10 });
      const plane = new XfrmDataPlane(kernel);
      plane.installExemptions();
      for (const [verb, number, peer, way] of requests) {
        try {
          if (verb === 'refuse') kernel.refuseAt = number;
          else if (verb === 'remove') plane.removePair(number);
          else if (verb === 'carry') plane.carry(number);
          else {
            const pair = { local, remote: peers[peer!]! };
            const outer = gateways[way! - 2];
            const mode = way === 0 ? 'transport' : 'tunnel';
            plane.installPair(child(number, { pair, mode, ...(outer && { outer }) }));
          }
        } catch (error) {
          assert.ok(error instanceof KernelError, String(error));
        }
        assertConsistent(kernel, plane, 1);
      }
      kernel.refuseAt = -1;
      assert.deepEqual(plane.removeEverything(), []);
      assert.deepEqual([kernel.sas.size, kernel.policies.size], [0, 1]);
    }),
  );
});
