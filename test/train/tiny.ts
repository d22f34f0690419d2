/** Pretraining small enough for tests: 16 by 16 pixels, a few thousand parameters. */
import { rm, writeFile } from 'node:fs/promises'
import path from 'node:path'
import type { train } from '../../lib/index.js'

const common = {
  imageSize: 16,
  batchSize: 4,
  checkpointEvery: 5,
  previewEvery: 0,
  optimizer: { warmup: 2 },
}

export const tinyAutoencoder = {
  ...common,
  steps: 40,
  shift: 1,
  optimizer: { lr: 1e-2, warmup: 2 },
  model: {
    ...{ block_out_channels: [8, 16], norm_num_groups: 4, latent_channels: 2 },
    mid_block_add_attention: false,
  },
} satisfies train.Partly<train.PretrainAutoencoderConfig>

export const tinyTeacher = {
  ...common,
  steps: 40,
  batchSize: 8,
  ema: 0.9,
  optimizer: { lr: 5e-3, warmup: 2 },
  model: {
    ...{ dim: 24, n_layers: 1, n_refiner_layers: 1, n_heads: 2, cap_feat_dim: 16 },
    ...{ axes_dims: [4, 4, 4], axes_lens: [16, 8, 8], pad_multiple: 4 },
  },
} satisfies train.Partly<train.PretrainTeacherConfig>

export const tinyClip = {
  ...common,
  steps: 60,
  batchSize: 10,
  optimizer: { lr: 1e-2, warmup: 2 },
  model: { widths: [8, 16], groups: 4, dim: 8, wordDim: 8 },
  ema: 0.8,
  augment: { shift: 1, zoom: 0.1, angle: 0.1, noise: 0.1 },
} satisfies train.Partly<train.PretrainClipConfig>

/** As a file for `--config`. */
export async function configFile(folder: string, config: object): Promise<string> {
  const file = path.join(folder, 'given.json')
  await rm(file, { force: true })
  await writeFile(file, JSON.stringify(config))
  return file
}
