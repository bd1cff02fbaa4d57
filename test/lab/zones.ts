// Signed zones from zone texts: keys and signatures by BIND's dnssec-keygen and dnssec-signzone, served by nsd.
import { spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { brokenName, type ZoneText } from './names.ts';
import { layerEnvironment, locate } from './packages.ts';

/** Zones as nsd serves them, and the trust anchor of the root. */
export type SignedZones = { served: { origin: string; file: string }[]; anchor: string };

/**
 * Signs the zones (ECDSA P-256, RFC 6605) and a root above them, into a folder.
 *
 * Delegations from a zone to those below it are added here, with DS where the zone is signed.
 */
export function signZones(folder: string, zones: ZoneText[]): SignedZones {
  mkdirSync(folder, { recursive: true });
  const deepestFirst = zones.toSorted((a, b) => labels(b.origin) - labels(a.origin));
  const root: ZoneText = { origin: '.', signed: true, lines: [] };
  const all = [...deepestFirst, root];
  const delegations = new Map<string, string[]>();
  const served = all.map(zone => {
    const parent = parentOf(zone.origin, all);
    const delegated = delegations.get(zone.origin) ?? [];
    const text = [
      `$ORIGIN ${fqdn(zone.origin)}`,
      '$TTL 300',
      '@ SOA ns.example. hostmaster.example. 1 3600 600 86400 60',
      '@ NS ns.example.',
      ...zone.lines,
      ...delegated,
    ];
    const file = join(folder, zone.origin === '.' ? 'root.zone' : `${zone.origin}.zone`);
    writeFileSync(file, `${text.join('\n')}\n`);
    const ds = zone.signed ? sign(folder, zone, file) : [];
    if (parent) {
      const glue = zone.origin === 'example' ? ['ns.example. A 10.9.0.53', 'ns.example. AAAA fd09::53'] : [];
      const records = [`${fqdn(zone.origin)} NS ns.example.`, ...glue, ...ds];
      delegations.set(parent, [...(delegations.get(parent) ?? []), ...records]);
    }
    return { origin: zone.origin, file, ds };
  });
  return { served, anchor: served.at(-1)!.ds.join('\n') };
}

/** Signs in place; answers the DS records. One key signs everything, as most small zones do today. */
function sign(folder: string, zone: ZoneText, file: string): string[] {
  const origin = fqdn(zone.origin);
  program('dnssec-keygen', ['-q', '-K', folder, '-a', 'ECDSAP256SHA256', '-f', 'KSK', origin]);
  const proof = zone.nsec3 ? ['-3', '-', '-H', '0'] : [];
  const form = ['-O', 'full', '-P', '-q', '-f', file, '-d', folder];
  program('dnssec-signzone', ['-S', '-z', '-K', folder, ...form, ...proof, '-o', origin, file]);
  const lines = readFileSync(file, 'utf8').split('\n');
  writeFileSync(file, lines.map(spoil).join('\n'));
  const ds = readFileSync(join(folder, `dsset-${origin}`), 'utf8')
    .trim()
    .split('\n');
  return ds.map(line => line.replace(/^\S+/, origin));
}

/** Changes one letter in a signature of the broken name: still well-formed, no longer true. */
function spoil(line: string): string {
  if (!line.startsWith(`${brokenName}.`) || !line.includes(' IN RRSIG')) return line;
  return line.replace(/\S(?=\S{20}$)/, letter => (letter === 'A' ? 'B' : 'A'));
}

function program(name: string, args: string[]): void {
  const path = locate(`usr/bin/${name}`) ?? locate(`usr/sbin/${name}`);
  if (!path) throw new Error(`${name} is missing (Debian package bind9-utils)`);
  const run = spawnSync(path, args, { encoding: 'utf8', env: layerEnvironment() });
  if (run.status !== 0) throw new Error(`${name} ${args.at(-1)}: ${run.error ?? run.stderr}`);
}

function parentOf(origin: string, zones: ZoneText[]): string | undefined {
  const above = zones.filter(
    z => z.origin === '.' || (z.origin !== origin && origin.endsWith(`.${z.origin}`)),
  );
  return origin === '.'
    ? undefined
    : above.toSorted((a, b) => labels(b.origin) - labels(a.origin))[0]!.origin;
}

const labels = (origin: string) => (origin === '.' ? 0 : origin.split('.').length);
const fqdn = (origin: string) => (origin === '.' ? '.' : `${origin}.`);
