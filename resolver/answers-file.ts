/** The cache's answers in a file of the state directory, from an orderly stop to the next start. */
import { createHash } from 'node:crypto';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import type { SocketAddress } from './address.ts';
import type { CachedResolver } from './cache/answers.ts';
import { composeImage, readImage } from './cache/answers-image.ts';
import type { Configuration } from './config.ts';
import { anchorRecords } from './config/anchors.ts';
import type { TrustAnchor } from './dnssec/anchors.ts';
import type { Logger } from './log.ts';
import { readStateFile, writeStateFile } from './state-file.ts';
import { formatUpstreamServer, NETWORK } from './upstream/server.ts';

/** Of the memory that the cache may use the file takes less than this. */
const MAX_FILE_SHARE = 2;

export type AnswersFile = {
  configuration: Configuration;
  cache: CachedResolver;
  /** Those in force: not the configured ones where they have been rolled since. */
  anchors: () => readonly TrustAnchor[];
  /** The resolvers that the network names at this moment. */
  named: () => readonly SocketAddress[];
  log: Logger;
};

/** Writes what the cache has; what goes wrong is told and costs no more than a cold start. */
export function writeAnswers(file: AnswersFile): void {
  const { configuration, cache, log } = file;
  const path = pathOf(configuration);
  try {
    writeStateFile(path, composeImage(eraOf(file), Date.now(), cache.kept()));
  } catch (error) {
    log.warn({ event: 'answersNotKept', path, err: error }, 'the cache could not be written');
  }
}

/**
 * Takes in what an earlier run wrote, beside everything else, and deletes the file: from now on the cache knows better.
 *
 * A file that is damaged, somebody else's, from the future, or of other trust anchors or upstream servers is told of and
 * ignored. Never rejects.
 */
export async function restoreAnswers(file: AnswersFile): Promise<void> {
  const { configuration, cache, log } = file;
  const path = pathOf(configuration);
  try {
    const image = readStateFile(path, MAX_FILE_SHARE * configuration.cache.maxBytes);
    rmSync(path, { force: true });
    if (image === undefined) return;
    const era = eraOf(file);
    const { flushes } = cache.counters();
    let restored = 0;
    const read = await readImage(image, { era, now: Date.now() }, answer => {
      if (cache.restore(answer)) restored++;
      // Who asks for things to be forgotten does not want them back.
      return cache.counters().flushes === flushes;
    });
    log.info({ event: 'answersRestored', read, restored }, 'the cache of the last run is back');
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    log.warn({ event: 'answersIgnored', path, why }, 'the cache of the last run is not used');
  }
}

function pathOf({ state }: Configuration): string {
  return join(state, 'answers');
}

/** A digest of what answers depend on beside their zones: who vouches for them, and who was asked. */
function eraOf({ configuration, anchors, named }: AnswersFile): Uint8Array {
  const { upstream, forward, negativeTrustAnchors } = configuration;
  const era = [
    anchorRecords([...anchors()]).sort(),
    negativeTrustAnchors.map(name => name.canonical().toText()).sort(),
    upstream.map(choice => (choice === NETWORK ? NETWORK : formatUpstreamServer(choice))),
    named(),
    forward.map(({ zone, servers }) => [zone.toText(), ...servers.map(formatUpstreamServer)]),
  ];
  return createHash('sha256').update(JSON.stringify(era)).digest();
}
