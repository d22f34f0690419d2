import { describe, expect, it } from 'vitest'
import { Parameter } from '../../lib/autograd/parameter.js'
import {
  type FloatDType,
  memory,
  normal,
  optim,
  type Tensor,
  tidy,
  zeros,
} from '../../lib/index.js'
import { expectRefusal } from '../expectations.js'

const shapes = [[1], [3, 5], [0], [8193], []]

function parametersOf(dtype: FloatDType, seed = 0): Parameter[] {
  return shapes.map(
    (shape, i) =>
      new Parameter(`p${i}`, normal(shape, { seed: seed + i, dtype }) as Tensor<FloatDType>),
  )
}

async function valuesOf(parameters: readonly Parameter[]): Promise<Buffer[]> {
  return Promise.all(parameters.map(async ({ value }) => Buffer.from(await value.rawData())))
}

function dispose(...lists: (readonly { dispose(): void }[])[]): void {
  for (const list of lists) for (const item of list) item.dispose()
}

/** Overwrites the values with the draw of a step. */
function move(parameters: readonly Parameter[], step: number): void {
  for (const [i, { value }] of parameters.entries()) {
    using next = normal(value.shape, { seed: 50 + i, offset: step, dtype: value.dtype })
    ;(value as Tensor).copyFrom(next as Tensor)
  }
}

describe('Ema', () => {
  it.each(['float32', 'bfloat16'] as const)(
    'follows the definition in float64, %s',
    async (dtype) => {
      const parameters = parametersOf(dtype)
      using ema = new optim.Ema(parameters, { decay: 0.9 })
      const exact = await Promise.all(
        parameters.map(async ({ value }) => Float64Array.from(await value.data())),
      )
      for (let step = 0; step < 100; step++) {
        move(parameters, step)
        ema.update()
        for (const [i, { value }] of parameters.entries()) {
          const now = await value.data()
          const average = exact[i] as Float64Array
          for (let j = 0; j < average.length; j++)
            average[j] = 0.9 * (average[j] as number) + 0.1 * (now[j] as number)
        }
      }
      const { tensors, settings } = ema.state()
      expect(settings).toEqual({ decay: 0.9, parameters: parameters.map(({ name }) => name) })
      for (const [i, average] of exact.entries()) {
        const x = tensors[`p${i}`] as Tensor
        expect(x.dtype).toBe('float32')
        const got = await x.data()
        for (let j = 0; j < average.length; j++)
          expect(Math.abs((got[j] as number) - (average[j] as number))).toBeLessThan(3e-6)
      }
      dispose(parameters)
    },
  )

  it.each(['float32', 'bfloat16'] as const)(
    'swaps averages in and out without a trace, %s',
    async (dtype) => {
      const parameters = parametersOf(dtype)
      using ema = new optim.Ema(parameters, { decay: 0.5 })
      move(parameters, 1)
      ema.update()
      const own = await valuesOf(parameters)
      const before = memory()
      ema.swap()
      expect(ema.swapped).toBe(true)
      for (const [i, { value }] of parameters.entries()) {
        using average = (ema.state().tensors[`p${i}`] as Tensor).cast(dtype)
        expect(await value.rawData()).toEqual(await average.rawData())
      }
      expect(await valuesOf(parameters)).not.toEqual(own)
      expectRefusal(
        () => ema.update(),
        'ERR_CONFIG',
        'update: the parameters hold the averages; swap() back first',
      )
      ema.swap()
      expect(ema.swapped).toBe(false)
      expect(await valuesOf(parameters)).toEqual(own)
      expect([memory().tensors, memory().bytes]).toEqual([before.tensors, before.bytes])
      dispose(parameters)
    },
  )

  it('writes averages to a copy of the model, and restores a saved state', async () => {
    const parameters = parametersOf('float32')
    using ema = new optim.Ema(parameters, { decay: 0.5 })
    move(parameters, 1)
    ema.update()
    const copy = parametersOf('bfloat16', 20)
    ema.copyTo(copy.toReversed())
    for (const [i, { value }] of copy.entries()) {
      using average = (ema.state().tensors[`p${i}`] as Tensor).cast('bfloat16')
      expect(await value.rawData()).toEqual(await average.rawData())
    }
    const others = parametersOf('float32', 30)
    using restored = new optim.Ema(others)
    restored.load(ema.state())
    for (const [name, x] of Object.entries(ema.state().tensors))
      expect(await restored.state().tensors[name]?.rawData()).toEqual(await x.rawData())

    const stranger = new Parameter('q', zeros([1]))
    expectRefusal(
      () => ema.copyTo([stranger]),
      'ERR_CONFIG',
      'parameters: "q" is not averaged here',
    )
    const other = new Parameter('p0', zeros([2]))
    expectRefusal(() => ema.copyTo([other]), 'ERR_SHAPE', 'p0: expected shape [1], got [2]')
    expectRefusal(
      () => restored.load({ ...ema.state(), tensors: {} }),
      'ERR_CONFIG',
      'state: the tensor "p0" is missing',
    )
    dispose(parameters, copy, others, [stranger, other])
  })

  it('checks its arguments and outlives a tidy', () => {
    const parameters = parametersOf('float32')
    const make = (options: object) => () => new optim.Ema(parameters, options)
    expectRefusal(
      make({ decay: 1.5 }),
      'ERR_RANGE',
      'options.decay: expected a number from 0 to 1, got 1.5',
    )
    expectRefusal(make({ rate: 1 }), 'ERR_CONFIG', /options\.rate: unknown option/)
    expectRefusal(
      () => new optim.Ema([3] as never),
      'ERR_CONFIG',
      'parameters[0]: expected a Parameter, got 3',
    )
    const before = memory()
    const ema = tidy(() => new optim.Ema(parameters))
    ema.update()
    tidy(() => ema.swap())
    ema.swap()
    ema.dispose()
    expect([memory().tensors, memory().bytes]).toEqual([before.tensors, before.bytes])
    dispose(parameters)
  })
})
