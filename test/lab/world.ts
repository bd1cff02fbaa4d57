// Everything that a run of the lab needs in files, made anew for each run on the machine, before the lab boots: keys,
// signed zones, and the configurations of every server. `servers.ts` starts them, inside.
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { stringify } from 'yaml';
import { generateKeys, keyKinds, writeKeys } from './keys.ts';
import { bobNames, kindOf, type Parties, zones } from './names.ts';
import { type Connection, everyKey, writeStrongSwan } from './strongswan.ts';
import { carolAddress } from './topology.ts';
import { type SignedZones, signZones } from './zones.ts';

/** Writes the world into an empty folder, to be passed as `out` to runInLab. Throws when a zone cannot be signed. */
export function writeWorld(folder: string): void {
  mkdirSync(folder, { recursive: true });
  const parties: Parties = {
    alice: generateKeys(),
    bob: generateKeys(),
    carol: generateKeys(),
    bank: generateKeys(),
    gate: generateKeys(),
    mallory: generateKeys(),
    stranger: generateKeys(),
  };
  writeDns(folder, signZones(join(folder, 'zones'), zones(parties)));
  for (const [party, keys] of Object.entries(parties)) writeKeys(join(folder, 'keys'), party, keys);
  const { alice, bob, carol, bank, gate, mallory } = parties;
  writeStrongSwan(join(folder, 'bob'), { bob, bank }, { alice, carol }, bobConnections());
  const gated = accept('gated.example', ['gate-ed25519']);
  writeStrongSwan(join(folder, 'natr'), { gate }, { alice }, [{ ...gated, protects: carolAddress }]);
  writeStrongSwan(join(folder, 'alice'), { alice }, { bob }, aliceConnections());
  writeStrongSwan(join(folder, 'mallory'), { mallory }, { alice }, [
    accept('evil.example', everyKey('mallory')),
    accept('own.evil.example', ['mallory-ed25519']),
    accept('gateway.evil.example', ['mallory-ed25519']),
  ]);
  writeHoldfast(join(folder, 'alice.yaml'), folder, 'alice');
  writeHoldfast(join(folder, 'bob.yaml'), folder, 'bob');
  writeHoldfast(join(folder, 'carol.yaml'), folder, 'carol');
}

/** A connection that answers alice in the name of `id`; an initiator of the same name can start it towards her. */
function accept(id: string, keys: Connection['local']['keys']): Connection {
  const remote = { id: 'alice.example', keys: everyKey('alice') };
  return { name: id.replace(/\.example$/, '').replaceAll('.', '-'), local: { id, keys }, remote };
}

function bobConnections(): Connection[] {
  const named = bobNames.map(id => accept(id, [`bob-${kindOf(id)}`]));
  // By these bob starts: an initiator needs an address to send to.
  const outward = keyKinds.flatMap(kind =>
    (['10.9.0', 'fd09:'] as const).map((net, i): Connection => {
      const dot = i === 0 ? '.' : ':';
      return {
        name: `to-alice-${kind}-${i === 0 ? 4 : 6}`,
        local: { id: `${kind}.example`, keys: [`bob-${kind}`], addresses: [`${net}${dot}2`] },
        remote: { id: 'alice.example', keys: everyKey('alice'), addresses: [`${net}${dot}1`] },
      };
    }),
  );
  const carol: Connection = {
    ...accept('bob.example', ['bob-ed25519']),
    name: 'bob-for-carol',
    remote: { id: 'carol.example', keys: everyKey('carol') },
  };
  return [...named, carol, accept('bank.example', ['bank-ed25519']), ...outward];
}

/** strongSwan at alice's place, where a test wants to see two strongSwans. */
function aliceConnections(): Connection[] {
  return keyKinds.map(kind => ({
    name: kind,
    local: { id: 'alice.example', keys: [`alice-${kind}`] },
    remote: { id: `${kind}.example`, keys: [`bob-${kind}`], addresses: ['10.9.0.2'] },
  }));
}

function writeDns(folder: string, { served, anchor }: SignedZones): void {
  const list = served.map(({ origin, file }) => `zone:\n  name: "${origin}"\n  zonefile: "${file}"\n`);
  writeFileSync(
    join(folder, 'nsd.conf'),
    `server:
  ip-address: 10.9.0.53
  ip-address: fd09::53
  username: ""
  zonesdir: "${join(folder, 'zones')}"
  pidfile: "/run/nsd.pid"
  xfrdfile: "/run/nsd.xfrd"
  zonelistfile: "/run/nsd.zones"
  database: ""
  server-count: 1
remote-control:
  control-enable: no
${list.join('')}`,
  );
  writeFileSync(join(folder, 'root.hints'), '. 3600 NS ns.example.\nns.example. 3600 A 10.9.0.53\n');
  writeFileSync(join(folder, 'root.ds'), `${anchor}\n`);
  writeFileSync(
    join(folder, 'unbound.conf'),
    `server:
  chroot: ""
  username: ""
  directory: "${folder}"
  pidfile: "/run/unbound.pid"
  use-syslog: no
  logfile: "${join(folder, 'unbound.log')}"
  interface: 10.9.0.54
  interface: fd09::54
  access-control: 10.9.0.0/24 allow
  access-control: fd09::/64 allow
  num-threads: 1
  do-daemonize: no
  root-hints: "${join(folder, 'root.hints')}"
  trust-anchor-file: "${join(folder, 'root.ds')}"
  trust-anchor-signaling: no
  local-zone: "10.in-addr.arpa." nodefault
  local-zone: "168.192.in-addr.arpa." nodefault
  local-zone: "d.f.ip6.arpa." nodefault
remote-control:
  control-enable: no
`,
  );
}

function writeHoldfast(file: string, folder: string, party: 'alice' | 'bob' | 'carol'): void {
  const configuration = {
    listen: ['127.0.0.1:53', '[::1]:53'],
    upstream: ['10.9.0.54:53'],
    'trust-anchors': join(folder, 'root.ds'),
    identity: {
      name: `${party}.example`,
      keys: keyKinds.map(kind => join(folder, 'keys', `${party}-${kind}.pem`)),
    },
    policy: { default: 'private-or-clear', groups: { private: ['wrong.example'] } },
    control: '/run/holdfast/control.sock',
    state: '/run/holdfast/state',
    dataplane: 'xfrm',
    log: { level: 'debug', format: 'json' },
  };
  writeFileSync(file, stringify(configuration));
}
