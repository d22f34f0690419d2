import { describe, expect, it } from 'vitest'
import { device, memory, train } from '../../lib/index.js'
import { measureStep } from '../../lib/train/plan.js'

/** The sizes of the nano Z-Image that the package trains. */
const nano: train.PlanConfig = {
  transformer: {
    ...{ dim: 192, n_layers: 6, n_refiner_layers: 1, n_heads: 6, in_channels: 4 },
    ...{ cap_feat_dim: 192, axes_dims: [8, 12, 12], axes_lens: [64, 32, 32] },
  },
  autoencoder: { block_out_channels: [16, 32, 64], norm_num_groups: 8 },
  captionTokens: 5,
  dtype: 'float32',
}

const tiny: train.PlanConfig = {
  transformer: {
    ...{ dim: 24, n_layers: 2, n_refiner_layers: 1, n_heads: 2, in_channels: 4 },
    ...{ cap_feat_dim: 6, axes_dims: [4, 4, 4], axes_lens: [32, 16, 16], pad_multiple: 4 },
  },
  autoencoder: { block_out_channels: [4, 8], norm_num_groups: 2 },
  captionTokens: 3,
  lora: { rank: 2, targets: ['to_q', 'feed_forward.w2'] },
}

describe('a plan is what a step takes on the CPU, to the byte', () => {
  const cases: [what: string, config: train.PlanConfig, options: train.PlanOptions][] = [
    ['nano, checkpointing', nano, { batchSize: 1, size: 64 }],
    ['nano, no checkpointing', nano, { batchSize: 1, size: 64, checkpointing: false }],
    ['bfloat16', { ...tiny, dtype: 'bfloat16' }, { batchSize: 3, size: 12 }],
    [
      'guidance, two particles, no averages',
      {
        ...tiny,
        didr: {
          guidance: 3,
          ema: null,
          drs: { estimator: 'drp', steps: 3, particles: 2, gradientSteps: 1, guidance: 2 },
        },
      },
      { batchSize: 2, size: 8, checkpointing: false },
    ],
    [
      'particles, a black box',
      { ...tiny, didr: { drs: { estimator: 'particles', steps: 2, particles: 3 } } },
      { batchSize: 1, size: 8 },
    ],
    [
      'damped, clipped',
      { ...tiny, dtype: 'float32', didr: { drs: { estimator: 'damped', maxNorm: 1 } } },
      { batchSize: 2, size: 8 },
    ],
    ['dmd2', { ...tiny, didr: { objective: 'dmd2', rewardEvery: 0 } }, { batchSize: 2, size: 8 }],
    [
      'diff-instruct*',
      { ...tiny, didr: { objective: 'diff-instruct*', assistantSteps: 1 } },
      { batchSize: 2, size: 8 },
    ],
    [
      'the reward alone, on latents',
      { ...tiny, autoencoder: null, didr: { objective: 'reward' } },
      { batchSize: 2, size: 32, checkpointing: false },
    ],
  ]
  for (const [what, config, options] of cases)
    it(what, async () => {
      const planned = await train.planMemory(config, options)
      const measured = await measureStep(await device('cpu'), config, options)
      expect(planned).toEqual(measured)
      expect(planned.activations).toBeGreaterThan(0)
      const { peak, ...parts } = planned
      expect(Object.values(parts).reduce((sum, bytes) => sum + bytes, 0)).toBe(peak)
    })
})

describe('a plan of the published Z-Image', () => {
  it('holds the weights once, whatever shares them', async () => {
    const plan = await train.planMemory({ didr: { ema: null } }, { batchSize: 1 })
    expect(plan.transformer).toBe(2 * 6_154_908_736)
    // Four projections of 34 blocks, A and B of rank 16 each, for two models.
    const adapters = 2 * 34 * 4 * 2 * 16 * 3840
    expect(plan.lora).toBe(2 * adapters)
    // Two moments, a master copy and a count for each tensor.
    expect(plan.optimizer).toBe(3 * 4 * adapters + 4 * 2 * 34 * 4 * 2)
    expect(plan.autoencoder).toBe(4 * 83_819_683)
  })

  it('needs more for larger batches and images, and less with checkpointing', async () => {
    const latents = { autoencoder: null, didr: { objective: 'reward' } } as const
    const peak = async (batchSize: number, size: number, checkpointing: boolean) =>
      (await train.planMemory(latents, { batchSize, size, checkpointing })).activations
    const least = await peak(1, 512, true)
    expect(await peak(1, 512, false)).toBeGreaterThan(5 * least)
    // Only the gradients of the LoRA do not grow with the batch.
    expect((await peak(4, 512, true)) / least).toBeGreaterThan(3)
    expect((await peak(4, 512, true)) / least).toBeLessThan(4)
    expect(await peak(1, 1024, true)).toBeGreaterThan(2.5 * least)
  })

  it('leaves nothing behind, and refuses what cannot be', async () => {
    const before = memory()
    await train.planMemory(tiny, { batchSize: 1, size: 8 })
    expect(memory()).toEqual(before)
    const refused = (config: object, options: object) =>
      expect(train.planMemory(config, options as train.PlanOptions)).rejects
    await refused({ vae: {} }, { batchSize: 1 }).toThrow('config.vae: unknown option; known are')
    await refused({}, { batchSize: 0 }).toThrow('options.batchSize: expected an integer from 1 on')
    await refused({}, { batchSize: 1, size: 1000 }).toThrow(
      'options.size: expected a multiple of 16, got 1000',
    )
    await refused({ didr: { beta: -1 } }, { batchSize: 1 }).toThrow('config.didr.beta: unknown')
    await refused({ lora: { rank: 2, targets: ['none'] } }, { batchSize: 1 }).toThrow(
      'options.targets: no linear layer is named "none"',
    )
  })
})
