// @ts-check
// What other programs took of the processors during a turn, from Linux's accounts: all time that was not idle, without
// what the contestants and this program used. Time that a hypervisor gave to other machines counts as foreign.
import { readFileSync } from 'node:fs'

/**
 * In clock ticks, since start.
 * @typedef {object} Account
 * @property {number} total of all processors, idle or not
 * @property {number} busy
 * @property {number} own
 */

/**
 * The first line of /proc/stat: user, nice, system, idle, iowait, irq, softirq, steal; guests are in user.
 * @param {string} text
 */
export function parseSystem(text) {
  const fields = (/^cpu +(.*)$/m.exec(text)?.[1] ?? '').split(' ').map(Number)
  const counted = fields.slice(0, 8)
  const total = counted.reduce((sum, ticks) => sum + ticks, 0)
  const [, , , idle = 0, wait = 0] = counted
  return { total, busy: total - idle - wait }
}

/**
 * utime + stime of /proc/PID/stat. The name in parentheses may hold spaces and parentheses.
 * @param {string} text
 */
export function parseProcess(text) {
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ')
  return Number(fields[11]) + Number(fields[12])
}

/**
 * Processors that others took on average between two accounts, from 0 on.
 * @param {Account | undefined} before
 * @param {Account | undefined} after
 * @param {number} processors
 * @returns {number | undefined} undefined without accounts, or if no tick has passed
 */
export function foreignBetween(before, after, processors) {
  if (before === undefined || after === undefined || after.total <= before.total) return undefined
  const foreign = after.busy - before.busy - (after.own - before.own)
  return Math.max((foreign / (after.total - before.total)) * processors, 0)
}

/**
 * @param {readonly number[]} pids of the contestants
 * @returns {Account | undefined} undefined where there is no /proc
 */
export function account(pids) {
  try {
    const system = parseSystem(readFileSync('/proc/stat', 'utf8'))
    const own = [process.pid, ...pids].map((pid) =>
      parseProcess(readFileSync(`/proc/${pid}/stat`, 'utf8')),
    )
    return { ...system, own: own.reduce((sum, ticks) => sum + ticks, 0) }
  } catch {
    return undefined
  }
}
