/** The effective configuration as YAML: what `config check --print` shows, and what reads back to the same. */
import { stringify } from 'yaml';
import { formatCidr, formatSocketAddress } from '../address.ts';
import { formatGatewayRule } from '../capture/gateways.ts';
import { POLICY_GROUPS } from '../capture/groups.ts';
import type { Configuration } from '../config.ts';
import { formatUpstreamServer, NETWORK } from '../upstream/server.ts';
import { anchorRecords } from './anchors.ts';
import { formatDuration, formatSize, formatTime } from './values.ts';

export function printConfiguration(configuration: Configuration): string {
  const { identity, policy, portal, ike, secure, validationTime } = configuration;
  const groups = POLICY_GROUPS.flatMap(group => {
    const { cidrs, namePatterns } = policy.groups[group];
    const entries = [...namePatterns, ...cidrs.map(formatCidr)];
    return entries.length === 0 ? [] : [[group, entries]];
  });
  return stringify(
    {
      listen: configuration.listen.map(formatSocketAddress),
      ...(secure === undefined
        ? {}
        : {
            'listen-tls': secure.tls.map(formatSocketAddress),
            'listen-https': secure.https.map(formatSocketAddress),
            tls: { certificate: secure.certificate, key: secure.key },
          }),
      access: configuration.access.map(formatCidr),
      upstream: configuration.upstream.map(choice =>
        choice === NETWORK ? NETWORK : formatUpstreamServer(choice),
      ),
      ...(configuration.upstreamAuthorities && {
        'upstream-authorities': configuration.upstreamAuthorities.file,
      }),
      forward: configuration.forward.map(({ zone, servers }) => ({
        zone: zone.toText(),
        servers: servers.map(formatUpstreamServer),
      })),
      probe: configuration.probing ? 'auto' : 'none',
      portal: {
        check: portal.check?.url.href ?? 'none',
        ...(portal.check && { response: portal.check.response }),
        names: portal.names.map(name => name.toText()),
      },
      'trust-anchors': anchorRecords(configuration.trustAnchors),
      'negative-trust-anchors': configuration.negativeTrustAnchors.map(name => name.toText()),
      'trust-anchors-managed': configuration.trustAnchorsManaged,
      cache: {
        size: formatSize(configuration.cache.maxBytes),
        stale: formatDuration(1000 * configuration.cache.maxStaleSeconds),
        'keep-on-stop': configuration.cache.keepOnStop,
      },
      identity: {
        name: identity.name ?? 'none',
        keys: 'directory' in identity.keys ? identity.keys.directory : identity.keys.files,
      },
      policy: {
        default: policy.default,
        groups: Object.fromEntries(groups),
        gateways: policy.gateways.map(formatGatewayRule),
      },
      patience: formatDuration(configuration.patienceMillis),
      control: configuration.control,
      state: configuration.state,
      ike,
      dataplane: configuration.dataplane,
      log: configuration.log,
      ...(validationTime === undefined ? {} : { 'validation-time': formatTime(validationTime) }),
    },
    { lineWidth: 0 },
  );
}
