/** What a network does to DNSSEC, named: from what the probes of one server found. Pure. */
import { EDE, RCODE, rcodeToText, TYPE } from '../dns/types.ts';
import { type CheckKind, type Findings, isChainQuestion, passes, rejectsEdns, type Seen } from './probe.ts';

/** What `unprotected.ts` heard to a question without EDNS: the control in the experiment. */
export type PlainAnswer = 'answer' | 'truncated' | 'none';

export type Symptom =
  | 'none'
  | 'tcp-filtered'
  | 'udp-filtered'
  | 'no-answer'
  | 'drops-edns'
  | 'rejects-edns'
  | 'strips-edns'
  | 'strips-signatures'
  | 'strips-proofs'
  | 'refuses-dnssec'
  | 'fails-everything'
  | 'loses-large'
  | 'truncates'
  | 'rewrites'
  | 'wrong-clock'
  | 'bogus';

/** `text`: what the network or its resolver does, for a person. */
export type Diagnosis = { symptom: Symptom; text: string };

/** What one server and the way to it do, from the probe over UDP (or over `tls`, `https`, `tcp` alone) and over TCP. */
export function diagnose(
  main: Findings,
  tcp: Findings | undefined,
  plain: PlainAnswer | undefined,
): Diagnosis {
  if (passes(main)) {
    if (tcp === undefined || works(tcp)) return { symptom: 'none', text: 'DNSSEC comes through' };
    return {
      symptom: 'tcp-filtered',
      text: 'TCP is filtered: answers that do not fit into 1232 octets cannot be fetched',
    };
  }
  for (const look of [silence, edns, clock, refusals, size, signatures, rewriting, proofs]) {
    const found = look(main, tcp, plain);
    if (found !== undefined) return found;
  }
  const failed = main.checks.find(({ passed }) => !passed);
  const why = singleLine(failed?.why ?? 'nothing could be asked');
  return { symptom: 'bogus', text: `its answers do not validate: ${why}` };
}

type Look = (
  main: Findings,
  tcp: Findings | undefined,
  plain: PlainAnswer | undefined,
) => Diagnosis | undefined;

const silence: Look = ({ seen, checks }, tcp, plain) => {
  if (seen.some(({ outcome }) => outcome === 'answer' || outcome === 'large' || outcome === 'garbled'))
    return;
  const refused = seen.some(({ outcome }) => outcome === 'unreachable');
  const overTcp = tcp !== undefined && works(tcp);
  if (plain === 'answer' || plain === 'truncated') {
    const text = 'questions with EDNS are dropped, those without are answered';
    return { symptom: 'drops-edns', text: overTcp ? `${text}; over TCP DNSSEC comes through` : text };
  }
  if (overTcp)
    return { symptom: 'udp-filtered', text: 'UDP is filtered: DNSSEC comes through over TCP only' };
  const why = singleLine(checks.find(check => check.why !== undefined)?.why ?? 'no reason is known');
  const text = refused
    ? `it cannot be reached: ${why.replace(/^cannot be reached: /, '')}`
    : 'there is no answer';
  return { symptom: 'no-answer', text };
};

const edns: Look = ({ seen }) => {
  const answers = answered(seen);
  if (answers.length > 0 && answers.every(rejectsEdns)) {
    const text = `questions with EDNS are answered ${rcodeToText(answers[0]!.rcode!)}`;
    return { symptom: 'rejects-edns', text };
  }
  if (answers.length > 0 && answers.every(one => one.edns === false && !one.signed && isData(one))) {
    return { symptom: 'strips-edns', text: 'EDNS is stripped, and with it all signatures' };
  }
  return undefined;
};

const clock: Look = ({ checks }) => {
  const keys = checks.find(({ kind }) => kind === 'keys');
  if (keys?.passed !== false) return undefined;
  if (keys.ede !== EDE.SIGNATURE_NOT_YET_VALID && keys.ede !== EDE.SIGNATURE_EXPIRED) return undefined;
  const text = `this machine’s clock is wrong, or the keys of the trust anchor are old: ${singleLine(keys.why ?? '')}; set the clock`;
  return { symptom: 'wrong-clock', text };
};

const refusals: Look = ({ seen }) => {
  const answers = answered(seen);
  const refused = answers.filter(({ rcode }) => rcode === RCODE.SERVFAIL || rcode === RCODE.REFUSED);
  if (refused.length === 0) return undefined;
  const rcode = rcodeToText(refused[0]!.rcode!);
  if (refused.length === answers.length) {
    return { symptom: 'fails-everything', text: `everything is answered ${rcode}` };
  }
  if (!refused.every(isChainQuestion)) return undefined;
  return { symptom: 'refuses-dnssec', text: `questions for DS or DNSKEY are answered ${rcode}` };
};

const size: Look = ({ seen }, tcp, plain) => {
  const cut = seen.filter(({ outcome }) => outcome === 'large');
  const lost = seen.filter(({ outcome }) => outcome === 'silence');
  if (cut.length > 0) {
    const all = cut.length + lost.length === seen.length && plain !== 'answer';
    const text = all
      ? 'every answer is truncated, and TCP is filtered'
      : 'answers that are truncated cannot be fetched: TCP is filtered';
    return { symptom: all ? 'truncates' : 'tcp-filtered', text };
  }
  if (lost.length === 0 || !answered(seen).some(({ signed }) => signed)) return undefined;
  const better = tcp !== undefined && works(tcp) ? '; they come through over TCP' : '';
  return { symptom: 'loses-large', text: `large answers over UDP, or their fragments, vanish${better}` };
};

const signatures: Look = ({ seen }) => {
  const data = answered(seen).filter(one => one.positive && isData(one));
  if (data.length === 0 || data.some(({ signed }) => signed)) return undefined;
  if (sameAddress(seen) !== undefined) return undefined;
  return { symptom: 'strips-signatures', text: 'signatures are stripped from the answers' };
};

const rewriting: Look = ({ seen, checks }) => {
  const everywhere = sameAddress(seen);
  if (everywhere !== undefined) {
    return { symptom: 'rewrites', text: `answers are rewritten: every name has the address ${everywhere}` };
  }
  const own = (kind: CheckKind) => answered(seen).find(({ of }) => of === kind);
  if (own('denial')?.addresses?.length) {
    return { symptom: 'rewrites', text: 'answers are rewritten: a name that does not exist has an address' };
  }
  const fails = (kind: CheckKind) => checks.some(check => check.kind === kind && !check.passed);
  if (!fails('address') || fails('keys') || fails('ds') || fails('denial')) return undefined;
  if (!own('address')?.addresses?.length) return undefined;
  return {
    symptom: 'rewrites',
    text: 'answers are rewritten: a signed name has another address than was signed',
  };
};

const proofs: Look = ({ seen }) => {
  const negative = answered(seen).filter(one => !one.positive && isData(one));
  if (negative.length === 0 || negative.some(one => one.proofs)) return undefined;
  return { symptom: 'strips-proofs', text: 'the proofs that a name or a key is absent are stripped' };
};

/** Whether anything at all could be proven there. */
function works({ checks }: Findings): boolean {
  return checks.some(({ kind, passed }) => kind === 'keys' && passed);
}

function answered(seen: readonly Seen[]): Seen[] {
  return seen.filter(({ outcome }) => outcome === 'answer');
}

function isData({ rcode }: Seen): boolean {
  return rcode === RCODE.NOERROR || rcode === RCODE.NXDOMAIN;
}

/** The address that all names asked for have; there were three, with different ones. */
function sameAddress(seen: readonly Seen[]): string | undefined {
  const asked = answered(seen).filter(({ type }) => type === TYPE.A);
  const first = asked[0]?.addresses?.[0];
  if (first === undefined || asked.length < 2) return undefined;
  return asked.every(({ addresses }) => addresses?.[0] === first) ? first : undefined;
}

const MAX_REASON = 120;

/** Reasons hold words of servers and libraries; they end in an EDE, whose room is small, and on terminals. */
function singleLine(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is replaced
  const printable = text.replace(/[\x00-\x1f\x7f-\x9f]+/g, ' ');
  return printable.trim().slice(0, MAX_REASON);
}
