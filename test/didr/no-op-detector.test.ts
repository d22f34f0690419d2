import { describe, expect, it } from 'vitest'
import { NoOpDetector } from '../../lib/didr/no-op-detector.js'
import { didrStep, rewards } from '../../lib/index.js'
import { ringRun, zeroScores } from './problems.js'

describe('NoOpDetector', () => {
  it('reports a term after that many zeros in a row, and forgets them at the first other norm', () => {
    const detector = new NoOpDetector(3)
    const reported = [0, 0, 1e-30, 0, 0, 0, 0, 2].map((a) => detector.observe({ a, b: 1 }))
    expect(reported).toEqual([[], [], [], [], [], ['a'], ['a'], []])
  })

  it('counts each term apart, and steps without a term not at all', () => {
    const detector = new NoOpDetector(2)
    expect(detector.observe({ a: 0, b: 0 })).toEqual([])
    expect(detector.observe({ a: undefined, b: 0 })).toEqual(['b'])
    expect(detector.observe({ a: 0, b: 0 })).toEqual(['a', 'b'])
    expect(detector.observe({ a: Number.NaN, b: -0 })).toEqual(['b'])
  })

  it('goes on from its state', () => {
    const first = new NoOpDetector(3)
    first.observe({ a: 0 })
    first.observe({ a: 0, b: 0 })
    const second = new NoOpDetector(3)
    second.observe({ c: 0 })
    second.load(JSON.parse(JSON.stringify(first.state())))
    expect(second.state()).toEqual({ a: 2, b: 1 })
    expect(second.observe({ a: 0, b: 0, c: 0 })).toEqual(['a'])
  })
})

describe('a constant reward', () => {
  const constant = rewards.fromFunction('constant', zeroScores)
  const flat = rewards.fromFunction('flat', (images) => images.mul(0).sum(1).add(3))
  const equal = rewards.blackBox('equal', (images) => new Float32Array(images.shape[0] as number))
  it.each([
    ['drp', { drs: { estimator: 'drp' }, reward: constant }, 'diffusedRewardScore'],
    ['tweedie', { drs: { estimator: 'tweedie' }, reward: flat }, 'diffusedRewardScore'],
    [
      '3 particles',
      { drs: { estimator: 'particles', particles: 3, steps: 2 }, reward: equal },
      'diffusedRewardScore',
    ],
    [
      '7 posterior samples',
      { drs: { estimator: 'particles', particles: 7, sampler: 'posterior' }, reward: equal },
      'diffusedRewardScore',
    ],
    ['a terminal reward', { objective: 'diff-instruct++', reward: flat }, 'terminalReward'],
  ] as const)(
    'is reported with %s after noOpAfter steps, and not before',
    async (_, change, term) => {
      using didr = ringRun({ ...change, noOpAfter: 4 })
      for (let step = 1; step <= 6; step++) {
        const { noOps } = await didrStep(didr, { batchSize: 5 })
        expect(noOps, `step ${step}`).toEqual(step < 4 ? [] : [term])
      }
    },
  )

  it('leaves the objective reward without any gradient: the generator is reported too', async () => {
    using didr = ringRun({ objective: 'reward', reward: constant, noOpAfter: 2 })
    await didrStep(didr, { batchSize: 4 })
    const { noOps, gradNorm } = await didrStep(didr, { batchSize: 4 })
    expect([noOps, gradNorm]).toEqual([['terminalReward', 'generator'], 0])
  })

  it('is not said of a reward that has an effect', async () => {
    using didr = ringRun({ noOpAfter: 1 })
    expect((await didrStep(didr, { batchSize: 4 })).noOps).toEqual([])
  })
})
