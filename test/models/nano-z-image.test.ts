import path from 'node:path'
import { describe, expect, it } from 'vitest'
import { io, memory, models, type Tensor, tidy, uniform, vjp } from '../../lib/index.js'
import { temporaryFolder } from '../data/shapes.js'
import { expectClose, expectSame } from './goldens.js'
import { tinyNanoConfig as config, tinyNano } from './tiny-nano.js'

const model = tinyNano()

describe('the nano Z-Image', () => {
  it('is the same after it was saved, its config included', async () => {
    const file = path.join(await temporaryFolder(), 'model.safetensors')
    await model.save(file, { dtype: 'float32' })
    using again = await models.loadNanoZImage(file)
    expect(again.config).toEqual(model.config)
    for (const [name, x] of Object.entries(again.state()))
      await expectSame(name, x, model.state()[name] as Tensor)
    const options = { steps: 3, guidance: 2, seed: 4 }
    using a = await model.generate(['red heart'], options)
    using b = await again.generate(['red heart'], options)
    await expectSame('image', b as Tensor, a as Tensor)
  })

  it('is saved as bfloat16 unless asked otherwise', async () => {
    const file = path.join(await temporaryFolder(), 'model.safetensors')
    await model.save(file)
    const { tensors } = await io.inspectSafetensors(file)
    expect(new Set(Object.values(tensors).map(({ dtype }) => dtype))).toEqual(new Set(['BF16']))
    const before = memory().tensors
    const again = await models.loadNanoZImage(file)
    for (const [name, x] of Object.entries(again.state())) {
      expect(x.dtype).toBe('float32')
      using rounded = tidy(() => (model.state()[name] as Tensor).cast('bfloat16').cast('float32'))
      await expectSame(name, x, rounded as Tensor)
    }
    again.dispose()
    expect(memory().tensors).toBe(before)
  })

  it('gives each prompt an image between 0 and 1, whatever else is in the batch', async () => {
    const options = { steps: 4, guidance: 1.5, seed: 7 }
    using both = await model.generate(['red heart', 'blue circle with a hat'], options)
    expect(both.shape).toEqual([2, 3, 16, 16])
    for (const value of await both.data()) {
      expect(value).toBeGreaterThanOrEqual(0)
      expect(value).toBeLessThanOrEqual(1)
    }
    using first = await model.generate(['red heart'], options)
    await expectClose('the first', both.slice([0, 0, 0, 0], [1, 3, 16, 16]), first as Tensor, 1e-4)
    using other = await model.generate(['red heart'], { ...options, seed: 8 })
    expect([...(await other.data())]).not.toEqual([...(await first.data())])
  })

  it('normalises latents by the config, and decodes what it has encoded', async () => {
    const images = uniform([2, 3, 16, 16], { seed: 3, low: -1 })
    const latents = model.encode(images)
    expect(latents.shape).toEqual(model.latentShape(2))
    const { mean } = model.autoencoder.encode(images)
    await expectClose('latents', latents, mean.sub(0.3).mul(0.7), 1e-6)
    const decoded = model.autoencoder.decode(mean).mul(0.5).add(0.5).clip(0, 1)
    await expectClose('images', model.decode(latents), decoded, 1e-5)
  })

  it('sends gradients through the decoder', async () => {
    const latents = uniform(model.latentShape(1), { seed: 5, low: -1 })
    const { value, pullback } = vjp((x) => model.decode(x as typeof latents).mean(), [latents])
    const [gradient] = pullback(value.div(value) as typeof value)
    expect(await gradient.abs().sum().item()).toBeGreaterThan(0)
  })

  it('leaves nothing behind but the images', async () => {
    ;(await model.generate(['red'], { steps: 2 })).dispose()
    const before = memory().tensors
    const images = await model.generate(['red'], { steps: 2 })
    expect(memory().tensors).toBe(before + 1)
    images.dispose()
  })

  it('refuses parts that do not fit, files of something else, and no prompts', async () => {
    expect(() =>
      models.nanoZImage({ ...config, transformer: { ...config.transformer, in_channels: 4 } }),
    ).toThrow(
      "config.transformer.in_channels: expected the autoencoder's latent_channels, 2, got 4",
    )
    expect(() =>
      models.nanoZImage({ ...config, captions: { ...config.captions, dim: 5 } }),
    ).toThrow("config.transformer.cap_feat_dim: expected the captions' dim, 5, got 6")
    const file = path.join(await temporaryFolder(), 'model.safetensors')
    await io.saveSafetensors(file, {})
    await expect(models.loadNanoZImage(file)).rejects.toMatchObject({
      code: 'ERR_FORMAT',
      message: `${file}: expected the weights of nano-z-image, got undefined`,
    })
    await io.saveSafetensors(file, {}, { metadata: { didr: '{"model": "nano-z-image"' } })
    await expect(models.loadNanoZImage(file)).rejects.toMatchObject({ code: 'ERR_FORMAT' })
    await expect(model.generate([])).rejects.toThrow('prompts: expected an array of at least one')
  })
})

describe('an autoencoder in a file', () => {
  it('has the normalisation that it was saved with', async () => {
    const file = path.join(await temporaryFolder(), 'autoencoder.safetensors')
    const latents = { shift_factor: -0.2, scaling_factor: 0.85 }
    await models.saveAutoencoderKL(file, model.autoencoder, latents, { dtype: 'float32' })
    using again = await models.loadAutoencoderKL(file)
    expect(again.config).toEqual({ ...model.autoencoder.config, ...latents })
    for (const [name, x] of Object.entries(again.state()))
      await expectSame(name, x, model.autoencoder.state()[name] as Tensor)
  })
})
