/** Golden files: a network's weights, inputs, outputs and gradients, computed elsewhere in float64. */
import { expect } from 'vitest'
import { io, type Tensor } from '../../lib/index.js'

type Float = Tensor<'float32'>

export interface Golden {
  config: Record<string, unknown>
  tensors: Record<string, Float>
  /** The network's weights, by its own names. */
  weights: Record<string, Float>
}

export async function golden(name: string): Promise<Golden> {
  const file = new URL(`../fixtures/${name}.safetensors`, import.meta.url).pathname
  const { tensors, metadata } = await io.loadSafetensors(file)
  const known = tensors as Record<string, Float>
  return {
    config: JSON.parse(metadata.config as string),
    tensors: known,
    weights: Object.fromEntries(
      Object.entries(known)
        .filter(([path]) => path.startsWith('model.'))
        .map(([path, value]) => [path.slice('model.'.length), value]),
    ),
  }
}

export async function largestOf(x: Tensor): Promise<number> {
  let most = 0
  for (const value of await x.data()) most = Math.max(most, Math.abs(value))
  return most
}

/** The largest difference is at most `within` times the largest magnitude of what is expected, or of `magnitude`. */
export async function expectClose(
  what: string,
  x: Tensor | undefined,
  expected: Tensor,
  within: number,
  magnitude?: number,
): Promise<void> {
  if (x === undefined) expect.fail(`${what}: there is none`)
  expect(x.shape, what).toEqual(expected.shape)
  const [got, want] = [await x.data(), await expected.data()]
  let worst = 0
  let at = 0
  for (let i = 0; i < want.length; i++) {
    const error = Math.abs((got[i] as number) - (want[i] as number))
    if (!(error <= worst)) [worst, at] = [error, i]
  }
  const most = magnitude ?? (await largestOf(expected))
  expect(
    worst / most,
    `${what}: element ${at} is ${got[at]}, expected ${want[at]}; the largest magnitude is ${most}`,
  ).toBeLessThanOrEqual(within)
}

/** The same bits in every element. */
export async function expectSame(what: string, x: Tensor, expected: Tensor): Promise<void> {
  expect(x.shape, what).toEqual(expected.shape)
  expect(Buffer.from(await x.rawData()).equals(await expected.rawData()), what).toBe(true)
}
