// node test/fuzz/record.ts: records answers of nsd over zones signed by BIND's dnssec-signzone into answers.json.
//
// The corpus of the DNS targets: real messages, with the trust anchor and the time at which they validate. Needs nsd and
// bind9-utils; run it again when the zones of test/resolver/dnssec/zones.ts change.
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import net from 'node:net';
import { join } from 'node:path';
import { Name } from '../../resolver/dns/name.ts';
import { TYPE } from '../../resolver/dns/types.ts';
import { composeQuery } from '../../resolver/upstream/query.ts';
import { Deframer, frame } from '../../resolver/upstream/tcp-framing.ts';
import { startWorld } from '../resolver/dnssec/zones.ts';
import { file, type Recorded } from './answers.ts';

const { A, TXT, AAAA, IPSECKEY, MX, DS, DNSKEY, ANY, SOA, NS } = TYPE;
const ASKED: [string, number][] = [
  ['www', A],
  ['www', AAAA],
  ['www', TXT],
  ['www', IPSECKEY],
  ['www', ANY],
  ['mail', MX],
  ['x.wild', A],
  ['x.wild', IPSECKEY],
  ['nothing', A],
  ['b.ent', A],
  ['cname2', A],
  ['cnamenx', A],
  ['host.dname', A],
  ['dot\\.ted', A],
  ['www.insecure', A],
  ['insecure', DS],
  ['child', DS],
  ['child', DNSKEY],
  ['www.child', A],
  ['nothing.child', A],
];

const world = await startWorld([
  { name: 'nsec.', algorithm: 'ECDSAP256SHA256', denial: 'nsec' },
  { name: 'nsec3.', algorithm: 'ED25519', denial: 'nsec3' },
]);
const questions: [string, number][] = [
  ['.', DNSKEY],
  ['.', NS],
  ...['nsec.', 'nsec3.'].flatMap((zone): [string, number][] => [
    [zone, DS],
    [zone, DNSKEY],
    [zone, SOA],
    ...ASKED.map(([label, type]): [string, number] => [`${label}.${zone}`, type]),
  ]),
];
const exchanges: Recorded['exchanges'] = [];
for (const [name, type] of questions) {
  const answer = await ask(composeQuery(Name.parseText(name), type, { id: exchanges.length }));
  exchanges.push({ name, type, answer: Buffer.from(answer).toString('base64') });
}
const recorded: Recorded = { anchors: world.anchors, unixSeconds: Math.floor(Date.now() / 1000), exchanges };
writeFileSync(join(import.meta.dirname, file), `${JSON.stringify(recorded, undefined, 1)}\n`);
await world.stop();

async function ask(query: Uint8Array): Promise<Uint8Array> {
  const socket = net.connect(world.port, '127.0.0.1');
  socket.write(frame(query));
  const deframer = new Deframer(65_535);
  let answer: Uint8Array | undefined;
  while (answer === undefined) {
    const [chunk] = (await once(socket, 'data')) as [Buffer];
    deframer.push(chunk, message => {
      answer = message;
      return true;
    });
  }
  socket.destroy();
  return answer;
}
