/**
 * The XFRM data plane as the daemon drives it: address pairs, their children (Child SAs), and the standing exemptions.
 *
 * A *pair* has one inbound and one outbound policy, host to host. Its SAs stand between the same two, or between us and a
 * gateway that protects the other. All its inbound SAs share one reqid, which the inbound policy names, so the peer may
 * use any of them. Each child's outbound SA has a reqid of its own, and the outbound policy names that of the child which
 * *carries*: several proven keys of one address live side by side, and switching is one UPDPOLICY.
 *
 * Both policies have the carrying child's mode and outer addresses. While a transport and a tunnel child of one pair
 * coexist, or two tunnels by different gateways, what comes in on the one that does not carry is dropped by the inbound
 * policy: a template cannot allow two without allowing clear.
 */
import { constants } from 'node:os';
import { isDeepStrictEqual } from 'node:util';
import { XfrmBlocks } from './blocks.ts';
import { describePolicy, describeSa } from './describe.ts';
import { gone, KernelError, undone } from './error.ts';
import { type Exemption, exemptionPolicy, exemptions } from './exemptions.ts';
import { followMapping, type Mapping } from './mapping.ts';
import { isOurIndex, isOurPolicy, isOurSa, Marks } from './marks.ts';
import {
  type Child,
  differInbound,
  EXEMPTION_PRIORITY,
  type HostPair,
  type Installed,
  type Pair,
  pairKey,
  policyOf,
  saKey,
  saOf,
  SEALED_PRIORITY,
  whyImpossible,
} from './pair.ts';
import type { Mode, PolicyStatus, SaId, SaStatus, Xfrm } from './xfrm.ts';

export type { Child, HostPair, SaKeys } from './pair.ts';

export type Usage = {
  inBytes: number;
  inPackets: number;
  outBytes: number;
  outPackets: number;
  /**
   * Unix time of the last packet in either direction; absent when there was none. Kernels before 6.2 do not keep it: there
   * it is the time when `usage` first saw that more packets had passed.
   */
  lastUsedSeconds?: number;
};

export type DataPlaneOptions = {
  /** Local UDP ports of IKE. */
  ikePorts?: number[];
  /** In packets. */
  replayWindow?: number;
  /** The clock, Unix time in seconds. */
  now?: () => number;
};

export type DataPlaneStatus = {
  exemptions: number;
  /** `outer`: between whom the SAs of the child that carries stand; the pair itself unless there is a gateway. */
  pairs: (HostPair & { outer: HostPair; mode: Mode; carrying: number; children: number[] })[];
};

/** The verbs that the data plane needs; `Xfrm` has them. */
export type XfrmVerbs = Pick<
  Xfrm,
  | 'installSa'
  | 'updateSa'
  | 'removeSa'
  | 'getSa'
  | 'dumpSas'
  | 'installPolicy'
  | 'updatePolicy'
  | 'removePolicy'
  | 'getPolicy'
  | 'dumpPolicies'
>;

export class XfrmDataPlane {
  readonly #xfrm: XfrmVerbs;
  readonly #ikePorts: number[];
  readonly #replayWindow: number;
  readonly #now: () => number;
  readonly #marks = new Marks();
  /** What should be private and is not sealed does not leave. */
  readonly blocks: XfrmBlocks;
  readonly #pairs = new Map<string, Pair>();
  readonly #children = new Map<number, { child: Installed; pair: Pair }>();
  readonly #childOfSa = new Map<string, number>();
  readonly #exemptions = new Map<string, Exemption & { index: number }>();

  constructor(xfrm: XfrmVerbs, options: DataPlaneOptions = {}) {
    this.#xfrm = xfrm;
    this.blocks = new XfrmBlocks(xfrm, this.#marks);
    this.#ikePorts = options.ikePorts ?? [500, 4500];
    this.#replayWindow = options.replayWindow ?? 128;
    this.#now = options.now ?? (() => Math.floor(Date.now() / 1000));
  }

  /**
   * Sees to it that the exemptions stand (exemptions.ts).
   *
   * An equal exemption of somebody else (another IKE daemon) serves as well and is left alone; a policy of somebody else
   * that contradicts throws KernelError EEXIST.
   */
  installExemptions(): void {
    for (const exemption of exemptions(this.#ikePorts)) {
      if (!this.#exemptions.has(exemption.name)) this.#installExemption(exemption);
    }
  }

  /**
   * Installs a child: inbound SA, outbound SA, then the policies of its pair, each acknowledged by the kernel.
   *
   * Any refusal takes back what this call installed and throws the KernelError. Where the pair has policies, they are
   * not switched to this child before `carry`; the first child of a pair carries.
   */
  installPair(given: Child): void {
    if (this.#children.has(given.id))
      throw new KernelError('installPair', constants.errno.EEXIST, `child ${given.id} is installed already`);
    const impossible = whyImpossible(given);
    if (impossible) throw new KernelError('installPair', constants.errno.EINVAL, impossible);
    const outer = given.outer ?? given.pair;
    const key = pairKey(given.pair);
    const known = this.#pairs.get(key);
    const undo: (() => void)[] = [];
    const step = (act: () => void, back: () => void) => {
      undo.push(back);
      try {
        act();
      } catch (error) {
        undo.pop();
        throw error;
      }
    };
    try {
      const outReqid = this.#takeReqid(undo);
      const inReqid = known?.inReqid ?? this.#takeReqid(undo);
      const child: Installed = {
        id: given.id,
        mode: given.mode,
        outer,
        inbound: { spi: given.inboundSa.spi, destination: outer.local },
        outbound: { spi: given.outboundSa.spi, destination: outer.remote },
        outReqid,
        seenPackets: 0,
        seenSeconds: 0,
      };
      step(
        () => this.#xfrm.installSa(saOf(given, 'in', inReqid, this.#replayWindow)),
        () => this.#xfrm.removeSa(child.inbound),
      );
      step(
        () => this.#xfrm.installSa(saOf(given, 'out', outReqid, this.#replayWindow)),
        () => this.#xfrm.removeSa(child.outbound),
      );
      if (known) {
        known.children.add(child);
        this.#remember(child, known);
        return;
      }
      const pair: Pair = {
        key,
        hosts: given.pair,
        inReqid,
        inIndex: this.#takeIndex('in', undo),
        outIndex: this.#takeIndex('out', undo),
        carrying: child,
        children: new Set([child]),
      };
      step(
        () => this.#xfrm.installPolicy(policyOf(pair, 'in', child)),
        () => this.#xfrm.removePolicy({ direction: 'in', index: pair.inIndex }),
      );
      step(
        () => this.#xfrm.installPolicy(policyOf(pair, 'out', child)),
        () => this.#xfrm.removePolicy({ direction: 'out', index: pair.outIndex }),
      );
      this.#pairs.set(key, pair);
      this.#remember(child, pair);
    } catch (error) {
      for (const back of undo.reverse()) undone(back);
      throw error;
    }
  }

  /** Removes a child's SAs; with the last child of a pair its policies too, before the SAs. Unknown: nothing to do. */
  removePair(childId: number): void {
    const known = this.#children.get(childId);
    if (!known) return;
    const { child, pair } = known;
    const heir = [...pair.children].filter(other => other !== child).at(-1);
    if (!heir) {
      gone(() => this.#xfrm.removePolicy({ direction: 'out', index: pair.outIndex }));
      gone(() => this.#xfrm.removePolicy({ direction: 'in', index: pair.inIndex }));
      this.#marks.giveBackIndex(pair.outIndex);
      this.#marks.giveBackIndex(pair.inIndex);
      this.#marks.giveBackReqid(pair.inReqid);
      this.#pairs.delete(pair.key);
    } else if (pair.carrying === child) {
      // After a foreign flush there is nothing to switch; the table goes on, and resync tells.
      gone(() => this.#switch(pair, heir));
      pair.carrying = heir;
    }
    pair.children.delete(child);
    this.#children.delete(childId);
    for (const sa of [child.inbound, child.outbound]) this.#childOfSa.delete(saKey(sa));
    gone(() => this.#xfrm.removeSa(child.outbound));
    gone(() => this.#xfrm.removeSa(child.inbound));
    this.#marks.giveBackReqid(child.outReqid);
  }

  /** Makes this child the one that what goes out uses. */
  carry(childId: number): void {
    const known = this.#children.get(childId);
    if (!known) throw new KernelError('carry', constants.errno.ENOENT, `child ${childId} is not installed`);
    this.#switch(known.pair, known.child);
  }

  /** Whether the kernel still holds a child's SAs and the policies of its pair: somebody else may have flushed them. */
  stands(childId: number): boolean {
    const known = this.#children.get(childId);
    if (!known || !this.#statusOf(known.child.inbound) || !this.#statusOf(known.child.outbound)) return false;
    const { pair } = known;
    return (
      this.#reqidOf('in', pair.inIndex) === pair.inReqid &&
      this.#reqidOf('out', pair.outIndex) === pair.carrying.outReqid
    );
  }

  /** What went through a child's SAs; undefined when the child is unknown or the kernel has lost one of them. */
  usage(childId: number): Usage | undefined {
    const known = this.#children.get(childId);
    if (!known) return undefined;
    const inbound = this.#statusOf(known.child.inbound);
    const outbound = this.#statusOf(known.child.outbound);
    if (!inbound || !outbound) return undefined;
    const packets = inbound.packets + outbound.packets;
    if (packets !== known.child.seenPackets) {
      known.child.seenPackets = packets;
      known.child.seenSeconds = this.#now();
    }
    const told = Math.max(inbound.lastUsedSeconds ?? 0, outbound.lastUsedSeconds ?? 0);
    const lastUsed = told || known.child.seenSeconds;
    return {
      inBytes: inbound.bytes,
      inPackets: inbound.packets,
      outBytes: outbound.bytes,
      outPackets: outbound.packets,
      ...(lastUsed > 0 && { lastUsedSeconds: lastUsed }),
    };
  }

  /** The child that an SA belongs to, either way; for events that name an SA. */
  childOf(sa: SaId): number | undefined {
    return this.#childOfSa.get(saKey(sa));
  }

  /** A child's SAs follow the NAT before its peer to another port; false when they cannot. */
  follow(mapping: Mapping): boolean {
    const known = this.#children.get(this.childOf(mapping) ?? -1);
    return known !== undefined && followMapping(this.#xfrm, known.child, mapping);
  }

  /** What this data plane believes to have installed. */
  status(): DataPlaneStatus {
    return {
      exemptions: this.#exemptions.size,
      pairs: [...this.#pairs.values()].map(pair => ({
        local: pair.hosts.local,
        remote: pair.hosts.remote,
        outer: pair.carrying.outer,
        mode: pair.carrying.mode,
        carrying: pair.carrying.id,
        children: [...pair.children].map(child => child.id),
      })),
    };
  }

  /**
   * Compares what we believe with what the kernel holds (after lost events, or when somebody flushed).
   *
   * `missing`: children without one of their SAs or policies; the caller decides, usually removePair and a new
   * negotiation. Lost exemptions are put back at once and counted. `strays`: SAs and policies of our range that we do not
   * know (`adoptLeftovers` takes them away).
   */
  resync(): { missing: number[]; exemptionsRestored: number; strays: number } {
    const sas = new Set(this.#xfrm.dumpSas().filter(isLive).map(saKey));
    const policies = new Map(this.#xfrm.dumpPolicies().map(policy => [policy.index, policy]));
    const missing: number[] = [];
    for (const { child, pair } of this.#children.values()) {
      const stands =
        sas.delete(saKey(child.inbound)) &&
        sas.delete(saKey(child.outbound)) &&
        this.#policiesStand(pair, policies);
      if (!stands) missing.push(child.id);
    }
    let exemptionsRestored = 0;
    for (const exemption of [...this.#exemptions.values()]) {
      const policy = policies.get(exemption.index);
      if (policy && isDeepStrictEqual(policy.selector, exemption.selector)) continue;
      this.#exemptions.delete(exemption.name);
      this.#marks.giveBackIndex(exemption.index);
      this.#installExemption(exemption);
      exemptionsRestored++;
    }
    exemptionsRestored += this.blocks.restore(policies);
    const strays = this.#strays();
    return { missing, exemptionsRestored, strays: strays.sas.length + strays.policies.length };
  }

  /** Removes everything that this data plane installed and nothing else; returns the refusals, if there were any. */
  removeEverything(): KernelError[] {
    const refusals: KernelError[] = [];
    const attempt = (act: () => void) => {
      try {
        gone(act);
      } catch (error) {
        if (!(error instanceof KernelError)) throw error;
        refusals.push(error);
      }
    };
    for (const { outIndex, inIndex } of this.#pairs.values()) {
      attempt(() => this.#xfrm.removePolicy({ direction: 'out', index: outIndex }));
      attempt(() => this.#xfrm.removePolicy({ direction: 'in', index: inIndex }));
    }
    for (const { child } of this.#children.values()) {
      attempt(() => this.#xfrm.removeSa(child.outbound));
      attempt(() => this.#xfrm.removeSa(child.inbound));
    }
    for (const { direction, index } of this.#exemptions.values()) {
      attempt(() => this.#xfrm.removePolicy({ direction, index }));
    }
    for (const index of this.blocks.indexes()) {
      attempt(() => this.#xfrm.removePolicy({ direction: 'out', index }));
    }
    this.#pairs.clear();
    this.#children.clear();
    this.#childOfSa.clear();
    this.#exemptions.clear();
    this.blocks.clear();
    return refusals;
  }

  /**
   * Deals with what an earlier run left under our reqids and indexes; foreign SAs and policies stay. Call it first.
   *
   * Blocks are taken over: what was private stays unsent until it is sealed again. The rest is removed. Returns what was
   * removed, one line each in the manner of `ip xfrm`, and the addresses that are blocked.
   */
  adoptLeftovers(): { policies: number; sas: number; described: string[]; blocked: Uint8Array[] } {
    const { policies: left, sas } = this.#strays();
    const blocked = left.map(policy => this.blocks.adopt(policy));
    const policies = left.filter((_, i) => blocked[i] === undefined);
    for (const { direction, index } of policies) gone(() => this.#xfrm.removePolicy({ direction, index }));
    for (const sa of sas) gone(() => this.#xfrm.removeSa(sa));
    return {
      policies: policies.length,
      sas: sas.length,
      described: [...policies.map(describePolicy), ...sas.map(describeSa)],
      blocked: blocked.filter(remote => remote !== undefined),
    };
  }

  #remember(child: Installed, pair: Pair): void {
    this.#children.set(child.id, { child, pair });
    for (const sa of [child.inbound, child.outbound]) this.#childOfSa.set(saKey(sa), child.id);
  }

  #installExemption(exemption: Exemption): void {
    const { selector, direction, name } = exemption;
    let index = this.#marks.takeIndex(direction);
    try {
      this.#xfrm.installPolicy(exemptionPolicy(exemption, EXEMPTION_PRIORITY, index));
    } catch (error) {
      this.#marks.giveBackIndex(index);
      if (!(error instanceof KernelError) || error.code !== 'EEXIST') throw error;
      const present = this.#xfrm.getPolicy({ direction, selector });
      const passes = present.action === 'allow' && present.templates.length === 0;
      if (!passes || present.priority >= SEALED_PRIORITY) {
        const text = `a policy that is not ours stands in the way of the exemption for ${name}: ${describePolicy(present)}`;
        throw new KernelError(error.verb, error.errno, text);
      }
      if (!isOurIndex(present.index)) return;
      index = present.index;
      this.#marks.reserveIndex(index);
    }
    this.#exemptions.set(name, { ...exemption, index });
  }

  /** Points the pair's policies at another child; when the second refuses, the first is put back. */
  #switch(pair: Pair, child: Installed): void {
    if (pair.carrying === child) return;
    const before = pair.carrying;
    const inboundChanges = differInbound(before, child);
    this.#checkOurs(pair);
    if (inboundChanges) this.#xfrm.updatePolicy(policyOf(pair, 'in', child));
    try {
      this.#xfrm.updatePolicy(policyOf(pair, 'out', child));
    } catch (error) {
      if (inboundChanges) undone(() => this.#xfrm.updatePolicy(policyOf(pair, 'in', before)));
      throw error;
    }
    pair.carrying = child;
  }

  /** UPDPOLICY goes by selector, so it would overwrite whatever somebody put there after flushing ours. */
  #checkOurs(pair: Pair): void {
    for (const direction of ['in', 'out'] as const) {
      const index = direction === 'in' ? pair.inIndex : pair.outIndex;
      if (!isOurPolicy(this.#xfrm.getPolicy({ direction, index }))) {
        throw new KernelError(
          'UPDPOLICY',
          constants.errno.ENOENT,
          `the ${direction} policy of the pair is no longer ours`,
        );
      }
    }
  }

  #reqidOf(direction: 'in' | 'out', index: number): number | undefined {
    try {
      return this.#xfrm.getPolicy({ direction, index }).templates[0]?.reqid;
    } catch (error) {
      if (error instanceof KernelError && error.code === 'ENOENT') return undefined;
      throw error;
    }
  }

  #policiesStand(pair: Pair, policies: Map<number, PolicyStatus>): boolean {
    const inbound = policies.get(pair.inIndex);
    const outbound = policies.get(pair.outIndex);
    return (
      inbound?.templates[0]?.reqid === pair.inReqid &&
      outbound?.templates[0]?.reqid === pair.carrying.outReqid
    );
  }

  /** What the kernel holds in our ranges and this data plane does not know. */
  #strays(): { sas: SaStatus[]; policies: PolicyStatus[] } {
    const sas = new Set<string>();
    const indexes = new Set<number>();
    for (const { child } of this.#children.values()) sas.add(saKey(child.inbound)).add(saKey(child.outbound));
    for (const { inIndex, outIndex } of this.#pairs.values()) indexes.add(inIndex).add(outIndex);
    for (const { index } of this.#exemptions.values()) indexes.add(index);
    for (const index of this.blocks.indexes()) indexes.add(index);
    return {
      sas: this.#xfrm.dumpSas().filter(sa => isLive(sa) && isOurSa(sa) && !sas.has(saKey(sa))),
      policies: this.#xfrm.dumpPolicies().filter(policy => isOurPolicy(policy) && !indexes.has(policy.index)),
    };
  }

  #statusOf(id: SaId): SaStatus | undefined {
    try {
      return this.#xfrm.getSa(id);
    } catch (error) {
      if (error instanceof KernelError && error.code === 'ESRCH') return undefined;
      throw error;
    }
  }

  #takeReqid(undo: (() => void)[]): number {
    const reqid = this.#marks.takeReqid();
    undo.push(() => this.#marks.giveBackReqid(reqid));
    return reqid;
  }

  #takeIndex(direction: 'in' | 'out', undo: (() => void)[]): number {
    const index = this.#marks.takeIndex(direction);
    undo.push(() => this.#marks.giveBackIndex(index));
    return index;
  }
}

function isLive(sa: SaStatus): boolean {
  return !sa.larval;
}
