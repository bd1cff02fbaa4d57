/**
 * The probe of one way to one server: does DNSSEC come through? Judged by validating, not by looking for records.
 *
 * Five questions at once, each with its whole chain of trust, by the validator that judges everything else too:
 *
 *   keys      the DNSKEY RRset of the trust anchor                        `.`
 *   ds        the DS RRset of a signed zone                               `net.`
 *   denial    a name that does not exist, below a zone with NSEC3         `<random>.net.`
 *   insecure  an address below an unsigned delegation                     `a.root-servers.net.`
 *   address   an address in a signed zone, which somebody might rewrite   `a.iana-servers.net.`
 *
 * All of them belong to the infrastructure of the DNS itself, lie below one top-level domain, so that they share most
 * of their chain, and are asked for everywhere: they tell nobody anything. What counts is that the answer is proven,
 * whatever it says, so that `root-servers.net` may be signed one day, and that a private root needs none of these
 * names. A private anchor below the root can prove its own keys, and nothing is probed beyond that.
 */
import { formatIpAddress } from '../address.ts';
import type { Message } from '../dns/message.ts';
import { Name } from '../dns/name.ts';
import { RCODE, TYPE } from '../dns/types.ts';
import type { TrustAnchor } from '../dnssec/anchors.ts';
import { ValidatingResolver } from '../dnssec/resolver.ts';
import type { Exchange, Resolution, UpstreamQuestion } from '../dnssec/types.ts';
import { UpstreamError } from '../upstream/error.ts';
import type { UpstreamServer } from '../upstream/server.ts';

/** Asks one server over its transport alone; resolves to whatever it answers, also truncated (`Upstream.ask`). */
export type Ask = (
  server: UpstreamServer,
  question: UpstreamQuestion,
  options: { timeoutMillis: number; signal?: AbortSignal },
) => Promise<Message>;

export type ProbeSetting = {
  ask: Ask;
  anchors: readonly TrustAnchor[];
  /** Unix seconds by which signatures are judged. */
  unixNow: () => number;
  /** Milliseconds, monotonic. */
  now: () => number;
  random: (octets: number) => Uint8Array;
  /** Resolves after so many milliseconds unless aborted; never rejects. */
  sleep: (millis: number, signal: AbortSignal) => Promise<void>;
};

export type CheckKind = 'keys' | 'ds' | 'denial' | 'insecure' | 'address';

export type Check = { kind: CheckKind; passed: boolean; why?: string; ede?: number };

/** What came back for one question that was sent, or that nothing did. `large`: truncated, and TCP gave nothing either. */
export type Seen = {
  type: number;
  /** The check whose own question it was; the others belong to the chains of trust. */
  of?: CheckKind;
  outcome: 'answer' | 'silence' | 'unreachable' | 'garbled' | 'large';
  rcode?: number;
  edns?: boolean;
  /** The answer section holds something. */
  positive?: boolean;
  /** Any RRSIG in answer or authority. */
  signed?: boolean;
  /** Any NSEC or NSEC3 in authority. */
  proofs?: boolean;
  /** A records in the answer. */
  addresses?: string[];
};

/** What one probe found. `millis`: how long it took. */
export type Findings = { server: UpstreamServer; checks: Check[]; seen: Seen[]; millis: number };

/** A whole probe takes no longer: what has not been answered by then has failed. Milliseconds. */
const PROBE_MILLIS = 2800;
/** A datagram may be lost without anybody's intent: asked again after so long. */
const RESEND_MILLIS = [500, 1200];
const NET = Name.parseText('net.');
const UNSIGNED = Name.parseText('a.root-servers.net.');
const SIGNED = Name.parseText('a.iana-servers.net.');

/** Probes; never rejects. */
export async function probe(
  server: UpstreamServer,
  setting: ProbeSetting,
  signal: AbortSignal,
): Promise<Findings> {
  const startedAt = setting.now();
  const over = new AbortController();
  const end = () => over.abort();
  signal.addEventListener('abort', end, { once: true });
  if (signal.aborted) end();
  const timer = new AbortController();
  void setting.sleep(PROBE_MILLIS, timer.signal).then(end);
  const seen: Seen[] = [];
  const { anchors, unixNow, random } = setting;
  const planned = questions(anchors, random);
  const note = (question: UpstreamQuestion, more: Omit<Seen, 'type' | 'of'>) => {
    const of = planned.find(({ name, type }) => type === question.type && name.equals(question.name))?.kind;
    seen.push({ type: question.type, ...(of !== undefined && { of }), ...more });
  };
  const exchange = boundExchange(server, setting, note, over.signal);
  const validator = new ValidatingResolver({ exchange, anchors, now: unixNow });
  const checks = await Promise.all(
    planned.map(async ({ kind, name, type }) =>
      judged(kind, await validator.lookup(name, type, { signal: over.signal })),
    ),
  );
  timer.abort();
  over.abort();
  signal.removeEventListener('abort', end);
  return { server, checks, seen, millis: setting.now() - startedAt };
}

/** Whether everything that was checked came through. */
export function passes({ checks }: Findings): boolean {
  return checks.length > 0 && checks.every(({ passed }) => passed);
}

type Planned = { kind: CheckKind; name: Name; type: number };

function questions(anchors: readonly TrustAnchor[], random: ProbeSetting['random']): Planned[] {
  const zones = [...new Map(anchors.map(({ name }) => [name.key, name])).values()];
  const root = zones.find(({ labelCount }) => labelCount === 0);
  if (root === undefined) {
    return zones.slice(0, 4).map(name => ({ kind: 'keys' as const, name, type: TYPE.DNSKEY }));
  }
  return [
    { kind: 'keys', name: root, type: TYPE.DNSKEY },
    { kind: 'ds', name: NET, type: TYPE.DS },
    { kind: 'denial', name: Name.parseText(`${letters(random(12))}.net.`), type: TYPE.A },
    { kind: 'insecure', name: UNSIGNED, type: TYPE.A },
    { kind: 'address', name: SIGNED, type: TYPE.A },
  ];
}

function judged(kind: CheckKind, { verdict, outcome, ede }: Resolution): Check {
  const proven = outcome !== 'failure' && (verdict === 'secure' || verdict === 'insecure');
  const fits = kind === 'keys' ? outcome === 'positive' : kind !== 'denial' || outcome !== 'positive';
  if (proven && fits) return { kind, passed: true };
  const why = proven ? WRONG_OUTCOME[kind === 'keys' ? 'keys' : 'denial'] : (ede?.text ?? verdict);
  return { kind, passed: false, why, ...(ede !== undefined && { ede: ede.code }) };
}

const WRONG_OUTCOME = {
  keys: 'the trust anchor’s zone has no keys',
  denial: 'a name that does not exist has an address',
};

/** Asks this one server; UDP is asked again when nothing comes, and followed by TCP when the answer was cut short. */
function boundExchange(
  server: UpstreamServer,
  setting: ProbeSetting,
  note: (question: UpstreamQuestion, more: Omit<Seen, 'type' | 'of'>) => void,
  signal: AbortSignal,
): Exchange {
  const silent = new Set<string>();
  const first = new Map<string, Promise<Message>>();
  const ask = async (question: UpstreamQuestion, key: string): Promise<Message> => {
    let message: Message;
    try {
      message = await askPatiently(server, question, setting, signal);
    } catch (error) {
      silent.add(key);
      note(question, { outcome: outcomeOf(error) });
      throw error;
    }
    if (message.truncated && server.transport === 'udp') {
      try {
        message = await setting.ask({ ...server, transport: 'tcp' }, question, limits(signal));
      } catch (error) {
        silent.add(key);
        note(question, { outcome: 'large' });
        throw error;
      }
    }
    note(question, { outcome: 'answer', ...described(message) });
    return message;
  };
  return question => {
    const key = `${question.type} ${question.name.key}`;
    // The validator asks twice before it calls something bogus; what was not answered the first time is not now.
    if (silent.has(key) || signal.aborted) return Promise.reject(new UpstreamError('timeout', 'no answer'));
    const asked = question.attempt ? undefined : first.get(key);
    if (asked !== undefined) return asked;
    const answer = ask(question, key);
    if (!question.attempt) first.set(key, answer);
    return answer;
  };
}

async function askPatiently(
  server: UpstreamServer,
  question: UpstreamQuestion,
  { ask, sleep }: ProbeSetting,
  signal: AbortSignal,
): Promise<Message> {
  const first = ask(server, question, limits(signal));
  if (server.transport !== 'udp') return first;
  const answered = new AbortController();
  const stop = () => answered.abort();
  signal.addEventListener('abort', stop, { once: true });
  const again = RESEND_MILLIS.map(async millis => {
    await sleep(millis, answered.signal);
    if (answered.signal.aborted) throw new UpstreamError('aborted', 'answered already');
    return ask(server, question, limits(signal));
  });
  try {
    // A port that is closed says so at once, and will say so again.
    return await Promise.any([first, ...again]);
  } catch (error) {
    throw (error as AggregateError).errors[0];
  } finally {
    signal.removeEventListener('abort', stop);
    answered.abort();
  }
}

const limits = (signal: AbortSignal) => ({ timeoutMillis: PROBE_MILLIS, signal });

function outcomeOf(error: unknown): 'silence' | 'unreachable' | 'garbled' {
  const code = error instanceof UpstreamError ? error.code : 'network';
  if (code === 'timeout' || code === 'aborted') return 'silence';
  return code === 'malformed' ? 'garbled' : 'unreachable';
}

function described({ rcode, edns, answer, authority }: Message): Omit<Seen, 'type' | 'of' | 'outcome'> {
  const has = (type: number) => [...answer, ...authority].some(record => record.type === type);
  const addresses = answer
    .filter(record => record.type === TYPE.A && record.rdata.length === 4)
    .map(({ rdata }) => formatIpAddress({ family: 4, bytes: rdata }));
  return {
    rcode,
    edns: edns !== undefined,
    positive: answer.length > 0,
    signed: has(TYPE.RRSIG),
    proofs: has(TYPE.NSEC) || has(TYPE.NSEC3),
    addresses,
  };
}

/** What a server that knows EDNS and DNSSEC never says to a well-formed question. */
export function rejectsEdns({ rcode }: Seen): boolean {
  return rcode === RCODE.FORMERR || rcode === RCODE.NOTIMP || rcode === RCODE.BADVERS;
}

export function isChainQuestion({ type }: Seen): boolean {
  return type === TYPE.DS || type === TYPE.DNSKEY;
}

function letters(bytes: Uint8Array): string {
  return Array.from(bytes, byte => String.fromCharCode(97 + (byte % 26))).join('');
}
