import type { WriteStream } from 'node:tty'
import type { Progress } from './run.js'

/**
 * A line about the progress of a run: `step 1200/3000 (40%)  loss 0.0123  5.4/s  5:33 left`. On a terminal it is
 * rewritten in place, elsewhere a new one is written at most every ten seconds and at the end.
 */
export function progressLine(
  stream: Pick<WriteStream, 'write'> & { isTTY?: boolean },
): (progress: Progress) => void {
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
    const values = [...smoothed].map(([name, value]) => `${name} ${Number(value.toPrecision(4))}`)
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
