/**
 * The configuration: one YAML file, every key also a flag and an environment variable.
 *
 * Precedence: flag, then environment, then file, then default. What `loadConfiguration` returns is complete: every
 * default is filled in, files it names (policy directory, trust anchors) are read, nothing else on the machine is
 * touched. Whatever does not fit is a ConfigurationError that names the place, the key, what was expected and found.
 */
import { dirname, join, resolve } from 'node:path';
import { type Cidr, parseCidr, type SocketAddress } from './address.ts';
import type { GatewayRule } from './capture/gateways.ts';
import { type GroupEntries, POLICY_GROUPS, type PolicyGroup } from './capture/groups.ts';
import { isAnchor, recordsOfAnchorFile } from './config/anchors.ts';
import { fullyQualifiedName, type Machine, systemUpstreams, thisMachine } from './config/machine.ts';
import { addEntry, noEntries, readPolicyDirectory } from './config/policy.ts';
import { type ForwardZone, keysAt, type ParsedTree, SETTINGS, schema } from './config/schema.ts';
import { ConfigurationError, combine, type Problem, readYaml, type Sources, show } from './config/sources.ts';
import { Name } from './dns/name.ts';
import { IANA_ROOT_ANCHORS, parseTrustAnchors, type TrustAnchor } from './dnssec/anchors.ts';
import type { LogLevel } from './log.ts';
import {
  PORTAL_CHECK_NAMES,
  PORTAL_CHECK_RESPONSE,
  PORTAL_CHECK_URL,
  type PortalSetting,
} from './network/portal-mode.ts';
import { closest } from './suggestion.ts';
import { isOurselves } from './upstream/resolv-conf.ts';
import { addressesOf, NETWORK, type UpstreamChoice, type UpstreamServer } from './upstream/server.ts';

export { ConfigurationError } from './config/sources.ts';

/** Everything the daemon needs to know, parsed and with every default filled in. */
export type Configuration = {
  /** Where the stub listens, UDP and TCP. */
  listen: SocketAddress[];
  /** Where DNS over TLS and over HTTPS are served, and what is shown there; undefined: nowhere. */
  secure: { tls: SocketAddress[]; https: SocketAddress[]; certificate: string; key: string } | undefined;
  /** Who may ask. */
  access: Cidr[];
  /** The resolvers asked. */
  upstream: UpstreamChoice[];
  /** What `network` stood for when the configuration was read; empty when the network names none but us. */
  networkServers: SocketAddress[];
  /** What `tls` and `https` resolvers have to be vouched for by; undefined: the system's authorities. */
  upstreamAuthorities: { file: string; pem: string } | undefined;
  /** Zones with resolvers of their own; the longest that holds a name counts. */
  forward: ForwardZone[];
  /** Whether it is found out which way DNSSEC comes through. */
  probing: boolean;
  portal: PortalSetting;
  trustAnchors: TrustAnchor[];
  /** The trust anchors are only where it began: rollovers are followed (RFC 5011). */
  trustAnchorsManaged: boolean;
  /** Names below which nothing is validated (RFC 7646). */
  negativeTrustAnchors: Name[];
  cache: {
    /** Octets of memory for all that is kept of answers. */
    maxBytes: number;
    /** How long past its end an answer may be given while every seal stands and upstream is silent; 0: never. */
    maxStaleSeconds: number;
    /** Whether answers outlive an orderly stop, in the state directory. */
    keepOnStop: boolean;
  };
  identity: {
    /** FQDN sent as our IKE identity; undefined: our address is our identity. */
    name: string | undefined;
    keys: KeySource;
  };
  policy: {
    default: PolicyGroup;
    groups: Record<PolicyGroup, GroupEntries>;
    /** Gateways that may speak for hosts without the word of their reverse zone. */
    gateways: GatewayRule[];
  };
  /** How long an answer is held for a negotiation before the group decides, milliseconds. */
  patienceMillis: number;
  /** Path of the control socket. */
  control: string;
  /** Directory of what outlives a restart: keys, pins, peers. */
  state: string;
  ike: { ports: { ike: number; nat: number } };
  dataplane: 'auto' | 'xfrm' | 'none';
  log: { level: LogLevel; format: 'auto' | 'json' | 'text' };
  /** Unix seconds at which signatures are judged instead of the clock; for tests. */
  validationTime: number | undefined;
  /** The file read, if one was. */
  file: string | undefined;
};

/** Where the private keys lie: a directory (`generate`: filled at first start when empty) or the files themselves. */
export type KeySource = { directory: string; generate: boolean } | { files: string[] };

/** Read when no other file is named and it exists. */
export const DEFAULT_FILE = '/etc/holdfast/holdfast.yaml';

export type Invocation = {
  /** `--config`: must exist. Otherwise HOLDFAST_CONFIG, otherwise DEFAULT_FILE if it exists. */
  file?: string | undefined;
  /** Flags by their long name without dashes, such as `policy-default`. */
  flags?: Record<string, unknown>;
  environment?: Record<string, string | undefined>;
  machine?: Machine;
};

/** Reads, checks and completes the configuration. Throws ConfigurationError with every problem found. */
export function loadConfiguration(invocation: Invocation = {}): Configuration {
  const { flags = {}, environment = process.env, machine = thisMachine } = invocation;
  const named = invocation.file ?? (environment.HOLDFAST_CONFIG || undefined);
  const file = readConfigurationFile(machine, named);
  const sources = combine(file?.sources, environment, flags);
  const parsed = schema.safeParse(sources.tree);
  if (!parsed.success) throw new ConfigurationError(problemsOf(parsed.error.issues, sources));
  return complete(parsed.data, sources, machine, file?.path);
}

function readConfigurationFile(machine: Machine, named: string | undefined) {
  const path = resolve(named ?? DEFAULT_FILE);
  const content = attempt(path, () => machine.readText(path));
  if (content !== undefined) return { path, sources: readYaml(path, content) };
  if (named === undefined) return undefined;
  throw new ConfigurationError([{ place: path, expected: 'a configuration file', found: 'no such file' }]);
}

/** Runs a read; what the system says against it becomes a problem of that place. */
function attempt<T>(place: string, read: () => T, key?: string): T {
  try {
    return read();
  } catch (error) {
    if (error instanceof ConfigurationError) throw error;
    const problem: Problem = { place, expected: 'a readable file', found: (error as Error).message };
    throw new ConfigurationError([key === undefined ? problem : { ...problem, key }]);
  }
}

type Issue = { code?: string; path: PropertyKey[]; message: string; keys?: string[]; errors?: Issue[][] };

function problemsOf(issues: Issue[], sources: Sources): Problem[] {
  return issues.flatMap(issue => {
    if (issue.code === 'unrecognized_keys')
      return (issue.keys ?? []).map(key => unknownKey([...issue.path], key, sources));
    const value = issue.path.reduce<unknown>((node, step) => (node as never)?.[step], sources.tree);
    const found = show(value);
    const choices = /^one of (.*)$/.exec(issue.message)?.[1]?.split(', ') ?? [];
    const meant = typeof value === 'string' ? closest(value, choices) : undefined;
    const problem: Problem = {
      place: sources.placeOf(issue.path),
      key: keyText(issue.path),
      expected: issue.message,
      found,
    };
    return [meant === undefined ? problem : { ...problem, hint: `did you mean ${meant}?` }];
  });
}

function unknownKey(path: PropertyKey[], key: string, sources: Sources): Problem {
  const known = keysAt(path);
  const meant = closest(key, known) ?? SETTINGS.find(setting => setting.path.at(-1) === key)?.key;
  return {
    place: sources.placeOf([...path, key], 'key'),
    key: keyText([...path, key]),
    expected: `one of the keys ${known.join(', ')}`,
    found: show(key),
    ...(meant === undefined ? {} : { hint: `did you mean ${meant}?` }),
  };
}

/** `policy.groups.private[2]` */
function keyText(path: PropertyKey[]): string {
  return path
    .map((step, i) => (typeof step === 'number' ? `[${step}]` : `${i ? '.' : ''}${String(step)}`))
    .join('');
}

/** Fills in the defaults and reads the files that the configuration names. */
function complete(
  given: ParsedTree,
  sources: Sources,
  machine: Machine,
  file: string | undefined,
): Configuration {
  const problems: Problem[] = [];
  const from = (path: string[], value: string) =>
    resolve(sources.inFile(path) && file ? dirname(file) : '.', value);
  const listen = given.listen ?? [
    { address: '127.0.0.1', port: 53 },
    { address: '::1', port: 53 },
  ];
  const [tls, https] = [given['listen-tls'] ?? [], given['listen-https'] ?? []];
  const ourselves = { listen: [...listen, ...tls, ...https], interfaceAddresses: machine.ownAddresses() };
  const state = from(['state'], given.state ?? '/var/lib/holdfast');
  const groups = noEntries();
  for (const group of POLICY_GROUPS) {
    for (const entry of given.policy?.groups?.[group] ?? []) addEntry(groups, group, entry);
  }
  if (given.policy?.directory !== undefined) {
    const directory = from(['policy', 'directory'], given.policy.directory);
    const place = sources.placeOf(['policy', 'directory']);
    if (machine.isDirectory(directory)) {
      problems.push(
        ...attempt(place, () => readPolicyDirectory(machine, directory, groups), 'policy.directory'),
      );
    } else problems.push({ place, key: 'policy.directory', expected: 'a directory', found: show(directory) });
  }
  const files = given.tls ?? {};
  for (const key of ['certificate', 'key'] as const) {
    if (tls.length + https.length === 0 || files[key] !== undefined) continue;
    const listening = tls.length > 0 ? 'listen-tls' : 'listen-https';
    const expected = `a PEM file, which ${listening} needs`;
    problems.push({ place: sources.placeOf([listening]), key: `tls.${key}`, expected, found: 'none' });
  }
  const mustBeOther = (server: UpstreamChoice, path: (string | number)[]) => {
    const addresses = server === NETWORK ? [] : addressesOf(server);
    if (!addresses.some(({ address, port }) => isOurselves(address, port, ourselves))) return;
    problems.push({
      place: sources.placeOf(path),
      key: keyText(path),
      expected: 'another resolver',
      found: 'an address this one listens on',
    });
  };
  for (const [i, server] of (given.upstream ?? []).entries()) mustBeOther(server, ['upstream', i]);
  for (const [i, { servers }] of (given.forward ?? []).entries()) {
    for (const server of servers) mustBeOther(server, ['forward', i]);
  }
  const authorities = readAuthorities(given['upstream-authorities'], sources, machine, from, problems);
  const name = given.identity?.name;
  const configuration: Configuration = {
    listen,
    secure:
      tls.length + https.length === 0
        ? undefined
        : {
            tls,
            https,
            certificate: from(['tls', 'certificate'], files.certificate ?? ''),
            key: from(['tls', 'key'], files.key ?? ''),
          },
    access: given.access ?? [parseCidr('127.0.0.0/8')!, parseCidr('::1')!],
    upstream: given.upstream ?? [NETWORK],
    networkServers: systemUpstreams(machine, ourselves),
    upstreamAuthorities: authorities,
    forward: given.forward ?? [],
    probing: given.probe !== 'none',
    portal: portalSetting(given.portal),
    trustAnchors: trustAnchors(given['trust-anchors'], sources, machine, from, problems),
    negativeTrustAnchors: (given['negative-trust-anchors'] ?? []).map(owner => Name.parseText(`${owner}.`)),
    trustAnchorsManaged: given['trust-anchors-managed'] ?? given['trust-anchors'] === undefined,
    cache: {
      maxBytes: given.cache?.size ?? 64 << 20,
      maxStaleSeconds: Math.floor((given.cache?.stale ?? 86_400_000) / 1000),
      keepOnStop: given.cache?.['keep-on-stop'] ?? false,
    },
    identity: {
      name: name === 'none' ? undefined : (name ?? fullyQualifiedName(machine)),
      keys: keySource(given.identity?.keys, state, from),
    },
    policy: {
      default: given.policy?.default ?? 'private-or-clear',
      groups,
      gateways: given.policy?.gateways ?? [],
    },
    patienceMillis: given.patience ?? 2000,
    control: from(['control'], given.control ?? '/run/holdfast/control.sock'),
    state,
    ike: { ports: { ike: given.ike?.ports?.ike ?? 500, nat: given.ike?.ports?.nat ?? 4500 } },
    dataplane: given.dataplane ?? 'auto',
    log: { level: given.log?.level ?? 'info', format: given.log?.format ?? 'auto' },
    validationTime: given['validation-time'],
    file,
  };
  if (problems.length > 0) throw new ConfigurationError(problems);
  return configuration;
}

/** The resolvers to begin with: those configured, and for `network` those that it named when the configuration was read. */
export function serversAtStart({ upstream, networkServers }: Configuration): UpstreamServer[] {
  return upstream.flatMap(choice =>
    choice === NETWORK
      ? networkServers.map((address): UpstreamServer => ({ transport: 'udp', address }))
      : [choice],
  );
}

function readAuthorities(
  given: string | undefined,
  sources: Sources,
  machine: Machine,
  from: (path: string[], value: string) => string,
  problems: Problem[],
): Configuration['upstreamAuthorities'] {
  if (given === undefined) return undefined;
  const key = 'upstream-authorities';
  const place = sources.placeOf([key]);
  const path = from([key], given);
  const text = attempt(place, () => machine.readText(path), key);
  if (text?.includes('-----BEGIN CERTIFICATE-----')) return { file: path, pem: text };
  problems.push({ place, key, expected: 'a file of certificates in PEM', found: show(path) });
  return undefined;
}

function portalSetting(given: ParsedTree['portal']): PortalSetting {
  const url = given?.check ?? new URL(PORTAL_CHECK_URL);
  const response = given?.response ?? PORTAL_CHECK_RESPONSE;
  return {
    check: url === 'none' ? undefined : { url, response },
    names: (given?.names ?? PORTAL_CHECK_NAMES).map(name => Name.parseText(`${name}.`)),
  };
}

function keySource(
  keys: string | string[] | undefined,
  state: string,
  from: (path: string[], value: string) => string,
): KeySource {
  if (keys === undefined) return { directory: join(state, 'keys'), generate: true };
  const path = ['identity', 'keys'];
  if (typeof keys === 'string') return { directory: from(path, keys), generate: false };
  return { files: keys.map(key => from(path, key)) };
}

function trustAnchors(
  given: string | string[] | undefined,
  sources: Sources,
  machine: Machine,
  from: (path: string[], value: string) => string,
  problems: Problem[],
): TrustAnchor[] {
  const key = 'trust-anchors';
  const expected = 'a DS or DNSKEY record such as . IN DS 20326 8 2 E06D…';
  let records: { place: string; key: string; record: string }[];
  if (typeof given === 'string') {
    const place = sources.placeOf([key]);
    const path = from([key], given);
    const content = attempt(place, () => machine.readText(path), key);
    if (content === undefined) problems.push({ place, key, expected: 'a file', found: show(path) });
    records = recordsOfAnchorFile(content ?? '').map(({ line, record }) => ({
      place: `${path}:${line}`,
      key,
      record,
    }));
    if (content !== undefined && records.length === 0)
      problems.push({ place: path, key, expected, found: 'none' });
  } else {
    if (given === undefined) return parseTrustAnchors(IANA_ROOT_ANCHORS);
    records = given.map((record, i) => ({ place: sources.placeOf([key, i]), key: `${key}[${i}]`, record }));
  }
  const unfit = records.filter(({ record }) => !isAnchor(record));
  problems.push(...unfit.map(({ place, key, record }) => ({ place, key, expected, found: show(record) })));
  return unfit.length > 0 ? [] : parseTrustAnchors(records.map(({ record }) => record).join('\n'));
}
