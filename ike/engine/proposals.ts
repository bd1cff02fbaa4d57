import {
  type ChildSuite,
  Esn,
  encrAlgorithm,
  encrTransform,
  type IkeSuite,
  integAlgorithm,
  prfAlgorithm,
} from '../crypto/algorithms.ts';
import { ProtocolId, TransformType } from '../wire/numbers.ts';
import type { Proposal, Transform } from '../wire/sa.ts';
import type { ChildProposal, IkeProposal } from './config.ts';

/**
 * Offering, choosing and checking of proposals (RFC 7296 §2.7, §3.3).
 *
 * As responder the order of preference is ours, except for the group: the one that the initiator already computed a
 * share for is taken when it is one of ours, because every group here is good enough and a round trip is not free.
 */

/** @param first the group of our KE payload, listed first. @param spi 8 bytes when rekeying, else empty. */
export function offerIke(ours: IkeProposal[], first: number, spi: Uint8Array = new Uint8Array()): Proposal[] {
  return ours.map((proposal, index) => ({
    number: index + 1,
    protocol: ProtocolId.IKE,
    spi,
    transforms: [
      ...proposal.encr.map(([id, keyBits]) => encrTransform(id, keyBits)),
      ...proposal.integ.map(id => ({ type: TransformType.INTEG, id })),
      ...proposal.prf.map(id => ({ type: TransformType.PRF, id })),
      ...[first, ...proposal.groups.filter(group => group !== first)].map(id => ({
        type: TransformType.KE,
        id,
      })),
    ],
  }));
}

export function offerChild(ours: ChildProposal[], spi: Uint8Array): Proposal[] {
  return ours.map((proposal, index) => ({
    number: index + 1,
    protocol: ProtocolId.ESP,
    spi,
    transforms: [
      ...proposal.encr.map(([id, keyBits]) => encrTransform(id, keyBits)),
      ...proposal.integ.map(id => ({ type: TransformType.INTEG, id })),
      ...proposal.esn.map(id => ({ type: TransformType.ESN, id })),
    ],
  }));
}

/** The groups that we are willing to use in any proposal. */
export function offeredGroups(ours: IkeProposal[]): number[] {
  return [...new Set(ours.flatMap(proposal => proposal.groups))];
}

/** What a responder picks out of an offer; `answer` is the proposal to send back, its SPI still the offered one. */
export type Choice<Suite> = { suite: Suite; answer: Proposal };

/**
 * Responder: the first of our combinations that the offer contains.
 * `suite.group` may differ from keGroup: then INVALID_KE_PAYLOAD asks for it (RFC 7296 §1.2).
 */
export function chooseIke(
  offer: Proposal[],
  ours: IkeProposal[],
  keGroup: number,
): Choice<IkeSuite> | undefined {
  for (const own of ours) {
    for (const proposal of offer) {
      if (proposal.protocol !== ProtocolId.IKE || !onlyTypes(proposal, ikeTypes)) continue;
      const cipher = chooseCipher(proposal, own);
      const prf = own.prf.find(id => prfAlgorithm(id) && has(proposal, TransformType.PRF, id));
      const group = [keGroup, ...own.groups].find(
        id => own.groups.includes(id) && has(proposal, TransformType.KE, id),
      );
      if (!cipher || prf === undefined || group === undefined) continue;
      return {
        suite: { encr: cipher.encr, keyBits: cipher.keyBits, integ: cipher.integ, prf, group },
        answer: {
          ...proposal,
          transforms: [
            ...cipher.transforms,
            { type: TransformType.PRF, id: prf },
            { type: TransformType.KE, id: group },
          ],
        },
      };
    }
  }
  return undefined;
}

/**
 * Responder: the Child SA's algorithms.
 * @param keGroup group of a KE payload in CREATE_CHILD_SA; undefined where there is none (always so in IKE_AUTH, whose
 *   proposals' KE transforms mean later rekeyings and are left out of the answer, RFC 7296 §1.2).
 */
export function chooseChild(
  offer: Proposal[],
  ours: ChildProposal[],
  keGroup?: number,
): Choice<ChildSuite> | undefined {
  for (const own of ours) {
    for (const proposal of offer) {
      if (proposal.protocol !== ProtocolId.ESP || proposal.spi.length !== 4) continue;
      if (!onlyTypes(proposal, childTypes)) continue;
      if (keGroup !== undefined && !has(proposal, TransformType.KE, keGroup)) continue;
      const cipher = chooseCipher(proposal, own);
      const esns = proposal.transforms.filter(transform => transform.type === TransformType.ESN);
      const esn = esns.length === 0 ? Esn.OFF : own.esn.find(id => has(proposal, TransformType.ESN, id));
      if (!cipher || esn === undefined) continue;
      return {
        suite: {
          encr: cipher.encr,
          keyBits: cipher.keyBits,
          integ: cipher.integ,
          esn: esn === Esn.ON,
          ...(keGroup === undefined ? {} : { group: keGroup }),
        },
        answer: {
          ...proposal,
          transforms: [
            ...cipher.transforms,
            ...(keGroup === undefined ? [] : [{ type: TransformType.KE, id: keGroup }]),
            ...(esns.length === 0 ? [] : [{ type: TransformType.ESN, id: esn }]),
          ],
        },
      };
    }
  }
  return undefined;
}

/** Initiator: the answer must be one proposal with one transform of each kind, all of them ours. */
export function acceptIke(answer: Proposal[], ours: IkeProposal[]): IkeSuite | undefined {
  const proposal = onlyProposal(answer, ProtocolId.IKE, ours.length);
  const group = only(proposal, TransformType.KE);
  if (!proposal || group === undefined) return undefined;
  return chooseIke([proposal], ours, group)?.suite;
}

export function acceptChild(
  answer: Proposal[],
  ours: ChildProposal[],
): (ChildSuite & { spi: number }) | undefined {
  const proposal = onlyProposal(answer, ProtocolId.ESP, ours.length);
  if (!proposal || only(proposal, TransformType.ESN) === undefined) return undefined;
  const suite = chooseChild([proposal], ours)?.suite;
  return suite && { ...suite, spi: spiNumber(proposal.spi) };
}

export function spiNumber(spi: Uint8Array): number {
  return new DataView(spi.buffer, spi.byteOffset, spi.length).getUint32(0);
}

export function spiBytes(spi: number): Uint8Array {
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setUint32(0, spi);
  return bytes;
}

const ikeTypes: number[] = [TransformType.ENCR, TransformType.PRF, TransformType.INTEG, TransformType.KE];
const childTypes: number[] = [TransformType.ENCR, TransformType.INTEG, TransformType.ESN, TransformType.KE];

/** A proposal with a transform type that we do not understand is not for us (RFC 7296 §3.3.6). */
function onlyTypes(proposal: Proposal, types: number[]): boolean {
  return proposal.transforms.every(transform => types.includes(transform.type));
}

function has(proposal: Proposal, type: number, id: number, keyBits?: number): boolean {
  return proposal.transforms.some(
    transform =>
      transform.type === type &&
      transform.id === id &&
      transform.keyBits === keyBits &&
      !transform.attributes?.length,
  );
}

type CipherChoice = { encr: number; keyBits: number; integ: number; transforms: Transform[] };

/** An AEAD goes with no integrity algorithm or NONE, a block cipher only with a real one. */
function chooseCipher(proposal: Proposal, own: { encr: [number, number][]; integ: number[] }) {
  const integs = proposal.transforms.filter(transform => transform.type === TransformType.INTEG);
  for (const [id, keyBits] of own.encr) {
    const algorithm = encrAlgorithm(id, keyBits);
    const transform = encrTransform(id, keyBits);
    if (!algorithm || !has(proposal, TransformType.ENCR, id, transform.keyBits)) continue;
    if (algorithm.aead) {
      if (integs.length > 0 && !has(proposal, TransformType.INTEG, 0)) continue;
      const none = integs.length > 0 ? [{ type: TransformType.INTEG, id: 0 }] : [];
      return { encr: id, keyBits, integ: 0, transforms: [transform, ...none] } satisfies CipherChoice;
    }
    const integ = own.integ.find(i => integAlgorithm(i) && has(proposal, TransformType.INTEG, i));
    if (integ === undefined) continue;
    const transforms = [transform, { type: TransformType.INTEG, id: integ }];
    return { encr: id, keyBits, integ, transforms } satisfies CipherChoice;
  }
  return undefined;
}

/** The answer's single proposal: its number is one that we offered, and no transform type appears twice. */
function onlyProposal(answer: Proposal[], protocol: number, offered: number): Proposal | undefined {
  const proposal = answer[0];
  if (!proposal || answer.length !== 1 || proposal.protocol !== protocol) return undefined;
  if (proposal.number < 1 || proposal.number > offered) return undefined;
  const types = proposal.transforms.map(transform => transform.type);
  return new Set(types).size === types.length ? proposal : undefined;
}

function only(proposal: Proposal | undefined, type: number): number | undefined {
  return proposal?.transforms.find(transform => transform.type === type)?.id;
}
