/** `holdfast keygen` and `holdfast record`: making our keys and saying what to publish. */
import { parseIpAddress } from '../address.ts';
import { type Configuration, serversAtStart } from '../config.ts';
import { parseFqdn } from '../config/values.ts';
import { generateKeyFiles, loadIdentity } from '../identity/identity.ts';
import {
  isPublishable,
  type PublishedRecord,
  recordLine,
  recordsFor,
  reverseName,
} from '../identity/record.ts';
import { StartupError } from '../startup-error.ts';
import { askRecords, type RecordAnswer } from './second-opinion.ts';
import { paint, print, printJson, table } from './terminal.ts';

/** Makes one key of each kind in the directory. */
export function keygen(directory: string, json: boolean): void {
  const keys = generateKeyFiles(directory);
  if (json) printJson(keys.map(({ file, kind, fingerprint }) => ({ file, algorithm: kind, fingerprint })));
  else {
    print(table([['KEY', 'FINGERPRINT', 'FILE'], ...keys.map(key => [key.kind, key.fingerprint, key.file])]));
    print('\nPublish them: `holdfast record --name NAME --address ADDRESS` prints the lines for your zone.');
  }
}

export type RecordOptions = {
  name?: string;
  addresses: string[];
  check: boolean;
  server?: string;
  json: boolean;
};

/** Prints the records to publish; with `check` compares them with what is published. Returns the exit code. */
export async function record(configuration: Configuration, options: RecordOptions): Promise<0 | 1> {
  const owners = ownersOf(configuration, options);
  const { keys } = loadIdentity({ ...configuration.identity, keys: withoutGenerating(configuration) });
  const records = recordsFor(keys, owners);
  const left = keys.filter(key => !isPublishable(key));
  if (!options.check) {
    if (options.json) printJson(records.map(({ owner, text }) => ({ owner, type: 'IPSECKEY', rdata: text })));
    else {
      print(zoneText(records, owners));
      for (const { kind, file } of left)
        print(`; left out: ${file} (${kind}: libreswan before 5.0 crashes on it)`);
    }
    return 0;
  }
  const plain = serversAtStart(configuration).flatMap(server =>
    'address' in server ? [server.address] : [],
  );
  const servers = options.server ? [options.server] : plain.map(({ address }) => address);
  const port = options.server ? 53 : (plain[0]?.port ?? 53);
  return compare(records, await askRecords(owners, servers, port), options.json);
}

function ownersOf(configuration: Configuration, options: RecordOptions): string[] {
  const given = options.name ?? configuration.identity.name;
  const name = given === undefined ? undefined : parseFqdn(given);
  if (given !== undefined && name === undefined) throw usage('--name', 'a name with a dot', given);
  const reverse = options.addresses.map(text => {
    const address = parseIpAddress(text);
    if (!address) throw usage('--address', 'an IP address', text);
    return reverseName(address);
  });
  const owners = name === undefined ? reverse : [name, ...reverse];
  if (owners.length > 0) return owners;
  throw new StartupError({
    what: 'nothing to print',
    why: 'this host has no name with a dot and no address was given',
    next: 'say where to publish: `holdfast record --name host.example.org --address 192.0.2.7`',
    exitCode: 2,
  });
}

function usage(flag: string, expected: string, found: string): StartupError {
  const why = `${flag}: expected ${expected}; found ${JSON.stringify(found)}`;
  return new StartupError({
    what: 'cannot use the command line',
    why,
    next: 'see holdfast record --help',
    exitCode: 2,
  });
}

/** Looking must not make keys: only the daemon and keygen do. */
function withoutGenerating({ identity: { keys } }: Configuration): Configuration['identity']['keys'] {
  return 'directory' in keys ? { directory: keys.directory, generate: false } : keys;
}

function zoneText(records: PublishedRecord[], owners: string[]): string {
  return owners
    .map(owner => {
      const lines = records.filter(entry => entry.owner === owner).map(recordLine);
      return `${lines.join('\n')}\n`;
    })
    .join('\n');
}

/** One verdict for each owner: every record there, some missing, some that are not ours. */
function compare(records: PublishedRecord[], answers: RecordAnswer[], json: boolean): 0 | 1 {
  const report = answers.map(answer => {
    const expected = records.filter(({ owner }) => owner === answer.owner);
    const has = (rdata: Uint8Array) =>
      answer.rdatas.some(published => Buffer.compare(published, rdata) === 0);
    // Who does not answer has said nothing about any record.
    const missing =
      answer.error === undefined ? expected.filter(({ rdata }) => !has(rdata)).map(({ text }) => text) : [];
    const ours = (published: Uint8Array) =>
      expected.some(({ rdata }) => Buffer.compare(published, rdata) === 0);
    const foreign = answer.rdatas.filter(published => !ours(published)).length;
    const { owner, server, error, authenticated } = answer;
    return {
      owner,
      server,
      error,
      authenticated,
      published: error === undefined ? expected.length - missing.length : 0,
      missing,
      foreign,
    };
  });
  const good = report.every(({ error, missing, foreign }) => !error && missing.length === 0 && foreign === 0);
  if (json) printJson({ ok: good, owners: report });
  else {
    for (const { owner, server, error, authenticated, published, missing, foreign } of report) {
      const verdict =
        error ??
        `${published} of our records published, ${missing.length} missing, ${foreign} that are not ours`;
      const fine = !error && missing.length === 0 && foreign === 0;
      print(
        `${paint(fine ? 'ok' : 'not ok', fine ? 'green' : 'red')}  ${owner}: ${verdict} (asked ${server})`,
      );
      if (!error && !authenticated)
        print('      not validated by that server (no AD); one that holds the zone never says so');
      for (const text of missing) print(`      missing: IPSECKEY ${text}`);
    }
  }
  return good ? 0 : 1;
}
