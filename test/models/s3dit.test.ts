import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import {
  device,
  io,
  memory,
  models,
  normal,
  optim,
  schedules,
  stack,
  type Tensor,
  tidy,
  valueAndGrad,
  vjp,
} from '../../lib/index.js'
import { checkS3DiTConfig } from '../../lib/models/s3dit-config.js'
import {
  expectClose,
  expectSame,
  expectTransformerGolden,
  type Golden,
  golden,
  goldenTolerance,
} from './goldens.js'

type Float = Tensor<'float32'>

const small: models.S3DiTConfig = {
  in_channels: 4,
  dim: 48,
  n_layers: 2,
  n_refiner_layers: 1,
  n_heads: 3,
  cap_feat_dim: 24,
  axes_dims: [4, 6, 6],
  axes_lens: [256, 64, 64],
}

/** A model none of whose parts is 0, as those of a new one are. */
function lively(config: models.S3DiTConfig, options: models.S3DiTOptions = {}): models.S3DiT {
  const model = models.s3dit(config, options)
  for (const [i, parameter] of model.parameters().entries()) {
    if (!/adaLN|linear/.test(parameter.name)) continue
    using values = normal(parameter.shape, { seed: 77, offset: i, std: 0.2 })
    parameter.value.copyFrom(values)
  }
  return model
}

function draw(shape: number[], offset: number): Float {
  return normal(shape, { seed: 3, offset })
}

describe('the golden file', () => {
  let file: Golden
  let model: models.S3DiT
  beforeAll(async () => {
    file = await golden('s3dit-tiny')
    model = models.s3dit(file.config)
    model.loadState(file.weights)
  })

  it('has the names and shapes of the model, and no others', () => {
    expect(Object.keys(model.state()).sort()).toEqual(Object.keys(file.weights).sort())
  })

  for (const checkpointing of [false, true])
    it(`gives its outputs and gradients${checkpointing ? ' with checkpointing' : ''}`, async () => {
      model.checkpointing = checkpointing
      await expectTransformerGolden(model, file)
      model.checkpointing = false
    })

  it('does not mix samples', async () => {
    const { tensors } = file
    const time = await (tensors['in.t'] as Float).data()
    for (const i of [0, 1]) {
      const x = tensors[`in.x.${i}`] as Float
      const features = tensors[`in.cap.${i}`] as Float
      const [c, , h, w] = x.shape as [number, number, number, number]
      const [alone] = model.transform([x.reshape([c, h, w]) as Float], [time[i] as number], {
        features,
        lengths: [features.shape[0] as number],
      }) as [Float]
      const expected = (tensors[`out.${i}`] as Float).reshape([c, h, w])
      await expectClose(`sample ${i} alone`, alone, expected, goldenTolerance)
    }
  })
})

describe('batches', () => {
  const model = lively(small, { seed: 1 })
  const time = [0.1, 0.5, 0.8]

  // Token counts that are and that are not multiples of the padding, for images and for captions.
  for (const [title, multiple, size, lengths] of [
    ['without any padding', 4, 4, [4, 4, 4]],
    ['with padded images', 4, 6, [8, 8, 8]],
    ['with padded captions', 4, 4, [3, 3, 3]],
    ['with captions of unequal length', 4, 8, [1, 6, 13]],
    ['padded to 32', 32, 4, [12, 40, 32]],
    ['where one has no caption', 4, 4, [3, 0, 5]],
    ['where none has a caption', 4, 4, [0, 0, 0]],
  ] as const)
    it(`are as their samples one by one, ${title}`, async () => {
      const own = lively({ ...small, pad_multiple: multiple }, { seed: 1 })
      const x = draw([3, 4, size, size], 1)
      const total = lengths.reduce((a: number, b: number) => a + b, 0)
      const features = draw([total, 24], 2)
      const batched = own.transform(x, time, { features, lengths })
      let from = 0
      for (const [i, length] of lengths.entries()) {
        const alone = own.transform(
          x.slice([i, 0, 0, 0], [1, 4, size, size]) as Float,
          [time[i] as number],
          { features: features.slice([from, 0], [length, 24]) as Float, lengths: [length] },
        )
        from += length
        const expected = batched.slice([i, 0, 0, 0], [1, 4, size, size])
        await expectClose(`sample ${i}`, alone, expected, 1e-5)
      }
    })

  it('may be a tensor or a list, with conditions in any form', async () => {
    const x = draw([2, 4, 4, 8], 1)
    const features = draw([6, 24], 2)
    const captions = { features, lengths: [3, 3] }
    const images = [0, 1].map(
      (i) => x.slice([i, 0, 0, 0], [1, 4, 4, 8]).reshape([4, 4, 8]) as Float,
    )
    const whole = model.transform(x, [0.3, 0.6], captions)
    await expectSame('list', stack(model.transform(images, [0.3, 0.6], captions)), whole)

    const t = Float32Array.of(0.7, 0.4)
    const flow = model.forward(x, t, captions)
    await expectSame('batch of captions', model.forward(x, t, features.reshape([2, 3, 24])), flow)
    const list = [0, 1].map((i) => features.slice([3 * i, 0], [3, 24]))
    await expectSame('list of captions', model.forward(x, t, list), flow)
  })

  it('forward is the negative of the network at 1 - τ of the schedule', async () => {
    const schedule = schedules.flow({ shift: 3 })
    const shifted = lively(small, { seed: 1, schedule })
    const x = draw([2, 4, 4, 4], 1)
    const captions = { features: draw([5, 24], 2), lengths: [2, 3] }
    const t = Float32Array.of(0.25, 0.9)
    const flow = shifted.forward(x, t, captions)
    const time = Float32Array.from(t, (at) => 1 - (3 * at) / (1 + 2 * at))
    await expectClose('flow', flow, shifted.transform(x, time, captions).neg(), 1e-5)
    expect(shifted.prediction).toBe('flow')
  })

  it('a new model gives zeros', async () => {
    const fresh = models.s3dit(small, { seed: 4 })
    const y = fresh.forward(draw([1, 4, 4, 4], 1), Float32Array.of(0.5), [draw([2, 24], 2)])
    expect(new Set(await y.data())).toEqual(new Set([-0]))
  })

  it('leave nothing behind but what is kept for the next batch of their sizes', async () => {
    const x = draw([2, 4, 4, 4], 1)
    const captions = { features: draw([5, 24], 2), lengths: [2, 3] }
    model.transform(x, [0.1, 0.2], captions).dispose()
    const before = memory()
    model.transform(x, [0.1, 0.2], captions).dispose()
    expect([memory().tensors, memory().bytes]).toEqual([before.tensors, before.bytes])
  })
})

describe('layouts', () => {
  it('of many sizes are let go of, also between a forward pass and its backward pass', async () => {
    const model = lively({ ...small, pad_multiple: 4 }, { seed: 1 })
    const x = draw([1, 4, 4, 4], 1)
    const other = (length: number) =>
      model.transform(x, [0.5], { features: draw([length, 24], 3), lengths: [length] })
    for (const checkpointing of [false, true]) {
      model.checkpointing = checkpointing
      const features = draw([5, 24], 2)
      // Unequal images, so that there are masks and gathered rows, too.
      const images = [x.reshape([4, 4, 4]), draw([4, 8, 6], 4)] as Float[]
      const { value, pullback } = vjp(
        (cap) => model.transform(images, [0.2, 0.7], { features: cap, lengths: [2, 3] }),
        [features],
      )
      for (let length = 1; length < 20; length++) tidy(() => void other(length))
      const [gradient] = pullback(value)
      expect(await gradient.square().sum().item()).toBeGreaterThan(0)
    }
    const before = memory()
    for (let length = 20; length < 60; length++) tidy(() => void other(length))
    expect(memory().tensors).toBe(before.tensors)
  })
})

describe('configurations', () => {
  it('the published one is taken as it is', () => {
    const published = {
      _class_name: 'ZImageTransformer2DModel',
      _diffusers_version: '0.36.0.dev0',
      all_f_patch_size: [1],
      all_patch_size: [2],
      axes_dims: [32, 48, 48],
      axes_lens: [1536, 512, 512],
      cap_feat_dim: 2560,
      dim: 3840,
      in_channels: 16,
      n_heads: 30,
      n_kv_heads: 30,
      n_layers: 30,
      n_refiner_layers: 2,
      norm_eps: 1e-5,
      qk_norm: true,
      rope_theta: 256.0,
      t_scale: 1000.0,
    }
    const { _class_name, _diffusers_version, ...fields } = published
    expect(checkS3DiTConfig(published)).toEqual({ ...fields, pad_multiple: 32 })
  })

  it('bfloat16 weights and activations stay near float32', async () => {
    const exact = lively(small, { seed: 1 })
    const half = models.s3dit(small, { seed: 2, dtype: 'bfloat16' })
    half.loadState(exact.state())
    const x = draw([2, 4, 4, 4], 1)
    const features = draw([5, 24], 2)
    const lengths = [2, 3]
    const rounded = half.transform(x.cast('bfloat16'), [0.2, 0.7], {
      features: features.cast('bfloat16'),
      lengths,
    })
    expect(rounded.dtype).toBe('bfloat16')
    const expected = exact.transform(x, [0.2, 0.7], { features, lengths })
    await expectClose('output', rounded, expected, 0.05)
  })
})

describe('refusals', () => {
  const model = models.s3dit(small)
  const x = draw([1, 4, 4, 4], 1)
  const features = draw([3, 24], 2)
  const captions = { features, lengths: [3] }
  for (const [title, call, code, message] of [
    [
      'other channels',
      () => model.transform(draw([1, 3, 4, 4], 1), [0], captions),
      'ERR_SHAPE',
      'images: expected [batch, 4, height, width] with multiples of 2, got [1, 3, 4, 4]',
    ],
    [
      'sizes that patches do not divide',
      () => model.transform(draw([1, 4, 5, 4], 1), [0], captions),
      'ERR_SHAPE',
      'images: expected',
    ],
    [
      'too few times',
      () => model.transform(x, [], captions),
      'ERR_SHAPE',
      'time: expected length 1 (batch of images), got 0',
    ],
    [
      'captions of another batch',
      () => model.transform(x, [0], { features, lengths: [1, 2] }),
      'ERR_SHAPE',
      'captions.lengths: expected length 1',
    ],
    [
      'captions of another width',
      () => model.transform(x, [0], { features: draw([3, 5], 1), lengths: [3] }),
      'ERR_SHAPE',
      'captions.features: expected [3, 24], got [3, 5]',
    ],
    [
      'no captions',
      () => model.forward(x, Float32Array.of(0.5)),
      'ERR_CONFIG',
      'condition: expected captions',
    ],
    [
      'a misspelt field',
      () => models.s3dit({ dims: 3 } as models.S3DiTConfig),
      'ERR_CONFIG',
      'config.dims: unknown option',
    ],
    [
      'a width that heads do not make up',
      () => models.s3dit({ ...small, dim: 50 }),
      'ERR_CONFIG',
      'config.dim: expected n_heads times the sum of axes_dims, 3 x 16, got 50',
    ],
  ] as const)
    it(title, () => {
      draw([1, 3, 4, 4], 1).dispose()
      tidy(() => expectRefusalInside(call, code, message))
    })
  it('images past the end of an axis', () => {
    const short = models.s3dit({ ...small, axes_lens: [256, 2, 2] })
    expect(() => short.transform(draw([1, 4, 4, 6], 1), [0], captions)).toThrow(
      'images: position 2 along axis 2 is past config.axes_lens[2], 2',
    )
  })
})

/** As expectRefusal, for calls that make their arguments. */
function expectRefusalInside(call: () => unknown, code: string, message: string): void {
  let thrown: unknown
  try {
    call()
  } catch (error) {
    thrown = error
  }
  expect(() => {
    throw thrown
  }).toThrow(message)
  expect(thrown).toMatchObject({ code })
}

describe('weights on disk', () => {
  let folder: string
  beforeAll(async () => {
    folder = await mkdtemp(path.join(tmpdir(), 'didr-'))
  })
  afterAll(() => rm(folder, { recursive: true }))

  for (const dtype of ['float32', 'bfloat16'] as const)
    it(`come back bit for bit, ${dtype}`, async () => {
      const model = lively(small, { seed: 9 })
      const state = tidy(() =>
        Object.fromEntries(Object.entries(model.state()).map(([name, x]) => [name, x.cast(dtype)])),
      )
      const file = path.join(folder, `${dtype}.safetensors`)
      await io.saveSafetensors(file, state)
      const { tensors } = await io.loadSafetensors(file)
      expect(Object.keys(tensors).sort()).toEqual(Object.keys(state).sort())
      for (const [name, x] of Object.entries(state)) {
        expect(tensors[name]?.dtype).toBe(dtype)
        await expectSame(name, tensors[name] as Tensor, x)
      }
      const again = models.s3dit(small, { seed: 10 })
      again.loadState(tensors)
      for (const [name, x] of Object.entries(again.state()))
        await expectSame(name, x.cast(dtype), state[name] as Tensor)
    })
})

describe('gradient checkpointing', () => {
  const config = { ...small, n_layers: 8, pad_multiple: 4 }
  const batch = 24

  /** Two training steps from the same start: the losses, the parameters and the most bytes a step has held. */
  async function train(checkpointing: boolean) {
    const dev = await device('cpu')
    const model = lively(config, { seed: 5, checkpointing })
    const optimizer = new optim.AdamW([{ parameters: model.parameters(), lr: 1e-3 }])
    const x = draw([batch, 4, 16, 16], 1)
    const target = draw([batch, 4, 16, 16], 2)
    const captions = { features: draw([batch * 12, 24], 3), lengths: new Array(batch).fill(12) }
    const time = new Float32Array(batch).fill(0.5)
    const losses: number[] = []
    let peak = 0
    for (let step = 0; step < 2; step++) {
      await dev.synchronize()
      dev.resetPeakBytes()
      const { value } = valueAndGrad(() =>
        model.forward(x, time, captions).sub(target).square().mean(),
      )
      optimizer.step()
      optimizer.zeroGrad()
      losses.push(await value.item())
      value.dispose()
      peak = Math.max(peak, memory().peakBytes)
    }
    return { losses, peak, model }
  }

  it('halves the memory of an 8-layer training step and changes no bit', async () => {
    const plain = await train(false)
    const values = await Promise.all(plain.model.parameters().map(({ value }) => value.data()))
    const plainPeak = plain.peak
    plain.model.dispose()
    const saving = await train(true)
    expect(saving.losses).toEqual(plain.losses)
    for (const [i, { name, value }] of saving.model.parameters().entries())
      expect(await value.data(), name).toEqual(values[i])
    expect(plainPeak / saving.peak).toBeGreaterThan(2)
  })
})
