import { describe, expect, it } from 'vitest'
import { KlWindow } from '../../lib/didr/kl-window.js'
import { hostUniform } from '../../lib/didr/philox.js'
import { integralKL, normal, schedules, type Tensor, tensor } from '../../lib/index.js'
import { cpuDevice } from '../../lib/tensor/device.js'
import { diffused, klOfGaussians } from './gaussians.js'

const schedule = schedules.flow()
const range = [-6, 6] as const
const dimensions = 2
/** The generator's distribution, the reference and the target. */
const own = { mean: 1, std: 0.6 }
const reference = { mean: 0, std: 1 }
const target = { mean: 0.5, std: 0.7 }

/** A step's samples with log-SNRs spread over the range; their scores are exact. */
function accumulate(window: KlWindow, step: number, batch = 400, centre = own.mean) {
  const t = hostUniform(batch, 5, step).map((u) =>
    schedule.timeOfLogSnr(range[0] + (range[1] - range[0]) * u),
  )
  const factors = (of: (alpha: number, sigma: number) => number) =>
    tensor(
      Float32Array.from(t, (time) => of(schedule.alpha(time), schedule.sigma(time))),
      { shape: [batch, 1] },
    ) as Tensor<'float32'>
  const shifted = { ...own, mean: centre }
  const xt = normal([batch, dimensions], { seed: 6, offset: step })
    .mul(factors((alpha, sigma) => diffused(shifted, alpha, sigma).std))
    .add(factors((alpha) => alpha * centre)) as Tensor<'float32'>
  const scoreOf = (p: typeof own) =>
    xt
      .sub(factors((alpha) => alpha * p.mean))
      .mul(factors((alpha, sigma) => -1 / diffused(p, alpha, sigma).std ** 2)) as Tensor<'float32'>
  const noiseOf = (p: typeof own) =>
    scoreOf(p).mul(factors((_, sigma) => -sigma)) as Tensor<'float32'>
  integralKL({
    xt,
    t,
    schedule,
    prediction: 'epsilon',
    assistant: noiseOf(shifted),
    teacher: noiseOf(reference),
    drs: scoreOf(target).sub(scoreOf(reference)) as Tensor<'float32'>,
    accumulator: window.next(),
  })
}

/** KL of the diffused distributions from the cleanest noise level covered to the noisiest, per sample. */
function klBetween(p: typeof own, q: typeof own, [low, high]: readonly [number, number]) {
  const at = (logSnr: number) => {
    const time = schedule.timeOfLogSnr(logSnr)
    const [alpha, sigma] = [schedule.alpha(time), schedule.sigma(time)]
    return dimensions * klOfGaussians(diffused(p, alpha, sigma), diffused(q, alpha, sigma))
  }
  return at(high) - at(low)
}

const countOf = async (window: KlWindow) =>
  (await window.read()).bins.reduce((sum, { count }) => sum + count, 0)

describe('KlWindow', () => {
  it('estimates the KL of known Gaussians over the noise levels visited', async () => {
    const window = new KlWindow(100, range, cpuDevice())
    for (let step = 0; step < 150; step++) accumulate(window, step)
    const { klToTarget, klToReference, logSnrRange } = await window.read()
    const covered = logSnrRange as [number, number]
    expect(covered[0]).toBeLessThan(-5.8)
    expect(covered[1]).toBeGreaterThan(5.8)
    for (const [estimate, exact] of [
      [klToTarget, klBetween(own, target, covered)],
      [klToReference, klBetween(own, reference, covered)],
    ] as const)
      expect(Math.abs(estimate / exact - 1), `${estimate} against ${exact}`).toBeLessThan(0.03)
    window.dispose()
  })

  it('looks back on at least its steps and on fewer than twice as many', async () => {
    const window = new KlWindow(3, range, cpuDevice())
    const counts: number[] = []
    for (let step = 0; step < 11; step++) {
      accumulate(window, step, 10)
      counts.push(await countOf(window))
    }
    expect(counts).toEqual([10, 20, 30, 40, 50, 60, 40, 50, 60, 40, 50])
    window.dispose()
  })

  it('with one step counts that step and the one before', async () => {
    const window = new KlWindow(1, range, cpuDevice())
    const counts: number[] = []
    for (let step = 0; step < 4; step++) {
      accumulate(window, step, 10)
      counts.push(await countOf(window))
    }
    expect(counts).toEqual([10, 20, 20, 20])
    window.dispose()
  })

  it('forgets a generator that has moved away', async () => {
    const window = new KlWindow(20, range, cpuDevice())
    for (let step = 0; step < 30; step++) accumulate(window, step, 100, 5)
    const far = (await window.read()).klToTarget
    for (let step = 30; step < 70; step++) accumulate(window, step, 100)
    const near = (await window.read()).klToTarget
    expect(near).toBeLessThan(far / 10)
    const fresh = new KlWindow(40, range, cpuDevice())
    for (let step = 40; step < 70; step++) accumulate(fresh, step, 100)
    expect((await fresh.read()).klToTarget).toBeCloseTo(near, 9)
    for (const used of [window, fresh]) used.dispose()
  })

  it('goes on from a longer window, and from nothing', async () => {
    const window = new KlWindow(2, range, cpuDevice())
    window.filled = 9
    accumulate(window, 0, 10)
    expect([window.filled, await countOf(window)]).toEqual([1, 10])
    window.reset()
    expect([window.filled, await countOf(window)]).toEqual([0, 0])
    const { klToTarget, klToReference, logSnrRange } = await window.read()
    expect([klToTarget, klToReference, logSnrRange]).toEqual([0, 0, undefined])
    window.dispose()
  })
})
