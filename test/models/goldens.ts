/** Golden files: a network's weights, inputs, outputs and gradients, computed elsewhere in float64. */
import { expect } from 'vitest'
import { concat, type Device, io, type models, type nn, type Tensor, vjp } from '../../lib/index.js'

type Float = Tensor<'float32'>

export interface Golden {
  config: Record<string, unknown>
  tensors: Record<string, Float>
  /** The network's weights, by its own names. */
  weights: Record<string, Float>
}

/** @param device where its tensors are put. Default: the CPU. */
export async function golden(name: string, device?: Device): Promise<Golden> {
  const file = new URL(`../fixtures/${name}.safetensors`, import.meta.url).pathname
  const { tensors, metadata } = await io.loadSafetensors(
    file,
    device === undefined ? {} : { device },
  )
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

/** The largest error of outputs and gradients, relative to the largest magnitude of each. */
export const goldenTolerance = 2e-5

/** Outputs and gradients of `s3dit-tiny`, by a model that holds its weights. */
export async function expectTransformerGolden(
  model: models.S3DiT,
  { tensors }: Golden,
): Promise<void> {
  const given = (name: string) => tensors[name] as Float
  model.zeroGrad()
  const time = await given('in.t').data()
  const { value, pullback } = vjp(
    (x0, x1, cap0, cap1) => {
      const images = [x0.reshape([4, 8, 12]), x1.reshape([4, 6, 6])] as Float[]
      const features = concat([cap0, cap1]) as Float
      return model.transform(images, time, { features, lengths: [5, 37] })
    },
    [given('in.x.0'), given('in.x.1'), given('in.cap.0'), given('in.cap.1')],
  )
  const shaped = (name: string, like: Tensor) => given(name).reshape(like.shape)
  for (const i of [0, 1]) {
    const out = value[i] as Float
    await expectClose(`out.${i}`, out, shaped(`out.${i}`, out), goldenTolerance)
  }
  const gradients = pullback(value.map((out, i) => shaped(`in.grad_out.${i}`, out as Float)))
  const named = new Map<string, Tensor | undefined>([
    ...['x.0', 'x.1', 'cap.0', 'cap.1'].map((name, i) => [name, gradients[i]] as const),
    ...gradientsOf(model),
  ])
  const stored = Object.keys(tensors).filter((name) => name.startsWith('grad.'))
  expect(stored.length).toBe(75)
  for (const name of stored)
    await expectClose(name, named.get(name.slice('grad.'.length)), given(name), goldenTolerance)
}

/** The encoder's moments of `autoencoder-tiny`, by a model that holds its weights. */
export async function expectEncoderGolden(
  model: models.AutoencoderKL,
  { tensors }: Golden,
): Promise<void> {
  const { mean, logVariance } = model.encode(tensors['in.image'] as Float)
  const moments = tensors['out.moments'] as Float
  const magnitude = await largestOf(moments)
  const half = (from: number) => moments.slice([0, from, 0, 0], [2, 4, 8, 12])
  await expectClose('mean', mean, half(0), goldenTolerance, magnitude)
  await expectClose('log-variance', logVariance, half(4), goldenTolerance, magnitude)
}

/** The decoder's output and gradients of `autoencoder-tiny`, by a model that holds its weights. */
export async function expectDecoderGolden(
  model: models.AutoencoderKL,
  { tensors }: Golden,
): Promise<void> {
  const given = (name: string) => tensors[name] as Float
  model.zeroGrad()
  const { value, pullback } = vjp((latent) => model.decode(latent), [given('in.latent')])
  await expectClose('image', value, given('out.image'), goldenTolerance)
  const [latent] = pullback(given('in.grad_out'))
  const named = new Map<string, Tensor | undefined>([['latent', latent], ...gradientsOf(model)])
  const stored = Object.keys(tensors).filter((name) => name.startsWith('grad.'))
  expect(stored.length).toBe(69)
  for (const name of stored) {
    // The keys' bias shifts all scores of a query alike and so changes nothing: its gradient is rounding alone, and is
    // compared with the size of its neighbour's.
    const scale = name.replace('to_k.bias', 'to_k.weight')
    const magnitude = await largestOf(given(scale))
    const gradient = named.get(name.slice('grad.'.length))
    await expectClose(name, gradient, given(name), goldenTolerance, magnitude)
  }
}

function gradientsOf(model: nn.Module): (readonly [string, Tensor | undefined])[] {
  return Array.from(
    model.namedParameters(),
    ([name, { grad }]) => [`model.${name}`, grad as Tensor | undefined] as const,
  )
}
