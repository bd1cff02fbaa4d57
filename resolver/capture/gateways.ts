/**
 * Gateways that the administrator lets speak for hosts, without the word of the hosts' reverse zone.
 *
 * Each rule names the gateway and the hosts: a gateway trusted for one network must not be led to another's traffic.
 */
import {
  type Cidr,
  cidrContains,
  formatCidr,
  formatIpAddress,
  type IpAddress,
  parseCidr,
  parseIpAddress,
} from '../address.ts';

export type GatewayRule = { gateway: IpAddress; hosts: Cidr };

/** `198.51.100.1 for 10.0.0.0/8`; undefined when it is something else. */
export function parseGatewayRule(text: string): GatewayRule | undefined {
  const words = /^(\S+) +for +(\S+)$/.exec(text.trim());
  const gateway = words && parseIpAddress(words[1]!);
  const hosts = words && parseCidr(words[2]!);
  return gateway && hosts ? { gateway, hosts } : undefined;
}

export function formatGatewayRule({ gateway, hosts }: GatewayRule): string {
  return `${formatIpAddress(gateway)} for ${formatCidr(hosts)}`;
}

export function isAllowedGateway(
  rules: readonly GatewayRule[],
  gateway: IpAddress,
  host: IpAddress,
): boolean {
  const wanted = formatIpAddress(gateway);
  return rules.some(rule => formatIpAddress(rule.gateway) === wanted && cidrContains(rule.hosts, host));
}
