/** What `status`, `explain` and `forget` print: the control socket's answers as text. */
import type { Assurance } from '../capture/groups.ts';
import type { Explanation, FailureStatus, ForgetResult, PeerStatus, StatusReport } from '../control/api.ts';
import { EDE } from '../dns/types.ts';
import type { TrustAnchorStatus } from '../trust-anchors.ts';
import type { NetworkStatus } from '../network/status.ts';
import { type Cell, paint, plain, type Style, size, span, table } from './terminal.ts';

/** An answer older than this is told of as one from before. */
const FRESH_MILLIS = 3_000;

export function statusText(report: StatusReport, now: number): string {
  const upstreams = report.upstreams.map(({ address, healthy, why, rttMs }) => {
    const state = healthy
      ? rttMs === undefined
        ? ''
        : ` (${span(rttMs)})`
      : ` (${paint(plain(why ?? 'not answering'), 'red')})`;
    return `${address}${state}`;
  });
  const { dataplane, identity } = report;
  const lines = [
    `Holdfast ${report.version}, up ${span(now - Date.parse(report.startedAt))}, process ${report.pid}`,
    `listening   ${report.listen.join(', ')}`,
    `upstream    ${upstreams.join(', ') || paint('none', 'red')}`,
    ...networkLines(report.network),
    `data plane  ${dataplaneText(dataplane)}`,
    `identity    ${identity.name ?? 'our address'}`,
    ...identity.keys.map(({ algorithm, fingerprint }) => `            ${algorithm.padEnd(9)} ${fingerprint}`),
  ];
  lines.push(...report.trustAnchors.flatMap(anchor => anchorLines(anchor, now)));
  const sections = [peersText(report.peers, now), failuresText(report.failures, now)];
  return [`${lines.join('\n')}\n`, ...sections.filter(section => section !== '')].join('\n');
}

/** What the network does, and what we do; where something is wrong with it, way by way. */
function networkLines(network: NetworkStatus): string[] {
  const { state, symptom, text, doing, ways, portal, probeMs, probedMsAgo, nextProbeInMs } = network;
  const good = state === 'carries' && symptom === 'none';
  const style = good ? 'green' : state === 'carries' || state === 'unknown' ? 'yellow' : 'red';
  const what = portal === undefined ? (text ?? state) : `captive portal: log in at ${plain(portal.login)}`;
  const ago = probedMsAgo === undefined ? '' : `, probed ${span(probedMsAgo)} ago in ${span(probeMs ?? 0)}`;
  const next = nextProbeInMs === undefined ? '' : `, again in ${span(nextProbeInMs)}`;
  const lines = [`network     ${paint(plain(what), style)}; ${plain(doing)}${ago}${next}`];
  if (!good) lines.push(...ways.map(way => `            ${plain(way.server)}: ${plain(way.text)}`));
  if (portal !== undefined) {
    lines.push(`            this mode ends in ${span(portal.endsInMs)} unless the portal is seen again`);
    for (const { name, endsInMs } of portal.allowed) {
      lines.push(`            ${plain(name)} is answered unprotected for ${span(endsInMs)}`);
    }
  }
  return lines;
}

/** Trust anchors that are followed, where something pends or is wrong with them; silence is good news. */
function anchorLines({ zone, keys, nextRefresh, problem }: TrustAnchorStatus, now: number): string[] {
  const news: Record<string, string> = {
    addPend: 'is new and will be trusted',
    missing: 'is trusted, and no longer in its zone',
    revoked: 'is revoked',
  };
  const lines = keys.flatMap(({ keyTag, state, until: end }) => {
    if (news[state] === undefined) return [];
    return [
      `${zone} key ${keyTag} ${news[state]}${state === 'addPend' && end ? ` in ${until(end, now)}` : ''}`,
    ];
  });
  if (problem !== undefined) {
    const again = nextRefresh === undefined ? '' : `, again in ${until(nextRefresh, now)}`;
    lines.push(paint(`${zone} cannot be refreshed: ${plain(problem)}${again}`, 'yellow'));
  }
  return lines.map((line, i) => `${i === 0 ? 'anchors' : ''}`.padEnd(12) + line);
}

/** What `holdfast portal` prints. */
export function portalText(network: NetworkStatus): string {
  const lines = networkLines(network);
  if (network.portal === undefined) lines.push('            there is no captive portal');
  else lines.push('            to log in by name: holdfast portal --allow, then open the page in a browser');
  return `${lines.join('\n')}\n`;
}

function dataplaneText({ kind, kernel, why }: StatusReport['dataplane']): string {
  if (kind !== 'none') return `${kind}, ${kernel}`;
  return `${paint('none', 'yellow')}: ${why === undefined ? kernel : plain(why)}`;
}

function peersText(peers: PeerStatus[], now: number): string {
  if (peers.length === 0) return 'No peers.\n';
  const heading = ['ADDRESS', 'NAMES', 'GROUP', 'ASSURANCE', 'MODE', 'IN', 'OUT', 'IDLE', 'NEXT'];
  const rows = peers.map((peer): Cell[] => [
    addressText(peer),
    peer.names.join(' ') || '-',
    peer.group,
    assuranceCell(peer.assurance),
    peer.mode ?? '-',
    size(peer.inBytes),
    size(peer.outBytes),
    peer.idleSeconds === undefined ? '-' : span(peer.idleSeconds * 1000),
    peer.nextDeadline ? `${peer.nextDeadline.why} in ${until(peer.nextDeadline.at, now)}` : '-',
  ]);
  return table([heading, ...rows]);
}

function failuresText(failures: FailureStatus[], now: number): string {
  if (failures.length === 0) return '';
  const rows = failures.map(({ address, via, name, keyFingerprint, reason, until: end }): Cell[] => [
    name ?? '-',
    address === undefined ? '-' : addressText({ address, via }),
    keyFingerprint ?? '-',
    reason,
    `forgotten in ${until(end, now)}`,
  ]);
  return table([['FAILED', 'ADDRESS', 'KEY', 'WHY', 'UNTIL'], ...rows]);
}

function addressText({ address, via }: { address: string; via?: string | undefined }): string {
  return via === undefined ? address : `${address} via ${via}`;
}

const until = (iso: string, now: number) => span(Math.max(0, Date.parse(iso) - now));

const ASSURANCE_STYLE: Record<Assurance, Style> = {
  blocked: 'red',
  clear: 'yellow',
  anonymous: 'yellow',
  pinned: 'green',
  'server-authenticated': 'green',
  authenticated: 'green',
};

function assuranceCell(assurance: Assurance): { text: string; style: Style } {
  return { text: assurance, style: ASSURANCE_STYLE[assurance] };
}

/** `now`: Unix milliseconds, to say how old the answer is. */
export function explanationText(told: Explanation, now: number = Date.now()): string {
  const { text, style } = assuranceCell(told.assurance);
  const alias =
    told.canonicalName && told.canonicalName !== told.name ? ` (alias of ${plain(told.canonicalName)})` : '';
  const age = now - Date.parse(told.askedAt);
  const when = age >= FRESH_MILLIS ? `, asked ${span(age)} ago` : '';
  const lines = [
    `${paint(plain(told.name), 'bold')} ${told.type}${alias}: ${told.rcode}, ${paint(text, style)}, group ${told.group}, in ${millis(told.answerMs)}${when}`,
    ...told.ede.map(({ code, text }) => `  EDE ${code}${edeName(code)}: ${plain(text)}`),
  ];
  if (told.addresses.length > 0) {
    const rows = told.addresses.map((entry): Cell[] => [
      `  ${addressText(entry)}`,
      entry.answered ? 'answered' : 'left out',
      entry.group,
      assuranceCell(entry.assurance),
      [entry.keyFingerprint, entry.why].filter(Boolean).join('  ') || '-',
    ]);
    lines.push('', table([['  ADDRESS', '', 'GROUP', 'ASSURANCE', 'KEY'], ...rows]).trimEnd());
  }
  const steps = told.steps.map(({ at, what, detail }) => {
    const time = paint(millis(at).padStart(11), 'dim');
    return `${time}  ${plain(what)}${detail ? `: ${plain(detail)}` : ''}`;
  });
  const parts = [
    ['DNS', told.dnsMs],
    ['IKE', told.ikeMs],
    ['kernel', told.kernelMs],
  ].flatMap(([what, ms]) => (ms === undefined ? [] : `${what} ${millis(ms as number)}`));
  lines.push('', ...steps);
  if (parts.length > 1) lines.push('', `Of which ${parts.join(', ')}; these overlap.`);
  if (told.advice) lines.push('', plain(told.advice));
  return `${lines.join('\n')}\n`;
}

/** The registry's name of an Extended DNS Error (RFC 8914 §5.2). */
function edeName(code: number): string {
  const name = Object.entries(EDE).find(([, number]) => number === code)?.[0];
  return name ? ` ${name.toLowerCase().replaceAll('_', ' ')}` : '';
}

const millis = (value: number) => `${value.toFixed(value < 10 ? 2 : 1)} ms`;

export function forgetText({ peers, failures, answers }: ForgetResult): string {
  const count = (n: number, what: string) => `${n} ${what}${n === 1 ? '' : 's'}`;
  return `Closed ${count(peers, 'peer')}; forgot ${count(failures, 'failure')} and ${count(answers, 'cached answer')}.\n`;
}
