// The names of the lab and what is published for each: the cast of every lab test and of the demo.
import { ipseckey, type KeyKind, type KeyRing, keyKinds } from './keys.ts';
import {
  bankAddress,
  carolAddress,
  deadAddress,
  gateAddress,
  manyAddresses,
  plainAddress,
} from './topology.ts';

/**
 * Key rings by party. `carol` is behind a NAT or, doing no IPsec herself, behind `gate`, which speaks for her then. `stranger` is nobody in the lab: its key is published
 * where another's should be.
 */
export type Parties = Record<'alice' | 'bob' | 'carol' | 'bank' | 'gate' | 'mallory' | 'stranger', KeyRing>;

/** A zone as written; `signed: false` is delegated without DS. */
export type ZoneText = { origin: string; lines: string[]; signed: boolean; nsec3?: boolean };

export const peerNames: string[] = manyAddresses.map((_, i) => `p${i + 1}.example`);

/** Kind of the key by which bob speaks for a name. */
export function kindOf(name: string): KeyKind {
  const number = /^p(\d+)\./.exec(name)?.[1];
  if (number) return keyKinds[Number(number) % keyKinds.length]!;
  return keyKinds.find(kind => name === `${kind}.example`) ?? 'ed25519';
}

/** Names for which bob answers IKE. */
export const bobNames: string[] = [
  'bob.example',
  'wrong.example',
  ...keyKinds.map(kind => `${kind}.example`),
  ...peerNames,
];

export function zones(parties: Parties): ZoneText[] {
  const { alice, bob, carol, bank, gate, mallory, stranger } = parties;
  const at = (owner: string, last: number, ...records: string[]) =>
    [`A 10.9.0.${last}`, `AAAA fd09::${last}`, ...records].map(record => `${owner} ${record}`);
  const every = (keys: KeyRing) => keyKinds.map((kind, i) => ipseckey(keys[kind], 10 * (i + 1)));
  return [
    {
      origin: 'example',
      signed: true,
      lines: [
        ...at('ns', 53),
        ...at('alice', 1, ...every(alice)),
        ...at('bob', 2, ...every(bob)),
        'alias CNAME bob',
        `carol A ${gateAddress}`,
        ...every(carol).map(record => `carol ${record}`),
        ...keyKinds.flatMap(kind => at(kind, 2, ipseckey(bob[kind]))),
        ...at('plain', plainAddress),
        ...at('keyless', 2),
        ...at('wrong', 2, ipseckey(stranger.ed25519)),
        ...at('broken', 2, ipseckey(bob.ed25519)),
        ...at('dead', deadAddress, ipseckey(stranger.ed25519)),
        `gated A ${carolAddress}`,
        `gated ${ipseckey(gate.ed25519, 10, gateAddress)}`,
        `halfgated A ${carolAddress}`,
        `halfgated ${ipseckey(stranger.ed25519, 10, gateAddress)}`,
        ...manyAddresses.flatMap((last, i) =>
          at(`p${i + 1}`, last, ipseckey(bob[kindOf(`p${i + 1}.example`)])),
        ),
      ],
    },
    { origin: 'unsigned.example', signed: false, lines: at('www', 2, ipseckey(bob.ed25519)) },
    { origin: 'bank.example', signed: true, nsec3: true, lines: at('@', bankAddress, ...every(bank)) },
    {
      origin: 'evil.example',
      signed: true,
      lines: [
        ...at('@', 66, ...every(mallory)),
        ...at('own', bankAddress, ipseckey(mallory.ed25519)),
        ...at('gateway', bankAddress, ipseckey(mallory.ed25519, 10, '10.9.0.66')),
        ...at('gateway6', bankAddress, ipseckey(mallory.ed25519, 10, 'fd09::66')),
        ...at('named', bankAddress, ipseckey(mallory.ed25519, 10, 'evil.example.')),
        ...at('bad', bankAddress, ipseckey(stranger.ed25519)),
        ...at('copy', bankAddress, ipseckey(bank.ed25519)),
        ...at('keyless', bankAddress),
        `gated A ${carolAddress}`,
        `gated ${ipseckey(mallory.ed25519, 10, '10.9.0.66')}`,
      ],
    },
    {
      origin: '0.9.10.in-addr.arpa',
      signed: true,
      lines: [
        `2 PTR bob.example.`,
        `2 ${ipseckey(bob.ed25519)}`,
        `2 ${ipseckey(bob.ecdsa)}`,
        `2 ${ipseckey(bob.rsa)}`,
        `${bankAddress} PTR bank.example.`,
        `${bankAddress} ${ipseckey(bank.ed25519)}`,
      ],
    },
    {
      origin: '9.168.192.in-addr.arpa',
      signed: true,
      lines: [`2 ${ipseckey(gate.ed25519, 10, gateAddress)}`],
    },
    {
      origin: `${'0.'.repeat(12)}9.0.d.f.ip6.arpa`,
      signed: true,
      lines: [
        `2${'.0'.repeat(15)} PTR bob.example.`,
        `2${'.0'.repeat(15)} ${ipseckey(bob.ed25519)}`,
        `2${'.0'.repeat(15)} ${ipseckey(bob.ecdsa)}`,
        `2${'.0'.repeat(15)} ${ipseckey(bob.rsa)}`,
      ],
    },
  ];
}

/** The one name whose signatures are spoilt after signing. */
export const brokenName = 'broken.example';
