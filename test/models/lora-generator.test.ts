import path from 'node:path'
import { describe, expect, it } from 'vitest'
import { memory, models, noGrad, optim, type Tensor, tidy, vjp } from '../../lib/index.js'
import { temporaryFolder } from '../data/shapes.js'
import { expectRefusal } from '../expectations.js'
import { expectClose, expectSame } from './goldens.js'
import { tinyNano } from './tiny-nano.js'

const prompts = ['red heart', 'blue circle', '']

/** Gives the additions values: B starts at 0. */
function moved(generator: models.LoraGenerator): models.LoraGenerator {
  const optimizer = new optim.AdamW(generator.parameters(), { lr: 0.3 })
  for (let i = 0; i < 2; i++) {
    const z = (generator.base as models.NanoZImage).noise(3, { seed: 8 + i })
    const condition = (generator.base as models.NanoZImage).encodePrompts(prompts)
    const { value, pullback } = vjp(() => generator.forward(z, condition), [])
    pullback(value)
    pullback.dispose()
    optimizer.step().dispose()
    optimizer.zeroGrad()
    for (const x of [z, condition.features, value]) x.dispose()
  }
  optimizer.dispose()
  return generator
}

describe('a one-step generator on a nano Z-Image', () => {
  it('starts as the denoiser of the teacher at tInit', async () => {
    using teacher = tinyNano()
    teacher.setTrainable(false)
    for (const tInit of [1, 0.6]) {
      using generator = models.loraGenerator(teacher, { rank: 2, tInit })
      const z = teacher.noise(3, { seed: 1 })
      const condition = teacher.encodePrompts(prompts)
      const got = noGrad(() => generator.forward(z, condition))
      // x̂0 = x_t - t (ε - x0) on the flow schedule, from noise of variance α² + σ².
      const expected = noGrad(() =>
        tidy(() => {
          const xt = z.mul(Math.hypot(1 - tInit, tInit))
          const t = new Float32Array(3).fill(tInit)
          return xt.sub(teacher.transformer.forward(xt as typeof z, t, condition).mul(tInit))
        }),
      )
      await expectClose('x0', got as Tensor, expected as Tensor, 1e-5)
      for (const x of [z, condition.features, got, expected]) x.dispose()
    }
  })

  it('trains its additions alone, and no other parameter', async () => {
    using teacher = tinyNano()
    teacher.setTrainable(false)
    const before = await Promise.all(teacher.parameters().map(({ value }) => value.data()))
    using generator = moved(models.loraGenerator(teacher, { rank: 2 }))
    expect(generator.parameters().every(({ trainable }) => trainable)).toBe(true)
    expect(generator.parameters().length).toBe(2 * generator.transformer.lora.targets.length)
    const after = await Promise.all(teacher.parameters().map(({ value }) => value.data()))
    expect(after).toEqual(before)
    for (const { value } of generator.parameters())
      expect(Math.max(...(await value.data()).map(Math.abs))).toBeGreaterThan(0.1)
  })

  it('is the same after it was saved, and each image depends on its own noise alone', async () => {
    const file = path.join(await temporaryFolder(), 'generator.safetensors')
    const before = memory().tensors
    const teacher = tinyNano()
    const generator = moved(models.loraGenerator(teacher, { rank: 2, tInit: 0.9 }))
    await generator.save(file, { dtype: 'float32' })
    const again = await models.loadLoraGenerator(file, teacher)
    expect(again.config).toEqual(generator.config)
    const captions = teacher.encodePrompts(prompts)
    const images = generator.generate(captions, { seed: 4 })
    const same = again.generate(captions, { seed: 4 })
    await expectSame('images', same as Tensor, images as Tensor)
    expect(images.shape).toEqual([3, 3, 16, 16])
    const one = teacher.encodePrompts(prompts.slice(1, 2))
    const second = generator.generate(one, { seed: 4, first: 1 })
    const row = images.slice([1, 0, 0, 0], [1, 3, 16, 16])
    await expectClose('the second image', second as Tensor, row as Tensor, 1e-5)
    generator.transformer.lora.merge()
    const merged = generator.generate(captions, { seed: 4 })
    await expectClose('merged', merged as Tensor, images as Tensor, 1e-5)
    for (const x of [
      captions.features,
      one.features,
      images,
      same,
      second,
      row,
      merged,
      again,
      generator,
      teacher,
    ])
      x.dispose()
    expect(memory().tensors).toBe(before)
  })

  it('refuses files of other models, and other teachers', async () => {
    const folder = await temporaryFolder()
    const file = (name: string) => path.join(folder, `${name}.safetensors`)
    using teacher = tinyNano()
    await teacher.save(file('teacher'))
    await expect(models.loadLoraGenerator(file('teacher'), teacher)).rejects.toMatchObject({
      code: 'ERR_FORMAT',
      message: expect.stringContaining('expected the weights of lora-generator'),
    })
    using generator = models.loraGenerator(teacher, { rank: 2, targets: ['to_q'] })
    await generator.save(file('generator'))
    const { config } = teacher
    using other = models.nanoZImage({
      ...config,
      transformer: { ...config.transformer, dim: 24, n_heads: 2, n_kv_heads: 2 },
    })
    const before = memory().tensors
    await expect(models.loadLoraGenerator(file('generator'), other)).rejects.toMatchObject({
      code: 'ERR_SHAPE',
      message: expect.stringContaining('noise_refiner.0.attention.to_q.lora_A.weight'),
    })
    expect(memory().tensors).toBe(before)
    expectRefusal(
      () => generator.generate(['red heart'] as never),
      'ERR_CONFIG',
      'captions: expected those of encodePrompts, got ["red heart"]',
    )
    expectRefusal(
      () => models.loraGenerator(teacher, { targets: ['to_x'] }),
      'ERR_CONFIG',
      'options.targets: no linear layer is named "to_x"',
    )
  })
})
