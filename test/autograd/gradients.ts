/** Gradients of the package against central differences of a float64 function. */
import { expect } from 'vitest'
import { type DType, memory, type Tensor, tensor, vjp } from '../../lib/index.js'
import { count, generator, type Values } from '../reference.js'

export interface GradientCheck {
  inputs: readonly Values[]
  /** The operation on tensors. */
  op(...inputs: Tensor[]): Tensor
  /** The same in float64. */
  reference(...inputs: Values[]): Values
  /** Default float32. */
  dtype?: DType
  /** The error allowed, relative to the largest element of each gradient. Default 2e-6 (float32's epsilon is 1.2e-7). */
  tolerance?: number
  /** The least magnitude that the tolerance is relative to. Default 1e-3. */
  floor?: number
  /** Inputs to differentiate by; default: all. */
  by?: readonly number[]
}

/** Central differences have an error of about step² f''' / 6 + 1e-16 f / step: 1e-10 relative where f is smooth. */
const step = 2 ** -17

/** Σ cotangent · f(inputs), differentiated by every element of every input. */
export function differences(
  inputs: readonly Values[],
  reference: (...inputs: Values[]) => Values,
  cotangent: Float64Array,
): Float64Array[] {
  const objective = (at: Values[]) =>
    reference(...at).data.reduce((sum, y, i) => sum + y * (cotangent[i] as number), 0)
  return inputs.map((x, input) =>
    x.data.map((_, i) => {
      const moved = (by: number) => {
        const data = Float64Array.from(x.data)
        data[i] = (data[i] as number) + by
        return objective(inputs.with(input, { shape: x.shape, data }) as Values[])
      }
      return (moved(step) - moved(-step)) / (2 * step)
    }),
  )
}

export async function expectGradients(what: string, check: GradientCheck): Promise<void> {
  const { op, reference, dtype = 'float32', tolerance = 2e-6, floor = 1e-3 } = check
  const before = memory().tensors
  const place = (x: Values) => tensor(x.data, { shape: [...x.shape], dtype }) as Tensor
  const by = check.by ?? check.inputs.map((_, i) => i)
  const tensors = check.inputs.map(place)
  const tracked = by.map((i) => tensors[i] as Tensor)
  const { value, pullback } = vjp(() => op(...tensors), tracked)
  const expected = reference(...check.inputs)
  expect(value.shape, `${what}: shape of the value`).toEqual([...expected.shape])

  const draw = generator(count(expected.shape) + 17)
  const cotangents = Float64Array.from({ length: value.size }, () => Math.fround(2 * draw() - 1))
  const cotangent = place({ shape: expected.shape, data: cotangents })
  const stored = Float64Array.from(await cotangent.data())
  const gradients = pullback(cotangent as never)
  const all = differences(check.inputs, reference, stored)
  for (const [j, i] of by.entries()) {
    const gradient = gradients[j] as Tensor
    expect(gradient.shape, `${what}: shape of gradient ${i}`).toEqual(tracked[j]?.shape)
    expect(gradient.dtype).toBe(tracked[j]?.dtype)
    const wanted = all[i] as Float64Array
    const got = await gradient.data()
    const scale = wanted.reduce((most, x) => Math.max(most, Math.abs(x)), floor)
    for (const [at, x] of wanted.entries()) {
      const error = Math.abs((got[at] as number) - x)
      if (!(error <= tolerance * scale))
        expect.fail(
          `${what}: gradient ${i}, element ${at}: expected ${x} within ${tolerance * scale}, got ${got[at]}`,
        )
    }
    gradient.dispose()
  }
  for (const x of [...tensors, value, cotangent]) x.dispose()
  // Garbage of earlier tests may have been collected meanwhile.
  expect(memory().tensors, `${what}: tensors left behind`).toBeLessThanOrEqual(before)
}
