/** The reading side of RFC 8914: what clients see of our reasons. */
import { EDNS_OPTION, type Edns, type ExtendedError } from '../../../resolver/dns/edns.ts';

/** All extended errors among the options; one that is too short is passed over. */
export function extendedErrors(edns: Edns | undefined): ExtendedError[] {
  const found: ExtendedError[] = [];
  for (const { code, data } of edns?.options ?? []) {
    if (code !== EDNS_OPTION.EDE || data.length < 2) continue;
    const text = new TextDecoder().decode(data.subarray(2)).replace(/\0+$/, '');
    found.push({ code: (data[0]! << 8) | data[1]!, text });
  }
  return found;
}
