import { mkdir, writeFile } from 'node:fs/promises'
import path from 'node:path'
import sharp from 'sharp'
import { describe, expect, it } from 'vitest'
import { data } from '../../lib/index.js'
import { shapePrompts, temporaryFolder, writeShapes } from './shapes.js'

const { loadCaptionedImages } = data

describe('a folder with a JSON-lines file', () => {
  it('loads in the order of the lines', async () => {
    const folder = await temporaryFolder()
    await writeShapes(folder)
    const images = await loadCaptionedImages(folder, { size: 16 })
    expect(images.prompts).toEqual(shapePrompts)
    expect([images.size, images.length]).toEqual([16, 12])
    const [circle] = [await images.batch([0]).data()]
    // Red in the middle, white in the corner.
    const at = (channel: number, y: number, x: number) => circle?.[channel * 256 + y * 16 + x]
    expect(at(0, 8, 8)).toBeCloseTo((2 * 0xe0) / 255 - 1, 5)
    expect(at(1, 8, 8)).toBeCloseTo((2 * 0x20) / 255 - 1, 5)
    expect([at(0, 0, 0), at(1, 0, 0), at(2, 0, 0)]).toEqual([1, 1, 1])
  })

  it('takes empty lines, other fields and any spelling of the words', async () => {
    const folder = await temporaryFolder()
    await writeShapes(folder)
    await writeFile(
      path.join(folder, 'prompts.jsonl'),
      '\r\n{"image": "red-circle.png", "prompt": "A  RED Circle!", "by": "me"}\r\n\n',
    )
    const { prompts } = await loadCaptionedImages(folder)
    expect(prompts).toEqual(['a red circle'])
  })

  it.each([
    ['{"image": "red-circle.png"', 'prompts.jsonl:2: not JSON: '],
    ['["red-circle.png"]', 'prompts.jsonl:2: image: expected text, got undefined'],
    ['null', 'prompts.jsonl:2: image: expected text, got undefined'],
    ['{"image": 3, "prompt": "red"}', 'prompts.jsonl:2: image: expected text, got 3'],
    ['{"image": "red-circle.png"}', 'prompts.jsonl:2: prompt: expected text, got undefined'],
    ['{"image": "red-circle.png", "prompt": ""}', 'prompts.jsonl:2: prompt: expected text, got ""'],
    [
      '{"image": "red-circle.png", "prompt": " ?! "}',
      'prompts.jsonl:2: prompt: expected words, got " ?! "',
    ],
    [
      `{"image": "red-circle.png", "prompt": "${'red '.repeat(17)}"}`,
      'prompts.jsonl:2: prompt: expected at most 16 words, got 17',
    ],
    ['{"image": "prompts.jsonl", "prompt": "red"}', 'not an image that can be read'],
  ])('refuses the line %s', async (line, message) => {
    const folder = await temporaryFolder()
    await writeShapes(folder)
    const good = '{"image": "red-circle.png", "prompt": "red circle"}'
    await writeFile(path.join(folder, 'prompts.jsonl'), `${good}\n${line}\n`)
    await expect(loadCaptionedImages(folder)).rejects.toMatchObject({
      code: 'ERR_FORMAT',
      message: expect.stringContaining(message),
    })
  })

  it('says which line names a file that is missing', async () => {
    const folder = await temporaryFolder()
    await writeFile(path.join(folder, 'a.jsonl'), '\n{"image": "b.png", "prompt": "red"}')
    await expect(loadCaptionedImages(folder)).rejects.toMatchObject({
      code: 'ERR_IO',
      message: expect.stringMatching(/a\.jsonl:2: .*b\.png: could not be read/),
    })
  })

  it('refuses folders that are missing, empty or say two things', async () => {
    const folder = await temporaryFolder()
    await expect(loadCaptionedImages(path.join(folder, 'none'))).rejects.toMatchObject({
      code: 'ERR_IO',
    })
    await expect(loadCaptionedImages(folder)).rejects.toMatchObject({
      code: 'ERR_FORMAT',
      message: `${folder}: expected emoji.json or one file that ends in .jsonl, got neither`,
    })
    await writeFile(path.join(folder, 'a.jsonl'), '\n')
    await expect(loadCaptionedImages(folder)).rejects.toMatchObject({
      code: 'ERR_FORMAT',
      message: expect.stringContaining('a.jsonl: expected at least one line'),
    })
    await writeFile(path.join(folder, 'b.jsonl'), '')
    await expect(loadCaptionedImages(folder)).rejects.toMatchObject({
      message: expect.stringContaining('got a.jsonl, b.jsonl'),
    })
  })
})

describe('a folder like emoji-datasource-twitter', () => {
  it('loads those that are drawn, with the words of their names', async () => {
    const folder = await temporaryFolder()
    await mkdir(path.join(folder, 'img/twitter/64'), { recursive: true })
    const file = path.join(folder, 'img/twitter/64/2764.png')
    await sharp({ create: { width: 64, height: 64, channels: 3, background: '#ff0000' } }).toFile(
      file,
    )
    const emoji = [
      { name: 'HEAVY BLACK HEART', image: '2764.png', has_img_twitter: true },
      { name: 'NOT DRAWN', image: 'none.png', has_img_twitter: false },
    ]
    await writeFile(path.join(folder, 'emoji.json'), JSON.stringify(emoji))
    const images = await loadCaptionedImages(folder)
    expect(images.prompts).toEqual(['heavy black heart'])
  })

  it.each([
    ['{', 'not JSON'],
    ['{}', 'expected an array of emoji, got an object'],
    ['[null]', 'emoji 0: expected the fields name and image'],
    ['[{"name": "A", "image": 1}]', 'emoji 0: expected the fields name and image'],
  ])('refuses %s', async (text, message) => {
    const folder = await temporaryFolder()
    await writeFile(path.join(folder, 'emoji.json'), text)
    await expect(loadCaptionedImages(folder)).rejects.toMatchObject({
      code: 'ERR_FORMAT',
      message: expect.stringContaining(message),
    })
  })
})
