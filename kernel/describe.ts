/** How SAs and policies read in messages to people. */
import type { PolicyStatus, SaStatus } from './xfrm-types.ts';

/** One line in the manner of `ip xfrm policy`. */
export function describePolicy({
  selector,
  direction,
  action,
  priority,
  index,
  templates,
}: PolicyStatus): string {
  const { source, sourcePrefix, destination, destinationPrefix } = selector;
  const where = `src ${addressText(source)}/${sourcePrefix} dst ${addressText(destination)}/${destinationPrefix}`;
  const what = templates
    .map(({ reqid, mode }) => ` tmpl reqid 0x${reqid.toString(16)} mode ${mode}`)
    .join('');
  return `policy ${where} dir ${direction} action ${action} priority ${priority} index 0x${index.toString(16)}${what}`;
}

/** One line in the manner of `ip xfrm state`. */
export function describeSa({ source, destination, spi, reqid, mode }: SaStatus): string {
  const where = `src ${addressText(source)} dst ${addressText(destination)}`;
  return `state ${where} proto esp spi 0x${spi.toString(16)} reqid 0x${reqid.toString(16)} mode ${mode}`;
}

function addressText(address: Uint8Array): string {
  if (address.length === 4) return address.join('.');
  const groups = Buffer.from(address).toString('hex').match(/.{4}/g) ?? [];
  return groups.map(group => group.replace(/^0{1,3}/, '')).join(':');
}
