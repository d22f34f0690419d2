/** Every function of the addon's surface that computes, on the CUDA device against the CPU. */
import { readFile } from 'node:fs/promises'
import { beforeAll, describe, expect, it } from 'vitest'
import {
  arange,
  concat,
  denoisingLoss,
  diffusedRewardScore,
  type FloatDType,
  full,
  integralKL,
  KlAccumulator,
  nn,
  normal,
  optim,
  Parameter,
  perturb,
  rewardWeights,
  type Shape,
  schedules,
  type Tensor,
  uniform,
  weightedRewardGradient,
  where,
} from '../../lib/index.js'
import { type Binding, binding } from '../../lib/native/binding.js'
import { activations } from '../../lib/tensor/matmul.js'
import {
  cpu,
  cuda,
  expectAlike,
  expectTensorsAlike,
  type Float,
  Place,
  type Results,
} from './both.js'

const floats = ['float32', 'bfloat16'] as const
const schedule = schedules.flow()

/** What the functions of the addon that compute were called with a CUDA device or tensor for. */
const called = new Set<string>()

/** Functions of the addon that compute nothing. */
const management = new Set([
  ...['init', 'openDevice', 'deviceInfo', 'counters', 'resetPeak', 'trim', 'synchronize'],
  ...['upload', 'view', 'read', 'readSync', 'dispose', 'isShared'],
])

beforeAll(() => {
  const surface = binding as unknown as Record<string, (...args: unknown[]) => unknown>
  for (const [name, original] of Object.entries(surface))
    if (!management.has(name))
      surface[name] = (...args) => {
        called.add(name)
        return original(...args)
      }
})

type Case = (place: Place, dtype: FloatDType) => Results

/** Runs a case in each of the dtypes. */
function forEach(dtypes: readonly FloatDType[], cases: Readonly<Record<string, Case>>): void {
  for (const [name, compute] of Object.entries(cases))
    for (const dtype of dtypes)
      it(`${name}, ${dtype}`, () => expectAlike((place) => compute(place, dtype)))
}

describe('elementwise', () => {
  const signed = [
    ...['neg', 'abs', 'square', 'exp', 'tanh', 'sigmoid', 'silu', 'relu', 'sin', 'cos'],
  ] as ('neg' | 'abs')[]
  const positive = ['sqrt', 'rsqrt', 'reciprocal', 'log'] as const
  forEach(floats, {
    ...Object.fromEntries(
      signed.map((kind) => [
        kind,
        (place, dtype) => place.gradients((x) => x[kind](), [place.normal([3, 37], { dtype })]),
      ]),
    ),
    ...Object.fromEntries(
      positive.map((kind) => [
        kind,
        (place, dtype) => place.gradients((x) => x[kind](), [place.positive([5, 13], dtype)]),
      ]),
    ),
    gelu: (place, dtype) => place.gradients((x) => x.gelu(), [place.normal([67], { dtype })]),
    'gelu by tanh': (place, dtype) =>
      place.gradients((x) => x.gelu('tanh'), [place.normal([67], { dtype })]),
    clip: (place, dtype) =>
      place.gradients((x) => x.clip(-0.5, 0.75), [place.normal([7, 9], { dtype })]),
    'sign, floor and tests': (place, dtype) => {
      const x = place.normal([3, 19], { dtype, std: 3 })
      const root = x.sqrt()
      return {
        sign: x.sign(),
        floor: x.floor(),
        isFinite: root.isFinite(),
        logicalNot: x.floor().logicalNot(),
      } as Results
    },
    ...Object.fromEntries(
      (['add', 'sub', 'mul', 'div', 'maximum', 'minimum'] as const).map((kind) => [
        kind,
        (place, dtype) =>
          place.gradients(
            (a, b) => a[kind](b),
            [place.normal([5, 1, 7], { dtype }), place.positive([3, 1], dtype)],
          ),
      ]),
    ),
    'pow, by a tensor and by a number': (place, dtype) => ({
      ...place.gradients(
        (a, b) => a.pow(b),
        [place.positive([4, 5], dtype), place.normal([5], { dtype })],
      ),
      cube: place.positive([11], dtype).pow(3) as Tensor,
    }),
    comparisons: (place, dtype) => {
      const [a, b] = [place.normal([9, 5], { dtype }).floor(), place.normal([5], { dtype }).floor()]
      const kinds = ['equal', 'notEqual', 'less', 'lessEqual', 'greater', 'greaterEqual'] as const
      return {
        ...Object.fromEntries(kinds.map((kind) => [kind, a[kind](b) as Tensor])),
        logicalAnd: a.less(b).logicalAnd(a.notEqual(0)) as Tensor,
        logicalOr: a.less(b).logicalOr(a.equal(0)) as Tensor,
      }
    },
    where: (place, dtype) =>
      place.gradients(
        (a, b) => where(a.greater(b), a, b) as Float,
        [place.normal([3, 1, 5], { dtype }), place.normal([3, 4, 1], { dtype })],
      ),
    addScaled: (place, dtype) =>
      place.gradients(
        (a, b) => a.addScaled(b, -0.375),
        [place.normal([7, 11], { dtype }), place.normal([7, 11], { dtype })],
      ),
    'integers of 32 bits': (place) => {
      const a = place.of([7, -9, 0, 2147483647, -5], [5], 'int32')
      const b = place.of([2, 4, 3, 1, 0], [5], 'int32')
      return { sum: a.add(b), product: a.mul(b), quotient: a.div(b), size: a.abs() } as Results
    },
  })
})

describe('layout and creation', () => {
  forEach(floats, {
    'fill and arange': (place, dtype) => {
      const options = { dtype, device: place.device }
      return {
        full: full([3, 5], -1.75, options),
        empty: full([0, 4], 1, options),
        arange: arange(37, { ...options, start: -2, step: 0.125 }),
        counted: arange(9, { ...options, dtype: 'int32', start: 4, step: -3 }),
      } as Results
    },
    'permute, slice, concat, broadcastTo': (place, dtype) =>
      place.gradients(
        (a, b) => {
          const turned = a.permute([2, 0, 1]).slice([1, 0, 2], [3, -1, 3]) as Float
          return concat([turned, b, b], 1).add(
            b.sum(1, { keepDims: true }).broadcastTo([3, 7, 3]),
          ) as Float
        },
        [place.normal([3, 5, 7], { dtype }), place.normal([3, 2, 3], { dtype })],
      ),
    'cast, clone and copyFrom': (place, dtype) => {
      const x = place.normal([5, 13], { dtype, std: 40 })
      const target = place.normal([5, 13], { dtype })
      const kinds = ['float32', 'bfloat16', 'float16', 'int32', 'uint8'] as const
      return {
        ...Object.fromEntries(kinds.map((kind) => [kind, x.cast(kind) as Tensor])),
        back: x.cast('float16').cast('float32') as Tensor,
        copied: target.copyFrom(x.clone()) as Tensor,
      }
    },
  })
})

describe('reductions', () => {
  const kinds = ['sum', 'mean', 'max', 'min', 'logSumExp'] as const
  forEach(floats, {
    ...Object.fromEntries(
      kinds.map((kind): [string, Case] => [
        `${kind} over rows, columns, the middle and all`,
        (place, dtype) =>
          Object.fromEntries(
            [[0], [2], [1], [0, 2], undefined].flatMap((axes) => {
              const found = place.gradients(
                (x) => (axes === undefined ? x[kind]() : x[kind](axes)),
                [place.normal([3, 5, 37], { dtype })],
              )
              return Object.entries(found).map(([name, x]) => [`${axes}: ${name}`, x])
            }),
          ),
      ]),
    ),
    argMax: (place, dtype) => {
      const x = place.normal([7, 33], { dtype }).floor()
      return { rows: x.argMax(1), columns: x.argMax(0) } as Results
    },
    softmax: (place, dtype) => ({
      ...place.gradients((x) => x.softmax(), [place.normal([5, 33], { dtype })]),
      columns: place.normal([5, 33], { dtype }).softmax(0) as Tensor,
    }),
  })
})

describe('matrix products', () => {
  forEach(floats, {
    'plain, and with either operand transposed': (place, dtype) =>
      Object.fromEntries(
        [0, 1, 2, 3].flatMap((bits) => {
          const [transA, transB] = [(bits & 1) !== 0, (bits & 2) !== 0]
          const found = place.gradients(
            (a, b) => a.matmul<Shape, object>(b, { transA, transB }) as Float,
            [
              place.normal(transA ? [19, 5] : [5, 19], { dtype }),
              place.normal(transB ? [37, 19] : [19, 37], { dtype }),
            ],
          )
          return Object.entries(found).map(([name, x]) => [`${transA} ${transB}: ${name}`, x])
        }),
      ),
    'of batches': (place, dtype) =>
      place.gradients(
        (a, b) => a.matmul<Shape, object>(b, {}) as Float,
        [place.normal([3, 5, 18], { dtype }), place.normal([3, 18, 9], { dtype })],
      ),
    'of a batch with one matrix': (place, dtype) =>
      place.gradients(
        (a, b) => a.matmul<Shape, object>(b, {}) as Float,
        [place.normal([2, 3, 7], { dtype }), place.normal([7, 8], { dtype })],
      ),
    'of no depth, and of no rows': (place, dtype) => ({
      depth: place.normal([3, 0], { dtype }).matmul(place.normal([0, 5], { dtype })) as Tensor,
      rows: place.normal([0, 4], { dtype }).matmul(place.normal([4, 5], { dtype })) as Tensor,
    }),
    ...Object.fromEntries(
      activations.map((activation): [string, Case] => [
        `with bias and ${activation}`,
        (place, dtype) =>
          place.gradients(
            (x, weight, bias) => nn.linear(x, weight, bias, activation),
            [
              place.normal([2, 3, 11], { dtype }),
              place.normal([21, 11], { dtype, std: 0.3 }),
              place.normal([21], { dtype }),
            ],
          ),
      ]),
    ),
  })
})

describe('random numbers', () => {
  // The same bits: Philox, and polynomials of fused multiply-adds.
  for (const dtype of floats)
    it(`are the CPU's, bit for bit, ${dtype}`, () =>
      expectAlike(
        ({ device }) =>
          Object.fromEntries(
            [[1], [7, 143], [4099]].flatMap((shape, i) => {
              const draw = { dtype, device, seed: 2 ** 40 + i, offset: 3 * i }
              return [
                [`normal ${shape}`, normal(shape, { ...draw, mean: 0.5, std: 2 }) as Tensor],
                [`uniform ${shape}`, uniform(shape, { ...draw, low: -3, high: 0.25 }) as Tensor],
              ]
            }),
          ),
        { float32: 0, bfloat16: 0 },
      ))
})

describe('the method', () => {
  const t = Float32Array.of(0.15, 0.5, 0.85)
  const shape = [3, 2, 19]
  forEach(floats, {
    perturb: (place, dtype) => {
      const x0 = place.normal(shape, { dtype })
      const { noise } = perturb(x0, { t, schedule, seed: 5, offset: 2, returnNoise: true })
      const seeded = { t, schedule, seed: 5, offset: 2 }
      return { noise: noise as Tensor, ...place.gradients((x) => perturb(x, seeded).xt, [x0]) }
    },
    denoisingLoss: (place, dtype) => {
      const [x0, output] = [place.normal(shape, { dtype }), place.normal(shape, { dtype })]
      const losses = (['epsilon', 'x0', 'v', 'flow'] as const).flatMap((prediction) =>
        (['output', 'x0', 'epsilon'] as const).flatMap((weighting) => {
          const fixed = { x0, prediction, t, schedule, seed: 9, weighting }
          const { loss, perSample, grad } = denoisingLoss({ ...fixed, output })
          const name = `${prediction} ${weighting}`
          return [
            [`${name}: loss`, loss],
            [`${name}: per sample`, perSample],
            [`${name}: gradient`, grad],
          ]
        }),
      )
      return Object.fromEntries(losses) as Results
    },
    integralKL: (place, dtype) => {
      const [x0, xt, assistant, teacher, teacherUncond, drs] = [0, 1, 2, 3, 4, 5].map(() =>
        place.normal(shape, { dtype }),
      ) as [Float, Float, Float, Float, Float, Float]
      const fixed = { x0, xt, t, schedule, assistant, teacher }
      const all = (['x0', 'sigma2', 'dmd', 'uniform'] as const).flatMap((weighting) => {
        const { grad, perSample } = integralKL({
          ...fixed,
          ...{ weighting, teacherUncond, guidance: 2.5, drs, scale: 0.25 },
          prediction: { assistant: 'x0', teacher: 'flow' },
        })
        return [
          [`${weighting}: gradient`, grad],
          [`${weighting}: to the target`, perSample.target],
          [`${weighting}: to the reference`, perSample.reference],
        ]
      })
      return Object.fromEntries(all) as Results
    },
    'rewards as weights': (place, dtype) => {
      const [particles, rewards] = [place.normal([5, ...shape], { dtype }), place.normal([5, 3])]
      const weights = rewardWeights({ rewards, beta: 0.5 })
      const score = diffusedRewardScore({ particles, rewards, t, schedule, beta: 0.5 })
      const sum = weightedRewardGradient({
        ...{ gradients: particles, rewards, beta: 0.5, t, schedule },
        ...{ damping: { curvature: 0.7, dataStd: 1.4 }, maxNorm: 3 },
      })
      return {
        weights: weights.weights,
        effective: weights.effectiveSampleSize,
        score: score.score,
        'score: weights': score.weights,
        sum: sum.score,
        norm: sum.norm,
      } as Results
    },
  })

  it('sums the KL in bins', async () => {
    const estimates = []
    for (const device of [cpu, cuda]) {
      const place = new Place(device)
      using accumulator = new KlAccumulator({ bins: 7, logSnrRange: [-4, 4], device })
      for (let i = 0; i < 3; i++) {
        const [xt, assistant, teacher] = [0, 1, 2].map(() => place.normal(shape)) as [
          ...[Float, Float, Float],
        ]
        const given = { xt, t, schedule, assistant, teacher, accumulator }
        integralKL({ ...given, prediction: 'flow' })
      }
      estimates.push(await accumulator.read())
    }
    const [expected, got] = estimates
    expect(got?.bins.length).toBe(expected?.bins.length)
    for (const [i, bin] of (expected?.bins ?? []).entries())
      for (const field of ['target', 'reference'] as const) {
        const value = got?.bins[i]?.[field]
        if (Number.isNaN(bin[field])) expect(value).toBeNaN()
        else expect((value as number) / (bin[field] || 1)).toBeCloseTo(bin[field] === 0 ? 0 : 1, 6)
      }
  })
})

describe('networks', () => {
  const modulation = { dtype: 'float32' as FloatDType, std: 0.5 }
  forEach(floats, {
    embedding: (place, dtype) =>
      place.gradients(
        (table) => nn.embedding(place.of([4, 0, 4, 6, 1, 2], [2, 3], 'int32'), table),
        [place.normal([7, 13], { dtype })],
      ),
    'rmsNorm with weight and scale': (place, dtype) =>
      place.gradients(
        (x, weight, scale) => nn.rmsNorm(x, { eps: 1e-5, weight, scale }),
        [
          place.normal([3, 5, 37], { dtype }),
          place.normal([37], { dtype }),
          place.normal([3, 37], { ...modulation, dtype }),
        ],
      ),
    'rmsNorm alone': (place, dtype) =>
      place.gradients((x) => nn.rmsNorm(x, { eps: 1e-6 }), [place.normal([9, 64], { dtype })]),
    'layerNorm with all its operands': (place, dtype) =>
      place.gradients(
        (x, weight, bias, scale, shift) =>
          nn.layerNorm(x, { eps: 1e-6, weight, bias, scale, shift }),
        [
          place.normal([2, 3, 21], { dtype, mean: 0.5 }),
          place.normal([21], { dtype }),
          place.normal([21], { dtype }),
          place.normal([2, 21], { ...modulation, dtype }),
          place.normal([2, 21], { ...modulation, dtype }),
        ],
      ),
    ...Object.fromEntries(
      (['none', 'silu'] as const).map((activation): [string, Case] => [
        `groupNorm, activation ${activation}`,
        (place, dtype) =>
          place.gradients(
            (x, weight, bias) =>
              nn.groupNorm(x, { groups: 3, eps: 1e-6, weight, bias, activation }),
            [
              place.normal([2, 6, 3, 5], { dtype, mean: 1 }),
              place.normal([6], { dtype }),
              place.normal([6], { dtype }),
            ],
          ),
      ]),
    ),
    swiGlu: (place, dtype) =>
      place.gradients(nn.swiGlu, [
        place.normal([3, 7, 9], { dtype }),
        place.normal([3, 7, 9], { dtype }),
      ]),
    ...Object.fromEntries(
      [true, false].map((tanh): [string, Case] => [
        `gatedResidual, tanh ${tanh}`,
        (place, dtype) =>
          place.gradients(
            (x, h, gate) => nn.gatedResidual(x, h, gate, { tanh }),
            [
              place.normal([3, 5, 13], { dtype }),
              place.normal([3, 5, 13], { dtype }),
              place.normal([3, 13], { dtype }),
            ],
          ),
      ]),
    ),
    rope: (place, dtype) => {
      const angles = place.normal([5, 6])
      const [cos, sin] = [angles.cos(), angles.sin()] as Tensor<'float32'>[]
      return place.gradients(
        (x) => nn.rope(x, cos as Tensor<'float32'>, sin as Tensor<'float32'>),
        [place.normal([2, 5, 3, 12], { dtype })],
      )
    },
    ...Object.fromEntries(
      [32, 12].map((size): [string, Case] => [
        `attention with masked keys, heads of ${size}`,
        (place, dtype) => {
          const mask = place.of([1, 1, 0, 1, 1, 0, 1, 0, 0, 1, 1, 1, 1, 1], [2, 7], 'uint8')
          return place.gradients(
            (q, k, v) => nn.attention(q, k, v, { mask }),
            [
              place.normal([2, 5, 3, size], { dtype }),
              place.normal([2, 7, 3, size], { dtype }),
              place.normal([2, 7, 3, size], { dtype }),
            ],
          )
        },
      ]),
    ),
    losses: (place, dtype) => {
      const targets = place.of([2, 0, 10, 5], [4], 'int32')
      const entropy = place.gradients(
        (x) => nn.crossEntropy(x, targets),
        [place.normal([4, 11], { dtype })],
      )
      const square = place.gradients(nn.mse, [
        place.normal([3, 13], { dtype }),
        place.normal([3, 13], { dtype }),
      ])
      return { ...entropy, 'mse: y': square.y, 'mse: dx': square.d0, 'mse: dy': square.d1 }
    },
    upsampleNearest2x: (place, dtype) =>
      place.gradients(nn.upsampleNearest2x, [place.normal([2, 3, 3, 5], { dtype })]),
  })
  forEach(['float32'], {
    'conv2d, 3 by 3': (place) =>
      place.gradients(
        (x, weight, bias) => nn.conv2d(x, weight, { bias, padding: 1 }),
        [place.normal([2, 3, 7, 5]), place.normal([5, 3, 3, 3]), place.normal([5])],
      ),
    'conv2d of stride 2 and uneven padding': (place) =>
      place.gradients(
        (x, weight) => nn.conv2d(x, weight, { stride: 2, padding: [0, 1, 0, 1] }),
        [place.normal([1, 2, 8, 6]), place.normal([3, 2, 3, 3])],
      ),
  })
})

describe('optimisers', () => {
  /** Three updates of two parameters from the same gradients. */
  async function train(place: Place, dtype: FloatDType, options: optim.AdamWOptions) {
    const parameters = [
      new Parameter('a', place.normal([5, 13], { dtype }) as Float),
      new Parameter('b', place.normal([7], { dtype }) as Float),
    ]
    using optimizer = new optim.AdamW(parameters, { lr: 1e-2, weightDecay: 0.1, ...options })
    using ema = new optim.Ema(parameters, { decay: 0.75 })
    const norms: number[] = []
    for (let step = 0; step < 3; step++) {
      // Two additions to a gradient: the second is made in place.
      for (let i = 0; i < 2; i++)
        for (const parameter of parameters)
          parameter.addGradient(place.normal(parameter.shape, { dtype }) as Tensor)
      using norm = optimizer.step()
      norms.push(await norm.item())
      optimizer.zeroGrad()
      ema.update()
    }
    const tensors: Results = Object.fromEntries(
      Object.entries({
        ...Object.fromEntries(parameters.map(({ name, value }) => [name, value as Tensor])),
        ...optimizer.state().tensors,
        ...Object.fromEntries(
          Object.entries(ema.state().tensors).map(([name, x]) => [`average ${name}`, x]),
        ),
      }).map(([name, x]) => [name, x.clone()]),
    )
    return { tensors, norms }
  }

  for (const dtype of floats) {
    it(`AdamW and averages have the CPU's bits, ${dtype}`, async () => {
      const expected = await train(new Place(cpu), dtype, {})
      const got = await train(new Place(cuda), dtype, {})
      expect(Object.keys(got.tensors)).toEqual(Object.keys(expected.tensors))
      expect(Object.keys(got.tensors).length).toBe(dtype === 'float32' ? 10 : 12)
      for (const [name, x] of Object.entries(got.tensors))
        await expectTensorsAlike(name, x, expected.tensors[name], { float32: 0, bfloat16: 0 })
    })

    it(`gradients are scaled down alike, ${dtype}`, async () => {
      const expected = await train(new Place(cpu), dtype, { maxNorm: 2 })
      const got = await train(new Place(cuda), dtype, { maxNorm: 2 })
      for (const [i, norm] of got.norms.entries())
        expect(norm / (expected.norms[i] as number)).toBeCloseTo(1, 6)
      for (const [name, x] of Object.entries(got.tensors))
        await expectTensorsAlike(name, x, expected.tensors[name])
    })
  }
})

describe('completeness', () => {
  it('every op has kernels for both', async () => {
    const table = await readFile(new URL('../../native/ops/ops.def', import.meta.url), 'utf8')
    const rows = [...table.matchAll(/^(DIDR_OP\w*)\((\w+), \w+\)$/gm)]
    expect(rows.length).toBeGreaterThan(40)
    // DIDR_OP_CPU is what an op without a CUDA kernel would be entered as.
    expect(rows.filter(([, macro]) => macro !== 'DIDR_OP').map(([, , op]) => op)).toEqual([])
  })

  it('every function of the addon was compared', () => {
    const all = Object.keys(binding as Binding).filter((name) => !management.has(name))
    expect(all.length).toBeGreaterThan(40)
    expect(all.filter((name) => !called.has(name))).toEqual([])
  })
})
