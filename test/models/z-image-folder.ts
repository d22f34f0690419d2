/** A Z-Image small enough for tests, in a folder laid out as the published one. */
import { mkdir, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { io, models, type Tensor, uniform } from '../../lib/index.js'

/** The published config's fields at other sizes; `pad_multiple`, 32 in the published network's code, keeps it small. */
export const transformerConfig = {
  _class_name: 'ZImageTransformer2DModel',
  _diffusers_version: '0.36.0.dev0',
  all_f_patch_size: [1],
  all_patch_size: [2],
  axes_dims: [4, 4, 4],
  axes_lens: [32, 16, 16],
  cap_feat_dim: 6,
  dim: 24,
  in_channels: 4,
  n_heads: 2,
  n_kv_heads: 2,
  n_layers: 2,
  n_refiner_layers: 1,
  norm_eps: 1e-5,
  qk_norm: true,
  rope_theta: 256,
  siglip_feat_dim: null,
  t_scale: 1000,
  pad_multiple: 4,
}

export const autoencoderConfig = {
  _class_name: 'AutoencoderKL',
  _diffusers_version: '0.36.0.dev0',
  _name_or_path: 'flux-dev',
  act_fn: 'silu',
  block_out_channels: [4, 8],
  down_block_types: ['DownEncoderBlock2D', 'DownEncoderBlock2D'],
  force_upcast: true,
  in_channels: 3,
  latent_channels: 4,
  latents_mean: null,
  latents_std: null,
  layers_per_block: 1,
  mid_block_add_attention: true,
  norm_num_groups: 2,
  out_channels: 3,
  sample_size: 1024,
  scaling_factor: 0.3611,
  shift_factor: 0.1159,
  up_block_types: ['UpDecoderBlock2D', 'UpDecoderBlock2D'],
  use_post_quant_conv: false,
  use_quant_conv: false,
}

const modelIndex = {
  _class_name: 'ZImagePipeline',
  _diffusers_version: '0.36.0.dev0',
  scheduler: ['diffusers', 'FlowMatchEulerDiscreteScheduler'],
  text_encoder: ['transformers', 'Qwen3Model'],
  tokenizer: ['transformers', 'Qwen2Tokenizer'],
  transformer: ['diffusers', 'ZImageTransformer2DModel'],
  vae: ['diffusers', 'AutoencoderKL'],
}

const scheduler = {
  _class_name: 'FlowMatchEulerDiscreteScheduler',
  _diffusers_version: '0.36.0.dev0',
  num_train_timesteps: 1000,
  use_dynamic_shifting: false,
  shift: 6.0,
}

/** The networks of the folder, no weight of which is 0. */
export interface Networks {
  transformer: models.S3DiT
  autoencoder: models.AutoencoderKL
}

export function networks(dtype: 'float32' | 'bfloat16' = 'bfloat16'): Networks {
  const { siglip_feat_dim, ...config } = transformerConfig
  const transformer = models.s3dit(config, { dtype })
  const autoencoder = models.autoencoderKL(autoencoderConfig as models.AutoencoderKLConfig)
  for (const [draw, module] of [transformer, autoencoder].entries())
    for (const [i, { value }] of module.parameters().entries()) {
      using noise = uniform(value.shape, { seed: draw, offset: i, low: -0.3, high: 0.3 })
      using converted = noise.cast(value.dtype)
      value.copyFrom(converted as typeof value)
    }
  return { transformer, autoencoder }
}

export const shardNames = [1, 2].map(
  (i) => `diffusion_pytorch_model-0000${i}-of-00002.safetensors`,
) as [string, string]
export const indexName = 'diffusion_pytorch_model.safetensors.index.json'

/** What is in the transformer's folder: names by shard, and the index's weight_map. */
export interface Sharding {
  shards: [Record<string, Tensor>, Record<string, Tensor>]
  weightMap: Record<string, string>
}

export async function writeJson(file: string, value: unknown): Promise<void> {
  await mkdir(path.dirname(file), { recursive: true })
  await writeFile(file, JSON.stringify(value))
}

/** Writes the networks: the transformer in two shards, the autoencoder in one file. */
export async function writeFolder(
  folder: string,
  { transformer, autoencoder }: Networks,
  change: (sharding: Sharding) => void = () => {},
): Promise<void> {
  const sharding: Sharding = { shards: [{}, {}], weightMap: {} }
  for (const [i, [name, value]] of Object.entries(transformer.state()).entries()) {
    // Not the first half and the second: the order of the files is not that of the parameters.
    const shard = i % 3 === 0 ? 1 : 0
    sharding.shards[shard][name] = value
    sharding.weightMap[name] = shardNames[shard]
  }
  change(sharding)
  await writeJson(path.join(folder, 'model_index.json'), modelIndex)
  await writeJson(path.join(folder, 'scheduler', 'scheduler_config.json'), scheduler)
  await writeJson(path.join(folder, 'transformer', 'config.json'), transformerConfig)
  await writeJson(path.join(folder, 'vae', 'config.json'), autoencoderConfig)
  for (const [i, shard] of sharding.shards.entries())
    await io.saveSafetensors(path.join(folder, 'transformer', shardNames[i] as string), shard)
  await writeJson(path.join(folder, 'transformer', indexName), {
    metadata: { total_size: 0 },
    weight_map: sharding.weightMap,
  })
  await io.saveSafetensors(
    path.join(folder, 'vae', 'diffusion_pytorch_model.safetensors'),
    autoencoder.state(),
  )
}
