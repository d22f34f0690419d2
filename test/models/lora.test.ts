import { describe, expect, it } from 'vitest'
import { memory, models, nn, normal, optim, type Tensor, valueAndGrad } from '../../lib/index.js'
import { expectClose, expectSame } from './goldens.js'

type Float = Tensor<'float32'>

const config: models.S3DiTConfig = {
  in_channels: 4,
  dim: 48,
  n_layers: 2,
  n_refiner_layers: 1,
  n_heads: 3,
  cap_feat_dim: 24,
  axes_dims: [4, 6, 6],
  axes_lens: [256, 64, 64],
}

/** A base whose output is not 0. */
function baseModel(): models.S3DiT {
  const model = models.s3dit(config, { seed: 1 })
  for (const [i, parameter] of model.parameters().entries()) {
    using values = normal(parameter.shape, { seed: 7, offset: i, std: 0.2 })
    if (/adaLN|linear/.test(parameter.name)) parameter.value.copyFrom(values)
  }
  return model
}

const x = normal([2, 4, 4, 4], { seed: 3 })
const t = Float32Array.of(0.3, 0.8)
const captions = { features: normal([5, 24], { seed: 4 }), lengths: [2, 3] }
const target = normal([2, 4, 4, 4], { seed: 5 })

/** Moves the additions away from where they start. */
async function train(model: nn.Adapted<models.S3DiT>, steps: number): Promise<number[]> {
  const optimizer = new optim.AdamW(model.lora.parameters(), { lr: 1e-2 })
  const losses: number[] = []
  for (let step = 0; step < steps; step++) {
    const { value } = valueAndGrad(
      () => model.forward(x, t, captions).sub(target).square().mean() as Float,
    )
    optimizer.step()
    optimizer.zeroGrad()
    losses.push(await value.item())
  }
  return losses
}

describe('an adapted model', () => {
  const base = baseModel()
  const targets = ['to_q', 'to_k', 'to_v', 'to_out.0', 'feed_forward.w2', 'cap_embedder.1']

  // First, while no other test's tensors wait for the garbage collector.
  it('shares the memory of its base and adds its own', () => {
    const before = memory().bytes
    const adapted = nn.lora(base, { rank: 4, targets })
    const own = adapted.lora.parameters().reduce((sum, { value }) => sum + value.bytes, 0)
    const whole = base.parameters().reduce((sum, { value }) => sum + value.bytes, 0)
    expect(memory().bytes - before).toBeGreaterThanOrEqual(own)
    // Storage is handed out in blocks, of which a small tensor fills a part.
    expect(memory().bytes - before).toBeLessThan(2 * own)
    expect(own).toBeLessThan(whole / 4)
    adapted.dispose()
    expect(memory().bytes).toBe(before)
    expect(base.parameters().some(({ value }) => value.disposed)).toBe(false)
  })

  it('starts as its base, bit for bit', async () => {
    const adapted = nn.lora(base, { rank: 4, targets })
    await expectSame('rank 4', adapted.forward(x, t, captions), base.forward(x, t, captions))
    const none = nn.lora(base, { rank: 0 })
    await expectSame('rank 0', none.forward(x, t, captions), base.forward(x, t, captions))
    expect(none.lora.parameters()).toEqual([])
    expect(adapted).toBeInstanceOf(models.S3DiT)
  })

  it('trains its additions alone', async () => {
    const before = await Promise.all(base.parameters().map(({ value }) => value.data()))
    const adapted = nn.lora(base, { rank: 4, alpha: 8, targets })
    expect(adapted.parameters().filter(({ trainable }) => trainable)).toEqual(
      adapted.lora.parameters(),
    )
    const losses = await train(adapted, 5)
    expect(losses.at(-1)).toBeLessThan(losses[0] as number)
    const after = await Promise.all(base.parameters().map(({ value }) => value.data()))
    expect(after).toEqual(before)
    expect(base.parameters().every(({ trainable, grad }) => trainable && grad === undefined)).toBe(
      true,
    )
    expect(
      adapted.parameters().every(({ trainable, grad }) => trainable || grad === undefined),
    ).toBe(true)
  })

  it('is y = x Wᵀ + b + alpha / rank · x Aᵀ Bᵀ', async () => {
    class One extends nn.Module {
      readonly layer: nn.Linear
      constructor() {
        super()
        this.layer = new nn.Linear(new nn.Initializer({ seed: 2 }), 5, 3)
      }
    }
    const one = new One()
    const adapted = nn.lora(one, { rank: 2, alpha: 6, targets: ['layer'] })
    const [a, b] = adapted.lora.parameters().map(({ value }) => value) as [Float, Float]
    expect([a.shape, b.shape]).toEqual([
      [2, 5],
      [3, 2],
    ])
    using values = normal([3, 2], { seed: 8 })
    b.copyFrom(values)
    const input = normal([7, 5], { seed: 9 })
    const change = input.matmul(a, { transB: true }).matmul(b, { transB: true }).mul(3)
    const y = adapted.layer.forward(input)
    await expectClose('y', y, one.layer.forward(input).add(change), 1e-6)
    await expectClose('silu(y)', adapted.layer.forward(input, 'silu'), y.silu(), 1e-6)
    await expectClose('geluTanh(y)', adapted.layer.forward(input, 'geluTanh'), y.gelu('tanh'), 1e-6)
  })

  it('merged equals unmerged, and unmerged is as before', async () => {
    const adapted = nn.lora(base, { rank: 4, targets })
    await train(adapted, 5)
    const bytes = memory().bytes
    const apart = adapted.forward(x, t, captions)
    const unchanged = base.forward(x, t, captions)
    expect(adapted.lora.merged).toBe(false)
    adapted.lora.merge()
    expect(adapted.lora.merged).toBe(true)
    const merged = adapted.forward(x, t, captions)
    // Merging rounds each of the adapted layers' weights once; through the whole network that adds up to some 1e-6.
    await expectClose('merged', merged, apart, 2e-6)
    const moved = await merged.sub(unchanged).abs().max().item()
    expect(moved).toBeGreaterThan(1e-2)
    await expectSame('base beside it', base.forward(x, t, captions), unchanged)
    adapted.lora.merge()
    adapted.lora.unmerge()
    await expectSame('unmerged', adapted.forward(x, t, captions), apart)
    for (const y of [apart, unchanged, merged]) y.dispose()
    expect(memory().bytes).toBeGreaterThanOrEqual(bytes)
  })

  it('has a state of its own that another one takes', async () => {
    const adapted = nn.lora(base, { rank: 3, targets: ['to_q'] })
    await train(adapted, 2)
    const state = adapted.lora.state()
    expect(Object.keys(state)).toEqual(
      ['noise_refiner.0', 'context_refiner.0', 'layers.0', 'layers.1'].flatMap((block) =>
        ['A', 'B'].map((part) => `${block}.attention.to_q.lora_${part}.weight`),
      ),
    )
    expect(adapted.lora.targets.length).toBe(4)
    const other = nn.lora(base, { rank: 3, targets: ['to_q'], seed: 12 })
    other.lora.loadState(state)
    await expectSame('loaded', other.forward(x, t, captions), adapted.forward(x, t, captions))
    expect(() => nn.lora(base, { rank: 2, targets: ['to_q'] }).lora.loadState(state)).toThrow(
      'lora_A.weight [2, 48], got [3, 48]',
    )
  })

  it('sees what its base is given later', async () => {
    const changing = baseModel()
    const adapted = nn.lora(changing, { rank: 2 })
    changing.loadState(models.s3dit(config, { seed: 20 }).state())
    await expectSame('output', adapted.forward(x, t, captions), changing.forward(x, t, captions))
  })

  it('says which targets there are not', () => {
    expect(() => nn.lora(base, { rank: 2, targets: ['to_q', 'to_qkv'] })).toThrow(
      'options.targets: no linear layer is named "to_qkv"',
    )
    expect(() => nn.lora(base, { rank: -1 })).toThrow('options.rank: expected an integer from 0')
    expect(() => nn.lora(base, { rank: 2, target: ['to_q'] } as nn.LoraOptions)).toThrow(
      'options.target: unknown option',
    )
  })
})
