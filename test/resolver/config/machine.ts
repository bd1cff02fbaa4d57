import type { Machine } from '../../../resolver/config/machine.ts';

/** A machine that holds just these files. */
export function machineWith(files: Record<string, string>, host = 'lab', addresses: string[] = []): Machine {
  return {
    readText: path => {
      if (files[path] === 'EACCES') throw new Error(`EACCES: permission denied, open '${path}'`);
      return files[path];
    },
    isDirectory: path => Object.keys(files).some(file => file.startsWith(`${path}/`)),
    hostName: () => host,
    ownAddresses: () => addresses,
  };
}
