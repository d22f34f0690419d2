/** Rewards that are formulas of the pixels: no network, and differentiable. */
import { conv2d } from '../nn/functional.js'
import { tensor } from '../tensor/create.js'
import type { FloatDType } from '../tensor/dtype.js'
import type { Tensor } from '../tensor/tensor.js'
import { checkImages, inFloat32 } from './images.js'
import type { Reward } from './reward.js'

/**
 * Added under the roots, whose slope at 0 is infinite: an image without colour has a gradient of zeros. It counts as
 * 1.3e-5 in the score of such an image, and as nothing in that of any other.
 */
const underRoot = 1e-10

/** The opponent colours red-green, R - G, and yellow-blue, (R + G)/2 - B, as rows over (R, G, B). */
const opponents = Float32Array.of(1, -1, 0, 0.5, 0.5, -1)

/**
 * How colourful images are: M = √(σ_rg² + σ_yb²) + 0.3 √(μ_rg² + μ_yb²), from the standard deviations and means of an
 * image's opponent colours rg = R - G and yb = (R + G)/2 - B (Hasler and Süsstrunk, "Measuring colourfulness in natural
 * images", 2003). Differentiable.
 *
 * Scores images [B, 3, H, W] with values from 0 to 1. The paper's are from 0 to 255, so that its M is 255 times this
 * one; with values from -1 to 1 it is twice this one.
 * @throws {DidrError} when scoring, ERR_SHAPE for other shapes
 */
export function colourfulness(): Reward {
  return {
    name: 'colourfulness',
    differentiable: true,
    score(images) {
      const [batch, channels, height, width] = checkImages(images, 3)
      const pixels = inFloat32(images).reshape([batch, channels, height * width])
      const { device } = images
      const colours = tensor(opponents, { shape: [2, 3], device }).matmul<number[]>(pixels)
      const { mean, variance } = moments(colours)
      const spread = variance.sum(1).add(underRoot).sqrt()
      const offset = mean.square().sum(1).add(underRoot).sqrt()
      return spread.add(offset.mul(0.3))
    },
  }
}

/** The weights of red, green and blue in the lightness of a pixel (ITU-R BT.601). */
export const luma = [0.299, 0.587, 0.114] as const

/** The second differences along rows and columns, summed. */
const laplacian = [0, 1, 0, 1, -4, 1, 0, 1, 0]

/** Both at once: the Laplacian of the lightness, [1, 3, 3, 3]. */
const laplacianOfLuma = Float32Array.from(luma.flatMap((c) => laplacian.map((k) => c * k)))

/**
 * How sharp images are: the variance, over an image, of the Laplacian of its lightness (Pech-Pacheco et al., "Diatom
 * autofocusing in brightfield microscopy", 2000). The Laplacian is that of the four neighbours, and is taken where all
 * of them are inside the image. Differentiable.
 *
 * Scores images [B, 3, H, W] with values from 0 to 1, H and W from 3 on. With values from 0 to 255 it would be 255² times
 * as much.
 * @throws {DidrError} when scoring, ERR_SHAPE for other shapes
 */
export function sharpness(): Reward {
  return {
    name: 'sharpness',
    differentiable: true,
    score(images) {
      const [batch, , height, width] = checkImages(images, 3, 3)
      const { device } = images
      const kernel = tensor(laplacianOfLuma, { shape: [1, 3, 3, 3], device })
      const response = conv2d(inFloat32(images), kernel as Tensor<'float32'>)
      return moments(response.reshape([batch, (height - 2) * (width - 2)])).variance
    },
  }
}

/** Mean and variance along the last axis. The variance is taken about the mean: E[x²] - E[x]² would cancel. */
function moments(x: Tensor<FloatDType>): Record<'mean' | 'variance', Tensor<FloatDType>> {
  const mean = x.mean(-1, { keepDims: true })
  const variance = x.sub(mean).square().mean(-1) as Tensor<FloatDType>
  return { mean: mean.reshape(variance.shape) as Tensor<FloatDType>, variance }
}
