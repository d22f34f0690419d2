/** What rewards ask of images. */
import { checkSamples } from '../didr/samples.js'
import { fail } from '../errors.js'
import type { FloatDType } from '../tensor/dtype.js'
import { showShape } from '../tensor/shape.js'
import type { Tensor } from '../tensor/tensor.js'

/**
 * The sizes of images [B, C, H, W].
 * @param channels C; undefined for any
 * @param least rows and columns
 */
export function checkImages(
  images: Tensor<FloatDType>,
  channels: number | undefined,
  least = 1,
): [batch: number, channels: number, height: number, width: number] {
  checkSamples('images', images)
  const [batch = 0, own = 0, height = 0, width = 0] = images.shape
  const fits = images.rank === 4 && (channels === undefined || own === channels)
  if (!fits || height < least || width < least)
    fail(
      'ERR_SHAPE',
      `images: expected [batch, ${channels ?? 'channels'}, height, width] with at least ${least} by ${least} pixels, ` +
        `got ${showShape(images.shape)}`,
    )
  return [batch, own, height, width]
}

/** The same numbers in float32, in which rewards compute. */
export function inFloat32(images: Tensor<FloatDType>): Tensor<'float32'> {
  return images.dtype === 'float32' ? (images as Tensor<'float32'>) : images.cast('float32')
}
