import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import sharp from 'sharp'
import { describe, expect, it } from 'vitest'
import { train } from '../../lib/index.js'
import { crc32c } from '../../lib/train/crc32c.js'
import { temporaryFolder } from '../data/shapes.js'
import { bitwiseCrc32c, eventFiles, readEvents, recordsOf, shownScalars } from './event-files.js'

const { EventWriter } = train

describe('CRC-32C', () => {
  const count = Array.from({ length: 32 }, (_, i) => i)
  // RFC 3720, B.4; there the bytes of the checksum are listed from the lowest.
  const iscsiRead = [
    ...[0x01, 0xc0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x14, 0, 0, 0, 0, 0, 0x04, 0],
    ...[0, 0, 0, 0x14, 0, 0, 0, 0x18, 0x28, 0, 0, 0, 0, 0, 0, 0, 0x02, 0, 0, 0, 0, 0, 0, 0],
  ]
  it.each([
    ['32 zeros', new Array(32).fill(0), 0x8a9136aa],
    ['32 ones', new Array(32).fill(0xff), 0x62a8ab43],
    ['0 to 31', count, 0x46dd794e],
    ['31 to 0', count.toReversed(), 0x113fdb5c],
    ['an iSCSI read command', iscsiRead, 0xd9963a56],
    ['nothing', [], 0],
  ])('of %s is that of RFC 3720', (_, bytes, expected) => {
    expect(crc32c(Uint8Array.from(bytes))).toBe(expected)
    expect(bitwiseCrc32c(Uint8Array.from(bytes))).toBe(expected)
  })

  it('is that of a bit at a time for bytes of all kinds', () => {
    for (let length = 1; length < 300; length += 13) {
      const bytes = Uint8Array.from({ length }, (_, i) => (i * i * 31 + length * 7) % 256)
      expect(crc32c(bytes)).toBe(bitwiseCrc32c(bytes))
    }
  })
})

describe('the reader of these tests', () => {
  it('sees every flipped bit and every missing byte', async () => {
    const folder = await temporaryFolder()
    const events = await EventWriter.open(folder, { step: 1 })
    await events.scalars(1, { loss: 1 })
    await events.close()
    const bytes = await readFile(events.file)
    expect(recordsOf(bytes)).toHaveLength(3)
    for (let bit = 0; bit < 8 * bytes.length; bit++) {
      const damaged = Buffer.from(bytes)
      damaged[bit >> 3] = (damaged[bit >> 3] as number) ^ (1 << (bit & 7))
      expect(() => recordsOf(damaged), `bit ${bit}`).toThrow('record at')
    }
    expect(() => recordsOf(bytes.subarray(0, -1))).toThrow('ends early')
  })
})

describe('an event file', () => {
  it('begins with its version and a START, and holds the scalars', async () => {
    const folder = await temporaryFolder()
    const before = Date.now() / 1000
    const events = await EventWriter.open(folder, { step: 6 })
    const far = 2 ** 40 + 129
    await events.scalars(6, { loss: 0.1, 'reward/über': -2.5e-8, zero: 0 })
    await events.scalars(far, { loss: 3 })
    await events.scalars(far + 1, {})
    await events.close()
    const after = Date.now() / 1000

    expect(path.dirname(events.file)).toBe(folder)
    const [, seconds, host] = /^events\.out\.tfevents\.(\d{10})\.(.+)$/.exec(
      path.basename(events.file),
    ) as unknown as [string, string, string]
    expect(host).toBe(os.hostname())
    expect(Number(seconds)).toBeGreaterThanOrEqual(Math.floor(before))
    expect(Number(seconds)).toBeLessThanOrEqual(after)

    const read = await readEvents(events.file)
    for (const { wallTime } of read) {
      expect(wallTime).toBeGreaterThanOrEqual(before)
      expect(wallTime).toBeLessThanOrEqual(after)
    }
    const wallTime = expect.any(Number)
    expect(read).toEqual([
      { wallTime, step: 0, fileVersion: 'brain.Event:2' },
      { wallTime, step: 6, status: 1 },
      {
        ...{ wallTime, step: 6, images: {} },
        scalars: { loss: Math.fround(0.1), 'reward/über': Math.fround(-2.5e-8), zero: 0 },
      },
      { wallTime, step: far, scalars: { loss: 3 }, images: {} },
    ])
  })

  it('comes after those that are there, in the same second and when the clock was set back', async () => {
    const folder = await temporaryFolder()
    await writeFile(path.join(folder, 'events.out.tfevents.4000000000.elsewhere'), '')
    for (let session = 0; session < 3; session++) {
      const events = await EventWriter.open(folder, { step: 2 * session })
      await events.close()
    }
    const names = (await readdir(folder)).sort()
    expect(names.map((name) => name.split('.')[3])).toEqual([
      ...['4000000000', '4000000001', '4000000002', '4000000003'],
    ])
    const starts = (await eventFiles(folder)).slice(1).map(async (file) => {
      const [, start] = await readEvents(file)
      return start?.step
    })
    expect(await Promise.all(starts)).toEqual([0, 2, 4])
  })

  it('replaces the points of an earlier session from its first step on', async () => {
    const folder = await temporaryFolder()
    for (const [first, last, value] of [
      [1, 7, 1],
      [5, 6, 2],
      [6, 9, 3],
    ] as const) {
      const events = await EventWriter.open(folder, { step: first })
      for (let step = first; step <= last; step++) await events.scalars(step, { loss: value })
      await events.close()
    }
    const { loss } = await shownScalars(folder)
    expect(loss).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9].map((i) => [i, i < 5 ? 1 : i < 6 ? 2 : 3]))
  })

  it('holds pictures with their sizes and colours', async () => {
    const folder = await temporaryFolder()
    const events = await EventWriter.open(folder, { step: 1 })
    const size = { width: 300, height: 2 }
    const rgba = sharp({ create: { ...size, channels: 4, background: '#ff000080' } })
    const pictures = {
      rgba: [await rgba.clone().png().toBuffer(), 4],
      rgb: [await rgba.clone().removeAlpha().png().toBuffer(), 3],
      palette: [await rgba.clone().removeAlpha().png({ palette: true }).toBuffer(), 3],
      greyAlpha: [await rgba.clone().toColourspace('b-w').png().toBuffer(), 2],
      grey: [await rgba.clone().removeAlpha().toColourspace('b-w').png().toBuffer(), 1],
    } as const
    for (const [tag, [png]] of Object.entries(pictures)) await events.image(3, tag, png)
    await events.close()
    const read = (await readEvents(events.file)).slice(2)
    expect(read.map(({ step, images }) => [step, images])).toEqual(
      Object.entries(pictures).map(([tag, [encoded, colorspace]]) => [
        3,
        { [tag]: { ...size, colorspace, encoded } },
      ]),
    )
  })

  it('refuses pictures of other kinds, and stays readable', async () => {
    const events = await EventWriter.open(await temporaryFolder(), { step: 1 })
    const jpeg = await sharp({
      create: { width: 8, height: 8, channels: 3, background: 'red' },
    })
      .jpeg()
      .toBuffer()
    const signature = Buffer.from('\x89PNG\r\n\x1a\n', 'latin1')
    const unknownColours = Buffer.alloc(40, 5)
    signature.copy(unknownColours)
    unknownColours.write('IHDR', 12)
    for (const bytes of [jpeg, signature, Buffer.alloc(0), unknownColours])
      await expect(events.image(1, 'samples', bytes)).rejects.toMatchObject({
        code: 'ERR_FORMAT',
        message: `samples: expected a PNG file, got ${bytes.length} bytes of another kind`,
      })
    await events.scalars(1, { loss: 1 })
    await events.close()
    expect(await readEvents(events.file)).toHaveLength(3)
  })

  it('says when it cannot be written', async () => {
    const folder = await temporaryFolder()
    const missing = path.join(folder, 'none')
    await expect(EventWriter.open(missing, { step: 1 })).rejects.toMatchObject({ code: 'ERR_IO' })
    await expect(EventWriter.open(folder, { step: -1 })).rejects.toMatchObject({
      code: 'ERR_RANGE',
    })
    await mkdir(missing)
    const events = await EventWriter.open(missing, { step: 1 })
    await events.close()
    await expect(events.scalars(1, { loss: 1 })).rejects.toMatchObject({
      code: 'ERR_IO',
      message: expect.stringContaining(events.file),
    })
  })
})
