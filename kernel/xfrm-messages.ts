/** Message bodies of the XFRM verbs: structure plus attributes in, plain values out. */
import { type Attribute, composeBody, type NetlinkMessage, parseAttributes } from './netlink.ts';
import {
  composeAlgorithm,
  composeEncapsulation,
  composePolicyId,
  composePolicyInfo,
  composeReplayEsn,
  composeSaInfo,
  composeTemplate,
  parseAlgorithmName,
  parseEncapsulation,
  parsePolicyInfo,
  parseReplayEsnWindow,
  parseSaInfo,
  parseTemplates,
  SIZE,
  viewOf,
} from './xfrm-structs.ts';
import type { Policy, PolicyId, PolicyStatus, Sa, SaCipher, SaStatus } from './xfrm-types.ts';

export const XFRM_MSG_NEWSA = 16;
export const XFRM_MSG_DELSA = 17;
export const XFRM_MSG_GETSA = 18;
export const XFRM_MSG_NEWPOLICY = 19;
export const XFRM_MSG_DELPOLICY = 20;
export const XFRM_MSG_GETPOLICY = 21;
export const XFRM_MSG_ALLOCSPI = 22;
export const XFRM_MSG_ACQUIRE = 23;
export const XFRM_MSG_EXPIRE = 24;
export const XFRM_MSG_UPDPOLICY = 25;
export const XFRM_MSG_UPDSA = 26;
export const XFRM_MSG_POLEXPIRE = 27;
export const XFRM_MSG_FLUSHSA = 28;
export const XFRM_MSG_FLUSHPOLICY = 29;
export const XFRM_MSG_NEWSPDINFO = 36;
export const XFRM_MSG_GETSPDINFO = 37;
export const XFRM_MSG_MAPPING = 38;

const XFRMA_ALG_AUTH = 1;
const XFRMA_ALG_CRYPT = 2;
const XFRMA_ENCAP = 4;
export const XFRMA_TMPL = 5;
export const XFRMA_POLICY = 7;
const XFRMA_LASTUSED = 15;
const XFRMA_ALG_AEAD = 18;
const XFRMA_ALG_AUTH_TRUNC = 20;
const XFRMA_REPLAY_ESN_VAL = 23;

/** The old window field of an SA has a bitmap of 32; what is larger goes the ESN way, with or without ESN. */
const OLD_WINDOW_LIMIT = 32;
const WINDOW_LIMIT = 4096;

const AEAD_NAME = {
  'aes-gcm-16': 'rfc4106(gcm(aes))',
  'chacha20-poly1305': 'rfc7539esp(chacha20,poly1305)',
} as const;
const INTEGRITY_NAME = {
  'hmac-sha2-256': 'hmac(sha256)',
  'hmac-sha2-384': 'hmac(sha384)',
  'hmac-sha2-512': 'hmac(sha512)',
} as const;

/** Body of NEWSA and UPDSA. */
export function composeSa(sa: Sa): Uint8Array {
  if (sa.replayWindow < 0 || sa.replayWindow > WINDOW_LIMIT)
    throw new RangeError('The replay window is 0 to 4096.');
  const large = sa.esn || sa.replayWindow > OLD_WINDOW_LIMIT;
  const attributes = composeCipher(sa.cipher);
  if (sa.encapsulation) {
    const { sourcePort, destinationPort } = sa.encapsulation;
    attributes.push({ type: XFRMA_ENCAP, value: composeEncapsulation(sourcePort, destinationPort) });
  }
  if (large) {
    // The kernel refuses ESN without a window.
    attributes.push({ type: XFRMA_REPLAY_ESN_VAL, value: composeReplayEsn(Math.max(sa.replayWindow, 1)) });
  }
  return composeBody(composeSaInfo({ ...sa, replayWindow: large ? 0 : sa.replayWindow }), attributes);
}

function composeCipher(cipher: SaCipher): Attribute[] {
  if (cipher.kind === 'aead') {
    const value = composeAlgorithm(AEAD_NAME[cipher.name], cipher.key, cipher.icvBits);
    return [{ type: XFRMA_ALG_AEAD, value }];
  }
  const integrity = composeAlgorithm(INTEGRITY_NAME[cipher.integrity], cipher.integrityKey, cipher.icvBits);
  return [
    { type: XFRMA_ALG_AUTH_TRUNC, value: integrity },
    { type: XFRMA_ALG_CRYPT, value: composeAlgorithm('cbc(aes)', cipher.cipherKey) },
  ];
}

/** An SA out of a NEWSA message; undefined when malformed. Keys are not read. */
export function parseSa(message: NetlinkMessage): SaStatus | undefined {
  const info = parseSaInfo(message.payload);
  const attributes = info && parseAttributes(message.payload, SIZE.saInfo);
  if (!info || !attributes) return undefined;
  const { selector, use, ...rest } = info;
  const status: SaStatus = { ...rest, ...use };
  if (selector) status.selector = selector;
  const algorithm =
    attributes.get(XFRMA_ALG_AEAD) ?? attributes.get(XFRMA_ALG_CRYPT) ?? attributes.get(XFRMA_ALG_AUTH);
  const name = algorithm && parseAlgorithmName(algorithm);
  if (name) status.algorithm = name;
  const encapsulation = attributes.get(XFRMA_ENCAP);
  const ports = encapsulation && parseEncapsulation(encapsulation);
  if (ports) status.encapsulation = ports;
  const replay = attributes.get(XFRMA_REPLAY_ESN_VAL);
  const window = replay && parseReplayEsnWindow(replay);
  if (window !== undefined) status.replayWindow = window;
  const lastUsed = attributes.get(XFRMA_LASTUSED);
  if (lastUsed && lastUsed.length >= 8) {
    const seconds = Number(viewOf(lastUsed).getBigUint64(0, true));
    if (seconds > 0) status.lastUsedSeconds = seconds;
  }
  return status;
}

/** Body of NEWPOLICY and UPDPOLICY. */
export function composePolicy(policy: Policy): Uint8Array {
  const attributes: Attribute[] = [];
  if (policy.template) attributes.push({ type: XFRMA_TMPL, value: composeTemplate(policy.template) });
  return composeBody(composePolicyInfo(policy), attributes);
}

/** Body of DELPOLICY and GETPOLICY. */
export function composePolicyName(id: PolicyId): Uint8Array {
  return composePolicyId(id);
}

/** A policy out of a NEWPOLICY message; undefined when malformed, or of a kind that no verb takes. */
export function parsePolicy(message: NetlinkMessage): PolicyStatus | undefined {
  const info = parsePolicyInfo(message.payload);
  const attributes = info && parseAttributes(message.payload, SIZE.policyInfo);
  if (!info || !attributes) return undefined;
  const list = attributes.get(XFRMA_TMPL);
  const templates = list ? parseTemplates(list) : [];
  return templates && { ...info, templates };
}
