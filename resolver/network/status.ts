/** What `status` tells of the network, as data and in words. */
import { formatUpstreamServer, type UpstreamServer } from '../upstream/server.ts';
import type { Symptom } from './diagnosis.ts';
import type { Path, PathState } from './path.ts';
import type { PortalMode } from './portal-mode.ts';
import type { Findings } from './probe.ts';

/**
 * `text`: what the network does; `doing`: what we do about it. `ways`: each server over each transport, with what every
 * check of the last probe came to. Durations and points in time from now are milliseconds.
 */
export type NetworkStatus = {
  state: PathState['state'];
  using: string[];
  symptom?: Symptom;
  text?: string;
  doing: string;
  probedMsAgo?: number;
  probeMs?: number;
  nextProbeInMs?: number;
  ways: { server: string; symptom: Symptom; text: string; checks: Record<string, string> }[];
  portal?: {
    login: string;
    endsInMs: number;
    answered: number;
    allowed: { name: string; endsInMs: number }[];
  };
};

export function networkStatus(known: {
  path: Path;
  findings: readonly Findings[];
  portal: PortalMode;
  now: number;
  probedAt: number | undefined;
  probeMillis: number | undefined;
}): NetworkStatus {
  const { path, findings, portal, now, probedAt, probeMillis } = known;
  const { state, using } = path;
  const until = (at: number) => Math.max(0, Math.round(at - now));
  const next = path.deadline();
  return {
    state: state.state,
    using: using.map(formatUpstreamServer),
    ...(state.state !== 'unknown' && { symptom: state.diagnosis.symptom, text: state.diagnosis.text }),
    doing: doingText(state, using),
    ...(probedAt !== undefined && {
      probedMsAgo: Math.round(now - probedAt),
      probeMs: Math.round(probeMillis ?? 0),
    }),
    ...(next?.why === 'probe again' && { nextProbeInMs: until(next.at) }),
    ways: path.reports.map(({ server, diagnosis }) => ({
      server: wayText(server),
      ...diagnosis,
      checks: Object.fromEntries(
        (findings.find(found => found.server === server)?.checks ?? []).map(({ kind, passed, why }) => [
          kind,
          passed ? 'proven' : (why ?? 'failed'),
        ]),
      ),
    })),
    ...(state.state === 'portal' && {
      portal: {
        login: state.login,
        endsInMs: until(state.until),
        answered: portal.answered,
        allowed: portal.allowed().map(({ name, until: end }) => ({
          name: name.toText().replace(/\.$/, ''),
          endsInMs: until(end),
        })),
      },
    }),
  };
}

/** What we do about the network, in a few words. */
export function doingText(state: PathState, using: readonly UpstreamServer[]): string {
  const over = [...new Set(using.map(({ transport }) => TRANSPORT_TEXT[transport]))].join(' and ');
  switch (state.state) {
    case 'unknown':
      return over === '' ? 'nobody to ask' : `asking over ${over}, not probed yet`;
    case 'carries':
      return `asking over ${over}`;
    case 'impaired':
      return `asking over ${over}: what validates is answered, all else is SERVFAIL`;
    case 'closed':
      return 'nothing can be validated, so nothing is answered: SERVFAIL';
    case 'portal':
      return 'only the names of portal checks, and what `holdfast portal --allow` allowed, are answered, unprotected';
  }
}

const TRANSPORT_TEXT = { udp: 'UDP', tcp: 'TCP', tls: 'TLS', https: 'HTTPS' };

/** `192.0.2.53:53 over UDP`. */
function wayText(server: UpstreamServer): string {
  if (!('address' in server)) return formatUpstreamServer(server);
  return `${formatUpstreamServer({ ...server, transport: 'udp' })} over ${TRANSPORT_TEXT[server.transport]}`;
}
