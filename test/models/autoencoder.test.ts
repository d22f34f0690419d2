import { beforeAll, describe, expect, it } from 'vitest'
import { memory, models, normal, type Tensor, vjp } from '../../lib/index.js'
import {
  expectClose,
  expectDecoderGolden,
  expectEncoderGolden,
  expectSame,
  type Golden,
  golden,
} from './goldens.js'

type Float = Tensor<'float32'>

describe('the golden file', () => {
  let file: Golden
  let model: models.AutoencoderKL
  beforeAll(async () => {
    file = await golden('autoencoder-tiny')
    model = models.autoencoderKL(file.config as unknown as models.AutoencoderKLConfig)
    model.loadState(file.weights)
  })

  it('has the names and shapes of the model, and no others', () => {
    expect(Object.keys(model.state()).sort()).toEqual(Object.keys(file.weights).sort())
  })

  it('gives the encoder’s mean and log-variance', () => expectEncoderGolden(model, file))
  it('gives the decoder’s output and gradients', () => expectDecoderGolden(model, file))

  it('scales latents by the factors of the config', async () => {
    const latent = file.tensors['in.latent'] as Float
    const scaled = model.toDenoiser(latent)
    await expectClose('scaled', scaled, latent.sub(0.1159).mul(0.3611), 1e-6)
    await expectClose('and back', model.toAutoencoder(scaled), latent, 1e-6)
  })
})

describe('the autoencoder', () => {
  const config = { block_out_channels: [16, 32, 64], norm_num_groups: 8, latent_channels: 4 }
  const model = models.autoencoderKL(config, { seed: 1 })
  const images = normal([3, 3, 16, 24], { seed: 2 })

  it('samples by seed and offset from its posterior', async () => {
    const { mean, logVariance } = model.encode(images)
    expect(mean.shape).toEqual([3, 4, 4, 6])
    const latent = model.sample({ mean, logVariance }, { seed: 5, offset: 7 })
    const noise = normal(mean.shape, { seed: 5, offset: 7 })
    const [m, v, e, z] = await Promise.all([mean, logVariance, noise, latent].map((x) => x.data()))
    for (let i = 0; i < (z?.length ?? 0); i++) {
      const expected = (m?.[i] as number) + Math.exp((v?.[i] as number) / 2) * (e?.[i] as number)
      expect(z?.[i]).toBeCloseTo(expected, 5)
    }
    expect(model.decode(latent).shape).toEqual(images.shape)
  })

  it('treats samples alike, wherever they are in a batch', async () => {
    const whole = model.encode(images).mean
    const alone = model.encode(images.slice([2, 0, 0, 0], [1, 3, 16, 24]) as Float).mean
    await expectClose('sample 2', alone, whole.slice([2, 0, 0, 0], [1, 4, 4, 6]), 1e-6)
  })

  it('has gradients of the encoder that a step along them confirms', async () => {
    // d/dh f(x + h u) at 0 by a central difference, against <gradient, u>; in float32, so to 1 in 1,000.
    const weight = normal([3, 8, 4, 6], { seed: 3 })
    const f = (x: Float) => {
      const { mean, logVariance } = model.encode(x)
      return mean
        .mul(weight.slice([0, 0, 0, 0], [3, 4, 4, 6]))
        .sum()
        .add(logVariance.mul(weight.slice([0, 4, 0, 0], [3, 4, 4, 6])).sum()) as Float
    }
    const { pullback } = vjp((x) => f(x as Float), [images])
    const { value } = vjp((x) => f(x as Float), [images])
    const one = value.div(value) as Float
    const [gradient] = pullback(one)
    const along = gradient.div(gradient.square().sum().sqrt())
    const slope = await gradient.mul(along).sum().item()
    const h = 0.05
    const [ahead, behind] = [
      f(images.add(along.mul(h)) as Float),
      f(images.sub(along.mul(h)) as Float),
    ]
    const measured = ((await ahead.item()) - (await behind.item())) / (2 * h)
    expect(measured / slope).toBeGreaterThan(0.99)
    expect(measured / slope).toBeLessThan(1.01)
  })

  it('takes diffusers’ other fields, and says which it cannot do', () => {
    const other = models.autoencoderKL({
      ...config,
      ...({ _class_name: 'AutoencoderKL', _diffusers_version: '0.30' } as object),
      down_block_types: ['DownEncoderBlock2D', 'DownEncoderBlock2D', 'DownEncoderBlock2D'],
      use_quant_conv: false,
      use_post_quant_conv: false,
      mid_block_add_attention: false,
      shift_factor: null,
      latents_mean: null,
      sample_size: 64,
    })
    const names = Object.keys(other.state())
    expect(names.some((name) => /quant_conv|attentions/.test(name))).toBe(false)
    expect(Object.keys(model.state())).toContain('post_quant_conv.weight')
    for (const [wrong, message] of [
      [{ act_fn: 'relu' }, 'config.act_fn: expected one of silu'],
      [
        { block_out_channels: [12] },
        'config.block_out_channels[0]: expected a multiple of norm_num_groups, 8, got 12',
      ],
      [
        { down_block_types: ['AttnDown', 'AttnDown', 'AttnDown'] },
        'config.down_block_types: expected DownEncoderBlock2D',
      ],
      [{ latent_chanels: 3 }, 'config.latent_chanels: unknown option'],
    ] as const)
      expect(() =>
        models.autoencoderKL({ ...config, ...wrong } as unknown as models.AutoencoderKLConfig),
      ).toThrow(message)
  })

  it('refuses what does not fit', () => {
    expect(() => model.encode(normal([1, 3, 16, 18], { seed: 1 }))).toThrow(
      'images: expected [batch, 3, height, width] with multiples of 4, got [1, 3, 16, 18]',
    )
    expect(() => model.decode(normal([1, 3, 4, 4], { seed: 1 }))).toThrow('latent: expected')
  })

  it('leaves nothing behind', () => {
    const before = memory()
    const { mean, logVariance } = model.encode(images)
    const image = model.decode(mean)
    for (const x of [mean, logVariance, image]) x.dispose()
    expect([memory().tensors, memory().bytes]).toEqual([before.tensors, before.bytes])
  })

  it('takes its values from the seed', async () => {
    const again = models.autoencoderKL(config, { seed: 1 })
    for (const [name, x] of Object.entries(again.state()))
      await expectSame(name, x, model.state()[name] as Tensor)
  })
})
