import { describe, expect, it } from 'vitest'
import {
  createDidr,
  customOp,
  type Didr,
  type DidrMetrics,
  type DidrOptions,
  didrStep,
  memory,
  models,
  nn,
  normal,
  type Objective,
  type Parameter,
  type Prediction,
  rewards,
  schedules,
  type Tensor,
  tensor,
  type Weighting,
} from '../../lib/index.js'
import { settled } from '../settled.js'
import { outputFor } from './gaussians.js'
import {
  bitsOf,
  Counted,
  type Float,
  network,
  pointGenerator,
  ring,
  ringOptions,
  ringRun,
} from './problems.js'

type Drs = NonNullable<DidrOptions['drs']>

const estimators: readonly Drs[] = [
  { estimator: 'exact' },
  { estimator: 'tweedie', maxNorm: 5 },
  { estimator: 'damped', dataStd: 1.5 },
  { estimator: 'drp', steps: 3, gradientSteps: 2 },
  { estimator: 'drp', particles: 3, steps: 2, guidance: 1.5 },
  { estimator: 'particles', particles: 3, steps: 2 },
  { estimator: 'particles', particles: 4, sampler: 'posterior' },
]
const others = [
  'diff-instruct',
  'diff-instruct++',
  'diff-instruct*',
  'dmd2',
  'reward',
] as const satisfies readonly Objective[]
const weightings: readonly (Weighting | undefined)[] = [
  undefined,
  'x0',
  'sigma2',
  'dmd',
  'uniform',
  (t) => 1 + t,
]
const predictions: readonly Prediction[] = ['epsilon', 'x0', 'v', 'flow']

function expectFinite(metrics: DidrMetrics, what: string) {
  for (const [name, value] of Object.entries(metrics)) {
    const numbers = [value].flat().filter((x) => typeof x === 'number')
    for (const number of numbers) expect(Number.isFinite(number), `${what}: ${name}`).toBe(true)
  }
}

describe('every combination', () => {
  const kinds: readonly Partial<DidrOptions>[] = [
    ...estimators.map((drs) => ({ drs })),
    ...others.map((objective) => ({ objective })),
  ]
  it.each([
    ['flow', schedules.flow()],
    ['vp', schedules.vp()],
    ['edm', schedules.edm()],
  ] as const)(
    'of objective, estimator, weighting and predictions takes a step, with %s',
    async (_, schedule) => {
      let combination = 0
      for (const kind of kinds)
        for (const weighting of weightings) {
          if (kind.objective === 'diff-instruct*' && weighting === 'dmd') continue
          // Each of the 16 pairs of predictions comes with each kind and each weighting sooner or later.
          combination++
          const pair = [
            predictions[combination % 4],
            predictions[Math.floor(combination / 4) % 4],
          ] as [Prediction, Prediction]
          const generator = pointGenerator(3)
          const assistant = network(2, { prediction: pair[1] })
          const what = JSON.stringify([kind, String(weighting), ...pair])
          using didr = createDidr({
            ...ringOptions(kind),
            generator,
            teacher: ring(schedule, pair[0]),
            assistant,
            schedule,
            guidance: combination % 3 === 0 ? 2 : 1,
            assistantSteps: 1,
            ...(weighting === undefined ? {} : { weighting }),
          })
          for (let step = 1; step <= 2; step++) {
            const metrics = await didrStep(didr, { batchSize: 32 })
            expectFinite(metrics, what)
            expect([metrics.step, didr.step]).toEqual([step, step])
            expect(metrics.gradNorm, what).toBeGreaterThan(0)
            expect(metrics.noOps, what).toEqual([])
            expect(metrics.drsNorm === undefined, what).toBe(kind.objective !== undefined)
            expect(metrics.klToTarget === undefined, what).toBe(kind.objective === 'reward')
            expect(metrics.assistantLoss === undefined, what).toBe(kind.objective === 'reward')
          }
          for (const model of [generator, assistant])
            for (const parameter of model.parameters()) parameter.dispose()
        }
    },
  )

  it.each([...kinds.filter(({ drs }) => !(drs && 'sampler' in drs) && drs?.estimator !== 'exact')])(
    'in bfloat16: %j',
    async (kind) => {
      // Mixtures compute in float32: the teacher is a network here.
      const dtype = 'bfloat16'
      using didr = ringRun({
        ...kind,
        generator: pointGenerator(1, { dtype }),
        teacher: network(3, { dtype }),
        assistant: network(2, { dtype }),
        guidance: 1.5,
      })
      const before = await bitsOf(didr)
      for (let step = 0; step < 2; step++)
        expectFinite(await didrStep(didr, { batchSize: 32 }), JSON.stringify(kind))
      const after = await bitsOf(didr)
      expect(after['generatorOptimizer/layers.0.weight.master']).not.toBe(
        before['generatorOptimizer/layers.0.weight.master'],
      )
    },
  )
})

describe('a step', () => {
  it('is a function of seed and settings alone', async () => {
    const drs = { estimator: 'drp', particles: 2 } as const
    const run = async (seed: number) => {
      using didr = ringRun({ drs, seed })
      for (let i = 0; i < 3; i++) await didrStep(didr, { batchSize: 9 })
      return await bitsOf(didr)
    }
    const first = await run(1)
    expect(await run(1)).toEqual(first)
    const other = await run(2)
    expect(other['generator/layers.0.weight']).not.toBe(first['generator/layers.0.weight'])
  })

  it('starts without the gradients that others have left', async () => {
    const clean = ringRun()
    const didr = ringRun()
    for (const { model } of [{ model: didr.options.generator }, { model: didr.options.assistant }])
      for (const parameter of model.parameters())
        parameter.grad = normal(parameter.shape, { seed: 1, std: 100 }) as Float
    for (const run of [clean, didr]) await didrStep(run, { batchSize: 4 })
    expect(await bitsOf(didr)).toEqual(await bitsOf(clean))
    for (const run of [clean, didr]) run.dispose()
  })

  it('says what it saw of the reward', async () => {
    const center = [1.5, 1]
    const seen: Float32Array[] = []
    const reward = rewards.fromFunction('watched', (images) => {
      seen.push((images as Tensor<'float32'>).dataSync().slice())
      return images.sub(tensor(center)).square().sum(1).mul(-0.5)
    })
    using didr = ringRun({ objective: 'reward', reward, beta: 0.4 })
    const metrics = await didrStep(didr, { batchSize: 6 })
    const distances = Array.from({ length: 6 }, (_, i) =>
      Math.hypot(
        ((seen[0] as Float32Array)[2 * i] as number) - 1.5,
        ((seen[0] as Float32Array)[2 * i + 1] as number) - 1,
      ),
    )
    const scores = distances.map((distance) => -0.5 * distance ** 2)
    const mean = scores.reduce((sum, score) => sum + score, 0) / 6
    const variance = scores.reduce((sum, score) => sum + (score - mean) ** 2, 0) / 6
    expect(metrics.reward).toBeCloseTo(mean, 4)
    expect(metrics.rewardStd).toBeCloseTo(Math.sqrt(variance), 4)
    // The norm of ∇r is the distance.
    expect(metrics.terminalNorm).toBeCloseTo(distances.reduce((sum, d) => sum + d, 0) / 6, 4)
    expect(seen.length).toBe(1)
  })

  it('scores the samples for the metrics as often as rewardEvery says', async () => {
    using didr = ringRun({ objective: 'diff-instruct', rewardEvery: 3 })
    const scored: boolean[] = []
    for (let i = 0; i < 7; i++)
      scored.push((await didrStep(didr, { batchSize: 2 })).reward !== undefined)
    expect(scored).toEqual([false, false, true, false, false, true, false])
    using never = ringRun({ rewardEvery: 0, drs: { estimator: 'tweedie' } })
    expect((await didrStep(never, { batchSize: 2 })).reward).toBeUndefined()
  })

  it('lets a reward learn from what has been scored, in steps that score it', async () => {
    const reward = () =>
      rewards.weighted([{ reward: rewards.quadratic({ center: [0, 0] }), normalize: 'running' }])
    const countOf = ({ options }: Didr) =>
      (options.reward?.state?.() as rewards.WeightedState | undefined)?.parts[0]?.running?.count
    for (const [change, counts] of [
      [{ objective: 'diff-instruct', rewardEvery: 2 }, [0, 5, 5]],
      [{ objective: 'diff-instruct', rewardEvery: 0 }, [0, 0, 0]],
      [{ objective: 'diff-instruct++', rewardEvery: 2 }, [5, 10, 15]],
      [{ drs: { estimator: 'drp', particles: 2 }, rewardEvery: 0 }, [10, 20, 30]],
      [{ drs: { estimator: 'particles', particles: 3 }, rewardEvery: 1 }, [15, 30, 45]],
    ] as const) {
      using didr = ringRun({ ...change, reward: reward() })
      for (const count of counts) {
        const metrics = await didrStep(didr, { batchSize: 5 })
        expect(countOf(didr), JSON.stringify(change)).toBe(count)
        expect(Object.keys(metrics.rewardParts)).toEqual(
          metrics.reward === undefined ? [] : ['quadratic'],
        )
      }
    }
  })

  it('trains the assistant as often as asked, with what its schedule says', async () => {
    const assistant = new Counted(network(2))
    using didr = ringRun({ assistant, assistantSteps: 3, optimizer: { assistant: { warmup: 2 } } })
    await didrStep(didr, { batchSize: 4 })
    expect(assistant.calls).toBe(4)
    expect(didr.assistantOptimizer.state().tensors['layers.0.weight.step']?.dataSync()[0]).toBe(3)
    const none = new Counted(network(2))
    using without = ringRun({ assistant: none, assistantSteps: 0 })
    const metrics = await didrStep(without, { batchSize: 4 })
    expect([none.calls, metrics.assistantLoss, metrics.assistantGradNorm]).toEqual([
      1,
      undefined,
      undefined,
    ])
  })

  it('clips gradients where asked, and says so', async () => {
    const maxNorm = 1e-3
    using didr = ringRun({
      drs: { estimator: 'tweedie', maxNorm },
      optimizer: { generator: { maxNorm }, assistant: { maxNorm: null } },
    })
    const { clipped, gradNorm, drsNorm } = await didrStep(didr, { batchSize: 8 })
    expect(clipped).toEqual({ generator: true, assistant: false, drs: 1 })
    expect(gradNorm).toBeGreaterThan(maxNorm)
    expect(drsNorm).toBeGreaterThan(maxNorm)
  })

  it('trains the assistant towards the score of the samples', async () => {
    // x0 ~ N(b, AAᵀ) stays as it is; at one noise level the denoiser is affine, as this network without hidden layers.
    const generator = models.oneStep(network(4, { hidden: [], time: 'none' }), {
      schedule: schedules.flow(),
      sampleShape: [2],
    })
    const [weight, bias] = generator.parameters() as [Parameter, Parameter]
    weight.value.copyFrom(
      tensor([
        [0.9, 0.3],
        [-0.2, 0.6],
      ]) as Float,
    )
    bias.value.copyFrom(tensor([0.7, -0.5]) as Float)
    const t = 0.4
    // Each prediction once, each weighting once.
    const ways = ['output', 'x0', 'epsilon', (time: number) => time] as const
    for (const [k, assistantWeighting] of ways.entries()) {
      const prediction = predictions[k] as Prediction
      const assistant = network(5, { hidden: [], time: 'none', prediction })
      using didr = ringRun({
        objective: 'diff-instruct',
        generator,
        assistant,
        assistantWeighting,
        assistantTimes: { kind: 'uniform', range: [t, t] },
        optimizer: {
          generator: { lr: 0 },
          assistant: { lr: 0.1, betas: [0.9, 0.99], decaySteps: 160, maxNorm: null },
        },
      })
      for (let i = 0; i < 80; i++) await didrStep(didr, { batchSize: 500 })
      const [alpha, sigma] = [1 - t, t]
      const points = [
        [0.5, 0.2],
        [-1, 1],
        [1.2, -0.8],
      ]
      const xt = tensor(points) as Float
      const output = await assistant.forward(xt).data()
      const C = [
        [0.9 ** 2 + 0.3 ** 2, -0.2 * 0.9 + 0.6 * 0.3],
        [-0.2 * 0.9 + 0.6 * 0.3, 0.2 ** 2 + 0.6 ** 2],
      ] as [[number, number], [number, number]]
      const [a, b, d] = [
        alpha ** 2 * C[0][0] + sigma ** 2,
        alpha ** 2 * C[0][1],
        alpha ** 2 * C[1][1] + sigma ** 2,
      ]
      for (const [i, [x, y]] of (points as [number, number][]).entries()) {
        const [u, v] = [x - alpha * 0.7, y + alpha * 0.5]
        const determinant = a * d - b * b
        const score = [-(d * u - b * v) / determinant, -(a * v - b * u) / determinant]
        for (const [j, own] of [x, y].entries()) {
          const denoised = (own + sigma ** 2 * (score[j] as number)) / alpha
          const expected = outputFor(prediction, denoised, own, alpha, sigma)
          expect(
            Math.abs((output[2 * i + j] as number) - expected),
            `${assistantWeighting}, ${prediction}`,
          ).toBeLessThan(0.12)
        }
      }
    }
  })

  it('follows the learning rate of its schedules, and its averages', async () => {
    using didr = ringRun({
      ema: 0.7,
      optimizer: { generator: { lr: 0.1, decaySteps: 3 }, assistant: { lr: 0.1, decaySteps: 2 } },
    })
    const weight = didr.options.generator.parameters()[0] as Parameter
    const assistant = didr.options.assistant.parameters()[0] as Parameter
    const values = async () => [...(await weight.value.data())]
    const average = async () => {
      const averages = didr.ema?.state().tensors[weight.name] as Tensor
      return [...(await averages.data())]
    }
    let expected = await values()
    const moved: boolean[] = []
    const learnt: boolean[] = []
    for (let i = 0; i < 5; i++) {
      const [before, known] = [await values(), [...(await assistant.value.data())]]
      await didrStep(didr, { batchSize: 4 })
      const after = await values()
      moved.push(after.some((value, j) => value !== before[j]))
      learnt.push([...(await assistant.value.data())].some((value, j) => value !== known[j]))
      expected = expected.map((value, j) => value + 0.3 * ((after[j] as number) - value))
      for (const [j, value] of (await average()).entries())
        expect(Math.abs(value - (expected[j] as number))).toBeLessThan(1e-6)
    }
    expect(moved).toEqual([true, true, true, false, false])
    // Its schedule counts updates, two in a step.
    expect(learnt).toEqual([true, false, false, false, false])
  })

  it('shows the reward what the decoder makes of the samples', async () => {
    const shapes: number[][] = []
    const reward = rewards.fromFunction('watched', (images) => {
      shapes.push([...images.shape])
      return images.mean([1, 2, 3])
    })
    const decode = (samples: Float) =>
      samples.reshape([-1, 1, 2, 1]).broadcastTo([samples.shape[0] as number, 1, 2, 3]) as Float
    for (const change of [
      { objective: 'reward' },
      { drs: { estimator: 'drp', particles: 2 } },
      { drs: { estimator: 'particles', particles: 3 } },
    ] as const) {
      using didr = ringRun({ ...change, reward, decode })
      const metrics = await didrStep(didr, { batchSize: 4 })
      expect([metrics.noOps, Number.isFinite(metrics.reward)]).toEqual([[], true])
    }
    expect(shapes).toEqual([4, 8, 4, 12, 4].map((rows) => [rows, 1, 2, 3]))
  })

  it('trains the adapters of a network whose base the teacher is', async () => {
    const base = network(3)
    const schedule = schedules.flow()
    const adapted = nn.lora(base, { rank: 2, targets: ['layers.0', 'layers.1'] })
    const other = nn.lora(base, { rank: 2, targets: ['layers.1'], seed: 4 })
    const generator = models.oneStep(adapted, { schedule, sampleShape: [2] })
    using didr = ringRun({
      generator,
      teacher: base,
      assistant: other,
      optimizer: { generator: { lr: 0.1 }, assistant: { lr: 0.1 } },
    })
    const weights = async () =>
      Promise.all(base.parameters().map(async ({ value }) => [...(await value.data())]))
    const before = await weights()
    for (let i = 0; i < 2; i++) expectFinite(await didrStep(didr, { batchSize: 8 }), 'lora')
    expect(await weights()).toEqual(before)
    expect(didr.generatorOptimizer.parameters.every(({ name }) => name.includes('lora_'))).toBe(
      true,
    )
    expect(base.parameters().every(({ grad }) => grad === undefined)).toBe(true)
  })

  it('refuses options that are none', async () => {
    using didr = ringRun()
    for (const [options, said] of [
      [{}, 'options.batchSize: expected a number, got undefined'],
      [{ batchSize: 0 }, 'options.batchSize: expected an integer from 1 on, got 0'],
      [{ batchSize: 2.5 }, 'options.batchSize: expected an integer from 1 on, got 2.5'],
      [{ batchSize: 2, conditions: 1 }, 'options.conditions: unknown option'],
      [undefined, 'options: expected an object, got undefined'],
    ] as const)
      await expect(didrStep(didr, options as { batchSize: number })).rejects.toThrow(said)
    expect(didr.step).toBe(0)
  })
})

describe('the number of network calls', () => {
  const condition = () => normal([4, 3], { seed: 1 })
  const conditional = (seed: number) => new Counted(network(seed, { conditionSize: 3 }))
  it.each([
    ['tweedie', { drs: { estimator: 'tweedie' }, guidance: 1 }, [4]],
    ['tweedie, guided', { drs: { estimator: 'tweedie' }, guidance: 3 }, [4, 4]],
    ['tweedie, guided inside', { drs: { estimator: 'tweedie', guidance: 2 } }, [4, 4]],
    ['guided twice', { drs: { estimator: 'tweedie', guidance: 2 }, guidance: 3 }, [4, 4]],
    ['damped, guided', { drs: { estimator: 'damped' }, guidance: 3 }, [4, 4]],
    ['drp of 3 steps', { drs: { estimator: 'drp', steps: 3 }, guidance: 3 }, [4, 4, 4, 4]],
    [
      'drp of 2 guided steps and 5 particles',
      { drs: { estimator: 'drp', particles: 5, guidance: 2 } },
      [4, 4, 20, 20],
    ],
    [
      'particles',
      { drs: { estimator: 'particles', particles: 6, steps: 3 }, guidance: 2 },
      [4, 4, 24, 24],
    ],
    ['diff-instruct', { objective: 'diff-instruct' }, [4]],
    ['diff-instruct, guided', { objective: 'diff-instruct', guidance: 4 }, [4, 4]],
    ['diff-instruct*, guided', { objective: 'diff-instruct*', guidance: 4 }, [4, 4]],
    ['reward', { objective: 'reward' }, []],
  ] as const)(
    'of %s: the teacher is asked once for each batch and condition',
    async (_, change, batches) => {
      const [teacher, assistant] = [conditional(3), conditional(2)]
      using didr = ringRun({ ...change, teacher, assistant, assistantSteps: 1 })
      const given = condition()
      const none = given.mul(0) as Tensor
      await didrStep(didr, { batchSize: 4, condition: given as Tensor, unconditional: none })
      expect(teacher.batches).toEqual(batches)
      expect(assistant.batches).toEqual(
        'objective' in change && change.objective === 'reward' ? [] : [4, 4],
      )
    },
  )

  it('of exact: once; of posterior samples: twice when guided', async () => {
    for (const drs of [
      { estimator: 'exact' },
      { estimator: 'particles', sampler: 'posterior' },
    ] as const)
      for (const guidance of [1, 2]) {
        const teacher = ring()
        let calls = 0
        const { forward, forwardAndScore } = teacher
        teacher.forward = (...args) => {
          calls++
          return forward.apply(teacher, args)
        }
        teacher.forwardAndScore = (...args) => {
          calls++
          return forwardAndScore.apply(teacher, args)
        }
        using didr = ringRun({ drs, guidance, teacher })
        await didrStep(didr, { batchSize: 4 })
        // The closed form knows that a mixture has no conditions.
        expect(calls).toBe(drs.estimator === 'exact' ? 1 : guidance)
      }
  })

  it('with a guided teacher asks with and without the condition', async () => {
    const teacher = conditional(3)
    using didr = ringRun({ teacher, assistant: conditional(2), guidance: 2 })
    const given = condition() as Tensor
    const none = given.mul(0) as Tensor
    await didrStep(didr, { batchSize: 4, condition: given, unconditional: none })
    expect(teacher.conditions).toEqual([given, none, given])
  })
})

describe('what goes wrong in a step', () => {
  const quadratic = rewards.quadratic({ center: [1.5, 1] })

  /** A quadratic reward that in the given step does something else. */
  function failing(instead: (images: Float) => Tensor | Promise<Tensor>, black = false) {
    const state = { fails: false }
    const reward: rewards.Reward = {
      name: 'fickle',
      differentiable: !black,
      score: (images, condition) =>
        state.fails ? instead(images) : quadratic.score(images, condition),
    }
    return { state, reward }
  }

  const wrongs: readonly [string, string, RegExp, (images: Float) => Tensor][] = [
    ['has the wrong shape', 'ERR_SHAPE', /shape/, (images) => images.sum() as Tensor],
    [
      'has one score too few',
      'ERR_SHAPE',
      /shape/,
      (images) => images.sum(1).slice([0], [2]) as Tensor,
    ],
    [
      'has NaN',
      'ERR_NONFINITE',
      /finite scores, got NaN/,
      (images) => images.sum(1).mul(NaN) as Tensor,
    ],
    [
      'has infinity',
      'ERR_NONFINITE',
      /finite scores, got/,
      (images) => images.sum(1).abs().add(1).mul(Infinity) as Tensor,
    ],
    ['is no tensor', 'ERR_CONFIG', /expected a tensor/, () => 3 as unknown as Tensor],
    [
      'has another dtype',
      'ERR_DTYPE',
      /float32/,
      (images) => images.sum(1).cast('int32') as Tensor,
    ],
    [
      'throws',
      'ERR_CONFIG',
      /threw: out of credit/,
      () => {
        throw new Error('out of credit')
      },
    ],
    ['fails in an op', 'ERR_SHAPE', /reshape|shape/, (images) => images.reshape([7, 13]) as Tensor],
  ]
  const ways: readonly [string, Partial<DidrOptions>, boolean][] = [
    ['drp', { drs: { estimator: 'drp', particles: 2 } }, false],
    ['tweedie without metrics', { drs: { estimator: 'tweedie' }, rewardEvery: 0 }, false],
    ['particles', { drs: { estimator: 'particles', particles: 3 } }, false],
    ['black box particles', { drs: { estimator: 'particles', particles: 3 } }, true],
    ['diff-instruct++', { objective: 'diff-instruct++' }, false],
    ['diff-instruct, where it is only looked at', { objective: 'diff-instruct' }, true],
  ]

  const running = (reward: rewards.Reward) =>
    rewards.weighted([{ reward, normalize: 'running' }], { name: 'sum' })

  for (const [way, change, black] of ways)
    it(`stops a step of ${way} that leaves everything as it was, and the run goes on`, async () => {
      const whole = ringRun({ ...change, reward: running(failing(() => tensor(0), black).reward) })
      for (let i = 0; i < 3; i++) await didrStep(whole, { batchSize: 5 })
      const expected = await bitsOf(whole)
      whole.dispose()
      const rejecting: (typeof wrongs)[number][] = black
        ? [
            [
              'rejects',
              'ERR_CONFIG',
              /threw: no answer/,
              (() => Promise.reject(new Error('no answer'))) as unknown as () => Tensor,
            ],
            [
              'rejects late',
              'ERR_CONFIG',
              /threw: no answer/,
              (async () => {
                await new Promise((resolve) => setTimeout(resolve, 1))
                throw new Error('no answer')
              }) as unknown as () => Tensor,
            ],
          ]
        : [
            [
              'gives a promise',
              'ERR_CONFIG',
              /got a promise/,
              (() => Promise.reject(new Error('no answer'))) as unknown as () => Tensor,
            ],
          ]
      for (const [what, code, message, instead] of [...wrongs, ...rejecting]) {
        const { state, reward } = failing(instead, black)
        using didr = ringRun({ ...change, reward: running(reward) })
        for (let i = 0; i < 3; i++) {
          const before = await bitsOf(didr)
          state.fails = true
          // Before the first step, and twice in a row before the last.
          for (let again = 0; again < (i === 1 ? 0 : i || 1); again++) {
            const failure = await didrStep(didr, { batchSize: 5 }).catch((error) => error)
            expect(failure.code, `${what}: ${failure.message}`).toBe(code)
            expect(failure.message, what).toMatch(/^reward "(sum|fickle)": /)
            expect(failure.message, what).toMatch(message)
            expect(await bitsOf(didr), what).toEqual(before)
          }
          state.fails = false
          await didrStep(didr, { batchSize: 5 })
        }
        expect(await bitsOf(didr), what).toEqual(expected)
      }
    })

  it('is refused where it is not finite: weights of each network', async () => {
    for (const [which, message] of [
      ['assistant', /./],
      ['teacher', /./],
      ['generator', /./],
    ] as const)
      for (const change of [
        { drs: { estimator: 'drp', particles: 2 } },
        { objective: 'diff-instruct*' },
        { objective: 'dmd2', rewardEvery: 0 },
      ] as const) {
        const teacher = network(5)
        using didr = ringRun({ ...change, teacher })
        await didrStep(didr, { batchSize: 5 })
        const good = await bitsOf(didr)
        const weight = didr.options[which].parameters()[0] as Parameter
        using own = weight.value.clone()
        using bad = (own as Float).mul(Number.NaN) as Float
        weight.value.copyFrom(bad)
        const before = await bitsOf(didr)
        const failure = await didrStep(didr, { batchSize: 5 }).catch((error) => error)
        expect(failure.code, which).toBe('ERR_NONFINITE')
        expect(failure.message, which).toMatch(message)
        expect(await bitsOf(didr), which).toEqual(before)
        weight.value.copyFrom(own as Float)
        expect(await bitsOf(didr), which).toEqual(good)
        expectFinite(await didrStep(didr, { batchSize: 5 }), which)
      }
  })

  it('is refused where the gradient is not finite, and the reward forgets what it has seen', async () => {
    let fails = false
    const broken = customOp({
      forward: (x: Float) => x.mul(1) as Float,
      pullback: ({ cotangent }) => [cotangent.mul(fails ? Number.NaN : 1)],
    })
    const generator = pointGenerator()
    const options = (): Partial<DidrOptions> => ({
      generator: { ...generator, forward: (z) => broken(generator.forward(z)) },
      reward: rewards.weighted([
        { reward: rewards.quadratic({ center: [0, 0] }), normalize: 'running' },
      ]),
    })
    using didr = ringRun(options())
    await didrStep(didr, { batchSize: 4 })
    const before = await bitsOf(didr)
    fails = true
    const failure = await didrStep(didr, { batchSize: 4 }).catch((error) => error)
    expect(failure.code).toBe('ERR_NONFINITE')
    expect(await bitsOf(didr)).toEqual(before)
    fails = false
    expect((await didrStep(didr, { batchSize: 4 })).step).toBe(2)
  })

  it('is refused where the reward cannot learn', async () => {
    let fails = false
    const reward: rewards.Reward = {
      ...quadratic,
      name: 'slow learner',
      async observe() {
        if (fails) throw new Error('too much')
      },
    }
    using didr = ringRun({ reward })
    await didrStep(didr, { batchSize: 4 })
    const before = await bitsOf(didr)
    fails = true
    await expect(didrStep(didr, { batchSize: 4 })).rejects.toMatchObject({
      code: 'ERR_CONFIG',
      message: 'reward "slow learner": threw: too much',
    })
    expect(await bitsOf(didr)).toEqual(before)
  })

  it('is refused where a model returns something else', async () => {
    const cases: readonly [Partial<DidrOptions>, string, string][] = [
      [
        { generator: { ...pointGenerator(), forward: () => 3 as unknown as Float } },
        'ERR_CONFIG',
        'generator.forward: expected a function that returns a tensor, got 3',
      ],
      [
        { generator: { ...pointGenerator(), forward: (z) => z.slice([0, 0], [2, 2]) as Float } },
        'ERR_SHAPE',
        'generator.forward: expected 5 samples, got [2, 2]',
      ],
      [
        {
          assistant: {
            prediction: 'x0',
            parameters: () => network(9).parameters(),
            forward: (x) => x.sum(1) as Float,
          },
        },
        'ERR_SHAPE',
        'assistant.forward: expected [5, 2] as x_t is, got [5]',
      ],
      [
        {
          teacher: {
            prediction: 'x0',
            parameters: () => [],
            forward: (x) => x.cast('bfloat16') as Float,
          },
        },
        'ERR_DTYPE',
        'teacher.forward: expected float32 as x_t is, got bfloat16',
      ],
      [
        {
          teacher: {
            prediction: 'x0',
            parameters: () => [],
            forward: () => [] as unknown as Float,
          },
        },
        'ERR_CONFIG',
        'teacher.forward: expected a function that returns a tensor',
      ],
      [{ weighting: () => Number.NaN }, 'ERR_RANGE', 'weighting: expected a finite weight at t = '],
    ]
    for (const [change, code, message] of cases) {
      using didr = ringRun(change)
      const before = await bitsOf(didr)
      const failure = await didrStep(didr, { batchSize: 5 }).catch((error) => error)
      expect(`${failure.code}: ${failure.message}`.slice(0, code.length + 2 + message.length)).toBe(
        `${code}: ${message}`,
      )
      expect(await bitsOf(didr)).toEqual(before)
    }
  })

  it('is refused while another step, a save or a load is under way', async () => {
    using didr = ringRun()
    const first = didrStep(didr, { batchSize: 4 })
    for (const second of [
      didrStep(didr, { batchSize: 4 }),
      didr.save('/tmp/never'),
      didr.load('/tmp/never'),
    ])
      await expect(second).rejects.toMatchObject({
        code: 'ERR_CONFIG',
        message: expect.stringContaining('a step of this run has not ended; await it first'),
      })
    expect((await first).step).toBe(1)
    expect((await didrStep(didr, { batchSize: 4 })).step).toBe(2)
  })

  it('is refused while the generator holds its averages', async () => {
    using didr = ringRun()
    await didrStep(didr, { batchSize: 4 })
    didr.ema?.swap()
    const before = await bitsOf(didr)
    await expect(didrStep(didr, { batchSize: 4 })).rejects.toMatchObject({
      code: 'ERR_CONFIG',
      message: expect.stringContaining('ema.swap() back first'),
    })
    await expect(didr.save('/tmp/never')).rejects.toMatchObject({ code: 'ERR_CONFIG' })
    await expect(didr.load('/tmp/never')).rejects.toMatchObject({ code: 'ERR_CONFIG' })
    expect(await bitsOf(didr)).toEqual(before)
    didr.ema?.swap()
    expect((await didrStep(didr, { batchSize: 4 })).step).toBe(2)
  })
})

describe('memory', () => {
  it.each([
    [
      'particles of a black box, conditional and guided',
      { drs: { estimator: 'particles', particles: 3, steps: 2, guidance: 2 } },
      true,
    ],
    [
      'drp, conditional and guided',
      { drs: { estimator: 'drp', particles: 2, guidance: 2 } },
      false,
    ],
    ['diff-instruct*', { objective: 'diff-instruct*' }, false],
    ['diff-instruct++', { objective: 'diff-instruct++' }, false],
  ] as const)('does not grow over steps: %s', async (_, change, black) => {
    const reward = black
      ? rewards.blackBox('judge', async (images) =>
          Array.from({ length: images.shape[0] as number }, (_, i) => i),
        )
      : rewards.weighted([{ reward: rewards.quadratic({ center: [1, 0] }), normalize: 'running' }])
    const model = { conditionSize: 2, hidden: [4] }
    using didr = ringRun({
      ...change,
      generator: pointGenerator(1, model),
      teacher: network(3, model),
      assistant: network(2, model),
      guidance: 2,
      reward,
      assistantSteps: 1,
      klWindow: 7,
    })
    const condition = normal([4, 2], { seed: 1 }) as Tensor
    const unconditional = normal([4, 2], { seed: 2 }) as Tensor
    const step = () => didrStep(didr, { batchSize: 4, condition, unconditional })
    await step()
    await settled()
    const before = memory()
    for (let i = 0; i < 200; i++) {
      await step()
      // Not at the mercy of the collector.
      expect([memory().tensors, memory().bytes], `step ${i}`).toEqual([
        before.tensors,
        before.bytes,
      ])
    }
  })

  it('is all given back by a failed step and by dispose()', async () => {
    await settled()
    const before = memory()
    const generator = pointGenerator()
    const assistant = network(2)
    const models_ = memory()
    let fails = false
    const reward = rewards.fromFunction('fickle', (images) => images.sum(fails ? 0 : 1) as Tensor)
    const didr = ringRun({ generator, assistant, reward })
    await didrStep(didr, { batchSize: 5 })
    const alive = memory()
    fails = true
    await expect(didrStep(didr, { batchSize: 5 })).rejects.toThrow('reward "fickle"')
    expect([memory().tensors, memory().bytes]).toEqual([alive.tensors, alive.bytes])
    didr.dispose()
    expect([memory().tensors, memory().bytes]).toEqual([models_.tensors, models_.bytes])
    for (const model of [generator, assistant])
      for (const parameter of model.parameters()) parameter.dispose()
    expect([memory().tensors, memory().bytes]).toEqual([before.tensors, before.bytes])
  })
})
