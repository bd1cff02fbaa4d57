/** What a rule of the double sees, and the small changes that rules are made of. */
import type { Message, ResourceRecord } from '../../resolver/dns/message.ts';
import type { Name } from '../../resolver/dns/name.ts';
import { TYPE } from '../../resolver/dns/types.ts';
import { changed, covered } from './plans.ts';
import type { ZoneKey } from './signer.ts';

/** What a rule sees: the question, the honest reply, how to ask for another one, the zone's own key. */
export type Scene = {
  name: Name;
  type: number;
  reply: Message;
  zone: Name;
  key: ZoneKey;
  ask: (name: string, type: number) => Promise<Message>;
};
export type Rule = (scene: Scene) => Message | Promise<Message>;

export const isA = (record: ResourceRecord): boolean => record.type === TYPE.A;
export const isSignature = (record: ResourceRecord): boolean => record.type === TYPE.RRSIG;
export const isDenial = ({ type }: ResourceRecord): boolean => type === TYPE.NSEC || type === TYPE.NSEC3;
export const coversDenial = (r: ResourceRecord): boolean =>
  covered(r) === TYPE.NSEC || covered(r) === TYPE.NSEC3;
const chain = (type: number): boolean => type === TYPE.DNSKEY || type === TYPE.DS;

/** The rule for data alone: DNSKEY and DS go through as they are. */
export const ofData =
  (change: (scene: Scene) => Message | Promise<Message>): Rule =>
  scene =>
    chain(scene.type) ? scene.reply : change(scene);

export const mapAnswer = (change: (record: ResourceRecord) => ResourceRecord): Rule =>
  ofData(({ reply }) => ({ ...reply, answer: reply.answer.map(change) }));

export const without = (
  section: 'answer' | 'authority',
  unwanted: (record: ResourceRecord) => boolean,
): Rule =>
  ofData(({ reply }) => ({ ...reply, [section]: reply[section].filter(record => !unwanted(record)) }));

export const corrupt = (record: ResourceRecord): ResourceRecord =>
  isSignature(record)
    ? { ...record, rdata: changed(record.rdata, record.rdata.length - 2, record.rdata.at(-2)! ^ 1) }
    : record;

export const address = (name: Name, last: number): ResourceRecord => ({
  name,
  type: TYPE.A,
  class: 1,
  ttlSeconds: 3600,
  rdata: Uint8Array.of(192, 0, 2, last),
});

/** The answer section of one question under the name of another. */
export const renamed = (records: readonly ResourceRecord[], name: Name): ResourceRecord[] =>
  records.map(record => ({ ...record, name }));

export const failing =
  (wanted: number, rcode: number): Rule =>
  ({ type, reply }) =>
    type === wanted ? { ...reply, rcode, answer: [], authority: [] } : reply;

export type Rules = Record<string, [rule: Rule, questions: string]>;
