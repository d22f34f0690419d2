import { describe, expect, it } from 'vitest'
import {
  DidrError,
  memory,
  normal,
  perturb,
  schedules,
  tensor,
  tidy,
  zeros,
} from '../../lib/index.js'
import { levelsAt } from './gaussians.js'

const schedule = schedules.flow({ shift: 3 })

describe('perturb', () => {
  it.each([
    [1, []],
    [3, [5]],
    [4, [4]],
    [5, [7, 3]],
    [2, [1000003]],
    [0, [4]],
    [3, [0]],
  ] as [number, number[]][])(
    'is alpha x0 + sigma eps with the noise of normal(), batch %i of %j',
    async (batch, rest) => {
      const shape = [batch, ...rest]
      const t = Float32Array.from({ length: batch }, (_, i) => (i + 0.5) / batch)
      const x0 = normal(shape, { seed: 1 })
      const { xt, noise } = perturb(x0, { t, schedule, seed: 7, offset: 3, returnNoise: true })
      const drawn = await normal(shape, { seed: 7, offset: 3 }).data()
      expect(await noise.data()).toEqual(drawn)
      const [clean, noisy] = [await x0.data(), await xt.data()]
      const size = clean.length / Math.max(batch, 1)
      let worst = 0
      for (let i = 0; i < noisy.length; i++) {
        const { alpha, sigma } = levelsAt(schedule, t[Math.floor(i / size)] as number)
        const exact = alpha * (clean[i] as number) + sigma * (drawn[i] as number)
        // One rounding of the product alpha x0 and one of the sum.
        const ulp = 2 ** -23 * (Math.abs(exact) + Math.abs(alpha * (clean[i] as number)))
        worst = Math.max(worst, Math.abs((noisy[i] as number) - exact) / (ulp + 1e-30))
      }
      expect(worst).toBeLessThanOrEqual(1)
      expect(xt.shape).toEqual(shape)
    },
  )

  it('equals the composition of plain tensor ops', async () => {
    const x0 = normal([6, 33], { seed: 4 })
    const t = new Float32Array([0, 0.1, 0.3, 0.5, 0.9, 1])
    const { xt } = perturb(x0, { t, schedule, seed: 9 })
    const composed = tidy(() => {
      const column = (of: (t: number) => number) =>
        tensor(Float32Array.from(t, of), { shape: [6, 1] })
      return x0
        .mul(column((time) => schedule.alpha(time)))
        .add(normal([6, 33], { seed: 9 }).mul(column((time) => schedule.sigma(time))))
    })
    const [fused, plain] = [await xt.data(), await composed.data()]
    for (let i = 0; i < fused.length; i++)
      expect(Math.abs((fused[i] as number) - (plain[i] as number))).toBeLessThan(1e-6)
  })

  it('rounds once to bfloat16 and leaves x0 alone at t = 0 of the flow schedule', async () => {
    const x0 = normal([2, 19], { seed: 4, dtype: 'bfloat16' })
    const { xt } = perturb(x0, { t: new Float32Array([0, 0.5]), schedule, seed: 2 })
    expect(xt.dtype).toBe('bfloat16')
    const [before, after] = [await x0.data(), await xt.data()]
    expect(after.slice(0, 19)).toEqual(before.slice(0, 19))
    const noise = await normal([2, 19], { seed: 2 }).data()
    const { alpha, sigma } = levelsAt(schedule, 0.5)
    for (let i = 19; i < 38; i++) {
      const exact = alpha * (before[i] as number) + sigma * (noise[i] as number)
      expect(Math.abs((after[i] as number) - exact)).toBeLessThanOrEqual(Math.abs(exact) * 2 ** -8)
    }
  })

  it('reports non-finite samples at the next wait, and works again after', async () => {
    const x0 = tensor([
      [1, 2],
      [Number.NaN, Number.POSITIVE_INFINITY],
    ])
    const { xt } = perturb(x0, { t: new Float32Array([0.5, 0.5]), schedule, seed: 1 })
    await expect(xt.data()).rejects.toMatchObject({
      code: 'ERR_NONFINITE',
      message: 'perturb: sample 1 has 2 NaN or infinite values',
    })
    await expect(xt.data()).resolves.toHaveLength(4)
  })

  it('refuses bad arguments by name and changes nothing', () => {
    const x0 = zeros([4, 3])
    const t = new Float32Array(4).fill(0.5)
    const before = memory()
    const cases: [() => unknown, string, RegExp][] = [
      [
        () => perturb(x0, { t: t.subarray(1), schedule, seed: 1 }),
        'ERR_SHAPE',
        /^t: expected length 4 \(batch of x0\), got 3$/,
      ],
      [
        () => perturb(x0, { t: [0.5] as never, schedule, seed: 1 }),
        'ERR_CONFIG',
        /^t: expected a Float32Array/,
      ],
      [
        () => perturb(x0, { t: t.map(() => 1.5), schedule, seed: 1 }),
        'ERR_RANGE',
        /^t\[0\]: .*got 1.5$/,
      ],
      [
        () => perturb(x0, { t: t.map(() => Number.NaN), schedule, seed: 1 }),
        'ERR_RANGE',
        /^t\[0\]: .*got NaN$/,
      ],
      [() => perturb(x0, { t, schedule: {} as never, seed: 1 }), 'ERR_CONFIG', /^schedule:/],
      [() => perturb(x0, { t, schedule, seed: -1 }), 'ERR_RANGE', /^seed:/],
      [() => perturb(x0, { t, schedule, seed: 1.5 }), 'ERR_RANGE', /^seed:/],
      [() => perturb(x0, { t, schedule, seed: 1, offset: 2 ** 60 }), 'ERR_RANGE', /^offset:/],
      [
        () => perturb(x0, { t, schedule, seed: 1, noise: true } as never),
        'ERR_CONFIG',
        /^options.noise: unknown option/,
      ],
      [
        () => perturb(zeros([4, 3], { dtype: 'int32' }) as never, { t, schedule, seed: 1 }),
        'ERR_DTYPE',
        /^x0:/,
      ],
      [() => perturb(zeros([]), { t, schedule, seed: 1 }), 'ERR_SHAPE', /^x0: expected \[batch/],
    ]
    for (const [call, code, message] of cases) {
      try {
        call()
        expect.unreachable()
      } catch (error) {
        expect(error).toBeInstanceOf(DidrError)
        expect([(error as DidrError).code, (error as DidrError).message]).toEqual([
          code,
          expect.stringMatching(message),
        ])
      }
    }
    // The two tensors made inside the cases are all that is left.
    expect(memory().tensors).toBe(before.tensors + 2)
  })
})
