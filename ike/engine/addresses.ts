import type { Endpoint, Identity, IpAddress } from '../types.ts';
import { equalBytes } from '../wire/bytes.ts';

/** Comparing and naming of addresses and identities; both are bytes, and bytes decide. */

export function sameAddress(a: IpAddress, b: IpAddress): boolean {
  return a.family === b.family && equalBytes(a.bytes, b.bytes);
}

export function sameEndpoint(a: Endpoint, b: Endpoint): boolean {
  return a.port === b.port && sameAddress(a.address, b.address);
}

export function addressKey(address: IpAddress): string {
  return Buffer.from(address.bytes).toString('latin1');
}

export function addressIdentity(address: IpAddress): Identity {
  return { type: address.family === 4 ? 'ipv4' : 'ipv6', data: address.bytes };
}

/** FQDNs compare without case, as DNS does; everything else byte for byte. ID_NULL equals nothing, not even itself. */
export function sameIdentity(a: Identity, b: Identity): boolean {
  if (a.type !== b.type || a.type === 'null') return false;
  if (a.type === 'fqdn') return lower(a.data) === lower(b.data);
  return equalBytes(a.data, b.data);
}

/** Equal for identities that sameIdentity calls the same. */
export function identityKey(identity: Identity): string {
  const text = Buffer.from(identity.data).toString('latin1');
  return `${identity.type} ${identity.type === 'fqdn' ? text.toLowerCase() : text}`;
}

function lower(data: Uint8Array): string {
  return Buffer.from(data).toString('latin1').toLowerCase();
}

/** For logs: printable whatever the peer put in. */
export function identityText(identity: Identity): string {
  if (identity.type === 'fqdn' || identity.type === 'rfc822') {
    return [...identity.data.subarray(0, 255)]
      .map(byte => (byte > 0x20 && byte < 0x7f ? String.fromCharCode(byte) : '?'))
      .join('');
  }
  if (identity.type === 'ipv4') return addressText({ family: 4, bytes: identity.data });
  if (identity.type === 'ipv6') return addressText({ family: 6, bytes: identity.data });
  return `${identity.type}:${Buffer.from(identity.data.subarray(0, 64)).toString('hex')}`;
}

export function addressText(address: IpAddress): string {
  const { bytes } = address;
  if (address.family === 4) return bytes.join('.');
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  return Array.from({ length: 8 }, (_, i) => view.getUint16(2 * i).toString(16)).join(':');
}

export function endpointText(endpoint: Endpoint): string {
  const text = addressText(endpoint.address);
  return endpoint.address.family === 4 ? `${text}:${endpoint.port}` : `[${text}]:${endpoint.port}`;
}
