import { describe, expect, it } from 'vitest'
import {
  integralKL,
  KlAccumulator,
  normal,
  type Prediction,
  perturb,
  schedules,
  tensor,
  tidy,
  type Weighting,
} from '../../lib/index.js'
import { diffused, klOfGaussians, levelsAt, outputFor, posterior } from './gaussians.js'

const allSchedules = {
  flow: schedules.flow({ shift: 3 }),
  vp: schedules.vp(),
  edm: schedules.edm(),
}
const predictions: Prediction[] = ['epsilon', 'x0', 'v', 'flow']
const weightings: Record<string, Weighting> = {
  x0: 'x0',
  sigma2: 'sigma2',
  dmd: 'dmd',
  uniform: 'uniform',
  custom: (t) => 1 + t,
}

/** The formula of the method, one element after another in float64. */
function reference(options: {
  x0: ArrayLike<number>
  xt: ArrayLike<number>
  outputs: { assistant: ArrayLike<number>; teacher: ArrayLike<number>; uncond: ArrayLike<number> }
  drs: ArrayLike<number>
  t: Float32Array
  schedule: (typeof allSchedules)['flow']
  predictions: [Prediction, Prediction]
  guidance: number
  weighting: Weighting
  size: number
}) {
  const { x0, xt, outputs, drs, t, schedule, guidance, weighting, size } = options
  const denoise = (
    prediction: Prediction,
    output: number,
    x: number,
    alpha: number,
    sigma: number,
  ) => {
    const [o0, o1] = [
      outputFor(prediction, 0, x, alpha, sigma),
      outputFor(prediction, 1, x, alpha, sigma),
    ]
    return (output - o0) / (o1 - o0)
  }
  const grad = new Float64Array(xt.length)
  const target = new Float64Array(t.length)
  const toReference = new Float64Array(t.length)
  for (const [b, time] of t.entries()) {
    const { alpha, sigma } = levelsAt(schedule, time)
    const score = (denoised: number, x: number) => (alpha * denoised - x) / sigma ** 2
    let distance = 0
    const rows: { s: number; r: number }[] = []
    for (let j = 0; j < size; j++) {
      const i = b * size + j
      const x = xt[i] as number
      const assistant = denoise(
        options.predictions[0],
        outputs.assistant[i] as number,
        x,
        alpha,
        sigma,
      )
      const cond = denoise(options.predictions[1], outputs.teacher[i] as number, x, alpha, sigma)
      const uncond = denoise(options.predictions[1], outputs.uncond[i] as number, x, alpha, sigma)
      const teacher = uncond + guidance * (cond - uncond)
      distance += Math.abs((x0[i] as number) - teacher) / size
      const s = score(assistant, x) - score(teacher, x)
      rows.push({ s, r: s - (drs[i] as number) })
      target[b] = (target[b] as number) + (sigma * (s - (drs[i] as number))) ** 2
      toReference[b] = (toReference[b] as number) + (sigma * s) ** 2
    }
    const w =
      typeof weighting === 'function'
        ? weighting(time)
        : {
            x0: sigma ** 2 / alpha ** 2,
            sigma2: sigma ** 2,
            uniform: 1,
            dmd: sigma ** 2 / alpha ** 2 / distance,
          }[weighting]
    for (const [j, { r }] of rows.entries()) grad[b * size + j] = w * alpha * r
  }
  return { grad, target, toReference }
}

const cases = Object.keys(allSchedules).flatMap((name) =>
  predictions.flatMap((assistant, i) =>
    Object.keys(weightings).map((weighting, k) => ({
      name: name as keyof typeof allSchedules,
      assistant,
      // Every other case mixes prediction types.
      teacher: predictions[(i + (k % 2)) % 4] as Prediction,
      weighting,
    })),
  ),
)

describe.each(['float32', 'bfloat16'] as const)('integralKL, %s', (dtype) => {
  it.each(cases)('agrees with float64: $name, $assistant and $teacher, $weighting', async (one) => {
    const schedule = allSchedules[one.name]
    const weighting = weightings[one.weighting] as Weighting
    const [batch, size] = [4, 37]
    const t = new Float32Array([0.1, 0.4, 0.7, 0.95])
    const draw = (seed: number) => normal([batch, size], { seed, dtype })
    const x0 = draw(1)
    const { xt } = perturb(x0, { t, schedule, seed: 2 })
    const [assistant, teacher, uncond, drs] = [draw(3), draw(4), draw(5), draw(6)]
    const result = integralKL({
      x0,
      xt,
      t,
      schedule,
      prediction: { assistant: one.assistant, teacher: one.teacher },
      assistant,
      teacher,
      teacherUncond: uncond,
      guidance: 2.5,
      drs,
      weighting,
    })
    const expected = reference({
      x0: await x0.data(),
      xt: await xt.data(),
      outputs: {
        assistant: await assistant.data(),
        teacher: await teacher.data(),
        uncond: await uncond.data(),
      },
      drs: await drs.data(),
      t,
      schedule,
      predictions: [one.assistant, one.teacher],
      guidance: 2.5,
      weighting,
      size,
    })
    const tolerance = dtype === 'float32' ? 1e-5 : 1e-2
    const grad = await result.grad.data()
    for (let b = 0; b < batch; b++) {
      // Relative to the sample's largest element: the difference of two denoisers may cancel anywhere.
      const largest = expected.grad
        .slice(b * size, (b + 1) * size)
        .reduce((m, g) => Math.max(m, Math.abs(g)), 0)
      for (let i = b * size; i < (b + 1) * size; i++)
        expect(Math.abs((grad[i] as number) - (expected.grad[i] as number))).toBeLessThan(
          tolerance * largest,
        )
    }
    // The sums are float32 whatever the dtype of the elements.
    for (const [name, sums] of [
      ['target', expected.target],
      ['reference', expected.toReference],
    ] as const) {
      const got = await result.perSample[name].data()
      for (const [b, sum] of sums.entries())
        expect(Math.abs((got[b] as number) - sum)).toBeLessThan(2e-5 * sum)
    }
  })
})

describe('integralKL', () => {
  it('equals the composition of plain tensor ops', async () => {
    const schedule = allSchedules.flow
    const t = new Float32Array([0.3, 0.7])
    const [xt, assistant, teacher, drs] = [1, 2, 3, 4].map((seed) =>
      normal([2, 3, 5], { seed }),
    ) as [
      ReturnType<typeof normal<[2, 3, 5]>>,
      ReturnType<typeof normal<[2, 3, 5]>>,
      ReturnType<typeof normal<[2, 3, 5]>>,
      ReturnType<typeof normal<[2, 3, 5]>>,
    ]
    const { grad, perSample } = integralKL({
      xt,
      t,
      schedule,
      prediction: 'flow',
      assistant,
      teacher,
      drs,
    })
    const composed = tidy(() => {
      const column = (of: (t: number) => number) =>
        tensor(Float32Array.from(t, of), { shape: [2, 1, 1] })
      const sigma = column((time) => schedule.sigma(time))
      // x̂0 = x_t - σ o for flow
      const residual = teacher
        .sub(assistant)
        .mul(sigma)
        .sub(drs.mul(column((time) => schedule.sigma(time) ** 2 / schedule.alpha(time))))
      const norm = residual
        .mul(column((time) => schedule.alpha(time) / schedule.sigma(time)))
        .square()
        .sum([1, 2])
      return { residual, norm }
    })
    const [a, b] = [await grad.data(), await composed.residual.data()]
    for (let i = 0; i < a.length; i++)
      expect(Math.abs((a[i] as number) - (b[i] as number))).toBeLessThan(1e-5)
    const [n, m] = [await perSample.target.data(), await composed.norm.data()]
    for (let i = 0; i < n.length; i++) expect((n[i] as number) / (m[i] as number)).toBeCloseTo(1, 5)
  })

  it('integrates to the known KL of two Gaussians within 1% with 64 bins, for every schedule', async () => {
    const [p, q] = [
      { mean: 0.5, std: 0.9 },
      { mean: -0.3, std: 1.4 },
    ]
    const dimensions = 16
    for (const schedule of Object.values(allSchedules)) {
      const low = Math.max(-9, schedule.logSnr(1))
      const high = Math.min(9, schedule.logSnr(0.0005))
      const accumulator = new KlAccumulator({ bins: 64, logSnrRange: [low, high] })
      const batch = 1024
      for (let round = 0; round < 64; round++) {
        const t = Float32Array.from({ length: batch }, (_, i) =>
          schedule.timeOfLogSnr(low + ((high - low) * (i + (round + 0.5) / 64)) / batch),
        )
        const x0 = normal([batch, dimensions], {
          seed: 10,
          offset: round,
          mean: p.mean,
          std: p.std,
        })
        const { xt } = perturb(x0, { t, schedule, seed: 11, offset: round })
        const noisy = await xt.data()
        const denoised = (of: typeof p) =>
          tensor(
            Float32Array.from(noisy, (x, i) => {
              const { alpha, sigma } = levelsAt(schedule, t[Math.floor(i / dimensions)] as number)
              return posterior(of, x, alpha, sigma).mean
            }),
            { shape: [batch, dimensions] },
          )
        const [assistant, teacher] = [denoised(p), denoised(q)]
        const { grad, perSample } = integralKL({
          xt,
          t,
          schedule,
          prediction: 'x0',
          assistant,
          teacher,
          accumulator,
        })
        for (const used of [
          x0,
          xt,
          assistant,
          teacher,
          grad,
          perSample.target,
          perSample.reference,
        ])
          used.dispose()
      }
      const { klToTarget, klToReference, logSnrRange, bins } = await accumulator.read()
      expect(bins).toHaveLength(64)
      const [coarse, fine] = (logSnrRange as [number, number]).map((logSnr) => {
        const t = schedule.timeOfLogSnr(logSnr)
        const { alpha, sigma } = levelsAt(schedule, t)
        return dimensions * klOfGaussians(diffused(p, alpha, sigma), diffused(q, alpha, sigma))
      }) as [number, number]
      expect(Math.abs(klToReference / (fine - coarse) - 1)).toBeLessThan(0.01)
      expect(klToTarget).toBe(klToReference)
      accumulator.dispose()
    }
  })

  it('accumulates the same bits for any split of the batch', async () => {
    const schedule = allSchedules.vp
    const batch = 23
    const t = Float32Array.from(
      { length: batch },
      (_, i) => 0.02 + (0.96 * ((i * 7) % batch)) / batch,
    )
    const rows = [1, 2, 3].map((seed) => normal([batch, 41], { seed }))
    const [xt, assistant, teacher] = rows as [(typeof rows)[0], (typeof rows)[0], (typeof rows)[0]]
    const run = async (parts: number[]) => {
      using accumulator = new KlAccumulator({ bins: 7, logSnrRange: [-6, 6] })
      let from = 0
      for (const count of parts) {
        const part = (x: typeof xt) => x.slice([from, 0], [count, -1])
        integralKL({
          xt: part(xt),
          t: t.slice(from, from + count),
          schedule,
          prediction: 'v',
          assistant: part(assistant),
          teacher: part(teacher),
          accumulator,
        })
        from += count
      }
      return accumulator.save()
    }
    const whole = await run([batch])
    expect(whole.some((byte) => byte !== 0)).toBe(true)
    expect(await run([1, 5, 17])).toEqual(whole)
    expect(await run(new Array(batch).fill(1))).toEqual(whole)
  })

  it('names the sample that is not finite and keeps it out of the accumulator', async () => {
    const schedule = allSchedules.flow
    const t = new Float32Array([0.5, 0.5, 0.5])
    const [xt, teacher] = [normal([3, 4], { seed: 1 }), normal([3, 4], { seed: 2 })]
    const broken = await normal([3, 4], { seed: 3 }).data()
    broken[5] = Number.NEGATIVE_INFINITY
    using accumulator = new KlAccumulator()
    const { grad } = integralKL({
      xt,
      t,
      schedule,
      prediction: 'flow',
      assistant: tensor(broken, { shape: [3, 4] }),
      teacher,
      accumulator,
    })
    await expect(grad.data()).rejects.toMatchObject({
      code: 'ERR_NONFINITE',
      message: 'integralKL: sample 1 has 1 NaN or infinite values',
    })
    const { bins } = await accumulator.read()
    expect(bins.map(({ count }) => count)).toEqual([2])
    const saved = await accumulator.save()
    accumulator.reset()
    expect((await accumulator.read()).bins).toEqual([])
    accumulator.load(saved)
    expect((await accumulator.read()).bins).toEqual(bins)
    expect(() => accumulator.load(saved.subarray(1))).toThrow(/^sums: expected the 1536 bytes/)
  })

  it('refuses what it cannot use', () => {
    const schedule = allSchedules.flow
    const t = new Float32Array([0.5, 0.5])
    const x = normal([2, 3], { seed: 1 })
    const call = (change: object) => () =>
      integralKL({ xt: x, t, schedule, prediction: 'flow', assistant: x, teacher: x, ...change })
    expect(call({ guidance: 2 })).toThrow(/^teacherUncond: guidance 2 needs/)
    expect(call({ weighting: 'dmd' })).toThrow(/^x0: the dmd weighting needs/)
    expect(call({ weighting: 'x1' })).toThrow(/^weighting: expected one of/)
    expect(call({ weighting: () => Number.NaN })).toThrow(/^weighting: expected a finite weight/)
    expect(call({ teacher: normal([2, 4], { seed: 1 }) })).toThrow(
      'teacher: expected shape [2, 3], got [2, 4]',
    )
    expect(call({ drs: x.cast('bfloat16') })).toThrow('drs: expected float32, got bfloat16')
    expect(call({ prediction: { assistant: 'flow' } })).toThrow(
      /^prediction.teacher: expected one of/,
    )
    expect(call({ t: new Float32Array([0, 0.5]) })).toThrow(/^t\[0\]: expected a time where/)
    expect(call({ accumulator: {} })).toThrow(/^accumulator: expected a KlAccumulator/)
    expect(() => new KlAccumulator({ logSnrRange: [1, 1] })).toThrow(/expected low < high/)
  })
})
