import type { IpAddress } from '../types.ts';
import { equalBytes } from '../wire/bytes.ts';
import { coversHost, hostSelector, type TrafficSelector } from '../wire/traffic-selectors.ts';

/**
 * Traffic selectors of this house: one host to one host, any protocol, any port (RFC 7296 §2.9, §3.13).
 * A peer may offer more, we narrow to the host; it may not offer less.
 */

/** Whether the list says exactly this host and nothing besides. */
export function isExactly(selectors: TrafficSelector[], host: IpAddress): boolean {
  const selector = selectors[0];
  return (
    selectors.length === 1 &&
    selector !== undefined &&
    coversHost(selector, host.bytes) &&
    equalBytes(selector.start, selector.end)
  );
}

/**
 * The host that the responder's answer names for one side, or undefined: TS_UNACCEPTABLE.
 *
 * @param seen the address of that side as we see it.
 * @param translated a NAT stands before that side and transport mode is chosen: then a single host of any address is
 *   taken for the one we see, and the answer repeats it as it was offered (RFC 7296 §2.23.1).
 */
export function narrow(offered: TrafficSelector[], seen: IpAddress, translated: boolean) {
  if (offered.some(selector => coversHost(selector, seen.bytes))) return [hostSelector(seen.bytes)];
  if (!translated) return undefined;
  const host = offered.find(
    selector =>
      selector.start.length === seen.bytes.length &&
      equalBytes(selector.start, selector.end) &&
      coversHost(selector, selector.start),
  );
  return host && [hostSelector(host.start)];
}
