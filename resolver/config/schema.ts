/**
 * The schema of the configuration: every key, what it takes and what it means.
 *
 * The one place where keys are declared: flags, environment variables, `config schema` and the help texts follow from
 * it. Each schema's error message is the phrase that completes "expected …".
 */
import { z } from 'zod';
import { parseCidr, parseSocketAddress } from '../address.ts';
import { parseGatewayRule } from '../capture/gateways.ts';
import { POLICY_GROUPS } from '../capture/groups.ts';
import { LOG_LEVELS } from '../log.ts';
import { Name } from '../dns/name.ts';
import { PORTAL_CHECK_RESPONSE, PORTAL_CHECK_URL } from '../network/portal-mode.ts';
import { NETWORK, parseUpstreamServer, type UpstreamServer } from '../upstream/server.ts';
import {
  parseDomainName,
  parseDuration,
  parseFqdn,
  parsePolicyEntry,
  parsePort,
  parseSize,
  parseTime,
} from './values.ts';

/** A value written as text, read by `parse`, which returns undefined for what does not fit. */
function text<T>(expected: string, parse: (value: string) => T | undefined) {
  return z.string({ error: expected }).transform((value, context): T => {
    const parsed = parse(value);
    if (parsed !== undefined) return parsed;
    context.issues.push({ code: 'custom', message: expected, input: value });
    return z.NEVER;
  });
}

/** As `text`, for values that YAML reads as numbers. */
function numeric<T>(expected: string, parse: (value: string) => T | undefined) {
  return z
    .union([z.number(), z.string()], { error: expected })
    .transform(value => String(value))
    .pipe(text(expected, parse));
}

const list = <S extends z.ZodType>(of: S, expected: string) => z.array(of, { error: expected });
const oneOf = <const V extends readonly [string, ...string[]]>(values: V) =>
  z.enum(values, { error: `one of ${values.join(', ')}` });
const yesOrNo = z
  .union([z.boolean(), z.enum(['yes', 'no', 'true', 'false'])], { error: 'yes or no' })
  .transform(value => value === true || value === 'yes' || value === 'true');
const path = text('a path', value => (value === '' ? undefined : value));

const SOCKET = 'an IP address with or without port, such as 127.0.0.1:53 or [::1]:53';
const socket = text(SOCKET, value => parseSocketAddress(value, 53));
const TLS_SOCKET = 'an IP address with or without port, such as 192.0.2.1 or [2001:db8::1]:8853';
const tlsSocket = text(TLS_SOCKET, value => parseSocketAddress(value, 853));
const httpsSocket = text(TLS_SOCKET, value => parseSocketAddress(value, 443));
const cidr = text('an address or a prefix, such as 192.0.2.0/24', parseCidr);
const GATEWAY = 'a gateway and its hosts, such as 198.51.100.1 for 10.0.0.0/8';
const ENTRY = 'an address, a prefix, a name or a pattern such as *.example.org';
const entries = list(text(ENTRY, parsePolicyEntry), `a list, each ${ENTRY}`);
const port = numeric('a port from 1 to 65535', parsePort);
const name = text('a domain name', parseDomainName);

const SERVER =
  'a resolver such as 192.0.2.1, tcp://192.0.2.1, tls://192.0.2.1#dns.example, tls://192.0.2.1#pin-sha256=… or https://dns.example/dns-query';
const server = text(SERVER, parseUpstreamServer);
const upstream = text(`${SERVER}; or network`, value =>
  value === NETWORK ? NETWORK : parseUpstreamServer(value),
);

export type ForwardZone = { zone: Name; servers: UpstreamServer[] };

const FORWARD = 'a zone and its resolvers, such as 10.0.0.53 10.0.0.54 for corp.example';
const forward = z.union(
  [
    z
      .strictObject({ zone: name, servers: list(server, `a list, each ${SERVER}`).min(1) })
      .transform(({ zone, servers }): ForwardZone => ({ zone: Name.parseText(`${zone}.`), servers })),
    text(FORWARD, parseForward),
  ],
  { error: `a mapping with the keys zone and servers, or ${FORWARD}` },
);

/** `10.0.0.53 10.0.0.54 for corp.example`, as flags and the environment write it. */
function parseForward(value: string): ForwardZone | undefined {
  const [, resolvers, zone] = /^(\S.*?) +for +(\S+)$/.exec(value.trim()) ?? [];
  const owner = zone === undefined ? undefined : parseDomainName(zone);
  const servers = (resolvers ?? '').split(/ +/).map(parseUpstreamServer);
  if (owner === undefined || !servers.every(one => one !== undefined)) return undefined;
  return { zone: Name.parseText(`${owner}.`), servers };
}

function parseCacheSize(value: string): number | undefined {
  const octets = parseSize(value);
  return octets !== undefined && octets >= 1 << 20 && octets <= 64 * (1 << 30) ? octets : undefined;
}

const CHECK = 'an http:// URL, or none';

function parseCheckUrl(value: string): URL | undefined {
  const url = URL.canParse(value) ? new URL(value) : undefined;
  return url?.protocol === 'http:' && url.username === '' ? url : undefined;
}

const groupShape = Object.fromEntries(
  POLICY_GROUPS.map(group => [
    group,
    entries.optional().meta({ description: `addresses and names of the group ${group}` }),
  ]),
) as Record<(typeof POLICY_GROUPS)[number], z.ZodOptional<typeof entries>>;

/** A mapping whose unknown keys are errors; all its keys may be left out. */
function mapping<Shape extends z.ZodRawShape>(shape: Shape) {
  return z.strictObject(shape, { error: `a mapping with the keys ${Object.keys(shape).join(', ')}` });
}

export const schema = mapping({
  listen: list(socket, `a list, each ${SOCKET}`)
    .min(1, { error: 'at least one address to listen on' })
    .optional()
    .meta({ description: 'where the stub listens, UDP and TCP (default 127.0.0.1:53, [::1]:53)' }),
  'listen-tls': list(tlsSocket, `a list, each ${TLS_SOCKET}`)
    .optional()
    .meta({ description: 'where DNS over TLS is served (default nowhere; port 853)' }),
  'listen-https': list(httpsSocket, `a list, each ${TLS_SOCKET}`)
    .optional()
    .meta({ description: 'where DNS over HTTPS is served, at /dns-query (default nowhere; port 443)' }),
  tls: mapping({
    certificate: path
      .optional()
      .meta({ description: 'PEM file of the certificate shown there, and those above it' }),
    key: path.optional().meta({ description: 'PEM file of its private key, mode 0600 or 0640' }),
  }).optional(),
  access: list(cidr, 'a list of addresses and prefixes')
    .optional()
    .meta({ description: 'who may ask (default loopback)' }),
  upstream: list(upstream, `a list, each ${SERVER}; or network`)
    .optional()
    .meta({ description: 'resolvers to ask; network stands for those the network gave (default network)' }),
  'upstream-authorities': path
    .optional()
    .meta({ description: 'PEM file of who vouches for tls and https resolvers (default the system’s)' }),
  forward: list(forward, `a list, each a mapping with the keys zone and servers, or ${FORWARD}`)
    .optional()
    .meta({ description: 'zones with resolvers of their own, such as 10.0.0.53 for corp.example' }),
  probe: oneOf(['auto', 'none']).optional().meta({
    description:
      'auto: find out at start and on each network which way DNSSEC comes through; none: ask all servers as they are (default auto)',
  }),
  portal: mapping({
    check: z
      .union([z.literal('none'), text(CHECK, parseCheckUrl)], { error: CHECK })
      .optional()
      .meta({
        description: `page that tells a captive portal, or none to never look (default ${PORTAL_CHECK_URL})`,
      }),
    response: z
      .string({ error: 'a text' })
      .optional()
      .meta({
        description: `how that page begins; a status of 204 is as good (default "${PORTAL_CHECK_RESPONSE}")`,
      }),
    names: list(name, 'a list of domain names').optional().meta({
      description:
        'names answered without protection behind a portal, besides that of the check (default those by which systems and browsers look for one)',
    }),
  }).optional(),
  'trust-anchors': z
    .union([path, z.array(z.string())], { error: 'a file, or a list of DS or DNSKEY records' })
    .optional()
    .meta({ description: 'a file or list of DS and DNSKEY records (default the root of IANA)' }),
  'negative-trust-anchors': list(name, 'a list of domain names')
    .optional()
    .meta({ description: 'names below which DNSSEC is not validated' }),
  'trust-anchors-managed': yesOrNo.optional().meta({
    description:
      'follow the rollovers of trust anchors (RFC 5011; default yes for the root of IANA, no for others)',
  }),
  cache: mapping({
    size: text('a size from 1MB to 64GB, such as 64MB', parseCacheSize)
      .optional()
      .meta({ description: 'memory for answers, in all (default 64MB)' }),
    stale: text('a duration such as 24h, or 0s', parseDuration).optional().meta({
      description:
        'how long past its TTL a name whose seal stands is answered while upstream is silent (default 24h; 0s: never)',
    }),
    'keep-on-stop': yesOrNo
      .optional()
      .meta({ description: 'keep the answers in STATE over an orderly stop (default no)' }),
  }).optional(),
  identity: mapping({
    name: text('a name with a dot, or none', value => (value === 'none' ? 'none' : parseFqdn(value)))
      .optional()
      .meta({ description: 'name we identify as, or none for our address (default the FQDN of this host)' }),
    keys: z
      .union([path, z.array(path)], { error: 'a directory, or a list of PEM files' })
      .optional()
      .meta({
        description: 'directory or list of PKCS#8 PEM files (default STATE/keys, filled at first start)',
      }),
  }).optional(),
  policy: mapping({
    default: oneOf(POLICY_GROUPS)
      .optional()
      .meta({ description: 'group of whatever no entry names (default private-or-clear)' }),
    groups: mapping(groupShape).optional(),
    gateways: list(text(GATEWAY, parseGatewayRule), `a list, each ${GATEWAY}`)
      .optional()
      .meta({ description: 'gateways that may speak for hosts, such as 198.51.100.1 for 10.0.0.0/8' }),
    directory: path
      .optional()
      .meta({ description: 'directory of policy files named as the groups, one entry a line' }),
  }).optional(),
  patience: text('a duration such as 2s or 500ms', parseDuration)
    .optional()
    .meta({ description: 'how long an answer waits for a negotiation (default 2s)' }),
  control: path.optional().meta({ description: 'control socket (default /run/holdfast/control.sock)' }),
  state: path.optional().meta({ description: 'directory of keys and memory (default /var/lib/holdfast)' }),
  ike: mapping({
    ports: mapping({
      ike: port.optional().meta({ description: 'UDP port of IKE (default 500)' }),
      nat: port.optional().meta({ description: 'UDP port of IKE and ESP behind NAT (default 4500)' }),
    }).optional(),
  }).optional(),
  dataplane: oneOf(['auto', 'xfrm', 'none']).optional().meta({
    description:
      'auto: the kernel if it has ESP; xfrm: the kernel or fail; none: resolve only (default auto)',
  }),
  log: mapping({
    level: oneOf(LOG_LEVELS).optional().meta({ description: 'least level logged (default info)' }),
    format: oneOf(['auto', 'json', 'text'])
      .optional()
      .meta({ description: 'auto: text on a terminal, else JSON (default auto)' }),
  }).optional(),
  'validation-time': numeric('a time such as 2026-01-31T12:00:00Z', parseTime)
    .optional()
    .meta({ description: 'judge signatures at this time instead of now; for tests' }),
});

export type ParsedTree = z.output<typeof schema>;

/** One key of the configuration that takes a value, and the ways to set it outside the file. */
export type Setting = {
  path: string[];
  key: string;
  flag: string;
  variable: string;
  list: boolean;
  description: string;
};

/** Every key that takes a value, in the order of the schema. */
export const SETTINGS: Setting[] = settingsOf(schema, []);

function settingsOf(node: z.ZodType, path: string[]): Setting[] {
  const inner = node instanceof z.ZodOptional ? (node.unwrap() as z.ZodType) : node;
  if (inner instanceof z.ZodObject) {
    return Object.entries(inner.shape).flatMap(([key, child]) =>
      settingsOf(child as z.ZodType, [...path, key]),
    );
  }
  const flag = path.join('-');
  const variable = `HOLDFAST_${flag.toUpperCase().replaceAll('-', '_')}`;
  const description = node.meta()?.description ?? '';
  return [{ path, key: path.join('.'), flag, variable, list: inner instanceof z.ZodArray, description }];
}

/** The keys allowed at a place in the tree: what an unknown key there may have meant. */
export function keysAt(path: PropertyKey[]): string[] {
  let node: z.ZodType = schema;
  for (const key of path) {
    if (node instanceof z.ZodOptional) node = node.unwrap() as z.ZodType;
    if (!(node instanceof z.ZodObject)) return [];
    node = node.shape[String(key)] as z.ZodType;
  }
  if (node instanceof z.ZodOptional) node = node.unwrap() as z.ZodType;
  return node instanceof z.ZodObject ? Object.keys(node.shape) : [];
}

/** The JSON schema of the file, for editors. */
export function jsonSchema(): object {
  return z.toJSONSchema(schema, { io: 'input' });
}
