/** Folders of images and prompts: a user's own with a JSON-lines file, or npm's emoji-datasource-twitter. */
import { readdir, readFile } from 'node:fs/promises'
import path from 'node:path'
import { checkInteger, checkOptions } from '../checks.js'
import { DidrError, fail, show } from '../errors.js'
import { wordsOf } from '../models/caption-encoder.js'
import { CaptionedImages } from './captioned-images.js'
import { readPixels } from './images.js'

/** What {@link loadCaptionedImages} makes of a folder. */
export interface LoadImagesOptions {
  /** Edge of the images in pixels. Default 64. */
  size?: number
  /** Longer prompts are refused. Default 16. */
  maxWords?: number
}

interface Entry {
  file: string
  prompt: string
  /** Where it is stated, for messages. */
  where: string
}

/** Files that are read and decoded at a time. */
const atOnce = 16

/**
 * Loads all images of a folder. Which kind of folder it is, its files say:
 *
 * - `emoji.json`: the npm package `emoji-datasource-twitter`. Its images of 64 pixels; prompts are the lower-cased words
 *   of the names.
 * - one file `*.jsonl`: a line `{"image": "heart.png", "prompt": "red heart"}` for each image, the path relative to the
 *   folder; empty lines and other fields are passed over. Prompts become their lower-cased words.
 *
 * @throws {DidrError} (as a rejection) ERR_IO for what is missing; ERR_FORMAT, with the line's number, for bad JSON,
 *   prompts without words or with too many, and files that are not images
 */
export async function loadCaptionedImages(
  folder: string,
  options: LoadImagesOptions = {},
): Promise<CaptionedImages> {
  if (typeof folder !== 'string' || folder === '')
    fail('ERR_CONFIG', `folder: expected a path, got ${show(folder)}`)
  checkOptions('options', options, ['size', 'maxWords'])
  const { size = 64, maxWords = 16 } = options
  checkInteger('options.size', size, 1, 4096)
  checkInteger('options.maxWords', maxWords, 1)
  const entries = await entriesOf(folder)
  for (const entry of entries) {
    const words = wordsOf(entry.prompt)
    if (words.length === 0)
      fail('ERR_FORMAT', `${entry.where}: prompt: expected words, got ${show(entry.prompt)}`)
    if (words.length > maxWords)
      fail(
        'ERR_FORMAT',
        `${entry.where}: prompt: expected at most ${maxWords} words, got ${words.length}`,
      )
    entry.prompt = words.join(' ')
  }
  const pixels: Uint8Array[] = []
  for (let first = 0; first < entries.length; first += atOnce)
    pixels.push(
      ...(await Promise.all(
        entries.slice(first, first + atOnce).map((entry) => pixelsOf(entry, size)),
      )),
    )
  return new CaptionedImages(
    size,
    entries.map(({ prompt }) => prompt),
    pixels,
  )
}

async function pixelsOf({ file, where }: Entry, size: number): Promise<Uint8Array> {
  try {
    return await readPixels(file, size)
  } catch (error) {
    if (!(error instanceof DidrError)) throw error
    return fail(error.code, `${where}: ${error.message}`, { cause: error })
  }
}

async function entriesOf(folder: string): Promise<Entry[]> {
  let files: string[]
  try {
    files = await readdir(folder)
  } catch (error) {
    return fail('ERR_IO', `${folder}: could not be read: ${(error as Error).message}`, {
      cause: error,
    })
  }
  if (files.includes('emoji.json')) return emojiEntries(folder)
  const lists = files.filter((file) => file.endsWith('.jsonl'))
  if (lists.length !== 1)
    fail(
      'ERR_FORMAT',
      `${folder}: expected emoji.json or one file that ends in .jsonl, got ${lists.length === 0 ? 'neither' : lists.sort().join(', ')}`,
    )
  return jsonLinesEntries(folder, lists[0] as string)
}

async function jsonLinesEntries(folder: string, list: string): Promise<Entry[]> {
  const file = path.join(folder, list)
  const entries: Entry[] = []
  for (const [i, line] of (await textOf(file)).split('\n').entries()) {
    if (line.trim() === '') continue
    const where = `${file}:${i + 1}`
    const { image, prompt } = (jsonOf(line, where) ?? {}) as { image?: unknown; prompt?: unknown }
    for (const [field, value] of Object.entries({ image, prompt }))
      if (typeof value !== 'string' || value === '')
        fail('ERR_FORMAT', `${where}: ${field}: expected text, got ${show(value)}`)
    entries.push({
      file: path.resolve(folder, image as string),
      prompt: prompt as string,
      where,
    })
  }
  if (entries.length === 0) fail('ERR_FORMAT', `${file}: expected at least one line`)
  return entries
}

/** Facts: https://github.com/iamcal/emoji-data, "Using the data". Skin tones have the same names and are left out. */
async function emojiEntries(folder: string): Promise<Entry[]> {
  const file = path.join(folder, 'emoji.json')
  const emoji = jsonOf(await textOf(file), file)
  if (!Array.isArray(emoji) || emoji.length === 0)
    return fail('ERR_FORMAT', `${file}: expected an array of emoji, got ${show(emoji)}`)
  return emoji.flatMap((item: Record<string, unknown> | null, i) => {
    const where = `${file}: emoji ${i}`
    const { name, image, has_img_twitter: exists } = item ?? {}
    if (typeof name !== 'string' || typeof image !== 'string')
      return fail('ERR_FORMAT', `${where}: expected the fields name and image`)
    if (exists !== true) return []
    return [{ file: path.join(folder, 'img/twitter/64', image), prompt: name, where }]
  })
}

async function textOf(file: string): Promise<string> {
  try {
    return await readFile(file, 'utf8')
  } catch (error) {
    return fail('ERR_IO', `${file}: could not be read: ${(error as Error).message}`, {
      cause: error,
    })
  }
}

function jsonOf(text: string, where: string): unknown {
  try {
    return JSON.parse(text)
  } catch (error) {
    return fail('ERR_FORMAT', `${where}: not JSON: ${(error as Error).message}`, { cause: error })
  }
}
