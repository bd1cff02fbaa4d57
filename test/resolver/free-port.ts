/** A port for a server that needs the same one for UDP and TCP. */
import dgram from 'node:dgram';
import { once } from 'node:events';
import net from 'node:net';

/**
 * A port of `address` that nobody has for UDP or TCP.
 *
 * Below the range from which the kernel gives ports to clients, so that it stays free until it is used.
 */
export async function freePort(address: string): Promise<number> {
  for (let tries = 0; tries < 100; tries++) {
    const port = 10_000 + Math.floor(Math.random() * 20_000);
    const udp = dgram.createSocket(net.isIPv4(address) ? 'udp4' : 'udp6');
    const tcp = net.createServer();
    const listening = [once(udp, 'listening'), once(tcp, 'listening')];
    udp.bind(port, address);
    tcp.listen(port, address);
    const outcomes = await Promise.allSettled(listening);
    udp.close();
    if (tcp.listening) await new Promise(resolve => tcp.close(resolve));
    if (outcomes.every(({ status }) => status === 'fulfilled')) return port;
  }
  throw new Error('no free port');
}
