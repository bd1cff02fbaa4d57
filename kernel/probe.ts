/** What this kernel and this process can do, each refusal with one sentence on what to do about it. */
import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { release } from 'node:os';
import { KernelError } from './error.ts';
import { Marks } from './marks.ts';
import { type SaCipher, Xfrm } from './xfrm.ts';

const CAP_NET_ADMIN = 12n;
// Documentation addresses (RFC 5737, RFC 3849): no packet ever matches the throw-away SAs.
const TEST_PAIRS = {
  4: [Uint8Array.of(192, 0, 2, 1), Uint8Array.of(192, 0, 2, 2)],
  6: [documentation6(1), documentation6(2)],
} as const;

export type KernelProbe = {
  /** `uname -r`. */
  release: string;
  netAdmin: boolean;
  xfrm: boolean;
  esp4: boolean;
  esp6: boolean;
  /** One sentence for each thing that is missing; empty when all is there. */
  why: string[];
};

/** Tries all that the data plane needs; what it installs for that (SAs under our reqid) is removed at once. */
export function probeKernel(): KernelProbe {
  const probe: KernelProbe = {
    release: release(),
    netAdmin: hasNetAdmin(),
    xfrm: false,
    esp4: false,
    esp6: false,
    why: [],
  };
  if (!probe.netAdmin) {
    probe.why.push(
      'This process lacks CAP_NET_ADMIN: run it as root, or `setcap cap_net_admin+ep` on its program.',
    );
  }
  let xfrm: Xfrm | undefined;
  try {
    xfrm = Xfrm.open();
    probe.xfrm = true;
  } catch (error) {
    probe.why.push(
      `Kernel ${probe.release} does not speak XFRM over netlink (${reason(error)}): run \`modprobe xfrm_user\`, or use a kernel with CONFIG_XFRM_USER.`,
    );
  }
  if (!xfrm) return probe;
  try {
    if (!probe.netAdmin) return probe;
    for (const family of [4, 6] as const) {
      const why = tryEsp(xfrm, family, probe.release);
      if (why) probe.why.push(why);
      else probe[`esp${family}`] = true;
    }
  } finally {
    xfrm.close();
  }
  return probe;
}

/** Undefined when an AES-GCM SA went in and out again. */
function tryEsp(xfrm: Xfrm, family: 4 | 6, kernel: string): string | undefined {
  const [source, destination] = TEST_PAIRS[family];
  const cipher: SaCipher = { kind: 'aead', name: 'aes-gcm-16', key: randomBytes(20), icvBits: 128 };
  const spi = randomBytes(4).readUInt32BE() | 0x1000;
  const sa = {
    spi: spi >>> 0,
    source,
    destination,
    reqid: new Marks().takeReqid(),
    mode: 'transport' as const,
  };
  try {
    xfrm.installSa({ ...sa, cipher, esn: true, replayWindow: 32 });
    xfrm.removeSa(sa);
    return undefined;
  } catch (error) {
    const code = error instanceof KernelError ? error.code : '';
    const next =
      code === 'EPROTONOSUPPORT'
        ? `run \`modprobe esp${family}\`, or use a kernel with CONFIG_INET${family === 6 ? '6' : ''}_ESP`
        : code === 'ENOSYS'
          ? `run \`modprobe esp${family} gcm\`, or use a kernel with CONFIG_INET${family === 6 ? '6' : ''}_ESP and CONFIG_CRYPTO_GCM`
          : 'see what the kernel log says';
    return `Kernel ${kernel} refuses ESP for IPv${family} (${reason(error)}): ${next}.`;
  }
}

/** Reads the effective capabilities of this process, see capabilities(7). */
function hasNetAdmin(): boolean {
  try {
    const line = /^CapEff:\s*([0-9a-f]+)$/m.exec(readFileSync('/proc/self/status', 'latin1'));
    return line !== null && ((BigInt(`0x${line[1]}`) >> CAP_NET_ADMIN) & 1n) === 1n;
  } catch {
    return process.getuid?.() === 0;
  }
}

function reason(error: unknown): string {
  if (error instanceof KernelError) return error.extack ? `${error.code}, ${error.extack}` : error.code;
  return error instanceof Error ? error.message : String(error);
}

function documentation6(last: number): Uint8Array {
  const address = new Uint8Array(16);
  address.set([0x20, 0x01, 0x0d, 0xb8]);
  address[15] = last;
  return address;
}
