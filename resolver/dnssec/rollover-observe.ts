/** What a DNSKEY RRset shows of a trust point: which trusted keys sign it, and which keys revoke themselves in it. */
import { type Dnskey, DNSKEY_FLAG, parseDnskey, parseDs, parseRrsig } from '../dns/dnssec-rdata.ts';
import type { Rrset } from '../dns/rrset.ts';
import { TYPE } from '../dns/types.ts';
import { dsMatches, isSupportedAlgorithm } from './algorithms.ts';
import {
  anchorsOf,
  hasRevokeFlag,
  keyId,
  type Observation,
  type TrustPoint,
  withoutRevokeFlag,
} from './rollover.ts';
import { verifyRrset } from './signature.ts';
import { DEFAULT_LIMITS, Work } from './work.ts';

/** `signatureLifeSeconds`: what is left of the signatures that count, for the next refresh (RFC 5011 section 2.3). */
export type DatedObservation = Observation & { signatureLifeSeconds: number };

/**
 * Checks the signatures that matter, at `now` in Unix seconds: those of trusted keys, and those of anchors that bear the
 * REVOKE flag, which vouch for their own revocation and nothing else (RFC 5011 section 2.1).
 *
 * Throws WorkExceeded when there is more to check than any honest zone has.
 */
export async function observe(point: TrustPoint, rrset: Rrset, now: number): Promise<DatedObservation> {
  const work = new Work(DEFAULT_LIMITS);
  const keys = rrset.rdatas
    .map(parseDnskey)
    .filter(key => key !== undefined)
    .filter(
      key =>
        (key.flags & DNSKEY_FLAG.ZONE) !== 0 && key.protocol === 3 && isSupportedAlgorithm(key.algorithm),
    );
  const signs = async (key: Dnskey): Promise<boolean> =>
    (await verifyRrset(rrset, point.zone, [key], now, work)).status === 'secure';
  const isAnchor = anchorTest(point);
  const vouchers: Dnskey[] = [];
  const present: Uint8Array[] = [];
  const revoked: Uint8Array[] = [];
  for (const key of keys) {
    const plain = withoutRevokeFlag(key.rdata);
    const anchor = isAnchor(plain);
    const known = point.keys.some(({ rdata }) => Buffer.compare(rdata, plain) === 0);
    if (hasRevokeFlag(key.rdata)) {
      if ((anchor || known) && (await signs(key))) revoked.push(plain);
      continue;
    }
    if (anchor || known || (key.flags & DNSKEY_FLAG.SEP) !== 0) present.push(key.rdata);
    if (anchor && (await signs(key))) vouchers.push(key);
  }
  const counting = rrset.signatures
    .map(parseRrsig)
    .filter(rrsig => rrsig !== undefined)
    .filter(rrsig => vouchers.some(key => key.keyTag === rrsig.keyTag && key.algorithm === rrsig.algorithm));
  const least = (values: number[]): number => (values.length === 0 ? 0 : Math.max(0, Math.min(...values)));
  return {
    vouchers: vouchers.map(({ rdata }) => keyId(rdata)),
    present,
    revoked,
    originalTtlSeconds: least(counting.map(({ originalTtlSeconds }) => originalTtlSeconds)),
    signatureLifeSeconds: least(counting.map(({ expiration }) => (expiration - now) | 0)),
  };
}

/** Whether a key, its REVOKE flag clear, is trusted as it stands or by a DS. */
function anchorTest(point: TrustPoint): (rdata: Uint8Array) => boolean {
  const anchors = anchorsOf(point);
  const ds = anchors
    .flatMap(({ type, records }) => (type === TYPE.DS ? records : []))
    .map(parseDs)
    .filter(record => record !== undefined);
  const direct = anchors.flatMap(({ type, records }) => (type === TYPE.DNSKEY ? records : []));
  return rdata => {
    if (direct.some(anchor => Buffer.compare(anchor, rdata) === 0)) return true;
    const key = parseDnskey(rdata);
    return key !== undefined && ds.some(record => dsMatches(record, point.zone, key));
  };
}
