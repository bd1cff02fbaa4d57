/** Every parser that reads what others wrote. */
import type { Target } from './target.ts';
import { configTargets } from './targets/config.ts';
import { controlTargets } from './targets/control.ts';
import { dnsTargets } from './targets/dns.ts';
import { dnssecTargets } from './targets/dnssec.ts';
import { ikeTargets } from './targets/ike.ts';
import { kernelTargets } from './targets/kernel.ts';
import { stubTargets } from './targets/stub.ts';
import { upstreamTargets } from './targets/upstream.ts';

export const targets: readonly Target[] = [
  ...dnsTargets,
  ...stubTargets,
  ...upstreamTargets,
  ...dnssecTargets,
  ...configTargets,
  ...controlTargets,
  ...ikeTargets,
  ...kernelTargets,
];
