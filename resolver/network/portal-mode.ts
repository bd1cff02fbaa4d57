/**
 * What is answered behind a captive portal: the names by which systems and browsers find out that they are behind one,
 * and what the user allowed by hand. Unprotected, with a tiny TTL, and past the cache and the capture.
 */
import { isIPv4 } from 'node:net';
import { parseIpAddress, type SocketAddress } from '../address.ts';
import { Name } from '../dns/name.ts';
import { EDE, RCODE, TYPE } from '../dns/types.ts';
import type { PortalCheck } from './portal.ts';
import { lookUpUnprotected, type UnprotectedSetting } from './unprotected.ts';

export type PortalSetting = {
  /** Undefined: nobody looks for portals. */
  check: PortalCheck | undefined;
  /** Names that are answered without protection while a portal stands between, besides that of the check. */
  names: readonly Name[];
};

/** What Debian's NetworkManager asks for, and how the answer begins. */
export const PORTAL_CHECK_URL = 'http://network-test.debian.org/nm';
export const PORTAL_CHECK_RESPONSE = 'NetworkManager is online';

/** Hosts that serve nothing but the question whether there is a portal, as systems and browsers ask it. */
export const PORTAL_CHECK_NAMES = [
  'network-test.debian.org',
  'nmcheck.gnome.org',
  'connectivity-check.ubuntu.com',
  'networkcheck.kde.org',
  'conncheck.opensuse.org',
  'ping.archlinux.org',
  'detectportal.firefox.com',
  'connectivitycheck.gstatic.com',
  'captive.apple.com',
  'www.msftconnecttest.com',
];

export type PortalAnswer = {
  rcode: number;
  authenticated: false;
  answer: {
    name: Name;
    type: number;
    class: number;
    ttlSeconds: number;
    rdatas: Uint8Array[];
    signatures: [];
  }[];
  authority: [];
  ede: { code: number; text: string }[];
};

const TTL_SECONDS = 5;
const LOOK_UP_MILLIS = 2500;
/** More hosts than a login needs. */
const MAX_ALLOWED = 16;

export class PortalMode {
  readonly #names: ReadonlySet<string>;
  readonly #allowed = new Map<string, { name: Name; until: number }>();
  readonly #unprotected: UnprotectedSetting;
  readonly #mayBeClear: (name: Name, address: string) => boolean;
  readonly #now: () => number;
  answered = 0;

  constructor(options: {
    setting: PortalSetting;
    unprotected: UnprotectedSetting;
    mayBeClear: (name: Name, address: string) => boolean;
    now: () => number;
  }) {
    const { check, names } = options.setting;
    const own = check === undefined ? [] : [Name.parseText(`${check.url.hostname}.`)];
    this.#names = new Set([...names, ...own].map(({ key }) => key));
    this.#unprotected = options.unprotected;
    this.#mayBeClear = options.mayBeClear;
    this.#now = options.now;
  }

  /** Lets this name be answered without protection for so long, while the portal stands. Throws RangeError. */
  allow(name: Name, millis: number): void {
    this.#expire();
    if (this.#allowed.size >= MAX_ALLOWED && !this.#allowed.has(name.key)) {
      throw new RangeError(`more than ${MAX_ALLOWED} names are allowed already`);
    }
    this.#allowed.set(name.key, { name, until: this.#now() + millis });
  }

  /** What the user allowed, with milliseconds (monotonic) until when. */
  allowed(): { name: Name; until: number }[] {
    this.#expire();
    return [...this.#allowed.values()];
  }

  /** The portal is gone, or another one: what was allowed was allowed for that one. */
  end(): void {
    this.#allowed.clear();
  }

  /** The unprotected answer; undefined for a name that gets none, and where none of its addresses may go in clear. */
  async answer(
    { name, type }: { name: Name; type: number },
    servers: readonly SocketAddress[],
  ): Promise<PortalAnswer | undefined> {
    if (type !== TYPE.A && type !== TYPE.AAAA) return undefined;
    this.#expire();
    if (!this.#names.has(name.key) && !this.#allowed.has(name.key)) return undefined;
    const over = AbortSignal.timeout(LOOK_UP_MILLIS);
    const found = await lookUpUnprotected(servers, name, type, this.#unprotected, over);
    const kept = found.filter(address => !leadsHere(address) && this.#mayBeClear(name, address));
    if (found.length > 0 && kept.length === 0) return undefined;
    this.answered++;
    const rdatas = kept.map(address => parseIpAddress(address)!.bytes);
    const rrset = { name, type, class: 1, ttlSeconds: TTL_SECONDS, rdatas, signatures: [] as [] };
    const text = 'captive portal: this answer is neither validated nor protected';
    return {
      rcode: RCODE.NOERROR,
      authenticated: false,
      answer: rdatas.length > 0 ? [rrset] : [],
      authority: [],
      ede: [{ code: EDE.OTHER, text }],
    };
  }

  #expire(): void {
    const now = this.#now();
    for (const [key, { until }] of this.#allowed) if (until <= now) this.#allowed.delete(key);
  }
}

/** Loopback, unspecified and multicast: no portal is there, and whoever says so wants something else. */
export function leadsHere(address: string): boolean {
  return isIPv4(address)
    ? /^(0|127|22[4-9]|23\d|24\d|25[0-5])\./.test(address)
    : /^(::1?$|::ffff:|ff)/i.test(address);
}
