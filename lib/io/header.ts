/**
 * The header of a safetensors file: eight bytes of length N, N bytes of JSON, then the tensors' bytes, contiguous.
 * Format: https://github.com/huggingface/safetensors, "Format".
 */
import { maxRank } from '../tensor/shape.js'
import { JsonReader, quote } from './json-reader.js'

/** The longest header that the reference implementation takes. */
export const maxHeaderBytes = 100_000_000
/** As for tensors: past this a byte count would no longer be exact. */
const maxElements = 2 ** 50

/** Bytes per element of the format's dtypes, in the order in which the reference writer sorts them. */
const storedBytes = {
  BOOL: 1,
  U8: 1,
  I8: 1,
  F8_E5M2: 1,
  F8_E4M3: 1,
  I16: 2,
  U16: 2,
  F16: 2,
  BF16: 2,
  I32: 4,
  U32: 4,
  F32: 4,
  F64: 8,
  I64: 8,
  U64: 8,
} as const
/** A dtype as a safetensors file names it. */
export type StoredDType = keyof typeof storedBytes
const storedOrder = Object.keys(storedBytes)

/** One tensor's place in a file. */
export interface Entry {
  dtype: StoredDType
  shape: number[]
  /** Of its bytes, from the end of the header. */
  begin: number
  end: number
}

export interface Header {
  entries: Map<string, Entry>
  metadata: Map<string, string>
}

/**
 * Reads and checks a header: every tensor's bytes are as many as its shape and dtype say, and together the tensors cover
 * the `dataBytes` after the header without a gap or an overlap.
 * @throws {DidrError} ERR_FORMAT naming `file` and, where there is one, the tensor
 */
export function parseHeader(text: string, file: string, dataBytes: number): Header {
  const json = new JsonReader(text, file)
  if (!text.startsWith('{')) json.refuse('the header does not start with {')
  const entries = new Map<string, Entry>()
  let metadata = new Map<string, string>()
  json.object((name) => {
    json.where = `tensor ${quote(name)}: `
    if (name === '__metadata__') {
      json.where = '__metadata__: '
      metadata = readMetadata(json)
    } else entries.set(name, readEntry(json))
    json.where = ''
  })
  json.end()
  checkLayout(json, entries, dataBytes)
  return { entries, metadata }
}

function readMetadata(json: JsonReader): Map<string, string> {
  const metadata = new Map<string, string>()
  json.object((key) => metadata.set(key, json.string()))
  return metadata
}

function readEntry(json: JsonReader): Entry {
  let dtype: string | undefined
  let shape: number[] | undefined
  let offsets: number[] | undefined
  json.object((field) => {
    if (field === 'dtype') dtype = json.string()
    else if (field === 'shape') shape = readNaturals(json, maxRank, 'sizes')
    else if (field === 'data_offsets') offsets = readNaturals(json, 2, 'data_offsets')
    else json.refuse(`unknown field ${quote(field)}`)
  })
  if (dtype === undefined || shape === undefined || offsets === undefined)
    return json.refuse('expected the fields dtype, shape and data_offsets')
  if (!(storedOrder as string[]).includes(dtype)) json.refuse(`unknown dtype ${quote(dtype)}`)
  const [begin, end] = offsets
  if (begin === undefined || end === undefined) return json.refuse('expected two data_offsets')
  let elements = 1
  let span = 1
  for (const size of shape) {
    elements *= size
    span *= Math.max(size, 1)
  }
  if (span > maxElements) json.refuse(`the shape [${shape.join(', ')}] has over 2^50 elements`)
  const bytes = elements * storedBytes[dtype as StoredDType]
  if (end < begin || end - begin !== bytes)
    json.refuse(
      `${dtype} [${shape.join(', ')}] takes ${bytes} bytes, data_offsets are [${begin}, ${end}]`,
    )
  return { dtype: dtype as StoredDType, shape, begin, end }
}

function readNaturals(json: JsonReader, most: number, what: string): number[] {
  const numbers: number[] = []
  json.array(() => {
    if (numbers.length === most) json.refuse(`expected at most ${most} ${what}`)
    numbers.push(json.natural())
  })
  return numbers
}

function checkLayout(json: JsonReader, entries: Map<string, Entry>, dataBytes: number): void {
  const ordered = [...entries].sort(([, a], [, b]) => a.begin - b.begin || a.end - b.end)
  let reached = 0
  for (const [name, { begin, end }] of ordered) {
    json.where = `tensor ${quote(name)}: `
    if (end > dataBytes)
      json.refuse(`its bytes end at ${end} of the data, which has ${dataBytes} (truncated?)`)
    if (begin < reached) json.refuse(`its bytes from ${begin} on overlap those of another tensor`)
    if (begin > reached)
      json.refuse(
        `its bytes start at ${begin}, with a gap after those before, which end at ${reached}`,
      )
    reached = end
  }
  json.where = ''
  if (reached !== dataBytes)
    json.refuse(`the tensors end at ${reached} of the data, which has ${dataBytes} bytes`)
}

/** The names in the order in which the reference writer puts them: larger elements first, then by UTF-8 bytes. */
export function storedNames(dtypes: ReadonlyMap<string, StoredDType>): string[] {
  const rank = (name: string) => storedOrder.indexOf(dtypes.get(name) as string)
  return [...dtypes.keys()].sort(
    (a, b) => rank(b) - rank(a) || Buffer.compare(Buffer.from(a), Buffer.from(b)),
  )
}

/**
 * The bytes before the tensors: length and JSON, padded with spaces so that the tensors start at a multiple of eight.
 * @param tensors name, dtype and shape, in the order of their bytes
 */
export function formatHeader(
  tensors: readonly (readonly [name: string, dtype: StoredDType, shape: readonly number[]])[],
  metadata: readonly (readonly [key: string, value: string])[],
): Buffer {
  const fields: string[] = []
  if (metadata.length > 0) {
    const pairs = metadata.map(([key, value]) => `${JSON.stringify(key)}:${JSON.stringify(value)}`)
    fields.push(`"__metadata__":{${pairs.join(',')}}`)
  }
  let begin = 0
  for (const [name, dtype, shape] of tensors) {
    const end = begin + shape.reduce((count, size) => count * size, storedBytes[dtype])
    const entry = { dtype, shape, data_offsets: [begin, end] }
    fields.push(`${JSON.stringify(name)}:${JSON.stringify(entry)}`)
    begin = end
  }
  const json = Buffer.from(`{${fields.join(',')}}`)
  const header = Buffer.alloc(8 + Math.ceil(json.length / 8) * 8, ' ')
  header.writeBigUInt64LE(BigInt(header.length - 8))
  json.copy(header, 8)
  return header
}
