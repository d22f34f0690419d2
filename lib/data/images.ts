/** Image files to pixels and back, by sharp. */
import path from 'node:path'
import sharp from 'sharp'
import { checkInteger, checkOneOf, checkOptions } from '../checks.js'
import { DidrError, fail, show } from '../errors.js'
import { InputFile, writeAtomically } from '../io/files.js'
import { showShape } from '../tensor/shape.js'
import { idOf, type Tensor } from '../tensor/tensor.js'

const white = { r: 255, g: 255, b: 255 }

/**
 * An image file as a square of pixels: turned upright, scaled to fit, centred, on white where it is transparent or does
 * not reach.
 *
 * @param file PNG, JPEG, WebP, GIF (its first frame), TIFF, AVIF or SVG
 * @param size edge of the square in pixels
 * @returns [3, size, size], sRGB from 0 to 255
 * @throws {DidrError} (as a rejection) ERR_IO if there is no such file; ERR_FORMAT if it is no image that can be read
 */
export async function readPixels(file: string, size: number): Promise<Uint8Array> {
  checkInteger('size', size, 1, 4096)
  const input = await InputFile.open(file)
  const bytes = new Uint8Array(input.bytes)
  try {
    await input.read(bytes, 0)
  } finally {
    await input.close()
  }
  let interleaved: Uint8Array
  try {
    interleaved = await sharp(bytes)
      .autoOrient()
      .resize(size, size, { fit: 'contain', background: white })
      .flatten({ background: white })
      .toColourspace('srgb')
      .raw({ depth: 'uchar' })
      .toBuffer()
  } catch (error) {
    return fail('ERR_FORMAT', `${file}: not an image that can be read: ${messageOf(error)}`, {
      cause: error,
    })
  }
  const plane = size * size
  const planar = new Uint8Array(3 * plane)
  for (let i = 0; i < plane; i++)
    for (let channel = 0; channel < 3; channel++)
      planar[channel * plane + i] = interleaved[3 * i + channel] as number
  return planar
}

/** How {@link writeImages} and {@link encodeImages} lay out their grid. */
export interface WriteImagesOptions {
  /** Images in a row. Default: as many as make the grid about square. */
  columns?: number
  /** Pixels of white between images. Default 2. */
  gap?: number
  /** Each pixel becomes a square of this edge. Default 1. */
  scale?: number
}

type Format = 'png' | 'jpeg' | 'webp'

const formatOf: Readonly<Record<string, Format>> = {
  '.png': 'png',
  '.jpg': 'jpeg',
  '.jpeg': 'jpeg',
  '.webp': 'webp',
}

/**
 * Writes images as one grid, row by row. The file appears complete or not at all.
 *
 * @param file its ending says the format: .png, .jpg, .jpeg or .webp
 * @param images [B, 3, H, W] with elements from 0 to 1; what is outside is clipped
 * @throws {DidrError} (as a rejection) ERR_CONFIG for another ending, ERR_SHAPE, ERR_NONFINITE, ERR_IO
 */
export async function writeImages(
  file: string,
  images: Tensor<'float32'>,
  options: WriteImagesOptions = {},
): Promise<void> {
  const ending = path.extname(String(file)).toLowerCase()
  checkOneOf('file: its ending', ending, Object.keys(formatOf))
  const encoded = await encodeImages(images, formatOf[ending] as Format, options)
  await writeAtomically(file, (write) => write(encoded))
}

/**
 * Images as one grid, row by row, as the bytes of a file.
 *
 * @param images [B, 3, H, W] with elements from 0 to 1; what is outside is clipped
 * @throws {DidrError} (as a rejection) ERR_CONFIG, ERR_SHAPE, ERR_NONFINITE
 */
export async function encodeImages(
  images: Tensor<'float32'>,
  format: Format,
  options: WriteImagesOptions = {},
): Promise<Buffer> {
  checkOneOf('format', format, ['png', 'jpeg', 'webp'])
  checkOptions('options', options, ['columns', 'gap', 'scale'])
  idOf('images', images as Tensor)
  const [count, channels, height, width] = images.shape as [number, number, number, number]
  if (images.rank !== 4 || channels !== 3 || images.size === 0)
    fail('ERR_SHAPE', `images: expected [batch, 3, height, width], got ${showShape(images.shape)}`)
  const { columns = Math.ceil(Math.sqrt(count)), gap = 2, scale = 1 } = options
  checkInteger('options.columns', columns, 1, 4096)
  checkInteger('options.gap', gap, 0, 1024)
  checkInteger('options.scale', scale, 1, 64)

  const across = Math.min(columns, count)
  const rows = Math.ceil(count / across)
  const total = {
    width: across * width * scale + (across - 1) * gap,
    height: rows * height * scale + (rows - 1) * gap,
  }
  const grid = Buffer.alloc(3 * total.width * total.height, 255)
  const values = await images.data()
  const plane = height * width
  for (let image = 0; image < count; image++) {
    const left = (image % across) * (width * scale + gap)
    const top = Math.floor(image / across) * (height * scale + gap)
    for (let channel = 0; channel < 3; channel++)
      for (let y = 0; y < height * scale; y++)
        for (let x = 0; x < width * scale; x++) {
          const row = Math.floor(y / scale)
          const value = values[
            (image * 3 + channel) * plane + row * width + Math.floor(x / scale)
          ] as number
          if (!Number.isFinite(value))
            fail('ERR_NONFINITE', `images: image ${image} has an element ${show(value)}`)
          grid[3 * ((top + y) * total.width + left + x) + channel] = Math.round(
            255 * Math.min(1, Math.max(0, value)),
          )
        }
  }
  const picture = sharp(grid, { raw: { ...total, channels: 3 } })
  switch (format) {
    case 'png':
      return picture.png().toBuffer()
    case 'webp':
      return picture.webp({ quality: 90 }).toBuffer()
    case 'jpeg':
      return picture.jpeg({ quality: 92 }).toBuffer()
  }
}

function messageOf(error: unknown): string {
  return error instanceof DidrError || error instanceof Error ? error.message : String(error)
}
