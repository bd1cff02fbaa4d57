/** Every difference that we know of, and who is right by which RFC. One that is not here fails the test. */
import type { Witness } from './compare.ts';

/** `questions` reads `name type`, `what` the difference, ours first. */
export type Explanation = {
  witness: readonly Witness[];
  questions: RegExp;
  what: RegExp;
  /** What our RCODE has to be for this to explain it. */
  rcode?: string;
  why: string;
  reference: string;
};

const both: readonly Witness[] = ['unbound', 'delv'];
const all: readonly Witness[] = ['unbound', 'delv', 'unbound with CD'];

export const explanations: Explanation[] = [
  {
    witness: both,
    questions: /(^|\.)nsec3?-[57]\. /,
    what: /^insecure, not secure$/,
    why: 'RSASHA1 and RSASHA1-NSEC3-SHA1 count as unsupported, so that the zone is insecure; they still believe SHA-1 signatures',
    reference: 'RFC 9905 §2',
  },
  {
    witness: all,
    questions: /(^|\.)ds-sha256-wrong\. /,
    what: /^(bogus, not (in)?secure|rcode SERVFAIL, not .*)$/,
    why: 'beside a SHA-256 DS the SHA-1 DS is ignored, so that the wrong SHA-256 one is all there is',
    reference: 'RFC 4509 §3',
  },
  {
    witness: both,
    questions: /(^|\.)rsa-512\. /,
    what: /^insecure, not secure$/,
    why: 'an RSA key below 1,024 bits can be factored by whoever cares: a zone that has one is as good as unsigned; they call it authenticated',
    reference: 'NIST SP 800-131A; RFC 5702 §2.1 allows 512',
  },
  {
    witness: both,
    questions: /(^|\.)revoked-(only|signs)\. /,
    what: /^bogus, not (in)?secure$/,
    why: 'a revoked key vouches for nothing but its own revocation; they let it sign data',
    reference: 'RFC 5011 §2.1',
  },
  {
    witness: both,
    questions: /(^|\.)just-expired\. /,
    what: /^bogus, not (in)?secure$/,
    why: 'unbound allows for clocks that are wrong by up to a tenth of the signature lifetime; we take the clock at its word',
    reference: 'RFC 4035 §5.3.1',
  },
  {
    witness: ['delv'],
    questions: /^(no-zone-flag|protocol-4)\. DNSKEY$/,
    what: /^bogus, not secure$/,
    why: 'a key without the zone flag, or of another protocol than 3, must not be used to verify, its own RRset included',
    reference: 'RFC 4034 §2.1.1, §2.1.2',
  },
  {
    witness: both,
    questions: /^\*\.x\.wild\./,
    what: /^(secure|insecure), not bogus$/,
    why: 'a question for a name that begins with an asterisk may itself be answered from a wildcard further up; unbound takes its owner for the wildcard',
    reference: 'RFC 4592 §2.2, §3.3.1',
  },
  {
    witness: ['unbound'],
    questions: /^host\.dname\.\S+ CNAME$/,
    what: /^secure, not (bogus|insecure)$/,
    why: 'the CNAME that a DNAME makes is the answer to a question for CNAME; unbound 1.17 stumbles over the DNAME when it looks for the zone',
    reference: 'RFC 6672 §3.1, §5.3.1',
  },
  {
    witness: ['delv'],
    questions: /^host\.dname\.\S+ CNAME$/,
    what: /^(answer|proof|secure, not insecure)/,
    why: 'delv follows the DNAME and asks for the CNAME of its target, which has none',
    reference: 'RFC 6672 §3.1',
  },
  {
    witness: both,
    questions: /^x{60}\.dnamelong\./,
    what: /^secure, not (insecure|bogus)$/,
    why: 'the DNAME that makes the name too long is signed and verified; unbound passes YXDOMAIN on unjudged, delv prints nothing',
    reference: 'RFC 6672 §2.2, §5.3.4',
  },
  {
    witness: ['unbound'],
    questions: /^x\.wildent\./,
    what: /^secure, not bogus$/,
    why: 'the wildcard is an empty non-terminal: it exists and has no data; unbound looks for an NSEC that it owns',
    reference: 'RFC 4592 §2.2.2, RFC 4035 §3.1.3.4',
  },
  {
    witness: all,
    questions: / ANY$/,
    what: /^answer$/,
    why: 'any subset answers a question for ANY; addresses that nobody asked for by type are not given',
    reference: 'RFC 8482 §4.1',
  },
  {
    witness: ['delv'],
    questions: /optout\. /,
    what: /^insecure, not secure$/,
    why: 'an opt-out span leaves open whether there is an unsigned delegation, and must not be called authenticated; delv does not look at the flag',
    reference: 'RFC 5155 §9.2, §12.2.1',
  },
  {
    witness: ['unbound', 'unbound with CD'],
    questions: /^x\.dnameself\.iterations-151\./,
    what: /^(bogus, not insecure|rcode SERVFAIL, not NOERROR)$/,
    why: 'a DNAME that leads below itself has no end; unbound gives out the first steps',
    reference: 'RFC 1034 §3.6.2, RFC 6672 §2.3',
  },
  {
    witness: all,
    questions: /(^|\.)iterations-2000\. /,
    what: /^(bogus, not insecure|rcode SERVFAIL, not .*)$/,
    why: 'what more than 500 iterations deny is not hashed, and unhashed it proves nothing; they believe any NSEC3 of such a zone',
    reference: 'RFC 9276 §3.2',
  },
  {
    witness: ['delv'],
    questions: /(^|\.)iterations-(51|100|150)\. |\.iterations-151\. /,
    what: /^(secure, not insecure|insecure, not secure)$/,
    why: 'how many iterations are too many is for each to say: 150 here and in unbound, 50 in BIND',
    reference: 'RFC 9276 §3.2',
  },
  {
    witness: both,
    questions: /(^|\.)soa-unsigned\. |\.t3?-soa-stripped\. /,
    what: /^secure, not bogus$/,
    why: 'NSEC and NSEC3 prove the absence; a SOA without a signature is left out, and the answer is not cached',
    reference: 'RFC 4035 §5.4, RFC 2308 §5',
  },
  {
    witness: both,
    questions: /\.t3?-(noerror|answer)-as-nxdomain\. /,
    what: /^secure, not bogus$/,
    why: 'the RCODE is not signed, the records are: what they prove is answered, with the RCODE that belongs to it',
    reference: 'RFC 4035 §5.3, §5.4',
  },
  {
    witness: ['unbound with CD'],
    questions: /\.t3?-(noerror|answer)-as-nxdomain\. /,
    what: /^rcode NOERROR, not NXDOMAIN$/,
    why: 'the RCODE that the records prove, with CD too',
    reference: 'RFC 4035 §5.3, §5.4',
  },
  {
    witness: all,
    questions: /\.t3?-cname-and-data\. /,
    what: /^(secure, not bogus|answer)$/,
    why: 'a forged CNAME beside the signed answer is left out, and the answer stands',
    reference: 'RFC 2181 §10.1, RFC 4035 §5.3',
  },
  {
    witness: all,
    questions: /\.t3?-cname-two\. /,
    what: /^(bogus, not secure|answer|rcode SERVFAIL, not NOERROR)$/,
    why: 'two CNAMEs at a name can not be what was signed; unbound drops the second before it looks',
    reference: 'RFC 2181 §10.1',
  },
  {
    witness: ['delv'],
    questions: /\.t3?-bad-signature(s-three|-first)\. /,
    what: /^secure, not bogus$/,
    why: 'one good signature is enough, whatever stands beside it; BIND ends after the first that fails',
    reference: 'RFC 6840 §5.4, §5.11',
  },
  {
    witness: ['delv'],
    questions: /^nothing\.t3?-junk-in-authority\. /,
    what: /^secure, not bogus$/,
    why: 'unsigned NS and addresses in the authority section prove nothing and spoil nothing: they are left out',
    reference: 'RFC 4035 §5.4, RFC 2181 §5.4.1',
  },
  {
    witness: both,
    questions: /(^|\.)cut\.t3?-delegation-denies-below\. |\.t-nsec-is-delegation\. /,
    what: /^bogus, not insecure$/,
    why: 'the NSEC at an unsigned delegation denies nothing but DS there; they take the name for insecure, we refuse who sends it as a denial',
    reference: 'RFC 6840 §4.1, §4.4',
  },
  {
    witness: ['unbound'],
    questions: /\.t-nsec-next-outside\. /,
    what: /^bogus, not secure$/,
    why: 'an NSEC whose next name lies outside of its zone is not of that zone',
    reference: 'RFC 4034 §4.1.1',
  },
  {
    witness: all,
    questions: /(^|\.)nothing\.t3?-\S+ A$/,
    what: /^(secure, not bogus|rcode NXDOMAIN, not NOERROR)$/,
    rcode: 'NXDOMAIN',
    why: 'NSECs that came with other answers prove already that there is no such name: the lie is never asked for',
    reference: 'RFC 8198 §5.1',
  },
  {
    witness: both,
    questions: /^www\.t3?-cut-claimed-at-www\. DS$/,
    what: /^secure, not bogus$/,
    why: 'an NSEC that came with an earlier answer denies the DS already, so that the false denial is never asked for',
    reference: 'RFC 8198 §5.3',
  },
  {
    witness: ['unbound with CD'],
    questions: /^www\.t3?-cut-claimed-at-www\. |^t3?-dnskey-extra\. DNSKEY$/,
    what: /^answer$/,
    why: 'with CD we give what came; unbound gives what it kept from another question',
    reference: 'RFC 4035 §3.2.2',
  },
  {
    witness: ['delv'],
    questions: /^ds-short\. DS$/,
    what: /^secure, not bogus$/,
    why: 'a DS that is too short for its digest is signed all the same; BIND can not read it',
    reference: 'RFC 3597 §3',
  },
  {
    witness: ['unbound with CD'],
    questions: / (A|AAAA)$/,
    what: /^rcode SERVFAIL, not (NOERROR|NXDOMAIN)$/,
    why: 'addresses that failed validation are given to nobody, as a way may be sealed to them; other data are, to who sets CD',
    reference: 'RFC 4035 §3.2.2 (local policy), DESIGN §3',
  },
];
