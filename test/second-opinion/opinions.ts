/** Who is asked: Holdfast's daemon, unbound, and delv, all over the same tree with the same anchor. */
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { composeMessage } from '../../resolver/dns/compose.ts';
import { parseMessage, type ResourceRecord } from '../../resolver/dns/message.ts';
import { Name } from '../../resolver/dns/name.ts';
import { canonicalRdata } from '../../resolver/dns/rdata-form.ts';
import { rcodeToText, TYPE, typeFromText, typeToText } from '../../resolver/dns/types.ts';
import { layerEnvironment, locate, projectRoot } from '../lab/packages.ts';
import { freePort } from '../resolver/free-port.ts';
import { ended } from '../resolver/dnssec/zones.ts';
import type { Question } from './content.ts';
import { overTcp, overUdp } from './tamper.ts';
import type { Tree } from './tree.ts';
import { extendedErrors } from '../resolver/dns/extended-errors.ts';

/**
 * `verdict` as a client sees it: AD is secure, SERVFAIL is bogus. `answer`: records without signatures and TTLs, sorted.
 * `proof`: which kind of denial came along. `why`: the server's own words.
 */
export type Opinion = {
  verdict: 'secure' | 'insecure' | 'bogus';
  rcode: string;
  answer: string[];
  proof: 'nsec' | 'nsec3' | 'none';
  why: string;
};

export type Server = { name: string; pid: number; port: number; stop: () => Promise<void> };

const PROGRAMS = [
  ['usr/sbin/nsd', 'nsd'],
  ['usr/bin/dnssec-keygen', 'bind9-utils'],
  ['usr/bin/dnssec-signzone', 'bind9-utils'],
  ['usr/bin/dnssec-dsfromkey', 'bind9-utils'],
  ['usr/sbin/unbound', 'unbound'],
  ['usr/bin/delv', 'bind9-dnsutils'],
] as const;

/** Why no second opinion can be had on this machine; undefined when one can. */
export function missingPrograms(): string | undefined {
  const missing = PROGRAMS.filter(([file]) => locate(file) === undefined);
  if (missing.length === 0) return undefined;
  const packages = [...new Set(missing.map(([, name]) => name))];
  return `not installed: ${missing.map(([file]) => file).join(', ')} (packages ${packages.join(', ')})`;
}

export async function startHoldfast(tree: Pick<Tree, 'directory' | 'port' | 'anchor'>): Promise<Server> {
  const { tag, algorithm, digestType, digest } = tree.anchor;
  const anchors = join(tree.directory, 'holdfast.anchors');
  writeFileSync(anchors, `. IN DS ${tag} ${algorithm} ${digestType} ${digest}\n`);
  return started('Holdfast', port => {
    const settings = {
      listen: `127.0.0.1:${port}`,
      upstream: `127.0.0.1:${tree.port}`,
      'trust-anchors': anchors,
      state: join(tree.directory, 'state'),
      control: join(tree.directory, 'control.sock'),
      dataplane: 'none',
      'policy-default': 'clear',
      'log-level': 'error',
    };
    const flags = Object.entries(settings).map(([flag, value]) => `--${flag}=${value}`);
    return spawn(join(projectRoot, 'deploy', 'holdfast'), ['up', ...flags], {
      stdio: ['ignore', 'ignore', 'pipe'],
    });
  });
}

/** A forwarder as Holdfast is one, without its own ideas about private names and minimal answers. */
export async function startUnbound(tree: Tree): Promise<Server> {
  const { tag, algorithm, digestType, digest } = tree.anchor;
  return started('unbound', port => {
    const file = join(tree.directory, 'unbound.conf');
    writeFileSync(
      file,
      `server:
  interface: 127.0.0.1
  port: ${port}
  username: ""
  chroot: ""
  directory: "${tree.directory}"
  pidfile: ""
  use-syslog: no
  verbosity: 1
  val-log-level: 2
  ede: yes
  do-ip6: no
  do-not-query-localhost: no
  minimal-responses: no
  module-config: "validator iterator"
  trust-anchor: ". DS ${tag} ${algorithm} ${digestType} ${digest}"
  trust-anchor-signaling: no
  root-key-sentinel: no
  aggressive-nsec: no
remote-control:
  control-enable: no
forward-zone:
  name: "."
  forward-addr: 127.0.0.1@${tree.port}
`,
    );
    return spawn('unbound', ['-d', '-c', file], {
      stdio: ['ignore', 'ignore', 'pipe'],
      env: layerEnvironment(),
    });
  });
}

async function started(name: string, run: (port: number) => ChildProcess): Promise<Server> {
  for (let tries = 1; ; tries++) {
    const port = await freePort('127.0.0.1');
    const child = run(port);
    let complaint = '';
    child.stderr!.setEncoding('utf8').on('data', text => {
      complaint = (complaint + text).slice(-4000);
    });
    for (let waits = 0; waits < 200 && child.exitCode === null; waits++) {
      const answered = await overUdp(port, queryBytes({ name: '.', type: TYPE.SOA }, false), 500).catch(
        () => undefined,
      );
      if (answered !== undefined) {
        return { name, pid: child.pid!, port, stop: () => ended(child) };
      }
      await new Promise(resolve => setTimeout(resolve, 50));
    }
    await ended(child);
    if (tries === 3) throw new Error(`${name} does not answer: ${complaint}`);
  }
}

export function queryBytes(
  { name, type }: { name: string; type: number },
  checkingDisabled: boolean,
): Uint8Array {
  return composeMessage({
    id: Math.floor(Math.random() * 0x10000),
    response: false,
    opcode: 0,
    authoritative: false,
    truncated: false,
    recursionDesired: true,
    recursionAvailable: false,
    authenticData: false,
    checkingDisabled,
    rcode: 0,
    questions: [{ name: Name.parseText(name), type, class: 1 }],
    answer: [],
    authority: [],
    additional: [],
    edns: { udpSize: 1232, version: 0, dnssecOk: true, options: [] },
  });
}

/** The question with DO, over TCP when the answer is truncated. */
export async function askServer(
  { port }: Server,
  question: Question,
  checkingDisabled: boolean = false,
): Promise<Opinion> {
  const query = queryBytes({ name: question.name, type: typeFromText(question.type)! }, checkingDisabled);
  let reply = parseMessage(await overUdp(port, query, 20_000));
  if (reply.truncated) reply = parseMessage(await overTcp(port, query, 20_000));
  const rcode = rcodeToText(reply.rcode);
  const hints = extendedErrors(reply.edns).map(({ code, text }) => `${code} ${text}`.trim());
  return {
    verdict: rcode === 'SERVFAIL' ? 'bogus' : reply.authenticData ? 'secure' : 'insecure',
    rcode,
    answer: reply.answer
      .filter(({ type }) => type !== TYPE.RRSIG || question.type === 'RRSIG')
      .map(recordText)
      .sort(),
    proof: proofOf(reply.authority.map(({ type }) => typeToText(type))),
    why: hints.join('; '),
  };
}

function recordText({ name, type, rdata }: ResourceRecord): string {
  const data = Buffer.from(canonicalRdata(type, rdata)).toString('hex');
  return `${name.canonical().toText()} ${typeToText(type)} ${data}`;
}

function proofOf(types: readonly string[]): Opinion['proof'] {
  return types.includes('NSEC3') ? 'nsec3' : types.includes('NSEC') ? 'nsec' : 'none';
}

/** delv's verdict: a process of its own for each question, that begins with nothing in its cache. */
export async function askDelv(tree: Tree, { name, type }: Question): Promise<Opinion> {
  const { tag, algorithm, digestType, digest } = tree.anchor;
  const file = join(tree.directory, 'delv.anchors');
  if (!existsSync(file))
    writeFileSync(file, `trust-anchors { "." static-ds ${tag} ${algorithm} ${digestType} "${digest}"; };\n`);
  const args = [
    '@127.0.0.1',
    '-p',
    String(tree.port),
    '-a',
    file,
    '+root=.',
    '+unknownformat',
    '-q',
    name,
    '-t',
    type,
  ];
  let output = '';
  // It may hang at its end without having said anything; then it is asked again.
  for (let tries = 0; tries < 2 && output === ''; tries++) {
    const { stdout, stderr } = (await promisify(execFile)('delv', args, {
      env: layerEnvironment(),
      timeout: 4000,
      killSignal: 'SIGKILL',
    }).catch(error => error)) as { stdout: string; stderr: string };
    output = `${stdout}${stderr}`;
  }
  const failure = /resolution failed: (.*)/.exec(output)?.[1];
  const found = output
    .split('\n')
    .filter(line => !line.startsWith(';'))
    .map(line => /^(\S+)\s+\d+\s+\S+\s+(\S+)\s+\\# \d+ ?(.*)$/.exec(line))
    .filter(match => match !== null)
    .map(([, owner, rrType, hex]) => ({
      owner: owner!,
      type: typeToText(typeFromText(rrType!)!),
      rdata: Buffer.from(hex!.replaceAll(' ', ''), 'hex'),
    }));
  const failed = failure !== undefined && !failure.startsWith('ncache');
  return {
    verdict: failed
      ? 'bogus'
      : /unsigned answer/.test(output)
        ? 'insecure'
        : /fully validated/.test(output)
          ? 'secure'
          : 'bogus',
    rcode: failed ? 'SERVFAIL' : failure === 'ncache nxdomain' ? 'NXDOMAIN' : 'NOERROR',
    answer: found
      .filter(record => record.type !== 'RRSIG' || type === 'RRSIG')
      .map(record =>
        recordText({
          name: Name.parseText(record.owner),
          type: typeFromText(record.type)!,
          class: 1,
          ttlSeconds: 0,
          rdata: record.rdata,
        }),
      )
      .sort(),
    proof: proofOf(
      output
        .split('\n')
        .flatMap(line =>
          /^; .*\bNSEC3\b/.test(line) ? ['NSEC3'] : /^; .*\bNSEC\b/.test(line) ? ['NSEC'] : [],
        ),
    ),
    why: (failure ?? '').trim(),
  };
}
