/**
 * A second reader and a writer of the safetensors format, straight from its specification and for tests alone: neither
 * careful nor quick, and without a line of the code that is tested.
 */

export interface PlainTensor {
  dtype: string
  shape: number[]
  bytes: Buffer
}

const bytesOf: Record<string, number> = {
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
}

/** Header text and data as they are in the file, whatever they say. */
export function compose(
  header: string | Buffer,
  data: Buffer = Buffer.alloc(0),
): Buffer<ArrayBuffer> {
  const json = Buffer.from(header)
  const length = Buffer.alloc(8)
  length.writeBigUInt64LE(BigInt(json.length))
  return Buffer.concat([length, json, data])
}

/** A sound file of these tensors, in this order. */
export function encode(
  tensors: [name: string, tensor: PlainTensor][],
  metadata?: Record<string, string>,
): Buffer {
  const fields: string[] = []
  if (metadata) fields.push(`"__metadata__":${JSON.stringify(metadata)}`)
  let at = 0
  for (const [name, { dtype, shape, bytes }] of tensors) {
    fields.push(
      `${JSON.stringify(name)}:${JSON.stringify({ dtype, shape, data_offsets: [at, at + bytes.length] })}`,
    )
    at += bytes.length
  }
  let header = `{${fields.join(',')}}`
  while (Buffer.byteLength(header) % 8 !== 0) header += ' '
  return compose(header, Buffer.concat(tensors.map(([, { bytes }]) => bytes)))
}

/** What a file holds, or undefined if it breaks a rule of the format. */
export function decode(file: Buffer): Map<string, PlainTensor> | undefined {
  if (file.length < 8) return undefined
  const length = Number(file.readBigUInt64LE())
  if (length > file.length - 8) return undefined
  const text = file.subarray(8, 8 + length).toString('utf8')
  const data = file.subarray(8 + length)
  let header: unknown
  try {
    header = JSON.parse(text)
  } catch {
    return undefined
  }
  if (typeof header !== 'object' || header === null || Array.isArray(header)) return undefined
  const tensors = new Map<string, PlainTensor>()
  const spans: [number, number][] = []
  for (const [name, value] of Object.entries(header as Record<string, unknown>)) {
    if (name === '__metadata__') continue
    const { dtype, shape, data_offsets } = value as {
      dtype: string
      shape: number[]
      data_offsets: [number, number]
    }
    const width = bytesOf[dtype]
    if (width === undefined || !Array.isArray(shape) || !Array.isArray(data_offsets))
      return undefined
    const [begin, end] = data_offsets
    const expected = shape.reduce((product, size) => product * size, width)
    if (end - begin !== expected || end > data.length) return undefined
    spans.push([begin, end])
    tensors.set(name, { dtype, shape, bytes: data.subarray(begin, end) })
  }
  spans.sort(([a, b], [c, d]) => a - c || b - d)
  let at = 0
  for (const [begin, end] of spans) {
    if (begin !== at) return undefined
    at = end
  }
  return at === data.length ? tensors : undefined
}
