import path from 'node:path'
import { describe, expect, it } from 'vitest'
import { memory, models, rewards, tidy, uniform, valueAndGrad, vjp } from '../../lib/index.js'
import { temporaryFolder } from '../data/shapes.js'
import { expectClose } from './goldens.js'

const captions = { vocabulary: ['red', 'blue', 'heart', 'circle'], dim: 6 }
const config = { widths: [4, 8], groups: 2, dim: 5, captions }
const model = models.clip(config, { seed: 1 })
const texts = ['red heart', 'blue', 'a dragon']
const condition = models.captionEncoder({ ...captions, dim: 3 }, { seed: 2 }).forward(texts)

/** Cosines and contrastive loss from the two encoders' vectors, in float64. */
async function reference(images: ReturnType<typeof uniform>) {
  const scaled = images.mul(2).sub(1) as ReturnType<typeof uniform>
  const [seen, read] = [
    await model.encodeImages(scaled).data(),
    await model.encodeCaptions(texts).data(),
  ]
  const cosine = (i: number, j: number) => {
    let sum = 0
    for (let k = 0; k < 5; k++) sum += (seen[i * 5 + k] as number) * (read[j * 5 + k] as number)
    return sum
  }
  const scale = Math.exp((await model.logit_scale.value.data())[0] as number)
  const crossEntropy = (row: (i: number, j: number) => number) =>
    [0, 1, 2].reduce((sum, i) => {
      const logits = [0, 1, 2].map((j) => scale * row(i, j))
      const total = Math.log(logits.reduce((s, logit) => s + Math.exp(logit), 0))
      return sum + (total - (logits[i] as number)) / 3
    }, 0)
  return {
    scores: [0, 1, 2].map((i) => cosine(i, i)),
    loss: (crossEntropy(cosine) + crossEntropy((i, j) => cosine(j, i))) / 2,
  }
}

describe('the score', () => {
  const images = uniform([3, 3, 12, 8], { seed: 3 })

  it('is the cosine of an image and its caption', async () => {
    const { scores } = await reference(images)
    const got = await model.score(images, condition).data()
    expect([...got].length).toBe(3)
    for (const [i, score] of got.entries()) expect(score).toBeCloseTo(scores[i] as number, 5)
  })

  it('is of vectors of length 1', async () => {
    for (const x of [model.encodeImages(images), model.encodeCaptions(texts)]) {
      expect(x.shape).toEqual([3, 5])
      const lengths = await x.square().sum(1).data()
      for (const length of lengths) expect(length).toBeCloseTo(1, 5)
    }
  })

  it('has a gradient by the image that a step along it confirms', async () => {
    // A central difference along the gradient, in float32: to 1 in 100.
    const score = (x: typeof images) => model.score(x, condition).sum()
    const { value, pullback } = vjp((x) => score(x as typeof images), [images])
    const [gradient] = pullback(value.div(value) as typeof value)
    const norm = await gradient.square().sum().sqrt().item()
    const h = 0.05
    const moved = (by: number) => score(images.addScaled(gradient as typeof images, by / norm))
    const slope = ((await moved(h).item()) - (await moved(-h).item())) / (2 * h)
    expect(slope / norm).toBeGreaterThan(0.99)
    expect(slope / norm).toBeLessThan(1.01)
  })

  it('is a reward', async () => {
    const scores = rewards.scoreDifferentiably(model.reward(), images, condition)
    expect([...(await scores.data())]).toEqual([...(await model.score(images, condition).data())])
    const wrong = () => rewards.scoreDifferentiably(model.reward(), images)
    expect(wrong).toThrow('condition: expected captions with their texts')
  })

  it('leaves nothing behind', () => {
    const before = memory().tensors
    model.score(images, condition).dispose()
    expect(memory().tensors).toBe(before)
  })

  it('is refused without texts, and for what are no images', () => {
    const { features, lengths } = condition
    for (const [wrong, message] of [
      [undefined, 'condition: expected captions with their texts'],
      [{ features, lengths }, 'condition: expected captions with their texts'],
      [features, 'condition: expected captions with their texts'],
      [{ features, lengths, texts: ['red'] }, 'condition.texts: expected 3, one per image, got 1'],
    ] as const)
      expect(() => model.score(images, wrong as models.Condition)).toThrow(message)
    expect(() => model.score(images.reshape([3, 1, 12, 24]), condition)).toThrow(
      'images: expected [batch, 3, height, width], got [3, 1, 12, 24]',
    )
  })
})

describe('the features', () => {
  const images = uniform([3, 3, 12, 8], { seed: 6 })

  it('are what is projected and scaled to length 1', async () => {
    const features = model.features(images)
    expect(features.shape).toEqual([3, 8])
    const rows = await features.data()
    const [weight, bias] = [model.image.projection.weight, model.image.projection.bias]
    const weights = await weight.value.data()
    const biases = await (bias as NonNullable<typeof bias>).value.data()
    const seen = await model.encodeImages(images.mul(2).sub(1) as typeof images).data()
    for (let i = 0; i < 3; i++) {
      const projected = Array.from(biases, (start, k) => {
        let sum = start
        for (let j = 0; j < 8; j++)
          sum += (weights[k * 8 + j] as number) * (rows[i * 8 + j] as number)
        return sum
      })
      const length = Math.hypot(...projected)
      for (const [k, value] of projected.entries())
        expect(seen[i * 5 + k]).toBeCloseTo(value / length, 5)
    }
  })

  it('have gradients by the image, and leave nothing behind', async () => {
    const { value, pullback } = vjp((x) => model.features(x as typeof images).sum(), [images])
    const [gradient] = pullback(value.div(value) as typeof value)
    expect(await gradient.square().sum().item()).toBeGreaterThan(0)
    model.zeroGrad()
    const before = memory().tensors
    model.features(images).dispose()
    expect(memory().tensors).toBe(before)
  })

  it('are refused for what are no images', () => {
    expect(() => model.features(images.reshape([3, 1, 12, 24]))).toThrow(
      'images: expected [batch, 3, height, width], got [3, 1, 12, 24]',
    )
  })
})

describe('the contrastive loss', () => {
  it('is the mean of the two cross entropies', async () => {
    const images = uniform([3, 3, 8, 8], { seed: 4 })
    const scaled = images.mul(2).sub(1) as typeof images
    const { loss } = await reference(images)
    expect(await model.contrastiveLoss(scaled, texts).item()).toBeCloseTo(loss, 4)
  })

  it('reaches every parameter', async () => {
    const images = uniform([3, 3, 8, 8], { seed: 4, low: -1 })
    model.zeroGrad()
    valueAndGrad(() => model.contrastiveLoss(images, texts))
    for (const [name, { grad }] of model.namedParameters()) {
      const norm = grad === undefined ? 0 : await grad.square().sum().item()
      expect(norm, name).toBeGreaterThan(0)
    }
    model.zeroGrad()
  })
})

describe('a CLIP', () => {
  it('is the same after it was saved', async () => {
    const file = path.join(await temporaryFolder(), 'clip.safetensors')
    await model.save(file, { dtype: 'float32' })
    const before = memory().tensors
    using again = await models.loadClip(file)
    const images = uniform([3, 3, 8, 8], { seed: 5 })
    const [a, b] = [model.score(images, condition), again.score(images, condition)]
    expect([...(await a.data())]).toEqual([...(await b.data())])
    expect(again.config).toEqual(model.config)
    for (const x of [a, b, images]) x.dispose()
    again.dispose()
    expect(memory().tensors).toBe(before)
    // bfloat16 has eight bits.
    await model.save(file)
    using rounded = await models.loadClip(file)
    const one = uniform([3, 3, 8, 8], { seed: 5 })
    await expectClose('scores', rounded.score(one, condition), model.score(one, condition), 0.1)
  })

  it('refuses files of something else', async () => {
    const file = path.join(await temporaryFolder(), 'autoencoder.safetensors')
    await models.saveAutoencoderKL(file, models.autoencoderKL({ block_out_channels: [32] }))
    const before = memory().tensors
    await expect(models.loadClip(file)).rejects.toMatchObject({
      code: 'ERR_FORMAT',
      message: `${file}: expected the weights of clip, got "autoencoder-kl"`,
    })
    expect(memory().tensors).toBe(before)
  })

  it.each([
    [{ widths: [] }, 'config.widths: expected an array of widths'],
    [{ widths: [6], groups: 4 }, 'config.widths[0]: expected a multiple of groups, 4, got 6'],
    [{ dim: 0 }, 'config.dim: expected an integer from 1'],
    [{ heads: 1 }, 'config.heads: unknown option'],
  ])('refuses %j', (wrong, message) => {
    expect(() => models.clip({ ...config, ...wrong })).toThrow(message)
  })

  it('gives each word the same weight', async () => {
    const one = await tidy(() => model.encodeCaptions(['red', 'red red red'])).data()
    for (let k = 0; k < 5; k++) expect(one[k]).toBeCloseTo(one[5 + k] as number, 5)
  })
})
