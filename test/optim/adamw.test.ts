import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { describe, expect, it } from 'vitest'
import { Parameter } from '../../lib/autograd/parameter.js'
import {
  type FloatDType,
  io,
  memory,
  normal,
  optim,
  type Tensor,
  tensor,
  tidy,
  zeros,
} from '../../lib/index.js'
import { expectRefusal, expectRejection } from '../expectations.js'

interface Settings {
  lr: number
  betas: readonly [number, number]
  eps: number
  weightDecay: number
}

/** One parameter by the algorithm of arXiv 1711.05101 in float64, element by element. */
class Reference {
  readonly p: Float64Array
  readonly m: Float64Array
  readonly v: Float64Array
  steps = 0

  constructor(
    values: Float32Array,
    readonly settings: Settings,
  ) {
    this.p = Float64Array.from(values)
    this.m = new Float64Array(values.length)
    this.v = new Float64Array(values.length)
  }

  step(gradient: Float32Array, { clip = 1, lrScale = 1 } = {}): void {
    const { betas, eps, weightDecay } = this.settings
    const lr = this.settings.lr * lrScale
    this.steps++
    for (let i = 0; i < this.p.length; i++) {
      const g = clip * (gradient[i] as number)
      const m = betas[0] * (this.m[i] as number) + (1 - betas[0]) * g
      const v = betas[1] * (this.v[i] as number) + (1 - betas[1]) * g * g
      this.m[i] = m
      this.v[i] = v
      const mHat = m / (1 - betas[0] ** this.steps)
      const vHat = v / (1 - betas[1] ** this.steps)
      const p = this.p[i] as number
      this.p[i] = p - lr * weightDecay * p - (lr * mHat) / (Math.sqrt(vHat) + eps)
    }
  }
}

const defaults: Settings = { lr: 1e-3, betas: [0.9, 0.999], eps: 1e-8, weightDecay: 0.01 }
const sizes = [[1], [3], [5, 1], [17], [63], [8, 8], [65], [0], [3, 2731], []]

function parametersOf(dtype: FloatDType = 'float32', shapes = sizes): Parameter[] {
  return shapes.map(
    (shape, i) =>
      new Parameter(`p${i}`, normal(shape, { seed: i + 1, dtype }) as Tensor<FloatDType>),
  )
}

function gradientsOf(
  parameters: readonly Parameter[],
  step: number,
  std = 1,
): Tensor<FloatDType>[] {
  return parameters.map((parameter, i) =>
    normal(parameter.shape, { seed: 1000 + i, offset: step, std, dtype: parameter.value.dtype }),
  )
}

function dispose(...lists: (readonly { dispose(): void }[])[]): void {
  for (const list of lists) for (const item of list) item.dispose()
}

async function worst(x: Tensor, exact: Float64Array): Promise<number> {
  const got = Float32Array.from(await x.data())
  expect(got.length).toBe(exact.length)
  return got.reduce((most, value, i) => Math.max(most, Math.abs(value - (exact[i] as number))), 0)
}

async function valuesOf(parameters: readonly Parameter[]): Promise<Buffer[]> {
  return Promise.all(parameters.map(async ({ value }) => Buffer.from(await value.rawData())))
}

async function stateOf(optimizer: optim.AdamW): Promise<Record<string, Buffer>> {
  const entries = Object.entries(optimizer.state().tensors)
  return Object.fromEntries(
    await Promise.all(entries.map(async ([name, x]) => [name, Buffer.from(await x.rawData())])),
  )
}

describe('AdamW', () => {
  it('follows the algorithm in float64 over 400 steps', async () => {
    const parameters = parametersOf()
    using optimizer = new optim.AdamW(parameters)
    const references = await Promise.all(
      parameters.map(async ({ value }) => new Reference(await value.data(), defaults)),
    )
    for (let step = 0; step < 400; step++) {
      const gradients = gradientsOf(parameters, step)
      optimizer.step({ gradients }).dispose()
      for (const [i, reference] of references.entries())
        reference.step((await gradients[i]?.data()) as Float32Array)
      dispose(gradients)
    }
    // A step rounds a parameter of up to 4 by at most 2^-23; 400 such errors walk about 12 times as far, and the worst
    // of 8,000 walks four times as far as that.
    for (const [i, { value }] of parameters.entries())
      expect(await worst(value, references[i]?.p as Float64Array), `p${i}`).toBeLessThan(6e-6)
    const { tensors } = optimizer.state()
    for (const [i, reference] of references.entries()) {
      expect(await worst(tensors[`p${i}.exp_avg`] as Tensor, reference.m)).toBeLessThan(1e-6)
      expect(await worst(tensors[`p${i}.exp_avg_sq`] as Tensor, reference.v)).toBeLessThan(1e-6)
      expect(await tensors[`p${i}.step`]?.item()).toBe(400)
    }
    dispose(parameters)
  })

  it('clips by the norm of all gradients, returns it, and scales the learning rates', async () => {
    const parameters = parametersOf()
    using optimizer = new optim.AdamW(parameters, { lr: 0.01, maxNorm: 2 })
    const references = await Promise.all(
      parameters.map(
        async ({ value }) => new Reference(await value.data(), { ...defaults, lr: 0.01 }),
      ),
    )
    const schedule = optim.cosine({ steps: 50, warmup: 5, final: 0.1 })
    for (let step = 0; step < 50; step++) {
      // Norms on both sides of the limit.
      const gradients = gradientsOf(parameters, step, step % 3 === 0 ? 1e-3 : 1)
      const lrScale = schedule(step)
      using norm = optimizer.step({ gradients, lrScale })
      const plain = await Promise.all(gradients.map((gradient) => gradient.data()))
      const exact = Math.hypot(...plain.map((gradient) => Math.hypot(...gradient)))
      expect(Math.abs((await norm.item()) - exact)).toBeLessThanOrEqual(1e-7 * exact)
      const clip = Math.min(1, 2 / (exact + 1e-6))
      for (const [i, reference] of references.entries())
        reference.step(plain[i] as Float32Array, { clip, lrScale })
      dispose(gradients)
    }
    for (const [i, { value }] of parameters.entries())
      expect(await worst(value, references[i]?.p as Float64Array), `p${i}`).toBeLessThan(3e-6)
    dispose(parameters)
  })

  it('trains groups by their own settings, and reads gradients from the parameters', async () => {
    const parameters = parametersOf()
    const own = { lr: 0.05, betas: [0.5, 0.9], eps: 1e-4, weightDecay: 0.3 } as const
    using optimizer = new optim.AdamW(
      [
        { parameters: parameters.slice(0, 4), weightDecay: 0 },
        { parameters: parameters.slice(4), ...own },
      ],
      { lr: 0.002 },
    )
    expect(optimizer.parameters).toEqual(parameters)
    const references = await Promise.all(
      parameters.map(
        async ({ value }, i) =>
          new Reference(
            await value.data(),
            i < 4 ? { ...defaults, lr: 0.002, weightDecay: 0 } : own,
          ),
      ),
    )
    for (let step = 0; step < 30; step++) {
      const gradients = gradientsOf(parameters, step)
      for (const [i, parameter] of parameters.entries()) {
        // The second parameter gets a gradient at every other step only: its step count is its own.
        if (i === 1 && step % 2 === 1) {
          gradients[i]?.dispose()
          continue
        }
        parameter.grad = gradients[i]
        references[i]?.step((await gradients[i]?.data()) as Float32Array)
      }
      optimizer.step().dispose()
      optimizer.zeroGrad()
      for (const parameter of parameters) expect(parameter.grad).toBeUndefined()
    }
    for (const [i, { value }] of parameters.entries())
      expect(await worst(value, references[i]?.p as Float64Array), `p${i}`).toBeLessThan(3e-6)
    expect(await optimizer.state().tensors['p1.step']?.item()).toBe(15)
    dispose(parameters)
  })

  it('keeps bfloat16 parameters in float32, below whose resolution steps add up', async () => {
    const parameters = parametersOf('bfloat16')
    using optimizer = new optim.AdamW(parameters, { lr: 1e-4, weightDecay: 0 })
    const references = await Promise.all(
      parameters.map(
        async ({ value }) =>
          new Reference(await value.data(), { ...defaults, lr: 1e-4, weightDecay: 0 }),
      ),
    )
    for (let step = 0; step < 100; step++) {
      const gradients = parameters.map(({ value }, i) =>
        step % 2 === 0
          ? normal(value.shape, { seed: 1000 + i, offset: step, mean: 1, dtype: 'bfloat16' })
          : normal(value.shape, { seed: 1000 + i, offset: step, mean: 1 }),
      )
      optimizer.step({ gradients: gradients as Tensor[] }).dispose()
      for (const [i, reference] of references.entries())
        reference.step((await gradients[i]?.data()) as Float32Array)
      dispose(gradients)
    }
    const { tensors } = optimizer.state()
    for (const [i, { value }] of parameters.entries()) {
      const master = tensors[`p${i}.master`] as Tensor
      expect(await worst(master, references[i]?.p as Float64Array), `p${i}`).toBeLessThan(3e-6)
      using rounded = master.cast('bfloat16')
      expect(await value.rawData()).toEqual(await rounded.rawData())
    }
    dispose(parameters)
  })

  it.each([Number.NaN, Infinity, -Infinity])(
    'changes nothing for a gradient with %d, and goes on after it',
    async (hostile) => {
      for (const dtype of ['float32', 'bfloat16'] as const) {
        const parameters = parametersOf(dtype)
        const twins = parametersOf(dtype)
        using optimizer = new optim.AdamW(parameters, { maxNorm: 1 })
        using twin = new optim.AdamW(twins, { maxNorm: 1 })
        const step = (number: number, bad: boolean) => {
          const gradients = gradientsOf(parameters, number)
          optimizer.step({ gradients }).dispose()
          if (!bad) twin.step({ gradients }).dispose()
          dispose(gradients)
        }
        step(0, false)
        const before = [await valuesOf(parameters), await stateOf(optimizer)]

        const gradients = gradientsOf(parameters, 1)
        const numbers = await (gradients[8] as Tensor).data()
        numbers[5000] = hostile
        gradients[8]?.dispose()
        gradients[8] = tensor(numbers as Float32Array, { shape: [3, 2731], dtype })
        using norm = optimizer.step({ gradients })
        await expectRejection(
          () => norm.data(),
          'ERR_NONFINITE',
          'gradientNorm: gradient 8 of 10 has 1 NaN or infinite values; nothing was changed',
        )
        dispose(gradients)
        expect([await valuesOf(parameters), await stateOf(optimizer)]).toEqual(before)

        // The refused step was not counted: the next ones are as if it had not been.
        step(2, false)
        expect(await valuesOf(parameters)).toEqual(await valuesOf(twins))
        expect(await stateOf(optimizer)).toEqual(await stateOf(twin))
        dispose(parameters, twins)
      }
    },
  )

  it.each(['float32', 'bfloat16'] as const)(
    'goes on bit by bit from a saved state, %s',
    async (dtype) => {
      const folder = mkdtempSync(path.join(tmpdir(), 'didr-optim-'))
      const file = path.join(folder, 'state.safetensors')
      const options = { lr: 0.01, maxNorm: 5, betas: [0.8, 0.95] } as const
      const parameters = parametersOf(dtype)
      using optimizer = new optim.AdamW(parameters, options)
      const run = (who: optim.AdamW, from: number, to: number) => {
        for (let i = from; i < to; i++) {
          const gradients = gradientsOf(parameters, i)
          who.step({ gradients }).dispose()
          dispose(gradients)
        }
      }
      run(optimizer, 0, 7)
      const { tensors, settings } = optimizer.state()
      await io.saveSafetensors(file, tensors, { metadata: { settings: JSON.stringify(settings) } })
      const resumed = parameters.map(
        ({ name, value }) => new Parameter(name, value.clone() as Tensor<FloatDType>),
      )
      run(optimizer, 7, 20)

      using other = new optim.AdamW(resumed, { lr: 7, weightDecay: 0, maxNorm: 5 })
      const saved = await io.loadSafetensors(file)
      other.load({
        tensors: saved.tensors,
        settings: JSON.parse(saved.metadata.settings as string),
      })
      dispose(Object.values(saved.tensors))
      expect(other.state().settings).toEqual(settings)
      run(other, 7, 20)
      expect(await valuesOf(resumed)).toEqual(await valuesOf(parameters))
      expect(await stateOf(other)).toEqual(await stateOf(optimizer))
      dispose(parameters, resumed)
      rmSync(folder, { recursive: true })
    },
  )

  it('refuses a state that does not fit and changes nothing', async () => {
    const parameters = parametersOf('float32', [[3], [2]])
    using optimizer = new optim.AdamW(parameters)
    const gradients = gradientsOf(parameters, 0)
    optimizer.step({ gradients }).dispose()
    dispose(gradients)
    const before = [await stateOf(optimizer), optimizer.state().settings]
    const { tensors, settings } = optimizer.state()
    using other = zeros([4])
    const load = (state: object) => () => optimizer.load({ tensors, settings, ...state } as never)
    const { 'p1.exp_avg': _, ...missing } = tensors
    expectRefusal(
      load({ tensors: missing }),
      'ERR_CONFIG',
      'state: the tensor "p1.exp_avg" is missing',
    )
    expectRefusal(
      load({ tensors: { ...tensors, extra: other } }),
      'ERR_CONFIG',
      'state: "extra" is of nothing here',
    )
    expectRefusal(
      load({ tensors: { ...tensors, 'p1.exp_avg': other } }),
      'ERR_SHAPE',
      'state: p1.exp_avg: expected [2], got [4]',
    )
    expectRefusal(
      load({ tensors: { ...tensors, 'p1.step': zeros([1]) } }),
      'ERR_DTYPE',
      /p1\.step: expected int32, got float32/,
    )
    expectRefusal(
      load({ settings: { optimizer: 'sgd' } }),
      'ERR_CONFIG',
      /expected a state of adamw, got "sgd"/,
    )
    expectRefusal(
      load({
        settings: { ...settings, groups: [{ ...settings.groups[0], parameters: ['p1', 'p0'] }] },
      }),
      'ERR_CONFIG',
      'state: group 0 is of other parameters: ["p1", "p0"]',
    )
    expectRefusal(
      load({ settings: { ...settings, groups: [{ ...settings.groups[0], lr: -1 }] } }),
      'ERR_RANGE',
      'state: group 0.lr: expected a number from 0 on, got -1',
    )
    expect([await stateOf(optimizer), optimizer.state().settings]).toEqual(before)
    dispose(parameters)
  })

  it('checks its arguments before anything is enqueued', () => {
    const parameters = parametersOf('float32', [[3], [2]])
    const [a, b] = parameters as [Parameter, Parameter]
    const make =
      (...args: unknown[]) =>
      () =>
        new optim.AdamW(...(args as [never, never]))
    expectRefusal(make(3), 'ERR_CONFIG', 'parameters: expected an array, got 3')
    expectRefusal(make([a, 3]), 'ERR_CONFIG', 'parameters[1]: expected a Parameter, got 3')
    expectRefusal(make([a, b, a]), 'ERR_CONFIG', 'parameters: "p0" is listed twice')
    expectRefusal(
      make([{ parameters: [a] }, { parameters: [a] }]),
      'ERR_CONFIG',
      'parameters: "p0" is listed twice',
    )
    expectRefusal(
      make([{ parameters: [a], lrr: 1 }]),
      'ERR_CONFIG',
      /parameters\[0\]\.lrr: unknown option/,
    )
    expectRefusal(
      make([a], { learningRate: 1 }),
      'ERR_CONFIG',
      /options\.learningRate: unknown option/,
    )
    expectRefusal(
      make([a], { lr: -1 }),
      'ERR_RANGE',
      'parameters[0].lr: expected a number from 0 on, got -1',
    )
    expectRefusal(make([a], { lr: Number.NaN }), 'ERR_RANGE', /lr: expected a finite number/)
    expectRefusal(
      make([a], { betas: [0.9, 1] }),
      'ERR_RANGE',
      'parameters[0].betas[1]: expected a number in [0, 1), got 1',
    )
    expectRefusal(
      make([a], { betas: 0.9 }),
      'ERR_CONFIG',
      'parameters[0].betas: expected two numbers, got 0.9',
    )
    expectRefusal(
      make([a], { maxNorm: 0 }),
      'ERR_RANGE',
      'options.maxNorm: expected a positive number, got 0',
    )
    const twin = new Parameter('p0', zeros([1]))
    expectRefusal(make([a, twin]), 'ERR_CONFIG', 'parameters: two have the name "p0"')

    using optimizer = new optim.AdamW(parameters)
    using three = zeros([3])
    using two = zeros([2])
    using whole = zeros([2], { dtype: 'int32' })
    const step = (options: object) => () => optimizer.step(options as never)
    expectRefusal(
      step({ gradients: [three] }),
      'ERR_SHAPE',
      'options.gradients: expected 2, one per parameter, got 1',
    )
    expectRefusal(
      step({ gradients: [two, two] }),
      'ERR_SHAPE',
      'gradient of p0: expected shape [3], got [2]',
    )
    expectRefusal(
      step({ gradients: [three, whole] }),
      'ERR_DTYPE',
      'gradient of p1: expected float32 or bfloat16, got int32',
    )
    expectRefusal(
      step({ lrScale: -1 }),
      'ERR_RANGE',
      'options.lrScale: expected a number from 0 on, got -1',
    )
    expectRefusal(step({ scale: 1 }), 'ERR_CONFIG', /options\.scale: unknown option/)
    const gone = zeros([2])
    gone.dispose()
    expectRefusal(step({ gradients: [three, gone] }), 'ERR_DISPOSED', /gradient of p1/)
    b.value.dispose()
    expectRefusal(step({ gradients: [three, two] }), 'ERR_DISPOSED', /p1/)
    dispose(parameters, [twin])
  })

  it('steps without gradients, without parameters, and leaves frozen ones out', async () => {
    using none = new optim.AdamW([])
    using norm = none.step()
    expect(await norm.item()).toBe(0)
    const [a, b] = parametersOf('float32', [[3], [2]]) as [Parameter, Parameter]
    b.trainable = false
    using optimizer = new optim.AdamW([a, b])
    expect(optimizer.parameters).toEqual([a])
    const before = await valuesOf([a, b])
    optimizer.step().dispose()
    expect(await valuesOf([a, b])).toEqual(before)
    expect(await optimizer.state().tensors['p0.step']?.item()).toBe(0)
    dispose([a, b])
  })

  it('keeps the same tensors and bytes from step to step, inside tidy or outside', () => {
    const start = memory()
    const parameters = parametersOf('bfloat16')
    const optimizer = tidy(() => new optim.AdamW(parameters))
    const step = (i: number) =>
      tidy(() => void optimizer.step({ gradients: gradientsOf(parameters, i) }))
    step(0)
    const first = memory()
    for (let i = 1; i < 200; i++) step(i)
    expect([memory().tensors, memory().bytes]).toEqual([first.tensors, first.bytes])
    optimizer.dispose()
    dispose(parameters)
    expect([memory().tensors, memory().bytes]).toEqual([start.tensors, start.bytes])
  })
})
