// What the kernel says about a running process: CPU time, memory, descriptors.
import { readdirSync, readFileSync } from 'node:fs';

/** Of /proc/PID/stat: USER_HZ is 100 on every Linux that Node runs on. */
const MICROS_PER_TICK = 10_000;

/** CPU time of all its threads so far, user and system, microseconds; its resolution is 10 ms. */
export function cpuMicros(pid: number): number {
  return parseCpuMicros(readFileSync(`/proc/${pid}/stat`, 'utf8'));
}

/** utime and stime (proc(5), fields 14 and 15), counted from behind the command's name, which may hold anything. */
export function parseCpuMicros(stat: string): number {
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return (Number(fields[11]) + Number(fields[12])) * MICROS_PER_TICK;
}

/** How long its main thread has been ready to run while others had the CPU, microseconds (`sched-stats.rst` of the kernel). */
export function cpuWaitMicros(pid: number): number {
  return parseCpuWaitMicros(readFileSync(`/proc/${pid}/schedstat`, 'utf8'));
}

export function parseCpuWaitMicros(schedstat: string): number {
  return Number(schedstat.split(' ')[1]) / 1000;
}

/** Resident memory, MB (10^6 octets). */
export function residentMegabytes(pid: number): number {
  const kilobytes = /^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1];
  return (Number(kilobytes) * 1024) / 1e6;
}

export function openDescriptors(pid: number): number {
  return readdirSync(`/proc/${pid}/fd`).length;
}
