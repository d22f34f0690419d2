/** The same computation on the CPU and on the CUDA device, compared. */
import { expect } from 'vitest'
import {
  type Device,
  type DType,
  device,
  type FloatDType,
  normal,
  Tensor,
  tensor,
  tidy,
  vjp,
} from '../../lib/index.js'
import { openCuda } from './open.js'

export type Float = Tensor<FloatDType>
/** Tensors by name; those that are absent were not asked for. */
export type Results = Record<string, Tensor | undefined>

export const cpu = await device('cpu')
export const cuda = await openCuda()

/** Where a computation runs, and inputs that are the same everywhere. */
export class Place {
  readonly device: Device
  #offset = 0

  constructor(of: Device) {
    this.device = of
  }

  /** Normal numbers, others at each call. */
  normal<D extends FloatDType = 'float32'>(
    shape: readonly number[],
    { dtype, std = 1, mean = 0 }: { dtype?: D; std?: number; mean?: number } = {},
  ): Tensor<D> {
    const draw = { seed: 41, offset: this.#offset++, std, mean, device: this.device }
    return normal(shape, dtype === undefined ? draw : { ...draw, dtype }) as Tensor<D>
  }

  /** Numbers from 0.5 on. */
  positive<D extends FloatDType>(shape: readonly number[], dtype: D): Tensor<D> {
    return this.normal(shape, { dtype }).abs().add(0.5) as Tensor<D>
  }

  of<D extends DType>(values: readonly number[], shape: readonly number[], dtype: D): Tensor<D> {
    return tensor([...values], { shape, dtype, device: this.device }) as Tensor<D>
  }

  /** A function's value, and its gradients for a cotangent that is the same everywhere. */
  gradients(fn: (...inputs: Float[]) => Float, inputs: readonly Float[]): Results {
    const { value, pullback } = vjp(fn as (...inputs: Tensor[]) => Tensor, [...inputs] as Tensor[])
    const { dtype, shape } = value as Float
    const found = pullback(this.normal(shape, { dtype }) as Tensor) as Tensor[]
    const named = found.map((gradient, i) => [`d${i}`, gradient] as const)
    return { y: value as Tensor, ...Object.fromEntries(named) }
  }
}

/** Largest error that is allowed, relative to the largest magnitude of what is expected. 0: the same bits. */
export const tolerances: Record<DType, number> = {
  float32: 4e-6,
  // Results are rounded to 8 bits; where sums of another order end on the other side of a step, they are one step apart.
  bfloat16: 2 ** -7,
  float16: 0,
  int32: 0,
  uint8: 0,
}

/** Runs `compute` on both devices, inside a `tidy`, and compares what it returns. */
export async function expectAlike(
  compute: (place: Place) => Results,
  within: Partial<Record<DType, number>> = {},
): Promise<void> {
  const expected = tidy(() => compute(new Place(cpu)))
  const got = tidy(() => compute(new Place(cuda)))
  expect(Object.keys(got)).toEqual(Object.keys(expected))
  expect(Object.keys(got).length).toBeGreaterThan(0)
  for (const [name, tensor] of Object.entries(got))
    await expectTensorsAlike(name, tensor, expected[name], within)
}

export async function expectTensorsAlike(
  name: string,
  got: Tensor | undefined,
  expected: Tensor | undefined,
  within: Partial<Record<DType, number>> = {},
): Promise<void> {
  if (!(got instanceof Tensor) || !(expected instanceof Tensor))
    return expect(got, name).toBe(expected)
  expect([got.device.name, expected.device.name], name).toEqual([cuda.name, cpu.name])
  expect([got.dtype, [...got.shape]], name).toEqual([expected.dtype, [...expected.shape]])
  const tolerance = within[got.dtype] ?? tolerances[got.dtype]
  if (tolerance === 0) {
    const [bits, wanted] = [await got.rawData(), await expected.rawData()]
    return expect(Buffer.from(bits).equals(wanted), `${name}: the same bits`).toBe(true)
  }
  const [values, wanted] = [await got.data(), await expected.data()]
  let largest = 0
  for (const value of wanted)
    if (Number.isFinite(value)) largest = Math.max(largest, Math.abs(value))
  for (const [i, value] of values.entries()) {
    const right = wanted[i] as number
    if (Object.is(value, right) || (Number.isNaN(value) && Number.isNaN(right))) continue
    expect(
      Math.abs(value - right) / largest,
      `${name}[${i}]: ${value} on ${cuda.name}, ${right} on the CPU; the largest magnitude is ${largest}`,
    ).toBeLessThanOrEqual(tolerance)
  }
}
