import type { IpAddress } from '../types.ts';
import { equalBytes } from '../wire/bytes.ts';
import { coversHost, hostSelector, type TrafficSelector } from '../wire/traffic-selectors.ts';

/**
 * Traffic selectors of this house: one host to one host, any protocol, any port (RFC 7296 §2.9, §3.13).
 * A peer may offer more, we narrow to the host; it may not offer less.
 *
 * `translated`: a NAT stands before that side and transport mode is chosen. Then what the peer calls that host is not
 * the address that we see, and any single host stands for the one we see (RFC 7296 §2.23.1).
 */

/** Responder: what to answer for one side, as we see it; undefined: TS_UNACCEPTABLE. */
export function narrow(
  offered: TrafficSelector[],
  seen: IpAddress,
  translated: boolean,
): TrafficSelector[] | undefined {
  const covered = offered.some(
    selector => coversHost(selector, seen.bytes) || (translated && isHost(selector, seen)),
  );
  return covered ? [hostSelector(seen.bytes)] : undefined;
}

/** Initiator: whether the answer names exactly this host and nothing besides. */
export function isExactly(answered: TrafficSelector[], host: IpAddress, translated: boolean): boolean {
  const [selector] = answered;
  return (
    selector !== undefined &&
    answered.length === 1 &&
    isHost(selector, host) &&
    (translated || equalBytes(selector.start, host.bytes))
  );
}

/** All traffic of a single host of this family. */
function isHost(selector: TrafficSelector, { bytes }: IpAddress): boolean {
  return (
    selector.start.length === bytes.length &&
    equalBytes(selector.start, selector.end) &&
    coversHost(selector, selector.start)
  );
}
