import { describe, expect, test } from 'vitest'
import {
  concat,
  denoisingLoss,
  memory,
  perturb,
  schedules,
  stack,
  type Tensor,
  tensor,
  vjp,
  where,
} from '../../lib/index.js'
import {
  binaryFunctions,
  concatenated,
  elementwise,
  generator,
  logSumExp,
  permuted,
  product,
  randomValues,
  reduced,
  sliced,
  softmaxed,
  sum,
  unaryFunctions,
  type Values,
  values,
} from '../reference.js'
import { expectGradients } from './gradients.js'

const draw = generator(1)
/** Away from the kinks at 0 and 1, where a difference is no derivative. */
const smooth = (shape: readonly number[], positive = false): Values => {
  const x = randomValues(draw, shape, 'float32', { positive, most: 2 })
  return values(shape, (i) => {
    const value = x.data[i] as number
    return Math.fround(Math.abs(value) < 0.1 ? value + Math.sign(value || 1) * 0.2 : value)
  })
}

const shapes = [[], [1], [3], [17], [2, 5], [65], [0]]

describe('unary', () => {
  const positive = new Set(['sqrt', 'rsqrt', 'log', 'reciprocal'])
  const names = [
    'neg',
    'abs',
    'square',
    'sqrt',
    'rsqrt',
    'reciprocal',
    'exp',
    'log',
    'sin',
    'cos',
    'tanh',
    'sigmoid',
    'silu',
    'gelu',
    'relu',
  ] as const
  for (const name of names)
    test(name, async () => {
      for (const shape of shapes)
        await expectGradients(`${name} of [${shape}]`, {
          inputs: [smooth(shape, positive.has(name))],
          op: (x) => x[name](),
          reference: (x) => elementwise(unaryFunctions[name], x),
        })
    })

  test('gelu by tanh', () =>
    expectGradients('geluTanh', {
      inputs: [smooth([33])],
      op: (x) => x.gelu('tanh'),
      reference: (x) => elementwise(unaryFunctions.geluTanh, x),
    }))

  test('clip', () =>
    expectGradients('clip', {
      inputs: [smooth([41])],
      op: (x) => x.clip(-0.75, 1.05),
      reference: (x) => elementwise((v) => Math.min(1.05, Math.max(-0.75, v)), x),
    }))

  test('infinite cotangents do not leak through what is clipped away', async () => {
    const x = tensor([-2, 0.5, 2])
    const { pullback } = vjp((v) => v.clip(0, 1), [x])
    const [gradient] = pullback(tensor([1 / 0, 3, Number.NaN]))
    expect([...(await gradient.data())]).toEqual([0, 3, 0])
  })
})

describe('binary', () => {
  const pairs: [number[], number[]][] = [
    [[3], [3]],
    [[], [4]],
    [[4], []],
    [[2, 3], [3]],
    [[3], [2, 3]],
    [
      [2, 1, 3],
      [4, 1],
    ],
    [
      [1, 5],
      [4, 1],
    ],
    [
      [2, 1, 2, 1],
      [1, 3, 1, 2],
    ],
    [
      [0, 3],
      [1, 3],
    ],
  ]
  for (const name of ['add', 'sub', 'mul', 'div', 'pow', 'maximum', 'minimum'] as const)
    test(name, async () => {
      for (const [a, b] of pairs)
        await expectGradients(`${name} of [${a}] and [${b}]`, {
          inputs: [smooth(a, name === 'pow'), smooth(b, name === 'div')],
          op: (x, y) => x[name](y),
          reference: (x, y) => elementwise(binaryFunctions[name], x, y),
          tolerance: 4e-6,
        })
    })

  for (const name of ['add', 'sub', 'mul', 'div', 'pow', 'maximum', 'minimum'] as const)
    test(`${name} with a number`, () =>
      expectGradients(`${name} with 1.5`, {
        inputs: [smooth([19], name === 'pow')],
        op: (x) => x[name](1.5),
        reference: (x) => elementwise((v) => binaryFunctions[name](v, 1.5), x),
      }))

  test('addScaled', () =>
    expectGradients('addScaled', {
      inputs: [smooth([2, 3]), smooth([2, 3])],
      op: (x, y) => x.addScaled(y, -0.5),
      reference: (x, y) => elementwise((a, b) => a - 0.5 * b, x, y),
    }))

  test('one tensor twice', async () => {
    for (const name of ['add', 'sub', 'mul', 'div'] as const)
      await expectGradients(`${name} of x and x`, {
        inputs: [smooth([5])],
        op: (x) => x[name](x),
        reference: (x) => elementwise(binaryFunctions[name], x, x),
      })
  })

  test('one operand constant', async () => {
    for (const name of ['sub', 'mul', 'div', 'pow'] as const)
      for (const by of [[0], [1]])
        await expectGradients(`${name} by ${by}`, {
          inputs: [smooth([2, 3], true), smooth([3], true)],
          by,
          op: (x, y) => x[name](y),
          reference: (x, y) => elementwise(binaryFunctions[name], x, y),
          tolerance: 4e-6,
        })
  })

  test('pow at 0 and with exponent 0', async () => {
    const [a, b] = [tensor([0, 0, 2]), tensor([2, 0, 0])]
    const { pullback } = vjp((x, y) => x.pow(y), [a, b])
    const [da, db] = pullback(tensor([1, 1, 1]))
    expect([...(await da.data())]).toEqual([0, 0, 0])
    expect([...(await db.data())]).toEqual([0, 0, Math.fround(Math.log(2))])
  })

  test('equal operands of maximum share the cotangent', async () => {
    const { pullback } = vjp((x, y) => x.maximum(y), [tensor([1, 2, 3]), tensor([1, 3, 2])])
    const [da, db] = pullback(tensor([4, 5, 6]))
    expect([...(await da.data())]).toEqual([2, 0, 6])
    expect([...(await db.data())]).toEqual([2, 5, 0])
  })

  test('where', async () => {
    for (const [c, a, b] of [
      [[4], [4], [4]],
      [[2, 3], [3], [2, 1]],
      [[3], [2, 3], []],
    ] as const) {
      const condition = randomValues(draw, c, 'uint8')
      const mask = values(c, (i) => (condition.data[i] as number) % 2)
      await expectGradients(`where of [${c}], [${a}], [${b}]`, {
        inputs: [smooth(a), smooth(b)],
        op: (x, y) =>
          where(tensor(Uint8Array.from(mask.data), { shape: [...c] }) as Tensor<'uint8'>, x, y),
        reference: (x, y) => elementwise((m, p, q) => (m ? p : q), mask, x, y),
      })
    }
  })
})

describe('layout', () => {
  const x = smooth([2, 3, 4])

  test('reshape, permute, transpose, broadcastTo', async () => {
    await expectGradients('reshape', {
      inputs: [x],
      op: (v) => v.reshape([4, -1]),
      reference: (v) => ({ ...v, shape: [4, 6] }),
    })
    await expectGradients('permute', {
      inputs: [x],
      op: (v) => v.permute([2, 0, 1]),
      reference: (v) => permuted(v, [2, 0, 1]),
    })
    await expectGradients('transpose', {
      inputs: [x],
      op: (v) => v.transpose(),
      reference: (v) => permuted(v, [0, 2, 1]),
    })
    await expectGradients('broadcastTo', {
      inputs: [smooth([3, 1])],
      op: (v) => v.broadcastTo([2, 3, 4]),
      reference: (v) =>
        elementwise(
          (a) => a,
          v,
          values([2, 1, 4], () => 0),
        ),
    })
  })

  test('slice', async () => {
    for (const [begin, size] of [
      [
        [0, 0, 0],
        [2, 3, 4],
      ],
      [
        [1, 1, 2],
        [1, 2, 1],
      ],
      [
        [0, 2, 0],
        [2, 0, 4],
      ],
    ] as const)
      await expectGradients(`slice from [${begin}] of [${size}]`, {
        inputs: [x],
        op: (v) => v.slice(begin, size),
        reference: (v) => sliced(v, begin, size),
      })
  })

  test('concat and stack', async () => {
    for (const by of [undefined, [1]])
      await expectGradients('concat', {
        inputs: [smooth([2, 3]), smooth([2, 1]), smooth([2, 0]), smooth([2, 2])],
        ...(by && { by }),
        op: (...parts) => concat(parts, 1),
        reference: (...parts) => concatenated(parts, 1),
      })
    await expectGradients('stack', {
      inputs: [smooth([2, 3]), smooth([2, 3])],
      op: (...parts) => stack(parts, 1),
      reference: (a, b) =>
        concatenated(
          [a, b].map(({ data }) => ({ data, shape: [2, 1, 3] })),
          1,
        ),
    })
  })

  test('cast and clone', async () => {
    const wide = tensor([1, 2, 3])
    const { value, pullback } = vjp((v) => v.cast('bfloat16').clone().cast('float32'), [wide])
    expect([...(await value.data())]).toEqual([1, 2, 3])
    const [gradient] = pullback(tensor([1, 1 + 2 ** -9, -3]))
    // The cotangent passes through bfloat16, too: 1 + 2^-9 is a tie that goes to 1.
    expect([...(await gradient.data())]).toEqual([1, 1, -3])
  })

  test('integers are constants', async () => {
    const { pullback } = vjp((v) => v.cast('int32').cast('float32').mul(v), [tensor([1.5, 2.5])])
    expect([...(await pullback(tensor([1, 1]))[0].data())]).toEqual([1, 2])
  })
})

describe('reductions', () => {
  const axesOf: (readonly number[] | undefined)[] = [undefined, [0], [1], [-1], [0, 2], [1, 2], []]
  const references = {
    sum,
    mean: (v: number[]) => sum(v) / v.length,
    max: (v: number[]) => Math.max(...v),
    min: (v: number[]) => Math.min(...v),
    logSumExp,
  }
  for (const name of ['sum', 'mean', 'max', 'min', 'logSumExp'] as const)
    test(name, async () => {
      for (const axes of axesOf)
        for (const keepDims of [false, true]) {
          const positions = (axes ?? [0, 1, 2]).map((axis) => (axis < 0 ? axis + 3 : axis))
          await expectGradients(`${name} over [${axes}], keepDims ${keepDims}`, {
            inputs: [smooth([2, 3, 5])],
            op: (x) =>
              axes === undefined && !keepDims
                ? x[name]()
                : x[name](axes ?? [0, 1, 2], { keepDims }),
            reference: (x) => reduced(x, positions, references[name], keepDims),
          })
        }
    })

  test('equal largest elements share the cotangent', async () => {
    const { pullback } = vjp((x) => x.max(1), [tensor([[1, 7, 7, 7]])])
    const [gradient] = pullback(tensor([6]))
    expect([...(await gradient.data())]).toEqual([0, 2, 2, 2])
  })

  test('softmax', async () => {
    for (const axis of [0, 1, 2])
      await expectGradients(`softmax along ${axis}`, {
        inputs: [smooth([3, 1, 7])],
        op: (x) => x.softmax(axis),
        reference: (x) => softmaxed(x, axis),
      })
  })
})

describe('matmul', () => {
  const flags = [false, true]
  const matrix = (rows: number, columns: number, transposed: boolean, batch: number[] = []) =>
    smooth(transposed ? [...batch, columns, rows] : [...batch, rows, columns])

  test('transposes and batches', async () => {
    for (const transA of flags)
      for (const transB of flags)
        for (const [batchA, batchB] of [
          [[], []],
          [[2], [2]],
          [[2], []],
          [[], [2]],
          [[2, 2], []],
        ] as const)
          for (const by of [undefined, [0], [1]])
            await expectGradients(
              `[${batchA}] x [${batchB}], transA ${transA}, transB ${transB}, by ${by}`,
              {
                inputs: [matrix(3, 5, transA, [...batchA]), matrix(5, 2, transB, [...batchB])],
                ...(by && { by }),
                op: (a, b) => a.matmul(b, { transA, transB }),
                reference: (a, b) => product(a, b, transA, transB),
              },
            )
  })

  test('bias and activation', async () => {
    for (const activation of [
      'none',
      'relu',
      'gelu',
      'geluTanh',
      'silu',
      'tanh',
      'sigmoid',
    ] as const)
      for (const batch of [[], [2]])
        await expectGradients(`${activation}, batch [${batch}]`, {
          inputs: [matrix(3, 4, false, batch), matrix(4, 5, true), smooth([5])],
          op: (a, b, bias) => a.matmul(b, { transB: true, bias, activation }),
          reference: (a, b, bias) =>
            elementwise(
              activation === 'none' ? (v) => v : unaryFunctions[activation],
              elementwise(binaryFunctions.add, product(a, b, false, true), bias),
            ),
          tolerance: 4e-6,
        })
  })

  test('a recorded product has the bits of one that is not', async () => {
    const [a, b] = [smooth([7, 9]), smooth([9, 5])].map(
      (x) => tensor(x.data, { shape: [...x.shape] }) as Tensor,
    ) as [Tensor, Tensor]
    for (const activation of ['none', 'gelu', 'silu', 'tanh'] as const) {
      const plain = a.matmul(b, { activation })
      const { value } = vjp((x) => x.matmul(b, { activation }), [a])
      expect(await value.data()).toEqual(await plain.data())
    }
  })
})

describe('perturb', () => {
  test('dx0 = alpha dy, the noise constant', async () => {
    const schedule = schedules.flow({ shift: 3 })
    const t = Float32Array.of(0.1, 0.5, 0.9)
    for (const dtype of ['float32', 'bfloat16'] as const) {
      const x0 = tensor(
        Float32Array.from({ length: 15 }, (_, i) => Math.sin(i)),
        { shape: [3, 5], dtype },
      )
      const { value, pullback } = vjp(
        (x) => {
          const { xt, noise } = perturb(x, { t, schedule, seed: 3, returnNoise: true })
          return [xt, noise]
        },
        [x0],
      )
      expect(value.length).toBe(2)
      const dy = tensor(
        Float32Array.from({ length: 15 }, (_, i) => Math.cos(i)),
        { shape: [3, 5], dtype },
      )
      const [gradient] = pullback([dy, dy])
      const [got, given] = [await gradient.data(), await dy.data()]
      for (const [i, x] of got.entries()) {
        const wanted = (given[i] as number) * schedule.alpha(t[Math.floor(i / 5)] as number)
        expect(Math.abs(x - wanted)).toBeLessThanOrEqual(
          Math.abs(wanted) * (dtype === 'float32' ? 2 ** -22 : 2 ** -8),
        )
      }
    }
    expect(memory().tensors).toBeGreaterThan(0)
  })
})

describe('denoisingLoss', () => {
  test('gradients by the output: of the mean, and of each sample', async () => {
    const schedule = schedules.flow()
    const t = Float32Array.of(0.2, 0.7)
    const place = (at: (i: number) => number) =>
      tensor(
        Float32Array.from({ length: 6 }, (_, i) => at(i)),
        { shape: [2, 3] },
      )
    const [x0, output] = [place(Math.sin), place(Math.cos)]
    const of = (o: Tensor<'float32', readonly [2, 3]>) =>
      denoisingLoss({ x0, prediction: 'flow', output: o, t, schedule, seed: 4, weighting: 'x0' })
    const { perSample } = of(output)
    const losses = await perSample.data()
    const { pullback } = vjp((o) => of(o).perSample, [output])
    const [gradient] = pullback(tensor([3, -2]) as never)
    const got = await gradient.data()
    const mean = vjp((o) => of(o).loss, [output])
    const gotMean = await mean.pullback(tensor(4, { shape: [] }) as never)[0].data()
    // The loss is quadratic: its central difference is exact at any step.
    for (let i = 0; i < 6; i++) {
      const moved = (by: number) =>
        of(place((j) => Math.cos(j) + (i === j ? by : 0))).perSample.data()
      const [above, below] = [await moved(0.5), await moved(-0.5)]
      const sample = Math.floor(i / 3)
      const slope = (above[sample] as number) - (below[sample] as number)
      expect(Math.abs((got[i] as number) - slope * ([3, -2][sample] as number))).toBeLessThan(1e-5)
      expect(Math.abs((gotMean[i] as number) - (4 * slope) / 2)).toBeLessThan(1e-5)
      expect(above[1 - sample]).toBe(losses[1 - sample])
    }
  })
})
