/** RRsets as the records that a test's server puts into its messages. */
import type { ResourceRecord } from '../../../resolver/dns/message.ts';
import type { Rrset } from '../../../resolver/dns/rrset.ts';
import { TYPE } from '../../../resolver/dns/types.ts';

/** The records of an RRset, and of its signatures when asked for, as they go into a message. */
export function recordsOf(rrset: Rrset, withSignatures: boolean): ResourceRecord[] {
  const { name, class: rrClass, ttlSeconds } = rrset;
  const records = rrset.rdatas.map(rdata => ({ name, type: rrset.type, class: rrClass, ttlSeconds, rdata }));
  if (!withSignatures) return records;
  const signatures = rrset.signatures.map(rdata => ({
    name,
    type: TYPE.RRSIG,
    class: rrClass,
    ttlSeconds,
    rdata,
  }));
  return [...records, ...signatures];
}
