import { describe, expect, it } from 'vitest'
import { device, memory, normal, train, zeros } from '../../lib/index.js'
import { type Binding, binding, type DeviceId, type TensorId } from '../../lib/native/binding.js'
import { openShapeOnlyDevice } from '../../lib/native/shape-only.js'
import { cpuDevice, Device } from '../../lib/tensor/device.js'
import { dtypeIndex } from '../../lib/tensor/dtype.js'

const [float32, bfloat16, int32, uint8] = (['float32', 'bfloat16', 'int32', 'uint8'] as const).map(
  dtypeIndex,
) as [number, number, number, number]

/** Makes operands on a device: zeros of a shape and dtype. */
type Make = (shape: readonly number[], dtype?: number) => TensorId

/** An operation on operands made beforehand. */
type Case = (make: Make, device: DeviceId, b: Binding) => () => unknown

/** The kinds of an operation and their number. */
const kinds = (count: number, of: (kind: number, make: Make, b: Binding) => () => unknown) =>
  Array.from(
    { length: count },
    (_, kind): Case =>
      (make, _device, b) =>
        of(kind, make, b),
  )

const gradientList = [[3, 5], [20_001], [], [7]]

const cases: Partial<Record<keyof Binding, Case[]>> = {
  upload: [
    (_make, device, b) => () => b.upload(device, float32, [3, 2], new Float32Array(6)),
    (_make, device, b) => () => b.upload(device, uint8, [0, 4], new Uint8Array(0)),
  ],
  view: [
    (make, _device, b) =>
      (
        (x) => () =>
          b.view(x, [4, 3])
      )(make([2, 6])),
  ],
  fill: [(_make, device, b) => () => b.fill(device, bfloat16, [5, 7], 1)],
  arange: [(_make, device, b) => () => b.arange(device, int32, 11, -3, -2)],
  uniform: [(_make, device, b) => () => b.uniform(device, bfloat16, [3, 3], 1, 0, -1, 1)],
  normal: [(_make, device, b) => () => b.normal(device, float32, [], 1, 0, -5, 1)],
  cast: [
    (make, _device, b) =>
      (
        (x) => () =>
          b.cast(x, uint8)
      )(make([3, 5])),
  ],
  unary: kinds(21, (kind, make, b) => {
    const x = make([3, 5])
    return () => b.unary(kind, x, -1, 1)
  }),
  binary: [
    ...kinds(13, (kind, make, b) => {
      const [x, y] = [make([3, 1, 5]), make([4, 1])]
      return () => b.binary(kind, x, y)
    }),
    ...kinds(2, (kind, make, b) => {
      const [x, y] = [make([3], uint8), make([2, 3], uint8)]
      return () => b.binary(13 + kind, x, y)
    }),
  ],
  scaledAdd: [
    (make, _device, b) => {
      const [x, y] = [make([3, 5], bfloat16), make([3, 5], bfloat16)]
      return () => b.scaledAdd(x, y, -2)
    },
  ],
  where: [
    (make, _device, b) => {
      const [c, x, y] = [make([2, 1, 1], uint8), make([3, 1]), make([5])]
      return () => b.where(c, x, y)
    },
  ],
  permute: [
    (make, _device, b) =>
      (
        (x) => () =>
          b.permute(x, [2, 0, 1])
      )(make([2, 3, 5])),
  ],
  slice: [
    (make, _device, b) =>
      (
        (x) => () =>
          b.slice(x, [1, 0], [2, 3])
      )(make([4, 5])),
  ],
  concat: [
    (make, _device, b) => {
      const parts = [make([2, 1, 3], bfloat16), make([2, 4, 3], bfloat16)]
      return () => b.concat(parts, 1)
    },
  ],
  broadcastTo: [
    (make, _device, b) =>
      (
        (x) => () =>
          b.broadcastTo(x, [4, 3, 5])
      )(make([3, 1])),
  ],
  copyInto: [
    (make, _device, b) => {
      const [x, y] = [make([3]), make([3])]
      return () => b.copyInto(x, y)
    },
  ],
  reduce: [
    ...kinds(7, (kind, make, b) => {
      const x = make([3, 4, 5], bfloat16)
      return () => b.reduce(kind, x, 1, 2)
    }),
    // Few results of many elements, which a device cuts into sections.
    ...[
      [[100_003], 0, 0],
      [[2, 70_000, 3], 1, 1],
      [[5, 9_000, 150], 0, 1],
      [[1100, 40], 1, 1],
    ].map(
      ([shape, first, last]): Case =>
        (make, _device, b) => {
          const x = make(shape as number[], bfloat16)
          return () => b.reduce(0, x, first as number, last as number)
        },
    ),
  ],
  softmax: [
    (make, _device, b) =>
      (
        (x) => () =>
          b.softmax(x, 0)
      )(make([3, 5])),
  ],
  matmul: (
    [
      [[3, 4], [4, 5], false, false],
      [[4, 3], [5, 4], true, true],
      [[2, 6, 3, 4], [5, 4], false, true],
      [[3, 4], [2, 4, 5], false, false],
      [[2, 4, 3], [2, 4, 5], true, false],
    ] as const
  ).map(
    ([left, right, transA, transB]): Case =>
      (make, _device, b) => {
        const [x, y, bias] = [make(left), make(right), make([5])]
        return () => b.matmul(x, y, bias, transA, transB, 0)
      },
  ),
  accumulate: [
    (make, _device, b) => {
      const [x, y] = [make([3]), make([3])]
      return () => b.accumulate(x, y)
    },
  ],
  perturb: [true, false].map(
    (returnNoise): Case =>
      (make, _device, b) => {
        const [x, levels] = [make([3, 7], bfloat16), make([3, 2])]
        return () => b.perturb(x, levels, 1, 0, returnNoise)
      },
  ),
  denoisingLoss: [
    [3, 7],
    [5, 9_001],
  ].map(
    (shape): Case =>
      (make, _device, b) => {
        const [x, y, levels] = [make(shape), make(shape), make([shape[0] as number, 2])]
        return () => b.denoisingLoss(x, y, levels, null, 0, 1, 0)
      },
  ),
  integralKL: [
    [3, 7],
    [2, 3, 9_001],
  ].map(
    (shape): Case =>
      (make, _device, b) => {
        const [xt, assistant, teacher] = [make(shape), make(shape), make(shape)]
        const levels = make([shape[0] as number, 2])
        const none = null
        return () =>
          b.integralKL(
            ...([xt, none, assistant, teacher, none, none, levels, none, none, none] as const),
            ...([1, 1, 0, 0, 0] as const),
          )
      },
  ),
  softmaxWeights: [
    (make, _device, b) =>
      (
        (x) => () =>
          b.softmaxWeights(x, 1)
      )(make([4, 3])),
  ],
  diffusedRewardScore: [
    (make, _device, b) => {
      const [x, rewards, levels] = [make([4, 3, 7], bfloat16), make([4, 3]), make([3, 2])]
      return () => b.diffusedRewardScore(x, rewards, levels, 1)
    },
  ],
  weightedRewardGradient: [
    (make, _device, b) => {
      const [x, rewards, factor] = [make([4, 3, 2050], bfloat16), make([4, 3]), make([3])]
      return () => b.weightedRewardGradient(x, rewards, factor, 1, 1)
    },
  ],
  gradientNorm: [
    (make, device, b) => {
      const list = gradientList.map((shape) => make(shape, bfloat16))
      return () => b.gradientNorm(device, list, 1)
    },
    (_make, device, b) => () => b.gradientNorm(device, [], 1),
  ],
  adamw: [gradientList, []].map(
    (shapes): Case =>
      (make, _device, b) => {
        const list = (dtype: number) => shapes.map((shape) => make(shape, dtype))
        const steps = shapes.map(() => make([1], int32))
        const [parameters, gradients] = [list(bfloat16), list(float32)]
        const [first, second, masters] = [list(float32), list(float32), list(float32)]
        const clip = make([])
        const settings = new Float64Array(5 * shapes.length)
        return () => b.adamw(parameters, gradients, first, second, masters, steps, clip, settings)
      },
  ),
  ema: [
    (make, device, b) => {
      const [averages, values] = [float32, bfloat16].map((dtype) =>
        gradientList.map((shape) => make(shape, dtype)),
      ) as [TensorId[], TensorId[]]
      return () => b.ema(device, averages, values, 0.9)
    },
  ],
  activationBackward: kinds(3, (kind, make, b) => {
    const [x, dy] = [make([3, 5], bfloat16), make([3, 5], bfloat16)]
    return () => b.activationBackward(kind, x, dy)
  }),
  embedding: [
    (make, _device, b) => {
      const [table, ids] = [make([4, 5], bfloat16), make([2, 3], int32)]
      return () => b.embedding(table, ids)
    },
  ],
  embeddingBackward: [
    (make, _device, b) => {
      const [dy, ids] = [make([2, 3, 5]), make([2, 3], int32)]
      return () => b.embeddingBackward(dy, ids, 9)
    },
  ],
  rmsNorm: [
    (make, _device, b) => {
      const [x, weight, scale] = ([[4, 3, 5], [5], [2, 5]] as const).map((shape) =>
        make(shape, bfloat16),
      ) as [TensorId, TensorId, TensorId]
      return () => b.rmsNorm(x, weight, scale, 1e-5)
    },
  ],
  rmsNormBackward: [true, false].map(
    (given): Case =>
      (make, _device, b) => {
        const [x, dy] = [make([2, 131, 5], bfloat16), make([2, 131, 5], bfloat16)]
        const [weight, scale] = given ? [make([5], bfloat16), make([2, 5], bfloat16)] : [null, null]
        const rstd = make([262])
        return () => b.rmsNormBackward(x, dy, weight, scale, rstd)
      },
  ),
  layerNorm: [
    (make, _device, b) =>
      (
        (x) => () =>
          b.layerNorm(x, null, null, null, null, 1e-5)
      )(make([4, 5], bfloat16)),
  ],
  layerNormBackward: [
    [true, true],
    [true, false],
    [false, true],
    [false, false],
  ].map(
    ([affine, modulated]): Case =>
      (make, _device, b) => {
        const [x, dy] = [make([2, 67, 5]), make([2, 67, 5])]
        const [weight, bias] = affine ? [make([5]), make([5])] : [null, null]
        const [scale, shift] = modulated
          ? [affine ? make([2, 5]) : null, make([2, 5])]
          : [null, null]
        const [mean, rstd] = [make([134]), make([134])]
        return () => b.layerNormBackward(x, dy, weight, bias, scale, shift, mean, rstd)
      },
  ),
  groupNorm: [
    (make, _device, b) =>
      (
        (x) => () =>
          b.groupNorm(x, null, null, 3, 1e-5, true)
      )(make([2, 6, 5, 5], bfloat16)),
  ],
  groupNormBackward: [true, false].map(
    (given): Case =>
      (make, _device, b) => {
        const [x, dy] = [make([2, 6, 5, 5]), make([2, 6, 5, 5])]
        const [weight, bias] = given ? [make([6]), make([6])] : [null, null]
        const [mean, rstd] = [make([2, 3]), make([2, 3])]
        return () => b.groupNormBackward(x, dy, weight, bias, mean, rstd, false)
      },
  ),
  swiGlu: [
    (make, _device, b) => {
      const [x, y] = [make([3, 5], bfloat16), make([3, 5], bfloat16)]
      return () => b.swiGlu(x, y)
    },
  ],
  swiGluBackward: [
    (make, _device, b) => {
      const [x, y, dy] = [make([3, 5]), make([3, 5]), make([3, 5])]
      return () => b.swiGluBackward(x, y, dy)
    },
  ],
  gatedResidual: [
    (make, _device, b) => {
      const [x, h, gate] = [make([2, 3, 5]), make([2, 3, 5]), make([2, 5])]
      return () => b.gatedResidual(x, h, gate, true)
    },
  ],
  gatedResidualBackward: [
    (make, _device, b) => {
      const [h, gate, dy] = (
        [
          [3, 70, 5],
          [3, 5],
          [3, 70, 5],
        ] as const
      ).map((shape) => make(shape, bfloat16)) as [TensorId, TensorId, TensorId]
      return () => b.gatedResidualBackward(h, gate, dy, true)
    },
  ],
  rope: [
    (make, _device, b) => {
      const [x, cos, sin] = [make([2, 3, 4, 6], bfloat16), make([3, 3]), make([3, 3])]
      return () => b.rope(x, cos, sin, false)
    },
  ],
  attention: [
    (make, _device, b) => {
      const [q, k, v] = [make([2, 3, 4, 8]), make([2, 5, 4, 8]), make([2, 5, 4, 8])]
      return () => b.attention(q, k, v, null, 1)
    },
  ],
  attentionBackward: [
    (make, _device, b) => {
      const [q, y, dy] = [make([2, 3, 4, 8]), make([2, 3, 4, 8]), make([2, 3, 4, 8])]
      const [k, v, logSumExp] = [make([2, 5, 4, 8]), make([2, 5, 4, 8]), make([2, 4, 3])]
      return () => b.attentionBackward(q, k, v, null, y, dy, logSumExp, 1)
    },
  ],
  conv2d: [
    [1, [1, 1, 1, 1]],
    [2, [0, 1, 0, 1]],
  ].map(
    ([stride, padding]): Case =>
      (make, _device, b) => {
        const [x, weight] = [make([2, 3, 8, 7]), make([5, 3, 3, 3])]
        return () => b.conv2d(x, weight, null, stride as number, padding as number[])
      },
  ),
  conv2dBackwardData: [
    (make, _device, b) => {
      const [dy, weight] = [make([2, 5, 8, 7]), make([5, 3, 3, 3])]
      return () => b.conv2dBackwardData(dy, weight, [2, 3, 8, 7], 1, [1, 1, 1, 1])
    },
  ],
  conv2dBackwardWeight: [true, false].map(
    (hasBias): Case =>
      (make, _device, b) => {
        const [x, dy] = [make([2, 3, 8, 7]), make([2, 5, 8, 7])]
        return () => b.conv2dBackwardWeight(x, dy, [5, 3, 3, 3], 1, [1, 1, 1, 1], hasBias)
      },
  ),
  upsampleNearest2x: [
    (make, _device, b) =>
      (
        (x) => () =>
          b.upsampleNearest2x(x)
      )(make([2, 3, 5])),
  ],
  upsampleNearest2xBackward: [
    (make, _device, b) =>
      (
        (x) => () =>
          b.upsampleNearest2xBackward(x)
      )(make([2, 4, 6])),
  ],
  crossEntropy: [
    (make, _device, b) => {
      const [x, targets] = [make([3, 5], bfloat16), make([3], int32)]
      return () => b.crossEntropy(x, targets)
    },
  ],
  mse: [
    (make, _device, b) => {
      const [x, y] = [make([3, 5001], bfloat16), make([3, 5001], bfloat16)]
      return () => b.mse(x, y)
    },
  ],
}

/** What an operation adds to the tensors, to the bytes, and at its fullest moment; with which of its results are null. */
function taken(device: Device, of: Case) {
  const made: TensorId[] = []
  const make: Make = (shape, dtype = float32) => {
    const id = binding.fill(device.id, dtype, shape, 0)
    made.push(id)
    return id
  }
  const run = of(make, device.id, binding)
  device.resetPeakBytes()
  const before = device.memory()
  const result = run()
  const after = device.memory()
  const results = (Array.isArray(result) ? result : [result]) as unknown[]
  for (const id of [...made, ...results])
    if (typeof id === 'number') binding.dispose(id as TensorId)
  return {
    tensors: after.tensors - before.tensors,
    bytes: after.bytes - before.bytes,
    peak: after.peakBytes - before.bytes,
    nulls: results.map((id) => id === null),
  }
}

/** What has no tensor to count. */
const others = [
  ...['init', 'openDevice', 'deviceInfo', 'counters', 'resetPeak', 'trim', 'synchronize'],
  ...['read', 'readSync', 'dispose', 'isShared'],
]

describe('a device without memory', () => {
  const shapeOnly = new Device('shape-only', openShapeOnlyDevice())

  for (const [name, list] of Object.entries(cases))
    it(`counts what ${name} takes as the CPU does`, async () => {
      for (const [i, of] of list.entries()) {
        const before = shapeOnly.memory()
        expect(taken(shapeOnly, of), `case ${i}`).toEqual(taken(cpuDevice(), of))
        expect([shapeOnly.memory().tensors, shapeOnly.memory().bytes], `case ${i}`).toEqual([
          before.tensors,
          before.bytes,
        ])
      }
      await cpuDevice().synchronize()
    })

  it('has every function of the addon', () => {
    expect(Object.keys(cases).concat(others).sort()).toEqual(Object.keys(binding).sort())
  })

  it('reads zeros, knows shared memory and forgets what is disposed', async () => {
    const x = normal([2, 3], { seed: 1, device: shapeOnly })
    expect([...(await x.add(1).data())]).toEqual([0, 0, 0, 0, 0, 0])
    expect(x.dataSync().length).toBe(6)
    const bytes = shapeOnly.memory().bytes
    const flat = x.reshape([6])
    expect(shapeOnly.memory().bytes).toBe(bytes)
    x.dispose()
    expect(shapeOnly.memory().bytes).toBe(bytes)
    flat.dispose()
    expect(shapeOnly.memory().bytes).toBe(bytes - 24)
    expect(shapeOnly.info).toEqual({ kind: 'shape-only' })
    await shapeOnly.synchronize()
    expect(shapeOnly.releaseCached()).toBe(0)
  })

  it('takes no memory of the process, and leaves other devices alone', async () => {
    const before = memory()
    using huge = zeros([2 ** 20, 2 ** 20], { device: shapeOnly })
    expect(huge.bytes).toBe(2 ** 42)
    expect(shapeOnly.memory().bytes).toBeGreaterThanOrEqual(2 ** 42)
    expect(memory()).toEqual(before)
    const other = new Device('another', openShapeOnlyDevice())
    expect(other.memory()).toEqual({ tensors: 0, bytes: 0, pooledBytes: 0, peakBytes: 0 })
    const plan = train.planMemory({}, { batchSize: 1 })
    using x = normal([1000], { seed: 3, device: await device('cpu') })
    const sum = await x.square().sum().item()
    const { transformer, peak } = await plan
    // 6.15 billion parameters of two bytes.
    expect(transformer).toBe(2 * 6_154_908_736)
    expect(peak).toBeGreaterThan(transformer)
    expect(sum).toBe(await x.square().sum().item())
    expect(() => x.add(huge as never)).toThrow('expected a tensor on cpu, got one on shape-only')
  })
})
