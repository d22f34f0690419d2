import { mkdir, readdir, writeFile } from 'node:fs/promises'
import path from 'node:path'
import sharp from 'sharp'
import { describe, expect, it } from 'vitest'
import { data, tensor } from '../../lib/index.js'
import { temporaryFolder } from './shapes.js'

const { readPixels, writeImages } = data

/** Writes a picture of one colour. */
async function plain(
  file: string,
  size: { width: number; height: number },
  background: { r: number; g: number; b: number; alpha?: number },
): Promise<string> {
  const channels = background.alpha === undefined ? 3 : 4
  await sharp({ create: { ...size, channels, background } }).toFile(file)
  return file
}

describe('readPixels', () => {
  it('gives planes of red, green and blue', async () => {
    const folder = await temporaryFolder()
    const file = path.join(folder, 'four.png')
    const raw = Buffer.from([255, 0, 0, 0, 255, 0, 0, 0, 255, 10, 20, 30])
    await sharp(raw, { raw: { width: 2, height: 2, channels: 3 } })
      .png()
      .toFile(file)
    expect([...(await readPixels(file, 2))]).toEqual([
      ...[255, 0, 0, 10],
      ...[0, 255, 0, 20],
      ...[0, 0, 255, 30],
    ])
  })

  it('puts what is transparent on white', async () => {
    const folder = await temporaryFolder()
    const size = { width: 4, height: 4 }
    const clear = await plain(path.join(folder, 'a.png'), size, { r: 0, g: 0, b: 0, alpha: 0 })
    expect(new Set(await readPixels(clear, 4))).toEqual(new Set([255]))
    const half = await plain(path.join(folder, 'b.png'), size, { r: 0, g: 0, b: 0, alpha: 0.5 })
    for (const value of await readPixels(half, 4)) expect(Math.abs(value - 127)).toBeLessThan(2)
  })

  it('scales to fit and centres', async () => {
    const folder = await temporaryFolder()
    const wide = await plain(path.join(folder, 'wide.png'), { width: 40, height: 20 }, black)
    const pixels = await readPixels(wide, 8)
    const rows = Array.from({ length: 8 }, (_, y) => pixels[y * 8 + 3])
    expect(rows).toEqual([255, 255, 0, 0, 0, 0, 255, 255])
  })

  it('takes one channel, sixteen bits and a palette', async () => {
    const folder = await temporaryFolder()
    const grey = path.join(folder, 'grey.png')
    await sharp(Buffer.alloc(16, 100), { raw: { width: 4, height: 4, channels: 1 } })
      .png()
      .toFile(grey)
    expect(new Set(await readPixels(grey, 4))).toEqual(new Set([100]))
    const deep = path.join(folder, 'deep.png')
    await sharp(Buffer.alloc(48, 100), { raw: { width: 4, height: 4, channels: 3 } })
      .toColourspace('rgb16')
      .png()
      .toFile(deep)
    for (const value of await readPixels(deep, 4)) expect(Math.abs(value - 100)).toBeLessThan(2)
    const palette = path.join(folder, 'palette.png')
    await sharp(Buffer.alloc(48, 100), { raw: { width: 4, height: 4, channels: 3 } })
      .png({ palette: true })
      .toFile(palette)
    expect(await readPixels(palette, 4)).toHaveLength(48)
  })

  it('says which file is missing, is no image, or is cut off', async () => {
    const folder = await temporaryFolder()
    const missing = path.join(folder, 'missing.png')
    await expect(readPixels(missing, 4)).rejects.toMatchObject({
      code: 'ERR_IO',
      message: expect.stringContaining(missing),
    })
    const whole = await plain(path.join(folder, 'whole.png'), { width: 64, height: 64 }, black)
    const bytes = await sharp(whole).png().toBuffer()
    for (const [name, contents] of [
      ['empty.png', Buffer.alloc(0)],
      ['text.png', Buffer.from('not a picture')],
      ['cut.png', bytes.subarray(0, bytes.length - 30)],
    ] as const) {
      const file = path.join(folder, name)
      await writeFile(file, contents)
      await expect(readPixels(file, 4), name).rejects.toMatchObject({
        code: 'ERR_FORMAT',
        message: expect.stringContaining(`${file}: not an image that can be read: `),
      })
    }
    await mkdir(path.join(folder, 'folder.png'))
    await expect(readPixels(path.join(folder, 'folder.png'), 4)).rejects.toMatchObject({
      code: 'ERR_IO',
    })
  })
})

describe('writeImages', () => {
  it('lays images out row by row with white between them', async () => {
    const folder = await temporaryFolder()
    const file = path.join(folder, 'grid.png')
    // Three images of 1 by 2 pixels: 0, 1/2 and, clipped, 2.
    const images = tensor([0, 0.5, 2].flatMap((value) => new Array(6).fill(value))).reshape([
      3, 3, 1, 2,
    ])
    await writeImages(file, images, { columns: 2, gap: 1 })
    const { data: pixels, info } = await sharp(file).raw().toBuffer({ resolveWithObject: true })
    expect([info.width, info.height, info.channels]).toEqual([5, 3, 3])
    const reds = Array.from({ length: 15 }, (_, i) => pixels[3 * i])
    expect(reds).toEqual([
      ...[0, 0, 255, 128, 128],
      ...[255, 255, 255, 255, 255],
      ...[255, 255, 255, 255, 255],
    ])
    expect(await readdir(folder)).toEqual(['grid.png'])
  })

  it('enlarges, and writes what the ending says', async () => {
    const folder = await temporaryFolder()
    const images = tensor(new Float32Array(12).fill(0.25), { shape: [1, 3, 2, 2] })
    for (const [name, format] of [
      ['a.png', 'png'],
      ['a.jpg', 'jpeg'],
      ['a.JPEG', 'jpeg'],
      ['a.webp', 'webp'],
    ] as const) {
      await writeImages(path.join(folder, name), images, { scale: 3 })
      const { width, height, format: written } = await sharp(path.join(folder, name)).metadata()
      expect([width, height, written]).toEqual([6, 6, format])
    }
  })

  it('refuses other endings, shapes and NaN', async () => {
    const folder = await temporaryFolder()
    const file = path.join(folder, 'a.png')
    const good = tensor(new Float32Array(12), { shape: [1, 3, 2, 2] })
    await expect(writeImages(path.join(folder, 'a.bmp'), good)).rejects.toMatchObject({
      code: 'ERR_CONFIG',
      message: expect.stringContaining('.png, .jpg, .jpeg, .webp'),
    })
    for (const shape of [
      [3, 2, 2],
      [3, 1, 2, 2],
      [0, 3, 2, 2],
    ] as const) {
      const size = shape.reduce<number>((product, length) => product * length, 1)
      const images = tensor(new Float32Array(size), { shape: [...shape] })
      await expect(writeImages(file, images)).rejects.toMatchObject({ code: 'ERR_SHAPE' })
    }
    const nan = tensor(new Float32Array(12).fill(Number.NaN), { shape: [1, 3, 2, 2] })
    await expect(writeImages(file, nan)).rejects.toMatchObject({ code: 'ERR_NONFINITE' })
    await expect(writeImages(path.join(folder, 'none/a.png'), good)).rejects.toMatchObject({
      code: 'ERR_IO',
    })
    expect(await readdir(folder)).toEqual([])
  })
})

const black = { r: 0, g: 0, b: 0 }
