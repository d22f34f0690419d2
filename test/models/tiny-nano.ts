/** A nano Z-Image of 16 by 16 pixels with weights that are noise: new transformers give zeros. */
import path from 'node:path'
import { type Device, models, uniform } from '../../lib/index.js'

export const tinyNanoConfig: models.NanoZImageConfig = {
  imageSize: 16,
  autoencoder: {
    ...{ block_out_channels: [4, 8], norm_num_groups: 2, latent_channels: 2 },
    ...{ shift_factor: 0.3, scaling_factor: 0.7 },
  },
  transformer: {
    ...{ dim: 12, n_layers: 1, n_refiner_layers: 1, n_heads: 1, in_channels: 2 },
    ...{ cap_feat_dim: 6, axes_dims: [4, 4, 4], axes_lens: [16, 8, 8], pad_multiple: 4 },
  },
  captions: { vocabulary: ['red', 'blue', 'heart', 'circle'], dim: 6 },
}

export const tinyPrompts = ['red heart', 'blue heart', 'red circle', 'blue circle', 'heart']

/** @param place where it is. Default: the CPU. */
export function tinyNano(seed = 2, place: { device?: Device } = {}): models.NanoZImage {
  const model = models.nanoZImage(tinyNanoConfig, { seed: 1, ...place })
  for (const [i, { value }] of model.parameters().entries()) {
    using noise = uniform(value.shape, { seed, offset: i, low: -0.3, high: 0.3, ...place })
    value.copyFrom(noise as typeof value)
  }
  return model
}

export interface TinyFiles {
  teacher: string
  generator: string
  clip: string
  features: string
}

/** Files of the models that alignment starts from. */
export async function writeTinyNano(folder: string): Promise<TinyFiles> {
  const file = (name: string) => path.join(folder, `${name}.safetensors`)
  using teacher = tinyNano()
  await teacher.save(file('teacher'))
  using generator = models.loraGenerator(teacher, { rank: 2, seed: 3 })
  await generator.save(file('generator'))
  for (const [name, seed] of [
    ['clip', 4],
    ['features', 5],
  ] as const) {
    using clip = models.clip(
      { widths: [4, 8], groups: 2, dim: 6, captions: tinyNanoConfig.captions },
      { seed },
    )
    await clip.save(file(name))
  }
  return {
    teacher: file('teacher'),
    generator: file('generator'),
    clip: file('clip'),
    features: file('features'),
  }
}
