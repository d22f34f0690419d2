/**
 * The generator's gradient against closed forms. The generator is linear, x0 = A z + b, the teacher one Gaussian, the
 * reward quadratic and the assistant the exact score of the generator's own Gaussian, so that p_θ,t and p*_t are Gaussians
 * and their KL is known in float64.
 */
import { describe, expect, it } from 'vitest'
import {
  createDidr,
  type DidrOptions,
  type DidrStepOptions,
  didrStep,
  models,
  Parameter,
  rewards,
  type Schedule,
  schedules,
  type Tensor,
  tensor,
} from '../../lib/index.js'
import type { Float } from './problems.js'

/** x0 = A z + b. */
class Linear implements models.Generator {
  readonly A: Parameter
  readonly b: Parameter

  constructor(A: readonly (readonly number[])[], b: readonly number[]) {
    this.A = new Parameter('A', tensor(A as number[][]) as Float)
    this.b = new Parameter('b', tensor([...b]) as Float)
  }

  parameters = () => [this.A, this.b]
  inputShape = (batch: number) => [batch, this.b.shape[0] as number]

  forward(z: Float): Float {
    return z.matmul(this.A.value.transpose()).add(this.b.value) as Float
  }
}

/**
 * The score of N(mean, C), diffused: s = -(α² C + σ² I)⁻¹ (x_t - α mean), as an epsilon prediction -σ s. With C = U diag(c) Uᵀ
 * it is diagonal in the axes of U.
 */
class GaussianScore implements models.ScoreModel {
  readonly prediction = 'epsilon'
  readonly #mean: readonly number[]
  readonly #axes: Matrix
  readonly #variances: readonly number[]
  readonly #schedule: Schedule

  constructor(mean: readonly number[], covariance: Matrix, schedule: Schedule) {
    this.#schedule = schedule
    if (covariance.length === 1) {
      this.#axes = [[1]]
      this.#variances = [at(covariance, 0, 0)]
    } else {
      const angle =
        Math.atan2(2 * at(covariance, 0, 1), at(covariance, 0, 0) - at(covariance, 1, 1)) / 2
      const [c, s] = [Math.cos(angle), Math.sin(angle)]
      // Rows are the axes.
      this.#axes = [
        [c, s],
        [-s, c],
      ]
      this.#variances = this.#axes.map((axis) =>
        dot(
          axis,
          covariance.map((row) => dot(row, axis)),
        ),
      )
    }
    this.#mean = this.#axes.map((axis) => dot(axis, mean))
  }

  parameters = () => []

  forward(xt: Float, t: Float32Array): Float {
    const size = this.#mean.length
    const shift = new Float32Array(t.length * size)
    const scale = new Float32Array(t.length * size)
    for (let i = 0; i < t.length; i++) {
      const time = t[i] as number
      const [alpha, sigma] = [this.#schedule.alpha(time), this.#schedule.sigma(time)]
      for (let j = 0; j < size; j++) {
        shift[i * size + j] = alpha * (this.#mean[j] as number)
        scale[i * size + j] =
          sigma / (alpha * alpha * (this.#variances[j] as number) + sigma * sigma)
      }
    }
    const axes = tensor(this.#axes as number[][])
    return xt
      .matmul(axes.transpose())
      .sub(tensor(shift, { shape: [t.length, size] }))
      .mul(tensor(scale, { shape: [t.length, size] }))
      .matmul(axes) as Float
  }
}

type Matrix = readonly (readonly number[])[]

const at = (matrix: Matrix, row: number, column: number) =>
  (matrix[row] as number[])[column] as number

const determinant = (m: Matrix) =>
  m.length === 1 ? at(m, 0, 0) : at(m, 0, 0) * at(m, 1, 1) - at(m, 0, 1) * at(m, 1, 0)

const dot = (a: readonly number[], b: readonly number[]) =>
  a.reduce((sum, value, i) => sum + value * (b[i] as number), 0)

const timesTransposed = (A: Matrix): Matrix => A.map((row) => A.map((other) => dot(row, other)))

const diffusedCovariance = (C: Matrix, alpha: number, sigma: number): Matrix =>
  C.map((row, i) => row.map((value, j) => alpha * alpha * value + (i === j ? sigma * sigma : 0)))

/** KL(N(m, C) ‖ N(n, v I)) in nats. */
function klToIsotropic(m: readonly number[], C: Matrix, n: readonly number[], v: number): number {
  const trace = C.reduce((sum, row, i) => sum + (row[i] as number), 0)
  const distance = m.reduce((sum, value, i) => sum + (value - (n[i] as number)) ** 2, 0)
  return (
    0.5 * ((trace + distance) / v - m.length + m.length * Math.log(v) - Math.log(determinant(C)))
  )
}

/** The mean of a function over a range of times, by Simpson's rule. */
function meanOver([low, high]: readonly [number, number], f: (t: number) => number, count = 2000) {
  let sum = 0
  for (let i = 0; i <= count; i++)
    sum += (i === 0 || i === count ? 1 : i % 2 === 1 ? 4 : 2) * f(low + ((high - low) * i) / count)
  return sum / (3 * count)
}

/** Central differences of a function of A and b. */
function differences(
  A: Matrix,
  b: readonly number[],
  f: (A: Matrix, b: readonly number[]) => number,
): number[] {
  const flat = [...A.flat(), ...b]
  const size = b.length
  return flat.map((_, i) => {
    const moved = (step: number) => {
      const values = flat.map((value, j) => (j === i ? value + step : value))
      const rows = A.map((_row, r) => values.slice(r * size, (r + 1) * size))
      return f(rows, values.slice(size * size))
    }
    return (moved(1e-4) - moved(-1e-4)) / 2e-4
  })
}

// lr / (|g| + eps) = 1 to 1e-6: an update is the gradient itself.
const plainGradient = {
  generator: { lr: 1e6, betas: [0, 0], eps: 1e6, maxNorm: null },
} as const satisfies DidrOptions['optimizer']

/** What a step takes off A and b. */
async function gradientOf(
  A: Matrix,
  b: readonly number[],
  batchSize: number,
  options: Omit<DidrOptions, 'generator' | 'assistant' | 'optimizer'>,
  conditions: Omit<DidrStepOptions, 'batchSize'> = {},
): Promise<number[]> {
  const generator = new Linear(A, b)
  const assistant = new GaussianScore(b, timesTransposed(A), options.schedule)
  using didr = createDidr({
    generator,
    assistant,
    assistantSteps: 0,
    optimizer: plainGradient,
    ema: null,
    rewardEvery: 0,
    ...options,
  })
  const read = async () => {
    const parts = generator.parameters().map(({ value }) => (value as Tensor).data())
    return (await Promise.all(parts)).flatMap((values) => [...values])
  }
  const before = await read()
  await didrStep(didr, { batchSize, ...conditions })
  const after = await read()
  for (const parameter of generator.parameters()) parameter.dispose()
  return before.map((value, i) => value - (after[i] as number))
}

/** The error of a vector, relative to the norm of the expected one. */
function relativeError(got: readonly number[], expected: readonly number[]): number {
  const norm = Math.hypot(...expected)
  return Math.hypot(...got.map((value, i) => value - (expected[i] as number))) / norm
}

const A = [
  [0.9, 0.3],
  [-0.2, 0.6],
]
const b = [0.7, -0.5]
const teacherMean = [-0.4, 0.3]
const teacherStd = 0.8
const quadratic = { center: [1.5, 1], curvature: 0.8 }
const beta = 0.6

const teacherOf = (schedule: Schedule) =>
  models.gaussianMixture({ means: [teacherMean], std: teacherStd, schedule })

/** ∫ w(t) KL(p_θ,t ‖ p*_t) dt, over the density of the times; `tilted` or to the teacher itself. */
function integralKlOf(
  schedule: Schedule,
  range: readonly [number, number],
  weight: (alpha: number, sigma: number, t: number) => number,
  tilted: boolean,
) {
  const teacher = teacherOf(schedule)
  const target = tilted ? teacher.tilt(quadratic, beta) : teacher
  const [mean, std] = [target.means[0] as number[], target.stds[0] as number]
  return (A_: Matrix, b_: readonly number[]) => {
    const covariance = timesTransposed(A_)
    return meanOver(range, (t) => {
      const [alpha, sigma] = [schedule.alpha(t), schedule.sigma(t)]
      const kl = klToIsotropic(
        b_.map((value) => alpha * value),
        diffusedCovariance(covariance, alpha, sigma),
        mean.map((value) => alpha * value),
        alpha * alpha * std * std + sigma * sigma,
      )
      return weight(alpha, sigma, t) * kl
    })
  }
}

describe('the gradient of didr with the exact estimator', () => {
  it.each([
    ['x0', 'x0', (alpha: number, sigma: number) => (sigma / alpha) ** 2, [0.02, 0.8]],
    ['sigma2', 'sigma2', (_: number, sigma: number) => sigma ** 2, [0.02, 0.98]],
    ['uniform', 'uniform', () => 1, [0.02, 0.98]],
    [
      'a function of t',
      (t: number) => 1 + Math.sin(5 * t),
      (_alpha: number, _sigma: number, t: number) => 1 + Math.sin(5 * t),
      [0.02, 0.98],
    ],
  ] as const)(
    'is that of the Integral KL to the tilted target, weighted %s',
    async (_, weighting, weight, range) => {
      const schedule = schedules.flow()
      const got = await gradientOf(A, b, 1_000_000, {
        teacher: teacherOf(schedule),
        reward: rewards.quadratic(quadratic),
        beta,
        schedule,
        drs: { estimator: 'exact' },
        weighting,
        times: { kind: 'uniform', range },
        seed: 3,
      })
      const expected = differences(A, b, integralKlOf(schedule, range, weight, true))
      expect(relativeError(got, expected)).toBeLessThan(0.01)
    },
  )
})

describe('the gradient of the other objectives', () => {
  const schedule = schedules.vp({ kind: 'cosine' })
  const range = [0.05, 0.9] as const
  const options = {
    teacher: teacherOf(schedule),
    reward: rewards.quadratic(quadratic),
    beta,
    schedule,
    weighting: 'sigma2',
    times: { kind: 'uniform', range },
    seed: 5,
  } as const
  const toTeacher = integralKlOf(schedule, range, (_, sigma) => sigma ** 2, false)
  /** E[-r(A z + b)]/β */
  const terminal = (A_: Matrix, b_: readonly number[]) =>
    (quadratic.curvature / (2 * beta)) *
    (dot(A_.flat(), A_.flat()) +
      b_.reduce((sum, value, i) => sum + (value - (quadratic.center[i] as number)) ** 2, 0))

  it.each([
    ['diff-instruct', toTeacher],
    ['reward', terminal],
    [
      'diff-instruct++',
      (A_: Matrix, b_: readonly number[]) => toTeacher(A_, b_) + terminal(A_, b_),
    ],
  ] as const)('%s is that of its closed form', async (objective, loss) => {
    const got = await gradientOf(A, b, 300_000, { ...options, objective })
    expect(relativeError(got, differences(A, b, loss))).toBeLessThan(0.01)
  })
})

describe('a guided teacher', () => {
  it('is the Gaussian that it is extrapolated to', async () => {
    const schedule = schedules.flow()
    const guidance = 2.5
    const [means, without] = [teacherMean, [0.1, -0.2]]
    const guidedMean = means.map((value, i) => {
      const start = without[i] as number
      return start + guidance * (value - start)
    })
    // A Gaussian whose mean is the condition: ε̂ = σ (x_t - α m) / v.
    const teacher: models.ScoreModel = {
      prediction: 'epsilon',
      parameters: () => [],
      forward(x, t, condition) {
        const levels = Array.from(
          t,
          (time) => [schedule.alpha(time), schedule.sigma(time)] as const,
        )
        const column = (of: (alpha: number, sigma: number) => number) =>
          tensor(
            Float32Array.from(levels, ([alpha, sigma]) => of(alpha, sigma)),
            {
              shape: [t.length, 1],
            },
          ) as Float
        return x
          .sub((condition as Float).mul(column((alpha) => alpha)) as Float)
          .mul(column((alpha, sigma) => sigma / ((alpha * teacherStd) ** 2 + sigma ** 2))) as Float
      },
    }
    const batch = 100_000
    const rows = (values: readonly number[]) =>
      tensor([...values])
        .reshape([1, 2])
        .broadcastTo([batch, 2]) as Tensor
    const range = [0.1, 0.9] as const
    const got = await gradientOf(
      A,
      b,
      batch,
      {
        teacher,
        schedule,
        objective: 'diff-instruct',
        weighting: 'sigma2',
        guidance,
        times: { kind: 'uniform', range },
        seed: 2,
      },
      { condition: rows(means), unconditional: rows(without) },
    )
    const expected = differences(A, b, (A_, b_) =>
      meanOver(range, (t) => {
        const [alpha, sigma] = [schedule.alpha(t), schedule.sigma(t)]
        const kl = klToIsotropic(
          b_.map((value) => alpha * value),
          diffusedCovariance(timesTransposed(A_), alpha, sigma),
          guidedMean.map((value) => alpha * value),
          (alpha * teacherStd) ** 2 + sigma ** 2,
        )
        return sigma ** 2 * kl
      }),
    )
    expect(relativeError(got, expected)).toBeLessThan(0.01)
  })
})

describe('objectives without a closed form, in one dimension', () => {
  const schedule = schedules.flow()
  // Far enough from the teacher that no sample is its own denoised one, where `dmd` divides by 0.
  const [a, centre] = [0.3, 3]
  const [mean, std] = [-0.4, 0.5]
  const range = [0.5, 0.95] as const
  const options = {
    teacher: models.gaussianMixture({ means: [[mean]], std, schedule }),
    schedule,
    times: { kind: 'uniform', range },
    seed: 9,
  } as const
  const [alpha, sigma] = [schedule.alpha, schedule.sigma]
  const variance = (t: number, own: number) => (alpha(t) * own) ** 2 + sigma(t) ** 2
  const scoreOf = (centre_: number, own: number) => (x: number, t: number) =>
    -(x - alpha(t) * centre_) / variance(t, own)
  const [generatorScore, teacherScore] = [scoreOf(centre, a), scoreOf(mean, std)]

  /** E over z and ε, standard normal, and t, uniform, by the trapezoid rule. */
  function expectation(f: (z: number, noise: number, t: number) => number): number {
    const points = Array.from({ length: 121 }, (_, i) => -6 + i / 10)
    const densities = points.map((x) => Math.exp((-x * x) / 2) / Math.sqrt(2 * Math.PI) / 10)
    return meanOver(
      range,
      (t) => {
        let sum = 0
        for (const [i, z] of points.entries())
          for (const [j, noise] of points.entries())
            sum += (densities[i] as number) * (densities[j] as number) * f(z, noise, t)
        return sum
      },
      20,
    )
  }

  it('dmd2 divides each sample by its distance from the denoised one', async () => {
    const gradient = (z: number, noise: number, t: number) => {
      const x0 = a * z + centre
      const xt = alpha(t) * x0 + sigma(t) * noise
      const denoised = (xt + sigma(t) ** 2 * teacherScore(xt, t)) / alpha(t)
      const difference = generatorScore(xt, t) - teacherScore(xt, t)
      return ((sigma(t) ** 2 / alpha(t)) * difference) / Math.abs(x0 - denoised)
    }
    const expected = [
      expectation((z, noise, t) => z * gradient(z, noise, t)),
      expectation(gradient),
    ]
    const got = await gradientOf([[a]], [centre], 300_000, { ...options, objective: 'dmd2' })
    expect(relativeError(got, expected)).toBeLessThan(0.01)
  })

  it.each([
    ['sigma2', 0.3, (t: number) => sigma(t) ** 2],
    ['x0', 2, (t: number) => (sigma(t) / alpha(t)) ** 2],
    ['a function of t', 1, (t: number) => 2 - t],
  ] as const)(
    'diff-instruct* goes through the input of the assistant, weighted %s',
    async (name, huber, weight) => {
      const [curvature, wanted] = [0.1, 2.5]
      const loss = (a_: number, centre_: number) =>
        expectation((z, noise, t) => {
          const at0 = alpha(t) * (a * z + centre) + sigma(t) * noise
          const moved = alpha(t) * (a_ * z + centre_) + sigma(t) * noise
          const y = generatorScore(at0, t) - teacherScore(at0, t)
          const direction = y / Math.sqrt(y * y + huber * huber)
          return -weight(t) * direction * (generatorScore(moved, t) + noise / sigma(t))
        }) +
        (curvature / (2 * 0.7)) * (a_ * a_ + (centre_ - wanted) ** 2)
      const expected = [
        (loss(a + 1e-4, centre) - loss(a - 1e-4, centre)) / 2e-4,
        (loss(a, centre + 1e-4) - loss(a, centre - 1e-4)) / 2e-4,
      ]
      const got = await gradientOf([[a]], [centre], 300_000, {
        ...options,
        objective: 'diff-instruct*',
        reward: rewards.quadratic({ center: [wanted], curvature }),
        beta: 0.7,
        weighting: name === 'a function of t' ? weight : name,
        huber,
      })
      expect(relativeError(got, expected)).toBeLessThan(0.01)
    },
  )
})
