// The hosts of the lab and the wire between them, as steps for guest/init.c.
//
//   alice ──┐            ┌── bob      the peer: 10.9.0.2, and many more addresses for many more names
//   mallory ┤── wire ────┤── dns      10.9.0.53 authoritative, 10.9.0.54 recursive
//   natr ───┘  (bridge)
//     └── carol             behind natr, IPv4 only
//
// The bridge and its ports `w-HOST` lie in the root namespace: there a capture or a delay does not disturb the hosts.

export type Host = { name: string; addresses: string[]; routes: string[] };

const numbers = (from: number, count: number) => Array.from({ length: count }, (_, i) => from + i);
const both = (...last: number[]) => last.flatMap(n => [`10.9.0.${n}/24`, `fd09::${n}/64`]);

/** Last numbers of the additional addresses of bob: one for each of the fifty names p1…p50, one for bank.example. */
export const manyAddresses: number[] = numbers(101, 50);
export const bankAddress = 70;
/** The address of bob at which no key is published. */
export const plainAddress = 71;
/** natr on the wire, and carol behind it. */
export const gateAddress = '10.9.0.90';
export const carolAddress = '192.168.9.2';
/** An address that nobody has. */
export const deadAddress = 200;

export const hosts: Host[] = [
  { name: 'alice', addresses: both(1), routes: [] },
  { name: 'bob', addresses: both(2, bankAddress, plainAddress, ...manyAddresses), routes: [] },
  { name: 'dns', addresses: both(53, 54), routes: [] },
  { name: 'mallory', addresses: both(66), routes: [] },
  { name: 'natr', addresses: both(90), routes: [] },
  { name: 'carol', addresses: ['192.168.9.2/24'], routes: ['default via 192.168.9.1'] },
];

const sysctls: [key: string, value: string][] = [
  ['net/ipv6/conf/all/accept_dad', '0'], // duplicate address detection would make every start wait a second
  ['net/ipv6/conf/default/accept_dad', '0'],
  ['net/ipv6/conf/default/router_solicitations', '0'],
  ['net/ipv4/ping_group_range', '0 2147483647'],
];

/** The steps that make the hosts and connect them. */
export function topologySteps(): string[] {
  const onWire = hosts.filter(host => host.name !== 'carol').map(host => host.name);
  return [
    ...hosts.map(host => `host ${host.name}`),
    ...hosts.flatMap(host => sysctls.map(([key, value]) => `sysctl ${host.name} ${key} ${value}`)),
    'sysctl natr net/ipv4/ip_forward 1',
    'ip - link set lo up',
    'ip - link add wire type bridge mcast_snooping 0 forward_delay 0',
    'ip - link set wire up',
    ...onWire.map(name => `ip - link add w-${name} type veth peer name eth0 netns ${name}`),
    'ip - link add dev eth1 netns natr type veth peer name eth0 netns carol',
    ...onWire.map(name => `ip - link set w-${name} master wire up`),
    ...hosts.flatMap(hostSteps),
  ];
}

function hostSteps(host: Host): string[] {
  return [
    'link set lo up',
    ...host.addresses.map(a => `addr add ${a} dev eth0${a.includes(':') ? ' nodad' : ''}`),
    'link set eth0 up',
    ...(host.name === 'natr' ? ['addr add 192.168.9.1/24 dev eth1', 'link set eth1 up'] : []),
    ...host.routes.map(route => `route add ${route}`),
  ].map(line => `ip ${host.name} ${line}`);
}
