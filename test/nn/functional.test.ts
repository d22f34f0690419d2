import { describe, expect, test } from 'vitest'
import { nn, type Tensor, tensor, vjp } from '../../lib/index.js'
import { expectGradients } from '../autograd/gradients.js'
import { expectRefusal, expectValues } from '../expectations.js'
import {
  elementwise,
  generator,
  logSumExp,
  randomValues,
  sum,
  unaryFunctions,
  type Values,
  values,
} from '../reference.js'
import * as reference from './reference.js'

const draw = generator(7)
const random = (...shape: number[]) => randomValues(draw, shape, 'float32', { most: 1.5 })
const place = (x: Values) => tensor(x.data, { shape: [...x.shape] }) as Tensor<'float32'>
type F = Tensor<'float32'>

/** The value within a relative tolerance of its largest element, and the gradients. */
async function expectFunction(
  what: string,
  inputs: Values[],
  op: (...x: F[]) => Tensor,
  twin: (...x: Values[]) => Values,
  { tolerance = 4e-6, floor, by }: { tolerance?: number; floor?: number; by?: number[] } = {},
): Promise<void> {
  const expected = twin(...inputs)
  const scale = expected.data.reduce((most, x) => Math.max(most, Math.abs(x)), 1e-3)
  await expectValues(what, op(...inputs.map(place)), expected, { absolute: tolerance * scale })
  await expectGradients(what, {
    inputs,
    op: op as (...x: Tensor[]) => Tensor,
    reference: twin,
    tolerance,
    ...(by && { by }),
    ...(floor && { floor }),
  })
}

describe('linear', () => {
  test('one, two and three axes, with and without bias and activation', async () => {
    for (const shape of [[5], [3, 5], [2, 3, 5], [0, 5]]) {
      const [x, w, b] = [random(...shape), random(4, 5), random(4)]
      await expectFunction(
        `linear of [${shape}]`,
        [x, w],
        (v, weight) => nn.linear(v, weight),
        reference.linear,
      )
      await expectFunction(
        `linear of [${shape}] with bias`,
        [x, w, b],
        (v, weight, bias) => nn.linear(v, weight, bias),
        reference.linear,
      )
    }
    await expectFunction(
      'linear with gelu',
      [random(3, 5), random(4, 5), random(4)],
      (v, weight, bias) => nn.linear(v, weight, bias, 'gelu'),
      (v, weight, bias) => elementwise(unaryFunctions.gelu, reference.linear(v, weight, bias)),
    )
  })

  test('refusals', () => {
    const [x, w, b] = [place(random(2, 5)), place(random(4, 3)), place(random(3))]
    expectRefusal(
      () => nn.linear(x, w),
      'ERR_SHAPE',
      'weight: expected [out, 5] to go with x [2, 5], got [4, 3]',
    )
    expectRefusal(() => nn.linear(x, w, b), 'ERR_SHAPE', /weight/)
  })
})

test('embedding', async () => {
  const table = random(7, 3)
  const ids = Int32Array.of(0, 6, 6, 2, 0, 6)
  for (const shape of [[6], [2, 3]])
    await expectFunction(
      `embedding of ids [${shape}]`,
      [table],
      (t) => nn.embedding(tensor(ids, { shape }) as Tensor<'int32'>, t),
      (t) =>
        values(
          [...shape, 3],
          (i) => t.data[(ids[Math.floor(i / 3)] as number) * 3 + (i % 3)] as number,
        ),
    )
})

describe('norms', () => {
  for (const [batch, tokens, size] of [
    [1, 1, 5],
    [2, 3, 17],
    [3, 1, 8],
    [2, 70, 3],
  ] as const) {
    const x = random(batch, tokens, size)
    const [weight, bias] = [random(size), random(size)]
    const [scale, shift] = [random(batch, size), random(batch, size)]

    test(`rmsNorm of [${batch}, ${tokens}, ${size}]`, async () => {
      const eps = 1e-3
      await expectFunction(
        'plain',
        [x],
        (v) => nn.rmsNorm(v, { eps }),
        (v) => reference.norm(v, eps, false, {}),
      )
      await expectFunction(
        'with weight',
        [x, weight],
        (v, w) => nn.rmsNorm(v, { eps, weight: w }),
        (v, w) => reference.norm(v, eps, false, { weight: w }),
      )
      await expectFunction(
        'with weight and scale',
        [x, weight, scale],
        (v, w, s) => nn.rmsNorm(v, { eps, weight: w, scale: s }),
        (v, w, s) => reference.norm(v, eps, false, { weight: w, scale: s }),
      )
    })

    test(`layerNorm of [${batch}, ${tokens}, ${size}]`, async () => {
      const eps = 1e-3
      await expectFunction(
        'plain',
        [x],
        (v) => nn.layerNorm(v, { eps }),
        (v) => reference.norm(v, eps, true, {}),
      )
      await expectFunction(
        'with weight and bias',
        [x, weight, bias],
        (v, w, b) => nn.layerNorm(v, { eps, weight: w, bias: b }),
        (v, w, b) => reference.norm(v, eps, true, { weight: w, bias: b }),
      )
      await expectFunction(
        'with scale and shift',
        [x, scale, shift],
        (v, s, h) => nn.layerNorm(v, { eps, scale: s, shift: h }),
        (v, s, h) => reference.norm(v, eps, true, { scale: s, shift: h }),
      )
      await expectFunction(
        'with everything',
        [x, weight, bias, scale, shift],
        (v, w, b, s, h) => nn.layerNorm(v, { eps, weight: w, bias: b, scale: s, shift: h }),
        (v, w, b, s, h) => reference.norm(v, eps, true, { weight: w, bias: b, scale: s, shift: h }),
      )
    })
  }

  test('groupNorm', async () => {
    const eps = 1e-3
    for (const [shape, groups] of [
      [[2, 4, 3, 5], 2],
      [[1, 6, 1, 1], 2],
      [[3, 5, 2], 5],
      [[2, 3, 4, 4], 1],
    ] as const)
      for (const activation of ['none', 'silu'] as const) {
        const channels = shape[1]
        await expectFunction(
          `groupNorm of [${shape}] in ${groups}, ${activation}`,
          [random(...shape), random(channels), random(channels)],
          (x, weight, bias) => nn.groupNorm(x, { groups, eps, weight, bias, activation }),
          (x, weight, bias) =>
            reference.groupNorm(x, weight, bias, groups, eps, activation === 'silu'),
          { tolerance: 2e-5 },
        )
      }
  })

  test('refusals', () => {
    const [x, w] = [place(random(2, 3, 4)), place(random(3))]
    expectRefusal(
      () => nn.rmsNorm(x, { eps: 1e-5, weight: w }),
      'ERR_SHAPE',
      'options.weight: expected shape [4], got [3]',
    )
    expectRefusal(
      () => nn.layerNorm(x, { eps: 1e-5, scale: w }),
      'ERR_SHAPE',
      'options.scale: expected shape [2, 4], got [3]',
    )
    expectRefusal(
      () => nn.groupNorm(x, { groups: 2, eps: 1e-5 }),
      'ERR_SHAPE',
      'options.groups: expected a divisor of 3 channels, got 2',
    )
    expectRefusal(
      () => nn.rmsNorm(x, { epsilon: 1e-5 } as never),
      'ERR_CONFIG',
      /^options.epsilon: unknown option/,
    )
  })
})

test('swiGlu', () =>
  expectFunction('swiGlu', [random(3, 21), random(3, 21)], nn.swiGlu, (a, b) =>
    elementwise((x, y) => unaryFunctions.silu(x) * y, a, b),
  ))

test('gatedResidual', async () => {
  for (const tanh of [true, false])
    for (const [batch, tokens, size] of [
      [2, 3, 5],
      [1, 67, 4],
    ] as const)
      for (const by of [[0, 1, 2], [0], [2]])
        await expectFunction(
          `tanh ${tanh}, [${batch}, ${tokens}, ${size}], by ${by}`,
          [random(batch, tokens, size), random(batch, tokens, size), random(batch, size)],
          (x, h, g) => nn.gatedResidual(x, h, g, { tanh }),
          (x, h, g) =>
            elementwise((a, b, c) => a + (tanh ? Math.tanh(c) : c) * b, x, h, {
              shape: [batch, 1, size],
              data: g.data,
            }),
          { by },
        )
})

test('rope', async () => {
  for (const rows of [3, 6]) {
    const angles = random(rows, 4)
    const [cos, sin] = [elementwise(Math.cos, angles), elementwise(Math.sin, angles)]
    const stored = [cos, sin].map((x) => ({ ...x, data: x.data.map(Math.fround) })) as [
      Values,
      Values,
    ]
    await expectFunction(
      `rope with ${rows} rows of angles`,
      [random(2, 3, 5, 8)],
      (x) => nn.rope(x, place(stored[0]), place(stored[1])),
      (x) => reference.rope(x, ...stored),
    )
  }
  const [x, c] = [place(random(2, 3, 5, 8)), place(random(4, 4))]
  expectRefusal(() => nn.rope(x, c, c), 'ERR_SHAPE', /^cos: expected \[3, 4\] or \[6, 4\]/)
})

describe('attention', () => {
  for (const [batch, queries, keys, heads, size] of [
    [1, 1, 1, 1, 4],
    [2, 3, 5, 2, 8],
    [1, 7, 7, 3, 5],
  ] as const)
    for (const masked of [false, true])
      test(`[${batch}, ${queries}, ${heads}, ${size}], ${keys} keys, mask ${masked}`, async () => {
        const mask = values([batch, keys], (i) => (i % 3 === 1 ? 0 : 1))
        const options = () =>
          masked
            ? {
                mask: tensor(Uint8Array.from(mask.data), {
                  shape: [batch, keys],
                }) as Tensor<'uint8'>,
              }
            : {}
        await expectFunction(
          'attention',
          [
            random(batch, queries, heads, size),
            random(batch, keys, heads, size),
            random(batch, keys, heads, size),
          ],
          (q, k, v) => nn.attention(q, k, v, options()),
          (q, k, v) => reference.attention(q, k, v, masked ? mask : undefined, 1 / Math.sqrt(size)),
          // With one key the weights are constant, and the gradients of q and k are rounding errors.
          { tolerance: 2e-5, floor: 1 },
        )
      })

  test('queries that see no key', async () => {
    const [q, k, v] = [random(2, 3, 1, 4), random(2, 2, 1, 4), random(2, 2, 1, 4)].map(place) as [
      F,
      F,
      F,
    ]
    const mask = tensor(Uint8Array.of(0, 0, 1, 1), { shape: [2, 2] }) as Tensor<'uint8'>
    const { value, pullback } = vjp(
      (a: F, b: F, c: F) => nn.attention(a, b, c, { mask, scale: 0.3 }) as F,
      [q, k, v],
    )
    expect([...(await value.data())].slice(0, 12)).toEqual(new Array(12).fill(0))
    for (const gradient of pullback(value)) {
      const data = [...(await gradient.data())]
      expect(data.slice(0, data.length / 2).every((x) => x === 0)).toBe(true)
      expect(data.every(Number.isFinite)).toBe(true)
    }
  })

  test('refusals', () => {
    const [q, k] = [place(random(2, 3, 1, 4)), place(random(2, 3, 1, 5))]
    expectRefusal(
      () => nn.attention(q, k, k),
      'ERR_SHAPE',
      'k: expected shape [2, 3, 1, 4], got [2, 3, 1, 5]',
    )
  })
})

describe('conv2d', () => {
  for (const [shape, outputs, kernel, stride, padding] of [
    [[1, 1, 1, 1], 1, 1, 1, [0, 0, 0, 0]],
    [[2, 3, 5, 7], 4, 3, 1, [1, 1, 1, 1]],
    [[2, 3, 6, 6], 2, 3, 2, [0, 1, 0, 1]],
    [[1, 2, 5, 4], 3, 1, 1, [0, 0, 0, 0]],
    [[1, 2, 7, 5], 3, 3, 2, [1, 1, 1, 1]],
  ] as const)
    for (const hasBias of [true, false])
      test(`[${shape}] to ${outputs}, ${kernel}x${kernel}, stride ${stride}, padding [${padding}], bias ${hasBias}`, () =>
        expectFunction(
          'conv2d',
          [
            random(...shape),
            random(outputs, shape[1], kernel, kernel),
            ...(hasBias ? [random(outputs)] : []),
          ],
          (x, weight, bias) => nn.conv2d(x, weight, { bias, stride, padding }),
          (x, weight, bias) => reference.conv2d(x, weight, bias, stride, padding),
          { tolerance: 1e-5 },
        ))

  test('gradients of one operand alone', async () => {
    for (const by of [[0], [1], [2]])
      await expectFunction(
        `by ${by}`,
        [random(1, 2, 4, 4), random(3, 2, 3, 3), random(3)],
        (x, weight, bias) => nn.conv2d(x, weight, { bias, padding: 1 }),
        (x, weight, bias) => reference.conv2d(x, weight, bias, 1, [1, 1, 1, 1]),
        { by, tolerance: 1e-5 },
      )
  })

  test('refusals', () => {
    const [x, w] = [place(random(1, 2, 4, 4)), place(random(3, 5, 3, 3))]
    expectRefusal(
      () => nn.conv2d(x, w),
      'ERR_SHAPE',
      'weight: expected [outputs, 2, rows, columns], got [3, 5, 3, 3]',
    )
    const fits = place(random(3, 2, 3, 3))
    expectRefusal(
      () => nn.conv2d(x, fits, { padding: 3 }),
      'ERR_RANGE',
      /^options.padding: expected an integer from 0 to 2/,
    )
    expectRefusal(
      () => nn.conv2d(x, fits, { stride: 3 as never }),
      'ERR_RANGE',
      'options.stride: expected 1 or 2, got 3',
    )
  })
})

test('upsampleNearest2x', () =>
  expectFunction('upsample', [random(2, 3, 3, 5)], nn.upsampleNearest2x, reference.upsampled))

describe('losses', () => {
  test('crossEntropy', async () => {
    for (const [rows, classes] of [
      [1, 1],
      [5, 7],
      [3, 70],
    ] as const) {
      const targets = Int32Array.from({ length: rows }, (_, i) => (i * 3) % classes)
      await expectFunction(
        `crossEntropy of [${rows}, ${classes}]`,
        [random(rows, classes)],
        (x) => nn.crossEntropy(x, tensor(targets) as Tensor<'int32'>).mul(1.5),
        (x) =>
          values([], () => {
            const losses = Array.from(targets, (target, row) => {
              const logits = [...x.data.subarray(row * classes, (row + 1) * classes)]
              return logSumExp(logits) - (logits[target] as number)
            })
            return (1.5 * sum(losses)) / rows
          }),
        { tolerance: 1e-5 },
      )
    }
  })

  test('mse', async () => {
    for (const by of [[0, 1], [0], [1]])
      await expectFunction(
        `mse by ${by}`,
        [random(3, 7), random(3, 7)],
        (x, y) => nn.mse(x, y).mul(-2),
        (x, y) =>
          values([], () => (-2 * sum([...elementwise((a, b) => (a - b) ** 2, x, y).data])) / 21),
        { by },
      )
  })
})

test('bfloat16 parameters get bfloat16 gradients', async () => {
  const half = (x: Values) => tensor(x.data, { shape: [...x.shape], dtype: 'bfloat16' })
  const [x, weight, scale] = [random(2, 3, 8), random(8), random(2, 8)]
  const { pullback, value } = vjp(
    (a, b, c) => nn.rmsNorm(a, { eps: 1e-3, weight: b, scale: c }),
    [half(x), half(weight), half(scale)],
  )
  const gradients = pullback(value)
  expect(gradients.map(({ dtype }) => dtype)).toEqual(['bfloat16', 'bfloat16', 'bfloat16'])
  const exact = vjp(
    (a, b, c) => nn.rmsNorm(a, { eps: 1e-3, weight: b, scale: c }),
    [half(x).cast('float32'), half(weight).cast('float32'), half(scale).cast('float32')],
  )
  for (const [i, gradient] of exact.pullback(exact.value).entries()) {
    const [got, wanted] = [await (gradients[i] as Tensor).data(), await gradient.data()]
    const scaleOf = Math.max(...wanted.map(Math.abs))
    for (const [j, w] of wanted.entries())
      expect(Math.abs((got[j] as number) - w)).toBeLessThan(0.03 * scaleOf)
  }
})
