import type { WriteStream } from 'node:tty'
import { checkOptions } from '../checks.js'
import { fail, show } from '../errors.js'
import type { Progress } from './run.js'

/**
 * A line about the progress of a run: `step 1200/3000 (40%)  loss 0.0123  5.4/s  5:33 left`. On a terminal it is
 * rewritten in place, elsewhere a new one is written at most every ten seconds and at the end.
 *
 * @param options `metrics`: names of those to show, in this order, each once a step has had it. Default: all, as they come
 * @throws {DidrError} ERR_CONFIG for options of the wrong kind
 */
export function progressLine(
  stream: Pick<WriteStream, 'write'> & { isTTY?: boolean },
  options: { metrics?: readonly string[] } = {},
): (progress: Progress) => void {
  checkOptions('options', options, ['metrics'])
  const { metrics: shown } = options
  if (shown !== undefined && !Array.isArray(shown))
    fail('ERR_CONFIG', `options.metrics: expected an array of names, got ${show(shown)}`)
  const smoothed = new Map<string, number>()
  let written = 0
  return ({ step, steps, metrics, rate, secondsLeft }) => {
    for (const [name, value] of Object.entries(metrics)) {
      const before = smoothed.get(name)
      smoothed.set(name, before === undefined ? value : before + 0.05 * (value - before))
    }
    const now = performance.now()
    if (step < steps && written > 0 && now - written < (stream.isTTY ? 200 : 10_000)) return
    written = now
    const values = (shown ?? [...smoothed.keys()]).flatMap((name) => {
      const value = smoothed.get(name)
      return value === undefined ? [] : [`${name} ${Number(value.toPrecision(4))}`]
    })
    const line = [
      `step ${step}/${steps} (${Math.floor((100 * step) / steps)}%)`,
      ...values,
      `${rate >= 1 ? rate.toFixed(1) : rate.toPrecision(2)}/s`,
      `${clock(secondsLeft)} left`,
    ].join('  ')
    if (stream.isTTY) stream.write(`\r\x1b[K${line}${step === steps ? '\n' : ''}`)
    else stream.write(`${line}\n`)
  }
}

function clock(seconds: number): string {
  const whole = Math.round(seconds)
  const [hours, minutes, rest] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60]
  const two = (value: number) => String(value).padStart(2, '0')
  return hours > 0 ? `${hours}:${two(minutes)}:${two(rest)}` : `${minutes}:${two(rest)}`
}
