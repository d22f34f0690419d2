import { describe, expect, it } from 'vitest'
import { createDidr, DidrError, type DidrOptions, rewards, schedules } from '../../lib/index.js'
import { network, pointGenerator, ring, ringOptions, ringRun } from './problems.js'

const blackBox = rewards.blackBox('judge', async (images) => (await images.data()).subarray(0))
const plain = rewards.fromFunction('plain', (images) => images.sum(1))

/** The code and message of what createDidr throws for options that are changed in what types do not allow. */
function refusal(change: Readonly<Record<string, unknown>>): string {
  const options = { ...ringOptions(), ...change }
  try {
    createDidr(options as unknown as DidrOptions).dispose()
  } catch (error) {
    if (error instanceof DidrError) return `${error.code}: ${error.message}`
    throw error
  }
  return 'accepted'
}

/** Values of a field, and how the message starts that refuses each. */
const refused: Readonly<
  Record<string, readonly (readonly [change: Readonly<Record<string, unknown>>, start: string])[]>
> = {
  'an unknown field': [
    [{ lr: 1 }, 'ERR_CONFIG: options.lr: unknown option'],
    [{ optimizer: { teacher: {} } }, 'ERR_CONFIG: options.optimizer.teacher: unknown option'],
    [
      { optimizer: { generator: { learningRate: 1 } } },
      'ERR_CONFIG: options.optimizer.generator.learningRate: unknown option',
    ],
    [{ drs: { estimator: 'drp', samples: 1 } }, 'ERR_CONFIG: options.drs.samples: unknown option'],
    [{ times: { kind: 'uniform', low: 0 } }, 'ERR_CONFIG: options.times.low: unknown option'],
  ],
  'a missing field': [
    [{ generator: undefined }, 'ERR_CONFIG: options.generator: expected a generator'],
    [{ teacher: undefined }, 'ERR_CONFIG: options.teacher: expected a score model'],
    [{ assistant: undefined }, 'ERR_CONFIG: options.assistant: expected a score model'],
    [{ schedule: undefined }, 'ERR_CONFIG: options.schedule: expected a schedule'],
    [{ reward: undefined }, 'ERR_CONFIG: options.reward: the objective didr needs one'],
    [
      { reward: undefined, objective: 'reward' },
      'ERR_CONFIG: options.reward: the objective reward needs one',
    ],
    [
      { reward: undefined, objective: 'diff-instruct++' },
      'ERR_CONFIG: options.reward: the objective diff-instruct++ needs one',
    ],
    [
      { reward: undefined, objective: 'diff-instruct*' },
      'ERR_CONFIG: options.reward: the objective diff-instruct* needs one',
    ],
    [{ drs: {} }, 'ERR_CONFIG: options.drs.estimator: expected one of'],
    [{ times: {} }, 'ERR_CONFIG: options.times.kind: expected one of'],
  ],
  models: [
    [{ generator: network(1) }, 'ERR_CONFIG: options.generator: expected a generator'],
    [{ generator: null }, 'ERR_CONFIG: options.generator: expected a generator'],
    [{ generator: 3 }, 'ERR_CONFIG: options.generator: expected a generator'],
    [{ teacher: pointGenerator() }, 'ERR_CONFIG: options.teacher.prediction: expected one of'],
    [{ teacher: null }, 'ERR_CONFIG: options.teacher: expected a score model'],
    [
      { assistant: { forward: () => 0, parameters: () => [], prediction: 'noise' } },
      'ERR_CONFIG: options.assistant.prediction: expected one of',
    ],
    [{ reward: 'quadratic' }, 'ERR_CONFIG: options.reward: expected a reward'],
    [{ reward: null }, 'ERR_CONFIG: options.reward: expected a reward'],
    [{ reward: { ...plain, name: '' } }, 'ERR_CONFIG: options.reward.name: expected a name'],
    [
      { reward: { name: 'r', score: () => 0 } },
      'ERR_CONFIG: options.reward.differentiable: expected a boolean',
    ],
    [
      { reward: { name: 'r', differentiable: true } },
      'ERR_CONFIG: options.reward.score: expected a function',
    ],
    [{ decode: 'vae' }, 'ERR_CONFIG: options.decode: expected a function'],
    [{ schedule: 'flow' }, 'ERR_CONFIG: options.schedule: expected a schedule'],
    [
      { schedule: { ...schedules.flow(), logSnr: undefined } },
      'ERR_CONFIG: options.schedule: expected a schedule',
    ],
    [
      { generator: { ...pointGenerator(), parameters: () => [] } },
      'ERR_CONFIG: options.generator: expected a model with trainable parameters, got none',
    ],
    [
      { assistant: ring() },
      'ERR_CONFIG: options.assistant: expected a model with trainable parameters, got none',
    ],
  ],
  numbers: [
    ...['beta', 'guidance', 'huber', 'assistantSteps', 'ema', 'seed'].map(
      (field) =>
        [{ [field]: '1' }, `ERR_CONFIG: options.${field}: expected a number, got "1"`] as const,
    ),
    ...['beta', 'guidance', 'huber', 'ema'].map(
      (field) =>
        [
          { [field]: Number.NaN },
          `ERR_RANGE: options.${field}: expected a finite number, got NaN`,
        ] as const,
    ),
    ...['beta', 'guidance', 'assistantSteps', 'seed', 'rewardEvery', 'klWindow', 'noOpAfter'].map(
      (field) =>
        [{ [field]: null }, `ERR_CONFIG: options.${field}: expected a number, got null`] as const,
    ),
    [{ beta: 0 }, 'ERR_RANGE: options.beta: expected a number above 0, got 0'],
    [{ beta: -1 }, 'ERR_RANGE: options.beta: expected a number above 0, got -1'],
    [{ huber: 0 }, 'ERR_RANGE: options.huber: expected a number above 0, got 0'],
    [{ assistantSteps: -1 }, 'ERR_RANGE: options.assistantSteps: expected an integer from 0 on'],
    [{ assistantSteps: 1.5 }, 'ERR_RANGE: options.assistantSteps: expected an integer from 0 on'],
    [{ ema: 1.1 }, 'ERR_RANGE: options.ema: expected a number from 0 to 1, got 1.1'],
    [{ ema: -0.1 }, 'ERR_RANGE: options.ema: expected a number from 0 to 1, got -0.1'],
    [{ seed: -1 }, 'ERR_RANGE: options.seed: expected an integer from 0 on, got -1'],
    [{ seed: 2 ** 53 }, 'ERR_RANGE: options.seed: expected an integer from 0 on'],
    [{ rewardEvery: -1 }, 'ERR_RANGE: options.rewardEvery: expected an integer from 0 on'],
    [{ klWindow: 0 }, 'ERR_RANGE: options.klWindow: expected an integer from 1 on, got 0'],
    [{ noOpAfter: 0 }, 'ERR_RANGE: options.noOpAfter: expected an integer from 1 on, got 0'],
  ],
  choices: [
    [{ objective: 'dmd' }, 'ERR_CONFIG: options.objective: expected one of didr, diff-instruct'],
    [{ objective: null }, 'ERR_CONFIG: options.objective: expected one of'],
    [
      { weighting: 'x1' },
      'ERR_CONFIG: options.weighting: expected one of x0, sigma2, dmd, uniform',
    ],
    [{ weighting: 1 }, 'ERR_CONFIG: options.weighting: expected one of'],
    [
      { assistantWeighting: 'dmd' },
      'ERR_CONFIG: options.assistantWeighting: expected one of output, x0, epsilon',
    ],
  ],
  optimizer: [
    [{ optimizer: null }, 'ERR_CONFIG: options.optimizer: expected an object, got null'],
    [{ optimizer: [] }, 'ERR_CONFIG: options.optimizer: expected an object'],
    ...(['generator', 'assistant'] as const).flatMap((which) =>
      (
        [
          [null, 'ERR_CONFIG', '', 'expected an object, got null'],
          [{ lr: '1' }, 'ERR_CONFIG', '.lr', 'expected a number, got "1"'],
          [{ lr: -1 }, 'ERR_RANGE', '.lr', 'expected a number from 0 on, got -1'],
          [{ eps: -1 }, 'ERR_RANGE', '.eps', 'expected a number from 0 on, got -1'],
          [{ weightDecay: Infinity }, 'ERR_RANGE', '.weightDecay', 'expected a finite number'],
          [{ betas: 0.9 }, 'ERR_CONFIG', '.betas', 'expected two numbers, got 0.9'],
          [{ betas: [0.9] }, 'ERR_CONFIG', '.betas', 'expected two numbers'],
          [{ betas: [0, 1] }, 'ERR_RANGE', '.betas[1]', 'expected a number in [0, 1), got 1'],
          [{ betas: ['0', 0.9] }, 'ERR_CONFIG', '.betas[0]', 'expected a number, got "0"'],
          [{ maxNorm: 0 }, 'ERR_RANGE', '.maxNorm', 'expected a number above 0, got 0'],
          [{ warmup: 0.5 }, 'ERR_RANGE', '.warmup', 'expected an integer from 0 on, got 0.5'],
          [{ decaySteps: 0 }, 'ERR_RANGE', '.decaySteps', 'expected an integer from 1 on, got 0'],
        ] as const
      ).map(
        ([value, code, field, said]) =>
          [
            { optimizer: { [which]: value } },
            `${code}: options.optimizer.${which}${field}: ${said}`,
          ] as const,
      ),
    ),
  ],
  times: (['times', 'assistantTimes'] as const).flatMap((field) =>
    (
      [
        [null, 'ERR_CONFIG', '', 'expected an object, got null'],
        ['uniform', 'ERR_CONFIG', '', 'expected an object'],
        [{ kind: 'lognormal' }, 'ERR_CONFIG', '.kind', 'expected one of uniform'],
        [{ kind: 'uniform', mean: 0 }, 'ERR_CONFIG', '.mean', 'unknown option'],
        [{ kind: 'log-snr', std: 1 }, 'ERR_CONFIG', '.std', 'unknown option'],
        [{ kind: 'uniform', range: 0.5 }, 'ERR_CONFIG', '.range', 'expected [low, high], got 0.5'],
        [{ kind: 'uniform', range: [0] }, 'ERR_CONFIG', '.range', 'expected [low, high], got [0]'],
        [{ kind: 'uniform', range: ['0', 1] }, 'ERR_CONFIG', '.range[0]', 'expected a number'],
        [
          { kind: 'uniform', range: [0, Number.NaN] },
          'ERR_RANGE',
          '.range[1]',
          'expected a finite',
        ],
        [{ kind: 'uniform', range: [0.6, 0.4] }, 'ERR_RANGE', '.range', 'expected low <= high'],
        [
          { kind: 'uniform', range: [-0.1, 1] },
          'ERR_RANGE',
          '.range',
          'expected times from 0 to 1',
        ],
        [{ kind: 'logit-normal', range: [0, 1.1] }, 'ERR_RANGE', '.range', 'expected times from 0'],
        [{ kind: 'logit-normal', std: 0 }, 'ERR_RANGE', '.std', 'expected a number above 0, got 0'],
        [{ kind: 'logit-normal', mean: '0' }, 'ERR_CONFIG', '.mean', 'expected a number, got "0"'],
        [{ kind: 'log-snr', range: [3, -3] }, 'ERR_RANGE', '.range', 'expected low <= high'],
        [{ kind: 'log-snr', range: [-Infinity, 0] }, 'ERR_RANGE', '.range[0]', 'expected a finite'],
      ] as const
    ).map(
      ([value, code, at, said]) =>
        [{ [field]: value }, `${code}: options.${field}${at}: ${said}`] as const,
    ),
  ),
  drs: (
    [
      [null, 'ERR_CONFIG', '', 'expected an object, got null'],
      ['drp', 'ERR_CONFIG', '', 'expected an object, got "drp"'],
      [{ estimator: 'dps' }, 'ERR_CONFIG', '.estimator', 'expected one of tweedie, drp'],
      [{ estimator: 'exact', guidance: 2 }, 'ERR_CONFIG', '.guidance', 'exact has no such setting'],
      [{ estimator: 'tweedie', steps: 2 }, 'ERR_CONFIG', '.steps', 'tweedie has no such setting'],
      [{ estimator: 'damped', particles: 2 }, 'ERR_CONFIG', '.particles', 'damped has no such'],
      [{ estimator: 'drp', sampler: 'rollout' }, 'ERR_CONFIG', '.sampler', 'drp has no such'],
      [{ estimator: 'particles', maxNorm: 1 }, 'ERR_CONFIG', '.maxNorm', 'particles has no such'],
      [{ estimator: 'tweedie', guidance: '1' }, 'ERR_CONFIG', '.guidance', 'expected a number'],
      [{ estimator: 'tweedie', maxNorm: 0 }, 'ERR_RANGE', '.maxNorm', 'expected a number above 0'],
      [
        { estimator: 'damped', curvature: -1 },
        'ERR_RANGE',
        '.curvature',
        'expected a number from 0',
      ],
      [{ estimator: 'damped', dataStd: 0 }, 'ERR_RANGE', '.dataStd', 'expected a number above 0'],
      [
        { estimator: 'damped', dataStd: '1' },
        'ERR_CONFIG',
        '.dataStd',
        'expected a number, got "1"',
      ],
      [{ estimator: 'drp', steps: 0 }, 'ERR_RANGE', '.steps', 'expected an integer from 1 on'],
      [
        { estimator: 'drp', steps: 2, gradientSteps: 3 },
        'ERR_RANGE',
        '.gradientSteps',
        'expected an',
      ],
      [
        { estimator: 'drp', gradientSteps: 0 },
        'ERR_RANGE',
        '.gradientSteps',
        'expected an integer',
      ],
      [{ estimator: 'drp', particles: 0 }, 'ERR_RANGE', '.particles', 'expected an integer from 1'],
      [
        { estimator: 'drp', stochastic: 1 },
        'ERR_CONFIG',
        '.stochastic',
        'expected a boolean, got 1',
      ],
      [
        { estimator: 'drp', stochastic: true, eta: 2.5 },
        'ERR_RANGE',
        '.eta',
        'expected a number from',
      ],
      [{ estimator: 'drp', stochastic: true, eta: 0 }, 'ERR_CONFIG', '.eta', '0 contradicts'],
      [
        { estimator: 'drp', stochastic: false, eta: 0.5 },
        'ERR_CONFIG',
        '.eta',
        '0.5 contradicts stochastic: false',
      ],
      [{ estimator: 'drp', logSnrEnd: Infinity }, 'ERR_RANGE', '.logSnrEnd', 'expected a finite'],
      [
        { estimator: 'drp', particles: 4, stochastic: false },
        'ERR_CONFIG',
        '.particles',
        'without noise between steps all particles are the same',
      ],
      [{ estimator: 'drp', particles: 4, steps: 1 }, 'ERR_CONFIG', '.particles', 'without noise'],
      [{ estimator: 'particles', particles: 1 }, 'ERR_RANGE', '.particles', 'one particle says'],
      [{ estimator: 'particles', steps: 1 }, 'ERR_CONFIG', '.particles', 'without noise'],
      [{ estimator: 'particles', sampler: 'exact' }, 'ERR_CONFIG', '.sampler', 'expected one of'],
    ] as const
  ).map(
    ([value, code, at, said]) => [{ drs: value }, `${code}: options.drs${at}: ${said}`] as const,
  ),
  'what does not go together': [
    [
      { objective: 'diff-instruct*', weighting: 'dmd' },
      'ERR_CONFIG: options.weighting: dmd divides a denoiser difference',
    ],
    [
      { schedule: schedules.vp() },
      'ERR_CONFIG: options.schedule: the teacher\'s is ["flow",{"shift":1}], got ["vp",',
    ],
    [
      { schedule: schedules.flow({ shift: 3 }) },
      'ERR_CONFIG: options.schedule: the teacher\'s is ["flow",{"shift":1}], got ["flow",{"shift":3}]',
    ],
    [
      { reward: plain, drs: { estimator: 'exact' } },
      'ERR_CONFIG: options.drs.estimator: exact is the closed form of models.gaussianMixture',
    ],
    [
      { teacher: network(3), drs: { estimator: 'exact' } },
      'ERR_CONFIG: options.drs.estimator: exact is the closed form',
    ],
    [
      { decode: <T>(x: T) => x, drs: { estimator: 'exact' } },
      'ERR_CONFIG: options.drs.estimator: exact is the closed form',
    ],
    [
      { teacher: network(3), drs: { estimator: 'particles', sampler: 'posterior' } },
      'ERR_CONFIG: options.drs.sampler: posterior needs a teacher with exact posterior samples',
    ],
    ...['tweedie', 'drp', 'damped'].map(
      (estimator) =>
        [
          { reward: blackBox, drs: { estimator } },
          `ERR_CONFIG: options.drs.estimator: ${estimator} needs the gradient of the reward, and "judge" is a black box`,
        ] as const,
    ),
    ...['diff-instruct++', 'diff-instruct*', 'reward'].map(
      (objective) =>
        [
          { reward: blackBox, objective },
          `ERR_CONFIG: options.objective: ${objective} needs the gradient of the reward, and "judge" is a black box`,
        ] as const,
    ),
    // Whoever switches objectives learns of mistakes at once.
    [
      { objective: 'diff-instruct', drs: { estimator: 'drp', steps: 0 } },
      'ERR_RANGE: options.drs.steps',
    ],
  ],
}

describe('createDidr', () => {
  for (const [what, cases] of Object.entries(refused))
    it(`refuses ${what}, by the path of the field`, () => {
      for (const [change, start] of cases) {
        const said = refusal(change)
        expect(said.slice(0, start.length), `${JSON.stringify(change)}: ${said}`).toBe(start)
      }
    })

  it('refuses what are no options at all', () => {
    for (const options of [undefined, null, 3, []])
      expect(() => createDidr(options as unknown as DidrOptions)).toThrow(
        'options: expected an object',
      )
  })

  it('refuses models that train the same parameters', () => {
    const model = network(1)
    const generator = pointGenerator()
    const shared = { ...generator, parameters: () => model.parameters() }
    expect(refusal({ generator: shared, assistant: model })).toBe(
      'ERR_CONFIG: options.assistant: trains "layers.0.weight", which the generator trains; give it a copy of its own',
    )
    expect(refusal({ generator: shared, teacher: model })).toMatch(
      /^ERR_CONFIG: options\.teacher: "layers\.0\.weight" is trained by the generator or the assistant/,
    )
    expect(refusal({ assistant: model, teacher: model })).toMatch(
      /^ERR_CONFIG: options\.teacher: "layers\.0\.weight" is trained by the generator/,
    )
    // Frozen ones may be shared, and an assistant that is not trained may be anything.
    for (const parameter of model.parameters()) parameter.trainable = false
    expect(
      refusal({
        generator: {
          ...generator,
          parameters: () => [...generator.parameters(), ...model.parameters()],
        },
        teacher: model,
      }),
    ).toBe('accepted')
    expect(refusal({ assistant: ring(), assistantSteps: 0 })).toBe('accepted')
    expect(refusal({ assistant: ring(), objective: 'reward' })).toBe('accepted')
  })

  it('takes a black box with particles, which are its default', () => {
    using didr = ringRun({ reward: blackBox })
    expect(didr.config.drs).toMatchObject({ estimator: 'particles', sampler: 'rollout' })
    expect(refusal({ reward: blackBox, objective: 'diff-instruct' })).toBe('accepted')
    expect(refusal({ reward: blackBox, objective: 'dmd2' })).toBe('accepted')
  })

  it('fills in all defaults, as plain JSON', () => {
    using didr = ringRun({ seed: 0 })
    const optimizer = {
      lr: 1e-4,
      betas: [0, 0.99],
      eps: 1e-8,
      weightDecay: 0,
      maxNorm: 1,
      warmup: 0,
      decaySteps: null,
    }
    expect(didr.config).toEqual({
      objective: 'didr',
      schedule: { name: 'flow', config: { shift: 1 } },
      reward: 'quadratic',
      beta: 1,
      guidance: 1,
      weighting: 'x0',
      drs: {
        estimator: 'drp',
        steps: 2,
        particles: 1,
        eta: 0,
        logSnrEnd: 4,
        gradientSteps: 2,
        guidance: 1,
        maxNorm: null,
      },
      huber: null,
      assistantSteps: 2,
      assistantWeighting: 'output',
      times: { kind: 'uniform', range: [0.02, 0.98] },
      assistantTimes: { kind: 'uniform', range: [0.02, 0.98] },
      optimizer: { generator: optimizer, assistant: optimizer },
      ema: 0.999,
      seed: 0,
      rewardEvery: 1,
      klWindow: 100,
      noOpAfter: 20,
    })
    expect(JSON.parse(JSON.stringify(didr.config))).toEqual(didr.config)
  })

  it('fills in what depends on other settings', () => {
    using dmd = ringRun({ objective: 'dmd2' })
    expect([dmd.config.weighting, dmd.config.drs]).toEqual(['dmd', null])
    using own = ringRun({
      weighting: (t) => t,
      assistantWeighting: (t) => t,
      times: { kind: 'logit-normal', std: 2 },
      drs: { estimator: 'drp', stochastic: true },
    })
    expect(own.config).toMatchObject({
      weighting: 'function',
      assistantWeighting: 'function',
      times: { kind: 'logit-normal', mean: 0, std: 2, range: [0.02, 0.98] },
      assistantTimes: { kind: 'logit-normal', mean: 0, std: 2, range: [0.02, 0.98] },
      drs: { particles: 4, eta: 1, steps: 2, gradientSteps: 2 },
    })
    using particles = ringRun({ drs: { estimator: 'particles' } })
    expect(particles.config.drs).toMatchObject({ steps: 8, particles: 16, eta: 1, guidance: 1 })
  })
})
