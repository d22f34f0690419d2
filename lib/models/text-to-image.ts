/** What one-step generators are made of: the networks of a text-to-image model, whatever its size. */
import type { Schedule } from '../didr/schedules.js'
import { normal } from '../tensor/create.js'
import type { Device } from '../tensor/device.js'
import type { FloatDType } from '../tensor/dtype.js'
import { concat } from '../tensor/layout.js'
import { tidy } from '../tensor/scope.js'
import type { Tensor } from '../tensor/tensor.js'
import type { S3DiT } from './s3dit.js'

type Float = Tensor<FloatDType>

/** A {@link NanoZImage}, or a {@link ZImage} at a size of images. */
export interface TextToImage {
  readonly transformer: S3DiT
  /** The schedule whose times the transformer is given. */
  readonly schedule: Schedule
  readonly device: Device
  /** Of the latents of a batch: [batch, channels, height, width]. */
  latentShape(batch: number): number[]
  /** Normalised latents as images [B, 3, H, W] from 0 to 1; differentiable where nothing is clipped. */
  decode(latents: Float): Float
}

/** Where the noise of images comes from. */
export interface NoiseOptions {
  /** Default 0. */
  seed?: number
  /** The number of the batch's first image: image i has the noise `normal(..., { seed, offset: first + i })`. Default 0. */
  first?: number
}

/** Noise to start from, [batch, ...]. An image's depends on its number alone, not on its batch. */
export function latentNoise(
  model: TextToImage,
  batch: number,
  { seed = 0, first = 0 }: NoiseOptions = {},
): Float {
  const { device } = model
  const { dtype } = model.transformer.x_pad_token.value
  const shape = model.latentShape(1)
  return tidy(
    () =>
      concat(
        Array.from({ length: batch }, (_, i) =>
          normal(shape, { seed, offset: first + i, dtype, device }),
        ),
      ) as Float,
  )
}
