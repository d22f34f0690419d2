/** A reader of TensorBoard's event files, from the formats' descriptions alone, that trusts nothing. */
import { readdir, readFile } from 'node:fs/promises'
import path from 'node:path'

/** CRC-32C a bit at a time, as a division of polynomials over GF(2). */
export function bitwiseCrc32c(bytes: Uint8Array): number {
  let register = 0xffffffff
  for (const byte of bytes)
    for (let bit = 0; bit < 8; bit++) {
      const out = (register ^ (byte >> bit)) & 1
      register = register >>> 1
      if (out) register = (register ^ 0x82f63b78) >>> 0
    }
  return ~register >>> 0
}

function unmasked(stored: number): number {
  const rotated = (stored - 0xa282ead8) >>> 0
  return ((rotated << 15) | (rotated >>> 17)) >>> 0
}

/** The data of each record; throws at any byte that is wrong or missing. */
export function recordsOf(bytes: Buffer): Buffer[] {
  const records: Buffer[] = []
  for (let at = 0; at < bytes.length; ) {
    if (bytes.length - at < 16) throw new Error(`record at ${at}: ends early`)
    const length = Number(bytes.readBigUInt64LE(at))
    const end = at + 12 + length
    if (bytes.length < end + 4) throw new Error(`record at ${at}: ends early`)
    const data = bytes.subarray(at + 12, end)
    if (unmasked(bytes.readUInt32LE(at + 8)) !== bitwiseCrc32c(bytes.subarray(at, at + 8)))
      throw new Error(`record at ${at}: wrong checksum of its length`)
    if (unmasked(bytes.readUInt32LE(end)) !== bitwiseCrc32c(data))
      throw new Error(`record at ${at}: wrong checksum of its data`)
    records.push(data)
    at = end + 4
  }
  return records
}

type Field = { number: number; wireType: number; value: bigint | Buffer }

/** The fields of a protocol buffer message, in order. */
export function fieldsOf(bytes: Buffer): Field[] {
  const fields: Field[] = []
  let at = 0
  const varint = () => {
    let value = 0n
    for (let shift = 0n; ; shift += 7n) {
      if (at >= bytes.length || shift > 63n) throw new Error('varint: ends early')
      const byte = bytes[at++] as number
      value |= BigInt(byte & 127) << shift
      if (byte < 128) return value
    }
  }
  const take = (length: number) => {
    if (at + length > bytes.length) throw new Error('field: ends early')
    at += length
    return bytes.subarray(at - length, at)
  }
  while (at < bytes.length) {
    const key = Number(varint())
    const [number, wireType] = [key >> 3, key & 7]
    if (wireType === 0) fields.push({ number, wireType, value: varint() })
    else if (wireType === 1) fields.push({ number, wireType, value: take(8) })
    else if (wireType === 2) fields.push({ number, wireType, value: take(Number(varint())) })
    else if (wireType === 5) fields.push({ number, wireType, value: take(4) })
    else throw new Error(`field ${number}: wire type ${wireType}`)
  }
  return fields
}

/** A message whose fields are all of `known` (number to wire type), each at most once unless it is `repeated`. */
function message(bytes: Buffer, known: Record<number, number>, repeated?: number) {
  const fields = fieldsOf(bytes)
  const single = new Map<number, bigint | Buffer>()
  for (const { number, wireType, value } of fields) {
    if (known[number] !== wireType) throw new Error(`field ${number} of wire type ${wireType}`)
    if (number !== repeated && single.has(number)) throw new Error(`field ${number}: twice`)
    single.set(number, value)
  }
  return {
    fields,
    has: (number: number) => single.has(number),
    integer: (number: number) => Number(single.get(number) ?? 0n),
    bytes: (number: number) => (single.get(number) ?? Buffer.alloc(0)) as Buffer,
  }
}

export interface ReadImage {
  height: number
  width: number
  colorspace: number
  encoded: Buffer
}

export interface ReadEvent {
  wallTime: number
  step: number
  fileVersion?: string
  status?: number
  scalars?: Record<string, number>
  images?: Record<string, ReadImage>
}

function eventOf(data: Buffer): ReadEvent {
  const event = message(data, { 1: 1, 2: 0, 3: 2, 5: 2, 7: 2 })
  const read: ReadEvent = { wallTime: event.bytes(1).readDoubleLE(), step: event.integer(2) }
  if (event.has(3)) read.fileVersion = event.bytes(3).toString()
  if (event.has(7)) read.status = message(event.bytes(7), { 1: 0 }).integer(1)
  if (event.has(5)) {
    const scalars: [string, number][] = []
    const images: [string, ReadImage][] = []
    for (const { value } of message(event.bytes(5), { 1: 2 }, 1).fields) {
      const summary = message(value as Buffer, { 1: 2, 2: 5, 4: 2 })
      const tag = summary.bytes(1).toString()
      if (summary.has(2)) scalars.push([tag, summary.bytes(2).readFloatLE()])
      if (summary.has(4)) {
        const image = message(summary.bytes(4), { 1: 0, 2: 0, 3: 0, 4: 2 })
        const [height, width, colorspace] = [image.integer(1), image.integer(2), image.integer(3)]
        images.push([tag, { height, width, colorspace, encoded: image.bytes(4) }])
      }
    }
    read.scalars = Object.fromEntries(scalars)
    read.images = Object.fromEntries(images)
  }
  return read
}

export async function readEvents(file: string): Promise<ReadEvent[]> {
  return recordsOf(await readFile(file)).map(eventOf)
}

/** The event files of a folder, in the order in which TensorBoard reads them. */
export async function eventFiles(folder: string): Promise<string[]> {
  const names = (await readdir(folder)).filter((name) => name.includes('tfevents')).sort()
  return names.map((name) => path.join(folder, name))
}

/** What TensorBoard shows of a folder: each tag's points, with those dropped that a later START is not after. */
export async function shownScalars(folder: string): Promise<Record<string, [number, number][]>> {
  const points = new Map<string, [number, number][]>()
  for (const file of await eventFiles(folder))
    for (const { step, status, scalars = {} } of await readEvents(file)) {
      if (status === 1)
        for (const [tag, kept] of points)
          points.set(
            tag,
            kept.filter(([at]) => at < step),
          )
      for (const [tag, value] of Object.entries(scalars))
        points.set(tag, [...(points.get(tag) ?? []), [step, value]])
    }
  return Object.fromEntries(points)
}
