/** The generated tree: signs every planned zone, serves all by one nsd, with the tampering double before it. */
import { execFile } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { Name } from '../../resolver/dns/name.ts';
import { TYPE } from '../../resolver/dns/types.ts';
import { layerEnvironment } from '../lab/packages.ts';
import { ended, startNsd } from '../resolver/dnssec/zones.ts';
import { FULL, fullQuestions, type Question, records, SHORT, SOA, shortQuestions } from './content.ts';
import { plans, TIMES, type ZonePlan } from './plans.ts';
import {
  type Anchor,
  anchorOf,
  dsOf,
  makeKey,
  signZone,
  type ZoneKey,
  type ZoneRecord,
  zoneFile,
} from './signer.ts';
import { startTampering, type TamperedZone, tampered } from './tamper.ts';

/** `port`: where the tree is asked, as one asks a recursive server. */
export type Tree = {
  directory: string;
  port: number;
  anchor: Anchor;
  questions: Question[];
  stop: () => Promise<void>;
};

const UNSIGNED = `${SOA}www A 192.0.2.10\nx A 192.0.2.12\n`;
const PLAIN = `${UNSIGNED}back CNAME www.nsec-13.\n*.w A 192.0.2.13\nhost A 192.0.2.14\n`;
const CHILD = `${SOA}ns A 127.0.0.1\nwww A 192.0.2.11\nwww TXT child\n`;

/** Signs, starts nsd and the double, and resolves when they answer. `stop` removes `directory`. */
export async function startTree(): Promise<Tree> {
  const directory = mkdtempSync(join(tmpdir(), 'holdfast-opinion-'));
  const served: string[] = [];
  const serve = (zone: string, text: string): void => {
    const file = `served.${served.length}`;
    writeFileSync(join(directory, file), text);
    served.push(`zone:\n  name: "${zone}"\n  zonefile: "${file}"\n`);
  };
  const everything: (ZonePlan & { tampered?: TamperedZone })[] = [...plans, ...tampered];
  const delegations = await inPairs(everything, async plan => {
    const { text, ds, keys } = await makeZone(directory, plan, serve);
    plan.tampered?.ready(keys);
    serve(plan.name, text);
    const here = records('.', `${plan.name} NS ns.nic.`);
    return [
      ...here,
      ...ds.map(rdata => ({ name: Name.parseText(plan.name), type: TYPE.DS, ttlSeconds: 3600, rdata })),
    ];
  });
  serve('plain.', zoneFile(records('plain.', PLAIN)));
  serve('nic.', zoneFile(records('nic.', `${SOA}ns A 127.0.0.1\n`)));
  const content = `${SOA}nic NS ns.nic.\nplain NS ns.nic.\nns.nic A 127.0.0.1\n`;
  const rootKeys = [makeKey(13)];
  const how = {
    keys: rootKeys,
    keySigners: rootKeys,
    signers: rootKeys,
    denial: { kind: 'nsec' },
    times: TIMES,
  } as const;
  serve('.', zoneFile(signZone(Name.root, [...records('.', content), ...delegations.flat()], how)));
  const { nsd, port: serverPort } = await startNsd(directory, served);
  const double = await startTampering(serverPort, tampered);
  return {
    directory,
    port: double.port,
    anchor: anchorOf(dsOf(Name.root, rootKeys[0]!)),
    questions: [...common(), ...everything.flatMap(questionsOf)],
    stop: async () => {
      await double.stop();
      await ended(nsd);
      rmSync(directory, { recursive: true, force: true });
    },
  };
}

function questionsOf(plan: ZonePlan & { tampered?: TamperedZone }): Question[] {
  if (plan.tampered !== undefined) return plan.tampered.questions;
  const own = plan.full ? fullQuestions(plan.name) : shortQuestions(plan.name);
  const extra =
    plan.extra
      ?.split('\n')
      .filter(Boolean)
      .map(line => line.split(' ')) ?? [];
  const named = extra.flatMap(([owner]) => [
    {
      name: owner === '@' ? `under.${plan.name}` : `${owner!.replace('*', 'some.name')}.${plan.name}`,
      type: 'A',
    },
    { name: owner === '@' ? plan.name : `${owner!.replace('*', 'other')}.${plan.name}`, type: 'TXT' },
  ]);
  return [
    ...own,
    ...new Map(named.map(question => [`${question.name} ${question.type}`, question])).values(),
  ];
}

/** Of the root and of what is not signed. */
function common(): Question[] {
  const rows = `. SOA|. NS|. DNSKEY|. A|. DS|. NSEC|. ANY|nothing. A|nothing. DS|a.b.nothing. A|\\000. A|*. A
plain. SOA|plain. DS|plain. DNSKEY|www.plain. A|nothing.plain. A|x.w.plain. A|x.w.plain. AAAA|back.plain. A|back.plain. AAAA|back.plain. TXT|www.plain. DS|nic. NS|ns.nic. A|ns.nic. AAAA`;
  return rows.split(/[\n|]/).map(row => {
    const [name, type] = row.split(' ') as [string, string];
    return { name, type };
  });
}

type Made = { text: string; ds: Uint8Array[]; keys: ZoneKey[] };

async function makeZone(
  directory: string,
  plan: ZonePlan,
  serve: (zone: string, text: string) => void,
): Promise<Made> {
  const { name, full, bind, denial = { kind: 'nsec' }, times = TIMES, extra = '' } = plan;
  const content = records(name, (full ? FULL : SHORT) + extra);
  if (full) {
    content.push(...below(name, serve));
  } else {
    serve(`cut.${name}`, zoneFile(records(`cut.${name}`, UNSIGNED)));
  }
  if (bind !== undefined) return { ...(await signByBind(directory, name, content, bind)), keys: [] };
  const zone = Name.parseText(name);
  const keys = plan.keys?.() ?? [makeKey(13)];
  const keySigners = plan.keySigners?.(keys) ?? keys;
  const signers = plan.signers?.(keys) ?? keys;
  const signed = signZone(zone, content, { keys, keySigners, signers, denial, times });
  const text = zoneFile(plan.spoil?.(signed, zone, keys) ?? signed);
  return { text, ds: plan.ds?.(zone, keys) ?? keys.map(key => dsOf(zone, key)), keys };
}

/** Serves the zones below a full one; answers the DS that go into it. */
function below(parent: string, serve: (zone: string, text: string) => void): ZoneRecord[] {
  const signed = (name: string, denial: 'nsec' | 'nsec3'): ZoneRecord => {
    const zone = Name.parseText(name);
    const keys = [makeKey(13)];
    const how = denial === 'nsec' ? { kind: denial } : { kind: denial, iterations: 0 };
    const made = { keys, keySigners: keys, signers: keys, denial: how, times: TIMES };
    serve(name, zoneFile(signZone(zone, records(name, CHILD), made)));
    return { name: zone, type: TYPE.DS, ttlSeconds: 3600, rdata: dsOf(zone, keys[0]!) };
  };
  const insecure = `insecure.${parent}`;
  signed(`island.${insecure}`, 'nsec');
  serve(insecure, zoneFile(records(insecure, `${UNSIGNED}island NS ns.nic.\n`)));
  serve(`insecure2.${parent}`, zoneFile(records(`insecure2.${parent}`, `${UNSIGNED}ns A 127.0.0.1\n`)));
  return [signed(`child.${parent}`, 'nsec3')];
}

async function signByBind(
  directory: string,
  name: string,
  content: readonly ZoneRecord[],
  { algorithm, denial }: { algorithm: string; denial: string[] },
): Promise<{ text: string; ds: Uint8Array[] }> {
  const run = (file: string, args: string[]) =>
    promisify(execFile)(file, args, { cwd: directory, env: layerEnvironment() });
  const size = algorithm.includes('RSA') ? ['-b', '1280'] : [];
  const { stdout } = await run('dnssec-keygen', ['-q', '-a', algorithm, ...size, '-f', 'KSK', name]);
  const key = stdout.trim();
  const file = `unsigned.${name.slice(0, -1)}`;
  writeFileSync(
    join(directory, file),
    zoneFile(content) + readFileSync(join(directory, `${key}.key`), 'utf8'),
  );
  await run('dnssec-signzone', ['-q', '-P', '-z', '-o', name, ...denial, '-f', `${file}.signed`, file, key]);
  const { stdout: text } = await run('dnssec-dsfromkey', ['-2', `${key}.key`]);
  const [tag, number, digestType, digest] = text.trim().split(' DS ')[1]!.split(' ') as [
    string,
    string,
    string,
    string,
  ];
  const head = [Number(tag) >> 8, Number(tag) & 0xff, Number(number), Number(digestType)];
  const ds = Uint8Array.of(...head, ...Buffer.from(digest, 'hex'));
  return { text: readFileSync(join(directory, `${file}.signed`), 'utf8'), ds: [ds] };
}

/** Two at a time: BIND's signer is a process. */
export async function inPairs<T, R>(items: readonly T[], work: (item: T) => Promise<R>): Promise<R[]> {
  const results: R[] = [];
  let next = 0;
  const worker = async (): Promise<void> => {
    for (let i = next++; i < items.length; i = next++) results[i] = await work(items[i]!);
  };
  await Promise.all([worker(), worker()]);
  return results;
}
