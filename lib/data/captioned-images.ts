import { checkInteger, checkOptions } from '../checks.js'
import { fail } from '../errors.js'
import { tensor } from '../tensor/create.js'
import type { Device } from '../tensor/device.js'
import type { Tensor } from '../tensor/tensor.js'
import { holdOutCombinations, type Split } from './held-out.js'

/** How an image is laid on a white square; lengths in pixels. */
export interface Placement {
  /** To the right. */
  dx: number
  /** Downwards. */
  dy: number
  /** Above 1 is larger. Default 1. */
  zoom?: number
  /** Clockwise, in radians. Default 0. */
  angle?: number
}

/** Pixels from 0 to 255 as numbers from -1 to 1. */
const levels = Float32Array.from({ length: 256 }, (_, value) => value / 127.5 - 1)

/** Square images with a prompt each, in memory: a byte for each channel of each pixel. */
export class CaptionedImages {
  /** Edge in pixels. */
  readonly size: number
  readonly prompts: readonly string[]
  /** Indices of images for training, and of held-out combinations. */
  readonly split: Split
  readonly #pixels: readonly Uint8Array[]

  /** @param pixels [3, size, size] for each prompt */
  constructor(size: number, prompts: readonly string[], pixels: readonly Uint8Array[]) {
    checkInteger('size', size, 1)
    if (pixels.length !== prompts.length)
      fail(
        'ERR_SHAPE',
        `pixels: expected ${prompts.length} images, one per prompt, got ${pixels.length}`,
      )
    for (const [i, { length }] of pixels.entries())
      if (length !== 3 * size * size)
        fail('ERR_SHAPE', `pixels[${i}]: expected ${3 * size * size} bytes, got ${length}`)
    this.size = size
    this.prompts = [...prompts]
    this.split = holdOutCombinations(prompts)
    this.#pixels = pixels
  }

  get length(): number {
    return this.prompts.length
  }

  /**
   * Images as a tensor.
   * @param options `placements`: one for each image. Default: as they are.
   * @returns [indices.length, 3, size, size] with elements from -1 to 1
   */
  batch(
    indices: readonly number[],
    options: { placements?: readonly Placement[]; device?: Device } = {},
  ): Tensor<'float32', [number, number, number, number]> {
    checkOptions('options', options, ['placements', 'device'])
    const { placements, ...place } = options
    if (placements !== undefined && placements.length !== indices.length)
      fail(
        'ERR_SHAPE',
        `options.placements: expected ${indices.length}, one per image, got ${placements.length}`,
      )
    const { size } = this
    const span = 3 * size * size
    const values = new Float32Array(indices.length * span)
    for (const [row, index] of indices.entries()) {
      checkInteger(`indices[${row}]`, index, 0, this.length - 1)
      const pixels = this.#pixels[index] as Uint8Array
      const target = values.subarray(row * span, (row + 1) * span)
      const { dx, dy, zoom = 1, angle = 0 } = placements?.[row] ?? { dx: 0, dy: 0 }
      if (zoom === 1 && angle === 0 && Number.isInteger(dx) && Number.isInteger(dy))
        shift(pixels, target, size, dx, dy)
      else warp(pixels, target, size, { dx, dy, zoom, angle })
    }
    return tensor(values, { shape: [indices.length, 3, size, size], ...place })
  }
}

/** By whole pixels. */
function shift(from: Uint8Array, to: Float32Array, size: number, dx: number, dy: number): void {
  if (dx !== 0 || dy !== 0) to.fill(1)
  const left = Math.max(0, dx)
  const right = Math.min(size, size + dx)
  for (let channel = 0; channel < 3; channel++)
    for (let y = Math.max(0, dy); y < Math.min(size, size + dy); y++) {
      const row = (channel * size + y) * size
      const source = (channel * size + y - dy) * size - dx
      for (let x = left; x < right; x++) to[row + x] = levels[from[source + x] as number] as number
    }
}

/** Bilinear, about the centre. */
function warp(
  from: Uint8Array,
  to: Float32Array,
  size: number,
  { dx, dy, zoom, angle }: Required<Placement>,
): void {
  const plane = size * size
  const centre = (size - 1) / 2
  const [cos, sin] = [Math.cos(angle) / zoom, Math.sin(angle) / zoom]
  const at = (channel: number, x: number, y: number) =>
    x < 0 || y < 0 || x >= size || y >= size
      ? 1
      : (levels[from[channel * plane + y * size + x] as number] as number)
  for (let y = 0; y < size; y++)
    for (let x = 0; x < size; x++) {
      const [u, v] = [x - centre - dx, y - centre - dy]
      const [sx, sy] = [centre + cos * u + sin * v, centre - sin * u + cos * v]
      const [x0, y0] = [Math.floor(sx), Math.floor(sy)]
      const [fx, fy] = [sx - x0, sy - y0]
      for (let channel = 0; channel < 3; channel++)
        to[channel * plane + y * size + x] =
          (1 - fy) * ((1 - fx) * at(channel, x0, y0) + fx * at(channel, x0 + 1, y0)) +
          fy * ((1 - fx) * at(channel, x0, y0 + 1) + fx * at(channel, x0 + 1, y0 + 1))
    }
}
