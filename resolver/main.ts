/**
 * The command line: `holdfast up`, `keygen`, `record`, `status`, `explain`, `forget`, `portal`, `config`, `completion`.
 *
 * Exit codes: 0 done, 1 it did not work, 2 the command line or the configuration is at fault and nothing was touched.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import yargs, { type Argv } from 'yargs';
import { formatIpAddress, parseIpAddress } from './address.ts';
import { paint, print, printJson } from './commands/terminal.ts';
import { ConfigurationError, DEFAULT_FILE, loadConfiguration } from './config.ts';
import { jsonSchema, SETTINGS } from './config/schema.ts';
import { parseDomainName, parseDuration } from './config/values.ts';
import type { ForgetTarget, PortalAllowance } from './control/api.ts';
import { StartupError } from './startup-error.ts';
import { closest } from './suggestion.ts';

type Arguments = Record<string, unknown> & { json?: boolean };

const { version } = JSON.parse(readFileSync(join(import.meta.dirname, '..', 'package.json'), 'utf8'));
const COMMANDS = ['up', 'keygen', 'record', 'status', 'explain', 'forget', 'portal', 'config', 'completion'];
const OTHER_FLAGS = [
  'allow',
  'for',
  'config',
  'json',
  'out',
  'name',
  'address',
  'check',
  'server',
  'type',
  'all',
  'print',
];

const NO_COMMAND = `expected a command: ${COMMANDS.join(', ')}`;

// Each command loads its own module when it runs: starting is quick, and the resolver never holds what only the
// command line may use (dns-packet).

/** The command line does not fit: exit code 2. */
class UsageError extends Error {}

function program(words: string[]): Argv {
  return yargs(words)
    .scriptName('holdfast')
    .locale('en')
    .usage(
      '$0 COMMAND\n\nA DNS resolver that answers when the way to the address is sealed by IPsec.\n' +
        'Every setting is a key of the configuration, a flag of `up`, and a variable HOLDFAST_….',
    )
    .parserConfiguration({
      'camel-case-expansion': false,
      'dot-notation': false,
      'boolean-negation': false,
      'parse-numbers': false,
      'parse-positional-numbers': false,
    })
    .command(
      'up',
      'run the resolver until it is stopped',
      parser =>
        settings(parser)
          .example(
            'sudo $0 up',
            'needs no configuration: loopback, the resolvers of resolv.conf, private-or-clear',
          )
          .example(
            'sudo $0 up --policy-groups-private "*.bank.example,10.0.0.0/8"',
            'never in clear to these',
          )
          .example(
            '$0 up --dataplane none --listen 127.0.0.1:5353',
            'resolve and validate only, no root needed',
          ),
      async argv => {
        const { up } = await import('./commands/up.ts');
        await up(configurationOf(argv), version, () => import('./daemon/daemon.ts'));
      },
    )
    .command(
      'keygen',
      'make keys: RSA-2048, P-256 and Ed25519 at once',
      parser =>
        settings(json(parser), 'state', 'identity-keys')
          .option('out', {
            type: 'string',
            requiresArg: true,
            describe: 'directory to make them in (default where `up` looks)',
          })
          .example('$0 keygen --out ./keys', 'three PKCS#8 PEM files, readable by you alone'),
      async argv => {
        const { keygen } = await import('./commands/keys.ts');
        keygen((argv.out as string | undefined) ?? keyDirectory(argv), argv.json === true);
      },
    )
    .command(
      'record',
      'print the IPSECKEY records to publish, or check those that are',
      parser =>
        settings(json(parser), 'state', 'identity-name', 'identity-keys', 'upstream')
          .option('name', {
            type: 'string',
            requiresArg: true,
            describe: 'the name to publish at (default identity.name)',
          })
          .option('address', {
            type: 'string',
            requiresArg: true,
            describe: 'also at the reverse name of this address; may be repeated',
          })
          .option('check', {
            type: 'boolean',
            describe: 'ask the upstreams what is published, exit 1 when it differs',
          })
          .option('server', {
            type: 'string',
            requiresArg: true,
            describe: 'with --check: ask this server instead',
          })
          .example('$0 record --name www.example.org --address 192.0.2.7', 'lines for both zones')
          .example('$0 record --check --server 192.0.2.53', 'is the primary serving them?'),
      async argv => {
        const { record } = await import('./commands/keys.ts');
        process.exitCode = await record(configurationOf(argv), {
          ...(argv.name === undefined ? {} : { name: argv.name as string }),
          ...(argv.server === undefined ? {} : { server: addressOf('server', argv.server) }),
          addresses: [argv.address ?? []].flat().map(String),
          check: argv.check === true,
          json: argv.json === true,
        });
      },
    )
    .command(
      'status',
      'what the running resolver holds: peers, assurance, failures',
      parser => settings(json(parser), 'control').example('sudo $0 status --json | jq .peers', 'for scripts'),
      async argv => {
        const report = await (await daemonOf(argv)).status();
        if (argv.json) printJson(report);
        else print((await views()).statusText(report, Date.now()));
      },
    )
    .command(
      'explain <name>',
      'tell every step of the last answer for a name',
      parser =>
        settings(json(parser), 'control')
          .positional('name', {
            type: 'string',
            describe: 'the name; asked now if nobody did yet',
            demandOption: true,
          })
          .option('type', { type: 'string', requiresArg: true, default: 'A', describe: 'A or AAAA' })
          .example('sudo $0 explain www.example.org', 'why is it sealed, in clear, or refused?'),
      async argv => {
        const asked = argv.name as string;
        const name = parseDomainName(asked);
        if (name === undefined)
          throw new UsageError(`NAME: expected a domain name; found ${JSON.stringify(asked)}`);
        const told = await (await daemonOf(argv)).explain(name === '' ? '.' : name, String(argv.type));
        if (argv.json) printJson(told);
        else print((await views()).explanationText(told));
      },
    )
    .command(
      'forget [target]',
      'close a peer and forget what was learnt about it',
      parser =>
        settings(json(parser), 'control')
          .positional('target', { type: 'string', describe: 'NAME or ADDRESS' })
          .option('all', { type: 'boolean', describe: 'everything' })
          .example('sudo $0 forget www.example.org', 'the next question starts anew')
          .example('sudo $0 forget --all', 'as after a fresh start'),
      async argv => {
        const result = await (await daemonOf(argv)).forget(targetOf(argv));
        if (argv.json) printJson(result);
        else print((await views()).forgetText(result));
      },
    )
    .command(
      'portal',
      'what the network lets through; let the login page of a captive portal be found',
      parser =>
        settings(json(parser), 'control')
          .option('allow', {
            type: 'string',
            describe: 'answer this host unprotected (default the one the portal leads to)',
          })
          .option('for', {
            type: 'string',
            requiresArg: true,
            default: '10m',
            describe: 'how long, at most 1h',
          })
          .example('sudo $0 portal --allow', 'then open the login page in a browser'),
      async argv => {
        const daemon = await daemonOf(argv);
        const network =
          argv.allow === undefined
            ? (await daemon.status()).network
            : await daemon.allowPortal(allowanceOf(argv));
        if (argv.json) printJson(network);
        else print((await views()).portalText(network));
      },
    )
    .command('config', 'check or show the configuration', parser =>
      parser
        .command(
          'check [file]',
          'read the configuration and say what does not fit',
          inner =>
            settings(inner)
              .positional('file', { type: 'string', describe: `the file (default ${DEFAULT_FILE})` })
              .option('print', { type: 'boolean', describe: 'show every value in effect' })
              .example('$0 config check ./holdfast.yaml', 'exit code 2 when something does not fit'),
          async argv => {
            const { printConfiguration } = await import('./config/print.ts');
            const configuration = configurationOf({ ...argv, config: argv.file ?? argv.config });
            if (argv.print) print(printConfiguration(configuration));
            else print(`${configuration.file ?? 'The defaults'}: ${paint('ok', 'green')}`);
          },
        )
        .command('schema', 'print the JSON schema of the file, for editors', {}, () =>
          printJson(jsonSchema()),
        )
        .demandCommand(1, 'config: expected check or schema'),
    )
    .completion('completion', 'print a completion script: holdfast completion >> ~/.bashrc')
    .demandCommand(1, NO_COMMAND)
    .strict()
    .version(version)
    .help()
    .alias('help', 'h')
    .wrap(Math.min(110, process.stdout.columns || 100))
    .exitProcess(false)
    .fail((message, error) => {
      // yargs throws its own complaints about the command line as YError.
      throw error && error.name !== 'YError' ? error : new UsageError(message || error.message);
    });
}

/** The flags of these settings; all of them when none is named. */
function settings(parser: Argv, ...flags: string[]): Argv {
  const text = { type: 'string', requiresArg: true } as const;
  const chosen = SETTINGS.filter(({ flag }) => flags.length === 0 || flags.includes(flag));
  const options = {
    config: { ...text, describe: `configuration file (default ${DEFAULT_FILE})` },
    ...Object.fromEntries(chosen.map(({ flag, description }) => [flag, { ...text, describe: description }])),
  };
  return parser.options(options).group(Object.keys(options), 'Configuration:');
}

const json = (parser: Argv) => parser.option('json', { type: 'boolean', describe: 'print JSON' });

function configurationOf(argv: Arguments) {
  const flags = Object.fromEntries(SETTINGS.map(({ flag }) => [flag, argv[flag]]));
  return loadConfiguration({ file: argv.config as string | undefined, flags });
}

function keyDirectory(argv: Arguments): string {
  const { keys } = configurationOf(argv).identity;
  if ('directory' in keys) return keys.directory;
  throw new UsageError('identity.keys lists files: say with --out where to make new ones');
}

const views = () => import('./commands/views.ts');

/** undici takes its time to load, so only the commands that talk to the daemon load it. */
async function daemonOf(argv: Arguments) {
  const { ControlClient } = await import('./control/client.ts');
  return new ControlClient(configurationOf(argv).control);
}

function allowanceOf(argv: Arguments): PortalAllowance {
  const asked = String(argv.allow);
  const name = parseDomainName(asked);
  if (asked !== '' && (name === undefined || name === '')) {
    throw new UsageError(`--allow: expected a domain name; found ${JSON.stringify(asked)}`);
  }
  const millis = parseDuration(String(argv.for));
  if (millis === undefined) throw new UsageError(`--for: expected a duration such as 10m; found ${argv.for}`);
  return { millis, ...(asked !== '' && name !== undefined && { name }) };
}

function targetOf({ target, all }: Arguments): ForgetTarget {
  if (all && target === undefined) return { all: true };
  if (all || target === undefined)
    throw new UsageError('forget: expected NAME, ADDRESS or --all, and only one of them');
  const address = parseIpAddress(String(target));
  if (address) return { address: formatIpAddress(address) };
  const name = parseDomainName(String(target));
  if (name) return { name };
  throw new UsageError(`forget: expected a name or an address; found ${JSON.stringify(target)}`);
}

function addressOf(flag: string, value: unknown): string {
  const address = parseIpAddress(String(value));
  if (!address) throw new UsageError(`--${flag}: expected an IP address; found ${JSON.stringify(value)}`);
  return formatIpAddress(address);
}

/** yargs says `Unknown argument: polcy`; this adds what was meant. */
function withSuggestion(message: string): string {
  const unknown = /^Unknown (argument|command)s?: (\S+?)(?:,|$)/.exec(message);
  if (!unknown) return message;
  const word = unknown[2]!;
  const isFlag = process.argv.some(
    argument => argument.replace(/=.*/, '').replace(/^-+/, '-') === `-${word}`,
  );
  const meant = closest(word, isFlag ? [...SETTINGS.map(({ flag }) => flag), ...OTHER_FLAGS] : COMMANDS);
  const what = isFlag ? `unknown flag --${word}` : `unknown command or argument ${word}`;
  return meant ? `${what}: did you mean ${isFlag ? '--' : ''}${meant}?` : what;
}

function report(error: unknown): number {
  const prefix = process.stderr.isTTY && !process.env.NO_COLOR ? '\x1b[31mholdfast:\x1b[0m' : 'holdfast:';
  const complain = (text: string) => process.stderr.write(`${prefix} ${text}\n`);
  if (error instanceof UsageError) {
    complain(`${withSuggestion(error.message)}\n          see holdfast --help`);
    return 2;
  }
  if (error instanceof ConfigurationError) {
    complain(`the configuration does not fit\n${error.message}`);
    return 2;
  }
  if (error instanceof StartupError) {
    complain(`${error.what}: ${error.why}\n          ${error.next}`);
    return error.exitCode;
  }
  complain(error instanceof Error ? (error.stack ?? error.message) : String(error));
  return 1;
}

// `holdfast status | head` closes the pipe early; that is not a failure.
process.stdout.on('error', error => process.exit((error as NodeJS.ErrnoException).code === 'EPIPE' ? 0 : 1));

try {
  await program(process.argv.slice(2)).parseAsync();
} catch (error) {
  process.exitCode = report(error);
}
