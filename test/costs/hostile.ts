/** Zones made to be expensive (CVE-2023-50387, CVE-2023-50868 and their kin), and the server that serves them beside an honest one. */
import { createHash, randomBytes } from 'node:crypto';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { createServer } from 'node:net';
import { composeMessage } from '../../resolver/dns/compose.ts';
import { keyTag } from '../../resolver/dns/dnssec-rdata.ts';
import { type Message, parseMessage } from '../../resolver/dns/message.ts';
import { Name } from '../../resolver/dns/name.ts';
import { base32hex } from '../../resolver/dns/rdata-text.ts';
import { RCODE, TYPE } from '../../resolver/dns/types.ts';
import { nsec3Hash } from '../../resolver/dnssec/nsec3.ts';
import { Deframer, frame } from '../../resolver/upstream/tcp-framing.ts';
import { freePort } from '../resolver/free-port.ts';
import {
  type Anchor,
  anchorOf,
  dsOf,
  makeKey,
  type SignatureTimes,
  signRrset,
  typeBitmap,
  type ZoneKey,
  type ZoneRecord,
} from '../second-opinion/signer.ts';

const now = Math.floor(Date.now() / 1000);
const times: SignatureTimes = { inception: now - 86_400, expiration: now + 86_400 };

type Reply = { rcode?: number; answer?: ZoneRecord[]; authority?: ZoneRecord[] };

/** A top-level zone. `ask`: what it says of a name in it. `ds`: none for an unsigned zone. */
type HostileZone = {
  keys: ZoneKey[];
  ds: Uint8Array[];
  dnskey: ZoneRecord[];
  ask: (name: Name, type: number) => Reply;
};

/** `pattern`: the names of questions that cost so much, `{n}` being a number. */
export type Attack = { name: string; what: string; pattern: string; type: number };

const address = (name: Name, ttlSeconds: number = 3600): ZoneRecord => ({
  name,
  type: TYPE.A,
  ttlSeconds,
  rdata: Uint8Array.of(192, 0, 2, 1),
});

const addresses = (name: Name, count: number): ZoneRecord[] =>
  Array.from({ length: count }, (_, i) => ({
    ...address(name),
    rdata: Uint8Array.of(10, 0, i >> 8, i & 0xff),
  }));

/** The record with its signature by the key. */
function signed(records: readonly ZoneRecord[], zone: Name, key: ZoneKey, labels?: number): ZoneRecord[] {
  return [...records, signRrset(records, zone, key, times, labels === undefined ? {} : { labels })];
}

/** A signature like the key's own that verifies never, and is found out only by trying. */
function forged(record: ZoneRecord, zone: Name, key: ZoneKey): ZoneRecord {
  const honest = signRrset([record], zone, key, times);
  const rdata = Uint8Array.from(honest.rdata);
  const start = rdata.length - (key.algorithm === 14 ? 96 : key.algorithm === 8 ? 512 : 64);
  // RSA: below any modulus; ECDSA: below any order.
  rdata.set(randomBytes(rdata.length - start), start);
  rdata[start] = 0x01;
  return { ...honest, rdata };
}

/**
 * Keys of one tag. The flags field has bits that mean nothing and count in the tag (RFC 4034 App. B), so that
 * one key in four can be given any tag.
 */
function collidingKeys(algorithm: number, tag: number, count: number): ZoneKey[] {
  const found: ZoneKey[] = [];
  while (found.length < count) {
    const key = makeKey(algorithm, { flags: 0 });
    const flags = (tag - key.tag + 0xffff) % 0xffff;
    if ((flags & 0x0180) !== 0x0100) continue;
    const rdata = Uint8Array.from(key.rdata);
    rdata[0] = flags >> 8;
    rdata[1] = flags & 0xff;
    if (keyTag(rdata) === tag) found.push({ ...key, rdata, tag });
  }
  return found;
}

function zone(
  name: string,
  keys: ZoneKey[],
  ask: (zone: Name, key: ZoneKey) => HostileZone['ask'],
): HostileZone {
  const apex = Name.parseText(name);
  const records = keys.map(({ rdata }) => ({ name: apex, type: TYPE.DNSKEY, ttlSeconds: 3600, rdata }));
  const [key] = keys as [ZoneKey];
  return { keys, ds: [dsOf(apex, key)], dnskey: signed(records, apex, key), ask: ask(apex, key) };
}

const soa = (apex: Name): ZoneRecord => ({
  name: apex,
  type: TYPE.SOA,
  ttlSeconds: 300,
  rdata: Buffer.concat([Uint8Array.of(0, 0), Buffer.alloc(20, 1)]),
});

function nsec3Of(
  apex: Name,
  hash: Uint8Array,
  next: Uint8Array,
  iterations: number,
  types: readonly number[],
): ZoneRecord {
  const fixed = [1, 0, iterations >> 8, iterations & 0xff, 0, next.length, ...next];
  return {
    name: apex.prepend(Buffer.from(base32hex(hash)))!,
    type: TYPE.NSEC3,
    ttlSeconds: 300,
    rdata: Uint8Array.of(...fixed, ...typeBitmap(types)),
  };
}

/** The next hash there could be. */
function following(hash: Uint8Array): Uint8Array {
  const next = Uint8Array.from(hash);
  for (let at = next.length - 1; at >= 0 && ++next[at]! === 0; at--);
  return next;
}

/** An NSEC3 of the apex that covers next to nothing: every label has to be hashed before that is known. */
const nsec3Deep = (iterations: number) => (apex: Name, key: ZoneKey) => {
  const hash = nsec3Hash(apex, new Uint8Array(), iterations);
  const authority = [
    ...signed([soa(apex)], apex, key),
    ...signed([nsec3Of(apex, hash, following(hash), iterations, [TYPE.NS, TYPE.SOA])], apex, key),
  ];
  return (): Reply => ({ rcode: RCODE.NXDOMAIN, authority });
};

/** Addresses for all names, and an NSEC at each that denies everything else. */
const honest =
  (apex: Name, key: ZoneKey) =>
  (name: Name, type: number): Reply => {
    if (type === TYPE.A) return { answer: signed([address(name)], apex, key) };
    const types = typeBitmap([TYPE.A, TYPE.NSEC, TYPE.RRSIG]);
    const rdata = Buffer.concat([name.prepend(Uint8Array.of(0))!.wire, types]);
    const nsec = { name, type: TYPE.NSEC, ttlSeconds: 300, rdata };
    return { authority: [...signed([soa(apex)], apex, key), ...signed([nsec], apex, key)] };
  };

const keyTrap = (algorithm: number, bits?: number) => {
  const key = makeKey(algorithm, bits === undefined ? {} : { bits });
  return [key, ...collidingKeys(algorithm, key.tag, algorithm === 8 ? 12 : 60)];
};

/** Many signatures that are wrong, each to be tried with each key of the tag. */
const trapAnswer = (apex: Name, key: ZoneKey) => {
  const pattern = Array.from({ length: 100 }, () =>
    forged(address(apex.prepend(Buffer.from('x'))!), apex, key),
  );
  return (name: Name, type: number): Reply =>
    type === TYPE.A
      ? { answer: [address(name), ...pattern.map(record => ({ ...record, name }))] }
      : { answer: [] };
};

function build(): Record<string, { what: string; zone: HostileZone; pattern?: string; type?: number }> {
  const deep = `${'a.'.repeat(110)}{n}.`;
  const chain = (count: number, apex: Name): Name[] =>
    Array.from({ length: count }, (_, i) => Name.parseText(`c${i}.${apex.toText()}`));
  const cname = (name: Name, to: Name): ZoneRecord => ({
    name,
    type: TYPE.CNAME,
    ttlSeconds: 60,
    rdata: to.wire,
  });
  const dsTrap = keyTrap(14);
  const plain = (ask: HostileZone['ask']): HostileZone => ({ keys: [], ds: [], dnskey: [], ask });
  const p384 = () => [makeKey(14)];
  const under = (apex: Name, name: Name): Name => name.suffix(apex.labelCount + 1);
  return {
    honest: { what: 'an honest P-256 zone', zone: zone('honest.', [makeKey(13)], honest) },
    'honest-p384': { what: 'an honest P-384 zone', zone: zone('honest-p384.', p384(), honest) },
    'keytrap-p384': {
      what: '61 P-384 keys of one tag, 100 wrong signatures',
      zone: zone('keytrap-p384.', keyTrap(14), trapAnswer),
    },
    'keytrap-p256': {
      what: '61 P-256 keys of one tag, 100 wrong signatures',
      zone: zone('keytrap-p256.', keyTrap(13), trapAnswer),
    },
    'keytrap-rsa': {
      what: '13 RSA-4096 keys of one tag, 100 wrong signatures',
      zone: zone('keytrap-rsa.', keyTrap(8, 4096), trapAnswer),
    },
    'keytrap-dnskey': {
      what: '61 P-384 keys of one tag, a DS for 16 of them, 100 wrong signatures over the DNSKEY RRset',
      zone: (() => {
        const apex = Name.parseText('keytrap-dnskey.');
        const records = dsTrap.map(({ rdata }) => ({
          name: apex,
          type: TYPE.DNSKEY,
          ttlSeconds: 3600,
          rdata,
        }));
        const signatures = Array.from({ length: 100 }, () => forged(records[0]!, apex, dsTrap[0]!));
        return {
          keys: dsTrap,
          ds: dsTrap.slice(0, 16).map(key => dsOf(apex, key)),
          dnskey: [...records, ...signatures],
          ask: (name: Name) => ({ answer: signed([address(name)], apex, dsTrap[0]!) }),
        };
      })(),
    },
    'ds-collisions': {
      what: '400 DS of one tag, 61 keys of that tag, no digest fits',
      zone: (() => {
        const apex = Name.parseText('ds-collisions.');
        const keys = keyTrap(13);
        const good = zone('ds-collisions.', keys, () => () => ({}));
        const ds = Array.from({ length: 400 }, (_, i) => {
          const rdata = Uint8Array.from(dsOf(apex, keys[0]!, 2 + 2 * (i % 2)));
          rdata.set(createHash('sha256').update(String(i)).digest().subarray(0, 8), 4);
          return rdata;
        });
        return { ...good, ds, ask: (name: Name) => ({ answer: signed([address(name)], apex, keys[0]!) }) };
      })(),
    },
    'dnskey-huge': {
      what: '60 kB of DNSKEYs',
      zone: zone(
        'dnskey-huge.',
        [makeKey(13), ...Array.from({ length: 110 }, () => bigKey())],
        (apex, key) => name => ({
          answer: signed([address(name)], apex, key),
        }),
      ),
    },
    'nsec3-2500': {
      what: 'NSEC3 with 2,500 iterations, 110 labels',
      zone: zone('nsec3-2500.', p384(), nsec3Deep(2500)),
      pattern: `${deep}nsec3-2500.`,
    },
    'nsec3-150': {
      what: 'NSEC3 with 150 iterations, 110 labels',
      zone: zone('nsec3-150.', p384(), nsec3Deep(150)),
      pattern: `${deep}nsec3-150.`,
    },
    'nsec3-many': {
      what: '11 NSEC3 of as many chains, well signed by P-384: as many as may be',
      zone: zone('nsec3-many.', p384(), (apex, key) => {
        const many = Array.from({ length: 11 }, (_, i) => {
          const hash = nsec3Hash(Name.parseText(`h${i}`), new Uint8Array(), 0);
          return signed([nsec3Of(apex, hash, hash, i, [TYPE.A])], apex, key);
        }).flat();
        return () => ({ rcode: RCODE.NXDOMAIN, authority: [...signed([soa(apex)], apex, key), ...many] });
      }),
    },
    'wildcard-chain': {
      what: 'CNAME after CNAME by P-384, each from a wildcard with its proof',
      zone: zone('wildcard-chain.', p384(), (apex, key) => (name, type) => {
        if (type !== TYPE.A) return { authority: signed([soa(apex)], apex, key) };
        const owner = under(apex, name);
        const to = Name.parseText(`n.w${randomBytes(6).toString('hex')}.wildcard-chain.`);
        const made = signRrset([{ ...cname(owner.wildcard()!, to) }], apex, key, times);
        const nsecs = [owner, owner.prepend(Buffer.from('!'))!].map(start => ({
          name: start,
          type: TYPE.NSEC,
          ttlSeconds: 300,
          rdata: Buffer.concat([
            Name.parseText(`zz${start.toText()}`).wire,
            typeBitmap([TYPE.A, TYPE.NSEC, TYPE.RRSIG]),
          ]),
        }));
        return {
          answer: [cname(name, to), { ...made, name }],
          authority: nsecs.flatMap(nsec => signed([nsec], apex, key)),
        };
      }),
      pattern: 'n.w{n}.wildcard-chain.',
    },
    'cname-loop': {
      what: 'a loop of 200 CNAMEs in one message',
      zone: plain(name => {
        const names = chain(200, Name.parseText('cname-loop.'));
        return {
          answer: [
            cname(name, names[0]!),
            ...names.map((from, i) => cname(from, names[(i + 1) % names.length]!)),
          ],
        };
      }),
    },
    'cname-endless': {
      what: 'CNAME after CNAME, each asked for',
      zone: plain(() => ({})),
    },
    'addresses-4000': {
      what: '4,000 addresses, all that fit into a message',
      zone: plain(name => ({ answer: addresses(name, 4000) })),
    },
    'records-5900': {
      what: '5,900 records of the least size',
      zone: plain(() => ({
        answer: Array.from({ length: 5900 }, () => ({
          name: Name.root,
          type: 65_280,
          ttlSeconds: 60,
          rdata: new Uint8Array(),
        })),
      })),
    },
    'addresses-490': {
      what: '490 addresses in a P-384 zone with 12 wrong signatures',
      zone: zone('addresses-490.', p384(), (apex, key) => {
        const signatures = Array.from({ length: 12 }, () => forged(address(apex.wildcard()!), apex, key));
        return name => ({
          answer: [...addresses(name, 490), ...signatures.map(record => ({ ...record, name }))],
        });
      }),
    },
    'any-flood': {
      what: 'ANY: 400 RRsets, each signed wrongly by P-384',
      zone: zone('any-flood.', p384(), (apex, key) => {
        const pattern = Array.from({ length: 400 }, (_, i) => {
          const record = { name: apex, type: 1000 + i, ttlSeconds: 60, rdata: Uint8Array.of(1) };
          return [record, forged(record, apex, key)];
        }).flat();
        return name => ({ answer: pattern.map(record => ({ ...record, name })) });
      }),
      type: TYPE.ANY,
    },
    'cuts-deep': {
      what: '110 labels without a signature: a question for DS at each, each denied by P-384',
      zone: zone('cuts-deep.', p384(), (apex, key) => (name, type) => {
        if (type !== TYPE.DS) return { answer: [address(name)] };
        const here = {
          name,
          type: TYPE.NSEC,
          ttlSeconds: 1,
          rdata: Buffer.concat([
            name.prepend(Uint8Array.of(0))!.wire,
            typeBitmap([TYPE.A, TYPE.NSEC, TYPE.RRSIG]),
          ]),
        };
        return { authority: [...signed([soa(apex)], apex, key), ...signed([here], apex, key)] };
      }),
      pattern: `${deep}cuts-deep.`,
    },
    'dname-growing': {
      what: 'a DNAME that leads below itself, by P-384',
      zone: zone('dname-growing.', p384(), (apex, key) => name => {
        const owner = under(apex, name);
        const dname = {
          name: owner,
          type: TYPE.DNAME,
          ttlSeconds: 60,
          rdata: Name.parseText(`x.${owner.toText()}`).wire,
        };
        return { answer: signed([dname], apex, key) };
      }),
      pattern: 'x.d{n}.dname-growing.',
    },
  };
}

/** A key in some five hundred bytes, of an algorithm that is known. */
function bigKey(): ZoneKey {
  const rdata = Buffer.concat([Uint8Array.of(1, 1, 3, 8, 3, 1, 0, 1), randomBytes(512)]);
  return { algorithm: 8, rdata, tag: keyTag(rdata), sign: () => new Uint8Array() };
}

export type HostileWorld = {
  port: number;
  anchor: Anchor;
  attacks: Attack[];
};

/** Serves the root, the honest zones and all hostile ones on loopback, for as long as the thread lives. */
export async function startHostileWorld(): Promise<HostileWorld> {
  const zones = build();
  zones['cname-endless']!.zone.ask = name => ({
    answer: [
      {
        name,
        type: TYPE.CNAME,
        ttlSeconds: 60,
        rdata: Name.parseText(`n${randomBytes(6).toString('hex')}.cname-endless.`).wire,
      },
    ],
  });
  const rootKey = makeKey(13);
  const root = zone('.', [rootKey], (apex, key) => {
    const delegations = new Map(
      Object.entries(zones).map(([label, { zone: below }]) => {
        const name = Name.parseText(label);
        const ds = below.ds.map(rdata => ({ name, type: TYPE.DS, ttlSeconds: 3600, rdata }));
        const types = [TYPE.NS, TYPE.NSEC, TYPE.RRSIG];
        const nsec = {
          name,
          type: TYPE.NSEC,
          ttlSeconds: 300,
          rdata: Buffer.concat([Name.parseText(`${label}0`).wire, typeBitmap(types)]),
        };
        const none = [...signed([soa(apex)], apex, key), ...signed([nsec], apex, key)];
        return [name.key, ds.length > 0 ? { answer: signed(ds, apex, key) } : { authority: none }];
      }),
    );
    return (name, type) => (type === TYPE.DS ? (delegations.get(name.key) ?? {}) : {});
  });
  const byKey = new Map(Object.entries(zones).map(([label, made]) => [Name.parseText(label).key, made.zone]));
  const answer = (query: Message): Reply => {
    const { name, type } = query.questions[0]!;
    if (name.labelCount === 0 || (name.labelCount === 1 && type === TYPE.DS)) {
      return type === TYPE.DNSKEY ? { answer: root.dnskey } : root.ask(name, type);
    }
    const found = byKey.get(name.suffix(1).key);
    if (found === undefined) return { rcode: RCODE.REFUSED };
    if (type === TYPE.DNSKEY && name.labelCount === 1) return { answer: found.dnskey };
    return found.ask(name, type);
  };
  const port = await serve(answer);
  const attacks = Object.entries(zones).map(([name, { what, pattern = `x{n}.${name}.`, type = TYPE.A }]) => {
    return { name, what, pattern, type };
  });
  return { port, anchor: anchorOf(root.ds[0]!), attacks };
}

/** For as long as the thread lives. */
async function serve(answer: (query: Message) => Reply): Promise<number> {
  const reply = (bytes: Uint8Array, tcp: boolean): Uint8Array => {
    const query = parseMessage(bytes);
    const { rcode = RCODE.NOERROR, answer: found = [], authority = [] } = answer(query);
    const inClass = (records: readonly ZoneRecord[]) => records.map(record => ({ ...record, class: 1 }));
    const message = { ...query, response: true, recursionAvailable: true, rcode };
    return composeMessage(
      { ...message, answer: inClass(found), authority: inClass(authority) },
      tcp ? 65_535 : (query.edns?.udpSize ?? 512),
    );
  };
  const port = await freePort('127.0.0.1');
  const udp = createSocket({ type: 'udp4', recvBufferSize: 1 << 20 });
  udp.on('message', (bytes, from) => udp.send(reply(bytes, false), from.port, from.address));
  udp.bind(port, '127.0.0.1');
  const tcp = createServer(socket => {
    socket.on('error', () => socket.destroy());
    const deframer = new Deframer(0xffff);
    socket.on('data', chunk => {
      deframer.push(chunk, bytes => socket.write(frame(reply(bytes, true))));
    });
  });
  tcp.listen(port, '127.0.0.1');
  await Promise.all([once(udp, 'listening'), once(tcp, 'listening')]);
  return port;
}
