/** What a person can do about an answer that was refused or is weaker than its key promised. */
import { formatIpAddress } from '../address.ts';
import type { Story } from '../capture/journal.ts';
import { EDE } from '../dns/types.ts';

/** Undefined when there is nothing to do. */
export function adviceFor(story: Story): string | undefined {
  const failed = story.addresses.find(({ failure }) => failure !== undefined);
  if (failed) {
    const address = formatIpAddress(failed.address);
    switch (failed.failure) {
      case 'no-answer':
        return `See whether UDP 500 and 4500 reach ${address} and an IKE daemon listens there; then: holdfast forget ${story.name}`;
      case 'not-proven':
        return `The keys in DNS and the keys in use differ, or the peer does not know ours. At the peer: holdfast record --check; here: holdfast record --check; then: holdfast forget ${story.name}`;
      case 'refused':
        return `The log of the IKE daemon at ${address} says why it refused; then: holdfast forget ${story.name}`;
      case 'conflict':
        return `Publish every key of ${address} in its reverse zone, signed: that says whose address it is.`;
      case 'kernel':
        return 'The kernel refused what was negotiated: its log says why, and modprobe may help.';
      case 'unable':
        return 'This machine cannot seal: holdfast status says why.';
      case 'busy':
        return 'Too much was asked for at once; ask again in a moment.';
    }
  }
  if (story.ede.some(({ code }) => code === EDE.SIGNATURE_EXPIRED || code === EDE.SIGNATURE_NOT_YET_VALID)) {
    return 'If this happens to every name, set the clock; otherwise tell the owner of the zone.';
  }
  if (story.ede.some(({ code }) => code >= EDE.DNSSEC_INDETERMINATE && code <= EDE.NSEC_MISSING)) {
    return `A second opinion: delv ${story.name}. If it agrees, tell the owner of the zone; if not, suspect the upstream.`;
  }
  return undefined;
}
