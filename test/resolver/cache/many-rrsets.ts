// For octet-log.test.ts: a process that keeps 100,000 RRsets and tells by how much its memory grew.
import { RrsetCache } from '../../../resolver/cache/rrsets.ts';
import { Name } from '../../../resolver/dns/name.ts';
import { TYPE } from '../../../resolver/dns/types.ts';

const COUNT = 100_000;
/** An RRSIG by ECDSA P-256 in a zone of a short name. */
const SIGNATURE_OCTETS = 18 + 9 + 64;

const memory = (): number => {
  globalThis.gc!();
  const { heapUsed, arrayBuffers } = process.memoryUsage();
  return heapUsed + arrayBuffers;
};

const cache = new RrsetCache();
const before = memory();
for (let i = 0; i < COUNT; i++) {
  const rrset = {
    name: Name.parseText(`host${i}.example`),
    type: TYPE.A,
    class: 1,
    ttlSeconds: 3600,
    rdatas: [Uint8Array.of(198, 18, i >> 8, i)],
    signatures: [new Uint8Array(SIGNATURE_OCTETS)],
  };
  cache.keepRrset({ rrset, verdict: 'secure', proofs: [] });
}
const taken = memory() - before;
const { entries, evicted, bytes: counted } = cache.counters();
console.log(JSON.stringify({ entries, evicted, counted, taken }));
