/** Following the metrics.jsonl of a run while it is written. */
import type { FileHandle } from 'node:fs/promises'
import type { RunDetails } from './api.js'
import type { ViewedFolder } from './folder.js'

/** The values of one metric and the steps that have it. */
export interface MetricSeries {
  steps: number[]
  values: number[]
}

export interface MetricsLine {
  step: number
  numbers: [name: string, value: number][]
  texts: [name: string, texts: string[]][]
}

const chunkBytes = 2 ** 20
/** A longer line is none: one that never ended would fill the memory. */
const maxLineBytes = 2 ** 22
/** So much before the place that is read from is compared: whether the file is still the one that was read. */
const anchorBytes = 512
const maxMetrics = 1000
const keptNotes = 50
const newline = 10

/** A line of metrics.jsonl; undefined if it is none. */
export function parseLine(text: string): MetricsLine | undefined {
  let line: unknown
  try {
    line = JSON.parse(text)
  } catch {
    return undefined
  }
  if (typeof line !== 'object' || line === null || Array.isArray(line)) return undefined
  const { step, ...rest } = line as Record<string, unknown>
  if (!Number.isSafeInteger(step)) return undefined
  const parsed: MetricsLine = { step: step as number, numbers: [], texts: [] }
  for (const [name, value] of Object.entries(rest))
    if (typeof value === 'number' && Number.isFinite(value)) parsed.numbers.push([name, value])
    else if (Array.isArray(value) && value.every((item) => typeof item === 'string'))
      parsed.texts.push([name, value])
  return parsed
}

/**
 * What a metrics.jsonl says. Each {@link update} reads what has been added since the last one. A line counts once its end
 * is there. A file that is shorter than what has been read of it, or whose bytes before that place are others, has been
 * cut by a run that was resumed, and is read anew.
 */
export class MetricsFile {
  readonly #folder: ViewedFolder
  readonly #path: string
  /** By the metric's name, in the order in which they come. */
  series = new Map<string, MetricSeries>()
  /** The latest first. */
  notes: RunDetails['notes'] = []
  unreadableLines = 0
  /** After the last complete line that has been read. */
  #position = 0
  /** The bytes before it. */
  #anchor = Buffer.alloc(0)
  /** Inside a line that is too long. */
  #skipping = false
  #updating: Promise<void> | undefined

  constructor(folder: ViewedFolder, path: string) {
    this.#folder = folder
    this.#path = path
  }

  /** Bytes that need not be read again. */
  get position(): number {
    return this.#position
  }

  /** Reads on. Calls at the same time are one. */
  async update(): Promise<void> {
    this.#updating ??= this.#update().finally(() => {
      this.#updating = undefined
    })
    await this.#updating
  }

  async #update(): Promise<void> {
    const opened = await this.#folder.openFile(this.#path)
    if (opened === undefined) return this.#reset()
    const { handle, bytes } = opened
    try {
      if (!(await this.#isSameFile(handle, bytes))) this.#reset()
      await this.#readLines(handle)
    } catch {
      // A file that cannot be read just now is tried again with the next update.
    } finally {
      await handle.close()
    }
  }

  #reset(): void {
    this.series = new Map()
    this.notes = []
    this.unreadableLines = 0
    this.#position = 0
    this.#anchor = Buffer.alloc(0)
    this.#skipping = false
  }

  async #isSameFile(handle: FileHandle, bytes: number): Promise<boolean> {
    if (bytes < this.#position) return false
    const { length } = this.#anchor
    const there = Buffer.alloc(length)
    await handle.read(there, 0, length, this.#position - length)
    return there.equals(this.#anchor)
  }

  async #readLines(handle: FileHandle): Promise<void> {
    const chunk = Buffer.alloc(chunkBytes)
    let rest = Buffer.alloc(0)
    for (;;) {
      const { bytesRead } = await handle.read(chunk, 0, chunkBytes, this.#position + rest.length)
      if (bytesRead === 0) return
      const bytes = Buffer.concat([rest, chunk.subarray(0, bytesRead)])
      let begin = 0
      for (let end = bytes.indexOf(newline); end >= 0; end = bytes.indexOf(newline, begin)) {
        if (this.#skipping) this.#skipping = false
        else this.#take(bytes.toString('utf8', begin, end))
        begin = end + 1
      }
      if (bytes.length - begin > maxLineBytes) {
        if (!this.#skipping) this.unreadableLines++
        this.#skipping = true
        begin = bytes.length
      }
      this.#advance(bytes.subarray(0, begin))
      rest = Buffer.from(bytes.subarray(begin))
    }
  }

  #advance(bytes: Buffer): void {
    this.#position += bytes.length
    const known = Buffer.concat([this.#anchor, bytes.subarray(-anchorBytes)])
    this.#anchor = Buffer.from(known.subarray(-anchorBytes))
  }

  #take(text: string): void {
    const line = parseLine(text)
    if (line === undefined) {
      if (text.trim() !== '') this.unreadableLines++
      return
    }
    const { step, numbers, texts } = line
    for (const [name, value] of numbers) {
      let series = this.series.get(name)
      if (series === undefined) {
        if (this.series.size === maxMetrics) continue
        series = { steps: [], values: [] }
        this.series.set(name, series)
      }
      series.steps.push(step)
      series.values.push(value)
    }
    for (const [name, own] of texts) {
      // A warning that stays is one note, of the step at which it came.
      const latest = this.notes.find((note) => note.name === name)
      if (latest !== undefined && latest.texts.join('\n') === own.join('\n')) continue
      this.notes.unshift({ step, name, texts: own })
      if (this.notes.length > keptNotes) this.notes.pop()
    }
  }
}

/** The last complete lines of a metrics.jsonl within its last 64 KiB, in order. */
export async function lastLines(
  folder: ViewedFolder,
  path: string,
): Promise<{ lines: MetricsLine[]; bytes: number; changed: number } | undefined> {
  const opened = await folder.openFile(path)
  if (opened === undefined) return undefined
  const { handle, bytes, changed } = opened
  try {
    const length = Math.min(bytes, 2 ** 16)
    const tail = Buffer.alloc(length)
    const { bytesRead } = await handle.read(tail, 0, length, bytes - length)
    const texts = tail.toString('utf8', 0, bytesRead).split('\n').slice(0, -1)
    return { lines: texts.flatMap((text) => parseLine(text) ?? []), bytes, changed }
  } catch {
    return undefined
  } finally {
    await handle.close()
  }
}
