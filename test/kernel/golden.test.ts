// Our message bodies against those of iproute2 6.1.0, as strace(1) saw them leave:
//   unshare -n strace -s 9999 -xx -e trace=sendmsg ip xfrm …
// and our offsets against those of the C compiler, where there is one.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'node:test';
import { composePolicy, composeSa } from '../../kernel/xfrm-messages.ts';
import { composeSaId, SIZE } from '../../kernel/xfrm-structs.ts';
import type { Policy, Sa } from '../../kernel/xfrm-types.ts';

/** `00*7` is seven octets of zero. */
function octets(text: string): string {
  return text
    .replaceAll(/([0-9a-f]{2})\*(\d+)/g, (_, octet, times) => octet.repeat(Number(times)))
    .replaceAll(/\s/g, '');
}

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex');
}

function counting(length: number): Uint8Array {
  return Uint8Array.from({ length }, (_, i) => i);
}

const alice4 = Uint8Array.of(10, 9, 0, 1);
const bob4 = Uint8Array.of(10, 9, 0, 2);
const alice6 = Uint8Array.from(Buffer.from('fd090000000000000000000000000001', 'hex'));
const bob6 = Uint8Array.from(Buffer.from('fd090000000000000000000000000002', 'hex'));

// ip xfrm state add src 10.9.0.1 dst 10.9.0.2 proto esp spi 0x11223344 reqid 0x48460001 mode transport
//   replay-window 128 flag esn aead 'rfc4106(gcm(aes))' 0x000102…13 128 encap espinudp 4500 4501 0.0.0.0
test('NEWSA: AES-GCM with ESN and encapsulation, as iproute2 writes it', () => {
  const sa: Sa = {
    spi: 0x11223344,
    source: alice4,
    destination: bob4,
    reqid: 0x48460001,
    mode: 'transport',
    cipher: { kind: 'aead', name: 'aes-gcm-16', key: counting(20), icvBits: 128 },
    esn: true,
    replayWindow: 128,
    encapsulation: { sourcePort: 4500, destinationPort: 4501 },
  };
  const golden = `00*56 0a090002 00*12 11223344 32000000 0a090001 00*12 ff*32 00*80 01004648 02000000 80 00*7
    60001200 726663343130362867636d286165732929 00*47 a0000000 80000000 000102030405060708090a0b0c0d0e0f10111213
    1c000400 0200 1194 1195 00*18 1c001700 04 00*19 80000000`;
  assert.equal(hex(composeSa(sa)), octets(golden));
});

// ip xfrm state add src fd09::1 dst fd09::2 proto esp spi 0x11223344 reqid 0x48460002 mode tunnel replay-window 32
//   auth-trunc 'hmac(sha256)' 0x000102…1f 128 enc 'cbc(aes)' 0x000102…0f sel src fd09::1/128 dst fd09::2/128
test('NEWSA: AES-CBC with HMAC-SHA2-256 in tunnel mode, as iproute2 writes it', () => {
  const sa: Sa = {
    spi: 0x11223344,
    source: alice6,
    destination: bob6,
    reqid: 0x48460002,
    mode: 'tunnel',
    cipher: {
      kind: 'cbc-hmac',
      cipher: 'aes-cbc',
      cipherKey: counting(16),
      integrity: 'hmac-sha2-256',
      integrityKey: counting(32),
      icvBits: 128,
    },
    esn: false,
    replayWindow: 32,
    selector: { family: 6, source: alice6, sourcePrefix: 128, destination: bob6, destinationPrefix: 128 },
  };
  const golden = `fd09 00*13 02 fd09 00*13 01 00*8 0a00 8080 00*12 fd09 00*13 02 11223344 32000000 fd09 00*13 01
    ff*32 00*80 02004648 0a00 01 20 00*8
    6c001400 686d61632873686132353629 00*52 00010000 80000000
    000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f
    58000200 6362632861657329 00*56 80000000 000102030405060708090a0b0c0d0e0f`;
  assert.equal(hex(composeSa(sa)), octets(golden));
});

// ip xfrm state delete src 10.9.0.1 dst 10.9.0.2 proto esp spi 0x11223344 (without its XFRMA_SRCADDR)
test('DELSA, as iproute2 writes it', () => {
  assert.equal(hex(composeSaId(bob4, 0x11223344)), octets('0a090002 00*12 11223344 0200 32 00'));
});

const policies: [string, Policy, string][] = [
  [
    // ip xfrm policy add src 10.9.0.1/32 dst 10.9.0.2/32 dir out priority 1000 index 0x48000009
    //   tmpl src 10.9.0.1 dst 10.9.0.2 proto esp reqid 0x48460001 mode transport
    'a sealing policy',
    {
      selector: { family: 4, source: alice4, sourcePrefix: 32, destination: bob4, destinationPrefix: 32 },
      direction: 'out',
      action: 'allow',
      priority: 1000,
      index: 0x48000009,
      template: { source: alice4, destination: bob4, reqid: 0x48460001, mode: 'transport' },
    },
    `0a090002 00*12 0a090001 00*20 0200 2020 00*12 ff*32 00*64 e8030000 09000048 01 00*7
     44000500 0a090002 00*16 32000000 02000000 0a090001 00*12 01004648 00000000 ff*12`,
  ],
  [
    // ip xfrm policy add src ::/0 dst ::/0 proto ipv6-icmp type 135 dir in priority 100 index 0x48000010 action allow
    'an ICMPv6 exemption',
    {
      selector: {
        family: 6,
        source: new Uint8Array(16),
        sourcePrefix: 0,
        destination: new Uint8Array(16),
        destinationPrefix: 0,
        protocol: 58,
        sourcePort: 135,
      },
      direction: 'in',
      action: 'allow',
      priority: 100,
      index: 0x48000010,
    },
    '00*36 0087 ffff 0a00 0000 3a 00*11 ff*32 00*64 64000000 10000048 00*8',
  ],
  [
    // ip xfrm policy add src 0.0.0.0/0 dst 10.9.0.53/32 proto udp dport 53 dir out priority 100 index 0x48000019
    //   action block
    'a block by port',
    {
      selector: {
        family: 4,
        source: new Uint8Array(4),
        sourcePrefix: 0,
        destination: Uint8Array.of(10, 9, 0, 53),
        destinationPrefix: 32,
        protocol: 17,
        destinationPort: 53,
      },
      direction: 'out',
      action: 'block',
      priority: 100,
      index: 0x48000019,
    },
    '0a090035 00*28 0035 ffff 00*4 0200 20 00 11 00*11 ff*32 00*64 64000000 19000048 01 01 00*6',
  ],
];

for (const [what, policy, golden] of policies) {
  test(`NEWPOLICY: ${what}, as iproute2 writes it`, () => {
    assert.equal(hex(composePolicy(policy)), octets(golden));
  });
}

test('sizes are those of the C compiler', t => {
  if (spawnSync('cc', ['--version']).status !== 0) return t.skip('no C compiler');
  const names = {
    selector: 'selector',
    id: 'id',
    lifetimeConfig: 'lifetime_cfg',
    lifetimeCurrent: 'lifetime_cur',
    saInfo: 'usersa_info',
    saId: 'usersa_id',
    spiInfo: 'userspi_info',
    policyInfo: 'userpolicy_info',
    policyId: 'userpolicy_id',
    template: 'user_tmpl',
    acquire: 'user_acquire',
    expire: 'user_expire',
    policyExpire: 'user_polexpire',
    mapping: 'user_mapping',
    encapsulation: 'encap_tmpl',
    algorithm: 'algo',
    algorithmAuth: 'algo_auth',
    algorithmAead: 'algo_aead',
    replayEsn: 'replay_state_esn',
  } satisfies Record<keyof typeof SIZE, string>;
  const lines = Object.entries(names).map(
    ([ours, theirs]) => `printf("${ours} %zu\\n", sizeof(struct xfrm_${theirs}));`,
  );
  const folder = mkdtempSync(join(tmpdir(), 'holdfast-sizes-'));
  try {
    const source = join(folder, 'sizes.c');
    writeFileSync(
      source,
      `#include <linux/xfrm.h>\n#include <stdio.h>\nint main(void) { ${lines.join('\n')} }\n`,
    );
    const built = spawnSync('cc', ['-o', join(folder, 'sizes'), source], { encoding: 'utf8' });
    assert.equal(built.status, 0, built.stderr);
    const printed = spawnSync(join(folder, 'sizes'), { encoding: 'utf8' }).stdout.trim().split('\n');
    const compiled = Object.fromEntries(
      printed.map(line => [line.split(' ')[0]!, Number(line.split(' ')[1])]),
    );
    assert.deepEqual(compiled, { ...SIZE });
  } finally {
    rmSync(folder, { recursive: true });
  }
});
