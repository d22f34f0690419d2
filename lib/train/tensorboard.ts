/**
 * Event files, which TensorBoard reads: records of TFRecord framing (tensorflow/core/lib/io/record_writer.h), each the
 * protocol buffer Event of tensorboard/compat/proto/event.proto and summary.proto.
 *
 * A record is the length of its data as uint64, the masked CRC-32C of those eight bytes, the data, and their masked
 * CRC-32C, all little-endian.
 */
import { type FileHandle, open, readdir } from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import { checkInteger } from '../checks.js'
import { fail } from '../errors.js'
import { failIO } from '../io/files.js'
import { crc32c } from './crc32c.js'

const eventFileName = /^events\.out\.tfevents\.(\d+)\./

/**
 * An event file of its own for each session of a run; TensorBoard merges those of a folder in the order of their names.
 *
 * Each call is one write to the system and buffers nothing: a process that is killed loses no event that was written.
 *
 * @example
 * const events = await EventWriter.open('runs/a', { step: 1 })
 * await events.scalars(1, { loss: 0.5 })
 * await events.close()
 */
export class EventWriter {
  readonly file: string
  readonly #handle: FileHandle

  private constructor(file: string, handle: FileHandle) {
    this.file = file
    this.#handle = handle
  }

  /**
   * Makes `events.out.tfevents.<seconds>.<host>` in a folder that there is.
   * @param options `step`: the first one that will be written; what earlier files have from there on is shown no more
   * @throws {DidrError} (as a rejection) ERR_IO
   */
  static async open(folder: string, { step }: { step: number }): Promise<EventWriter> {
    checkInteger('options.step', step, 0)
    const file = path.join(folder, await nextName(folder))
    let handle: FileHandle
    try {
      handle = await open(file, 'ax')
    } catch (error) {
      return failIO('written', file, error)
    }
    const writer = new EventWriter(file, handle)
    try {
      // From version 2 on it is SessionLog.START that tells TensorBoard of a restart, not steps that go back
      // (EventAccumulator._CheckForRestartAndMaybePurge): it drops all points that are not before the event's step.
      await writer.#append([
        event(0, bytesField(eventFields.fileVersion, Buffer.from('brain.Event:2'))),
        event(step, bytesField(eventFields.sessionLog, varintField(sessionLogStatus, start))),
      ])
    } catch (error) {
      await handle.close()
      throw error
    }
    return writer
  }

  /**
   * Writes numbers by name; a slash makes groups. They are stored as float32.
   * @throws {DidrError} (as a rejection) ERR_IO
   */
  async scalars(step: number, values: Readonly<Record<string, number>>): Promise<void> {
    const summaries = Object.entries(values).map(([tag, value]) =>
      summaryValue(tag, floatField(valueFields.simpleValue, value)),
    )
    if (summaries.length === 0) return
    await this.#append([event(step, bytesField(eventFields.summary, ...summaries))])
  }

  /**
   * Writes a picture.
   * @param png a PNG file's bytes
   * @throws {DidrError} (as a rejection) ERR_FORMAT for bytes that are no PNG file; ERR_IO
   */
  async image(step: number, tag: string, png: Uint8Array): Promise<void> {
    const { width, height, colorspace } = pngHeader(tag, png)
    const image = bytesField(
      valueFields.image,
      varintField(imageFields.height, height),
      varintField(imageFields.width, width),
      varintField(imageFields.colorspace, colorspace),
      bytesField(imageFields.encoded, png),
    )
    const summary = bytesField(eventFields.summary, summaryValue(tag, image))
    await this.#append([event(step, summary)])
  }

  /** @throws {DidrError} (as a rejection) ERR_IO */
  async close(): Promise<void> {
    try {
      await this.#handle.close()
    } catch (error) {
      failIO('written', this.file, error)
    }
  }

  async #append(events: readonly Uint8Array[]): Promise<void> {
    try {
      await this.#handle.appendFile(Buffer.concat(events.flatMap(record)))
    } catch (error) {
      failIO('written', this.file, error)
    }
  }
}

/**
 * A name after all that are there: TensorBoard goes through a folder by name and never back, and two sessions may begin
 * in one second, or after the clock was set back.
 */
async function nextName(folder: string): Promise<string> {
  let names: string[]
  try {
    names = await readdir(folder)
  } catch (error) {
    return failIO('read', folder, error)
  }
  const taken = names.map((name) => Number(eventFileName.exec(name)?.[1] ?? 0))
  const seconds = Math.max(Math.floor(Date.now() / 1000), ...taken.map((second) => second + 1))
  const host = os.hostname().replaceAll(/[^\w.-]/g, '_')
  return `events.out.tfevents.${String(seconds).padStart(10, '0')}.${host}`
}

/** Fields of Event; the last three are of one `oneof`. */
const eventFields = { wallTime: 1, step: 2, fileVersion: 3, summary: 5, sessionLog: 7 }
/** SessionLog.status, of the enumeration SessionStatus. */
const sessionLogStatus = 1
/** SessionStatus.START */
const start = 1
/** Summary.value */
const summaryValues = 1
/** Fields of Summary.Value. */
const valueFields = { tag: 1, simpleValue: 2, image: 4 }
/** Fields of Summary.Image. */
const imageFields = { height: 1, width: 2, colorspace: 3, encoded: 4 }

/** Of Summary.Image, by the colour type of a PNG file: grey, RGB, palette (of RGB), grey and alpha, RGBA. */
const colorspaces: Readonly<Record<number, number>> = { 0: 1, 2: 3, 3: 3, 4: 2, 6: 4 }

function record(data: Uint8Array): Uint8Array[] {
  const head = Buffer.alloc(12)
  head.writeBigUInt64LE(BigInt(data.length))
  head.writeUInt32LE(maskedCrc(head.subarray(0, 8)), 8)
  const tail = Buffer.alloc(4)
  tail.writeUInt32LE(maskedCrc(data))
  return [head, data, tail]
}

/** Rotated right by 15 bits, plus a constant: a checksum of data that hold checksums would be weak. */
function maskedCrc(bytes: Uint8Array): number {
  const crc = crc32c(bytes)
  return (((crc >>> 15) | (crc << 17)) + 0xa282ead8) >>> 0
}

function event(step: number, what: Uint8Array): Uint8Array {
  const wallTime = Buffer.alloc(8)
  wallTime.writeDoubleLE(Date.now() / 1000)
  return Buffer.concat([
    key(eventFields.wallTime, wireTypes.bits64),
    wallTime,
    varintField(eventFields.step, step),
    what,
  ])
}

function summaryValue(tag: string, value: Uint8Array): Uint8Array {
  return bytesField(summaryValues, bytesField(valueFields.tag, Buffer.from(tag)), value)
}

/** https://protobuf.dev/programming-guides/encoding */
const wireTypes = { varint: 0, bits64: 1, bytes: 2, bits32: 5 }

function key(field: number, wireType: number): Uint8Array {
  return varint(field * 8 + wireType)
}

function varintField(field: number, value: number): Uint8Array {
  return Buffer.concat([key(field, wireTypes.varint), varint(value)])
}

function floatField(field: number, value: number): Uint8Array {
  const bytes = Buffer.alloc(4)
  bytes.writeFloatLE(value)
  return Buffer.concat([key(field, wireTypes.bits32), bytes])
}

function bytesField(field: number, ...parts: readonly Uint8Array[]): Uint8Array {
  const length = parts.reduce((sum, part) => sum + part.length, 0)
  return Buffer.concat([key(field, wireTypes.bytes), varint(length), ...parts])
}

/** Seven bits a byte, the lowest first; the highest bit says that more follow. By division: steps may pass 2³². */
function varint(value: number): Uint8Array {
  const bytes: number[] = []
  let rest = value
  for (; rest >= 128; rest = Math.floor(rest / 128)) bytes.push((rest % 128) + 128)
  return Uint8Array.of(...bytes, rest)
}

/** The signature and the chunk IHDR, with which every PNG file begins (https://www.w3.org/TR/png-3/#11IHDR). */
function pngHeader(
  tag: string,
  png: Uint8Array,
): { width: number; height: number; colorspace: number } {
  const view = Buffer.from(png.buffer, png.byteOffset, png.byteLength)
  const colorspace = colorspaces[view[25] ?? -1]
  if (
    view.length < 33 ||
    view.toString('latin1', 0, 8) !== '\x89PNG\r\n\x1a\n' ||
    view.toString('latin1', 12, 16) !== 'IHDR' ||
    colorspace === undefined
  )
    return fail(
      'ERR_FORMAT',
      `${tag}: expected a PNG file, got ${png.length} bytes of another kind`,
    )
  return { width: view.readUInt32BE(16), height: view.readUInt32BE(20), colorspace }
}
