import { checkFinite, checkInteger, checkOptions } from '../checks.js'
import { fail, show } from '../errors.js'

/** The fields of diffusers' `config.json` for `ZImageTransformer2DModel`, and `pad_multiple`. */
export interface S3DiTConfig {
  /** Edge of a patch in latent pixels; the first entry is used. Default [2]. */
  all_patch_size?: readonly number[]
  /** Frames in a patch: [1] for images. */
  all_f_patch_size?: readonly number[]
  /** Channels of the latent. Default 16. */
  in_channels?: number
  /** Width of a token. Default 3840. */
  dim?: number
  /** Blocks over image and caption together. Default 30. */
  n_layers?: number
  /** Blocks over the image alone, and as many over the caption alone. Default 2. */
  n_refiner_layers?: number
  /** Attention heads. Default 30. */
  n_heads?: number
  /** As many as `n_heads`. */
  n_kv_heads?: number
  /** Added to the mean square in RMS norms. Default 1e-5. */
  norm_eps?: number
  /** Normalise queries and keys. Default true. */
  qk_norm?: boolean
  /** Width of a caption's features. Default 2560. */
  cap_feat_dim?: number
  /** Base of the rotary frequencies. Default 256. */
  rope_theta?: number
  /** What the time from 0 to 1 is multiplied by before it is embedded. Default 1000. */
  t_scale?: number
  /** The share of a head for each of the axes caption position, row and column. Default [32, 48, 48]. */
  axes_dims?: readonly number[]
  /** Positions along each axis are below these. Default [1024, 512, 512]. */
  axes_lens?: readonly number[]
  /**
   * Token counts of images and of captions are padded to multiples of this. Default 32, as in the published model,
   * which has the number in its code (SEQ_MULTI_OF) and not in its config.
   */
  pad_multiple?: number
}

const defaults: Required<S3DiTConfig> = {
  all_patch_size: [2],
  all_f_patch_size: [1],
  in_channels: 16,
  dim: 3840,
  n_layers: 30,
  n_refiner_layers: 2,
  n_heads: 30,
  n_kv_heads: 30,
  norm_eps: 1e-5,
  qk_norm: true,
  cap_feat_dim: 2560,
  rope_theta: 256,
  t_scale: 1000,
  axes_dims: [32, 48, 48],
  axes_lens: [1024, 512, 512],
  pad_multiple: 32,
}

/** Fills in defaults and refuses what the network cannot be. Fields that start with an underscore are ignored. */
export function checkS3DiTConfig(config: S3DiTConfig): Required<S3DiTConfig> {
  checkOptions('config', config, [
    ...Object.keys(defaults),
    ...Object.keys(config ?? {}).filter((field) => field.startsWith('_')),
  ])
  const heads = config.n_heads ?? defaults.n_heads
  const known = Object.fromEntries(
    Object.entries({ ...defaults, n_kv_heads: heads, ...config }).filter(
      ([field]) => field in defaults,
    ),
  ) as unknown as Required<S3DiTConfig>
  for (const field of [
    'in_channels',
    'dim',
    'n_heads',
    'n_kv_heads',
    'cap_feat_dim',
    'pad_multiple',
  ] as const)
    checkInteger(`config.${field}`, known[field], 1, 2 ** 24)
  for (const field of ['n_layers', 'n_refiner_layers'] as const)
    checkInteger(`config.${field}`, known[field], 0, 10_000)
  for (const field of ['norm_eps', 'rope_theta', 't_scale'] as const) {
    checkFinite(`config.${field}`, known[field])
    if (known[field] <= 0)
      fail('ERR_RANGE', `config.${field}: expected a number above 0, got ${known[field]}`)
  }
  if (known.n_kv_heads !== known.n_heads)
    fail(
      'ERR_CONFIG',
      `config.n_kv_heads: expected n_heads, ${known.n_heads}, got ${known.n_kv_heads}`,
    )
  if (known.qk_norm !== true)
    fail('ERR_CONFIG', `config.qk_norm: expected true, got ${show(known.qk_norm)}`)
  checkSizes('config.all_patch_size', known.all_patch_size)
  checkSizes('config.all_f_patch_size', known.all_f_patch_size)
  if (
    known.all_f_patch_size.length !== known.all_patch_size.length ||
    known.all_f_patch_size.some((size) => size !== 1)
  )
    fail(
      'ERR_CONFIG',
      `config.all_f_patch_size: expected a 1 for each patch size (images have one frame), got ${show(known.all_f_patch_size)}`,
    )
  checkSizes('config.axes_dims', known.axes_dims)
  checkSizes('config.axes_lens', known.axes_lens)
  if (known.axes_dims.length !== 3 || known.axes_dims.some((size) => size % 2 !== 0))
    fail('ERR_CONFIG', `config.axes_dims: expected three even sizes, got ${show(known.axes_dims)}`)
  if (known.axes_lens.length !== 3)
    fail('ERR_CONFIG', `config.axes_lens: expected three lengths, got ${show(known.axes_lens)}`)
  const head = known.axes_dims.reduce((sum, size) => sum + size, 0)
  if (known.dim !== head * known.n_heads)
    fail(
      'ERR_CONFIG',
      `config.dim: expected n_heads times the sum of axes_dims, ${known.n_heads} x ${head}, got ${known.dim}`,
    )
  return known
}

function checkSizes(name: string, sizes: unknown): void {
  if (!Array.isArray(sizes) || sizes.length === 0)
    fail('ERR_CONFIG', `${name}: expected an array of sizes, got ${show(sizes)}`)
  for (const [i, size] of sizes.entries()) checkInteger(`${name}[${i}]`, size, 1, 2 ** 24)
}
