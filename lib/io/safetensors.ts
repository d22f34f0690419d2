/** Tensors in files, in the safetensors format (https://github.com/huggingface/safetensors). */
import path from 'node:path'
import { checkOneOf, checkOptions } from '../checks.js'
import { fail, show } from '../errors.js'
import { binding, type TensorId } from '../native/binding.js'
import { cpuDevice, Device } from '../tensor/device.js'
import { type DType, dtypeIndex } from '../tensor/dtype.js'
import { idOf, Tensor } from '../tensor/tensor.js'
import { InputFile, writeAtomically } from './files.js'
import {
  type Entry,
  formatHeader,
  type Header,
  maxHeaderBytes,
  parseHeader,
  type StoredDType,
  storedNames,
} from './header.js'
import { JsonReader, quote } from './json-reader.js'

/** The dtypes that floating-point tensors can be loaded as. */
const floatDTypes = ['float32', 'bfloat16', 'float16'] as const

/** Which tensors of a file are loaded, where to and as what. */
export interface LoadOptions {
  /** Which tensors. Default: all. */
  names?: readonly string[]
  /** Where to. Default: the CPU. */
  device?: Device
  /** What floating-point tensors become, float64 included; integers stay as they are. Default: as they are stored. */
  dtype?: (typeof floatDTypes)[number]
}

/** What is known of a tensor in a file before it is loaded. */
export interface StoredTensor {
  /** As the file names it: F32, BF16, I64, ... */
  dtype: StoredDType
  shape: number[]
  bytes: number
  /** The file that holds it: one of the shards where there are some. */
  file: string
}

interface Source {
  /** Among the shards. */
  index: number
  file: InputFile
  header: Header
  dataStart: number
}

/**
 * Loads tensors from a `.safetensors` file or from shards listed in a `.safetensors.index.json`.
 *
 * Bytes go from the file to the device through one buffer of the largest tensor's size. F32, F16, BF16, I32 and U8 keep
 * their bits; BOOL becomes uint8, I64 int32 if every element fits; F64 needs `dtype` to say what it is rounded to.
 *
 * @returns `tensors` by name, which the caller disposes, and the `__metadata__` of the file (of all shards together)
 * @throws {DidrError} (as a rejection) ERR_FORMAT naming file and tensor for contents that break the format's rules, and
 *   for a name that is not there; ERR_IO; ERR_OUT_OF_MEMORY. No tensor is left behind then, and none is made before all
 *   headers are known to be sound.
 * @example
 * const { tensors } = await io.loadSafetensors('model.safetensors', { dtype: 'bfloat16' })
 */
export async function loadSafetensors(
  file: string,
  options: LoadOptions = {},
): Promise<{ tensors: Record<string, Tensor>; metadata: Record<string, string> }> {
  checkPath(file)
  checkOptions('options', options, ['names', 'device', 'dtype'])
  const { names, device = cpuDevice(), dtype } = options
  if (!(device instanceof Device))
    fail('ERR_CONFIG', `options.device: expected what device() resolves to, got ${show(device)}`)
  if (dtype !== undefined) checkOneOf('options.dtype', dtype, floatDTypes)
  if (names !== undefined && !Array.isArray(names))
    fail('ERR_CONFIG', `options.names: expected an array of names, got ${show(names)}`)

  return withSources(file, async (located, metadata) => {
    const wanted = [...new Set(names ?? located.keys())].map((name) => {
      const place = located.get(name)
      if (place === undefined)
        return fail('ERR_FORMAT', `${file}: there is no tensor ${quote(String(name))}`)
      const { source, entry } = place
      const loadedDType = loadedAs(entry.dtype, dtype)
      if (loadedDType === undefined)
        return fail(
          'ERR_FORMAT',
          `${source.file.path}: tensor ${quote(name)}: ${
            entry.dtype === 'F64'
              ? 'F64 is loaded only where options.dtype says what it is rounded to'
              : `tensors of ${entry.dtype} cannot be loaded`
          }`,
        )
      return { name, source, entry, loadedDType }
    })
    // In the order of the disk, whatever order they were asked for in.
    const ordered = [...wanted].sort(
      (a, b) => a.source.index - b.source.index || a.entry.begin - b.entry.begin,
    )
    const buffer = allocate(Math.max(0, ...ordered.map(({ entry }) => entry.end - entry.begin)))
    const loaded = new Map<string, Tensor>()
    try {
      for (const { name, source, entry, loadedDType } of ordered) {
        const bytes = new Uint8Array(buffer, 0, entry.end - entry.begin)
        await source.file.read(bytes, source.dataStart + entry.begin)
        const [values, valuesDType] = elementsOf(bytes, entry, () => {
          fail(
            'ERR_FORMAT',
            `${source.file.path}: tensor ${quote(name)}: an element of I64 does not fit in int32`,
          )
        })
        let id = binding.upload(device.id, dtypeIndex(valuesDType), entry.shape, values)
        if (loadedDType !== valuesDType) {
          const given = id
          try {
            id = binding.cast(given, dtypeIndex(loadedDType))
          } finally {
            binding.dispose(given)
          }
        }
        loaded.set(name, new Tensor(id, entry.shape, loadedDType, device))
      }
    } catch (error) {
      for (const tensor of loaded.values()) tensor.dispose()
      throw error
    }
    return {
      // Object.fromEntries makes plain properties of all names, `__proto__` too.
      tensors: Object.fromEntries(wanted.map(({ name }) => [name, loaded.get(name) as Tensor])),
      metadata: Object.fromEntries(metadata),
    }
  })
}

/**
 * What a `.safetensors` file, or the shards of a `.safetensors.index.json`, hold, without loading it.
 * @throws {DidrError} (as a rejection) as {@link loadSafetensors}
 */
export async function inspectSafetensors(
  file: string,
): Promise<{ tensors: Record<string, StoredTensor>; metadata: Record<string, string> }> {
  checkPath(file)
  return withSources(file, async (located, metadata) => ({
    tensors: Object.fromEntries(
      [...located].map(([name, { source, entry }]) => [
        name,
        {
          dtype: entry.dtype,
          shape: entry.shape,
          bytes: entry.end - entry.begin,
          file: source.file.path,
        },
      ]),
    ),
    metadata: Object.fromEntries(metadata),
  }))
}

const storedAs: Record<DType, StoredDType> = {
  float32: 'F32',
  bfloat16: 'BF16',
  float16: 'F16',
  int32: 'I32',
  uint8: 'U8',
}

/**
 * Writes tensors to a `.safetensors` file, each with the bits it has, laid out as the reference writer does. The file
 * appears complete or, whatever happens, not at all: a file of that name stays as it was until then.
 *
 * The tensors are read one after another; their elements must not change before the promise resolves.
 *
 * @param tensors by name
 * @param options `metadata`: strings by name, for the header
 * @throws {DidrError} (as a rejection) ERR_IO if the file cannot be written; ERR_CONFIG for wrong arguments; the first
 *   failure of an op before the call
 */
export async function saveSafetensors(
  file: string,
  tensors: Readonly<Record<string, Tensor>>,
  options: { metadata?: Readonly<Record<string, string>> } = {},
): Promise<void> {
  checkPath(file)
  checkOptions('options', options, ['metadata'])
  if (typeof tensors !== 'object' || tensors === null || tensors instanceof Tensor)
    fail('ERR_CONFIG', `tensors: expected an object of tensors by name, got ${show(tensors)}`)
  const metadata = Object.entries(options.metadata ?? {})
  for (const [key, value] of metadata) {
    if (typeof value !== 'string')
      fail('ERR_CONFIG', `options.metadata.${key}: expected a string, got ${show(value)}`)
    checkUnicode('options.metadata', key)
    checkUnicode(`options.metadata.${key}`, value)
  }
  const byName = new Map(Object.entries(tensors))
  const dtypes = new Map<string, StoredDType>()
  for (const [name, tensor] of byName) {
    checkUnicode('tensors', name)
    if (name === '__metadata__')
      fail('ERR_CONFIG', 'tensors: the format keeps the name __metadata__ for itself')
    idOf(`tensors[${quote(name)}]`, tensor)
    dtypes.set(name, storedAs[tensor.dtype])
  }
  const names = storedNames(dtypes)
  const described = names.map(
    (name) => [name, dtypes.get(name) as StoredDType, (byName.get(name) as Tensor).shape] as const,
  )
  const header = formatHeader(described, metadata)
  if (header.length - 8 > maxHeaderBytes)
    fail('ERR_CONFIG', `tensors: their header is ${header.length} bytes, over ${maxHeaderBytes}`)

  // Handles of this call's own: the caller may dispose theirs.
  const handles: { id: TensorId; bytes: number }[] = []
  try {
    for (const name of names) {
      const tensor = byName.get(name) as Tensor
      handles.push({ id: binding.view(idOf(name, tensor), tensor.shape), bytes: tensor.bytes })
    }
    await writeAtomically(file, async (write) => {
      await write(header)
      for (const { id, bytes } of handles)
        await write(new Uint8Array(await binding.read(id, allocate(bytes))))
    })
  } finally {
    for (const { id } of handles) binding.dispose(id)
  }
}

function checkPath(file: unknown): asserts file is string {
  if (typeof file !== 'string' || file === '')
    fail('ERR_CONFIG', `file: expected a path, got ${show(file)}`)
}

function checkUnicode(what: string, text: string): void {
  if (/\p{Surrogate}/u.test(text)) fail('ERR_CONFIG', `${what}: ${quote(text)} is not Unicode`)
}

function allocate(bytes: number): ArrayBuffer {
  try {
    return new ArrayBuffer(bytes)
  } catch (error) {
    return fail('ERR_OUT_OF_MEMORY', `a buffer of ${bytes} bytes could not be had`, {
      cause: error,
    })
  }
}

/** The dtype that a stored one is loaded as; undefined where it is not. */
function loadedAs(stored: StoredDType, wanted: LoadOptions['dtype']): DType | undefined {
  switch (stored) {
    case 'F32':
      return wanted ?? 'float32'
    case 'BF16':
      return wanted ?? 'bfloat16'
    case 'F16':
      return wanted ?? 'float16'
    case 'F64':
      return wanted
    case 'I32':
    case 'I64':
      return 'int32'
    case 'U8':
    case 'BOOL':
      return 'uint8'
    default:
      return undefined
  }
}

/** The stored bytes as elements of a dtype that tensors have, narrowed in place where the stored ones are wider. */
function elementsOf(
  bytes: Uint8Array<ArrayBuffer>,
  { dtype }: Entry,
  refuse: () => void,
): [NodeJS.TypedArray, DType] {
  const { buffer, length } = bytes
  switch (dtype) {
    case 'F64': {
      const wide = new Float64Array(buffer, 0, length / 8)
      const narrow = new Float32Array(buffer, 0, length / 8)
      for (let i = 0; i < narrow.length; i++) narrow[i] = wide[i] as number
      return [narrow, 'float32']
    }
    case 'I64': {
      const words = new Int32Array(buffer, 0, length / 4)
      const narrow = words.subarray(0, length / 8)
      for (let i = 0; i < narrow.length; i++) {
        const low = words[2 * i] as number
        if (words[2 * i + 1] !== low >> 31) refuse()
        narrow[i] = low
      }
      return [narrow, 'int32']
    }
    default:
      return [bytes, loadedAs(dtype, undefined) as DType]
  }
}

type Located = Map<string, { source: Source; entry: Entry }>

/** Opens the file, or all shards, reads the headers, calls `use` with what is where, and closes them again. */
async function withSources<T>(
  file: string,
  use: (located: Located, metadata: Map<string, string>) => Promise<T>,
): Promise<T> {
  const open: InputFile[] = []
  const openSource = async (name: string): Promise<Source> => {
    const input = await InputFile.open(name)
    open.push(input)
    return readSource(input, open.length - 1)
  }
  try {
    const located: Located = new Map()
    const metadata = new Map<string, string>()
    if (file.endsWith('.json')) {
      const sources = new Map<string, Source>()
      for (const [name, shard] of await readShardIndex(file)) {
        let source = sources.get(shard)
        if (source === undefined) {
          source = await openSource(path.join(path.dirname(file), shard))
          sources.set(shard, source)
          for (const [key, value] of source.header.metadata) metadata.set(key, value)
        }
        const entry = source.header.entries.get(name)
        if (entry === undefined)
          return fail('ERR_FORMAT', `${file}: tensor ${quote(name)}: it is not in ${shard}`)
        located.set(name, { source, entry })
      }
    } else {
      const source = await openSource(file)
      for (const [key, value] of source.header.metadata) metadata.set(key, value)
      for (const [name, entry] of source.header.entries) located.set(name, { source, entry })
    }
    return await use(located, metadata)
  } finally {
    for (const input of open) await input.close()
  }
}

async function readSource(file: InputFile, index: number): Promise<Source> {
  if (file.bytes < 8)
    fail('ERR_FORMAT', `${file.path}: truncated: expected 8 bytes of header length`)
  const prefix = Buffer.from(new ArrayBuffer(8))
  await file.read(prefix, 0)
  const headerBytes = prefix.readBigUInt64LE()
  if (headerBytes > BigInt(maxHeaderBytes))
    fail(
      'ERR_FORMAT',
      `${file.path}: the header is said to be ${headerBytes} bytes, over ${maxHeaderBytes}`,
    )
  const dataStart = 8 + Number(headerBytes)
  if (dataStart > file.bytes)
    fail(
      'ERR_FORMAT',
      `${file.path}: the header is said to end at byte ${dataStart} of ${file.bytes} (truncated?)`,
    )
  const text = await readText(file, 8, Number(headerBytes))
  return { index, file, header: parseHeader(text, file.path, file.bytes - dataStart), dataStart }
}

async function readText(file: InputFile, position: number, length: number): Promise<string> {
  const bytes = new Uint8Array(allocate(length))
  await file.read(bytes, position)
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes)
  } catch {
    return fail('ERR_FORMAT', `${file.path}: the header is not valid UTF-8`)
  }
}

/** The `weight_map` of an index: each tensor's file, by name. @internal */
export async function readShardIndex(file: string): Promise<Map<string, string>> {
  const input = await InputFile.open(file)
  try {
    if (input.bytes > maxHeaderBytes)
      fail('ERR_FORMAT', `${file}: expected an index of at most ${maxHeaderBytes} bytes`)
    const json = new JsonReader(await readText(input, 0, input.bytes), file)
    let shards: Map<string, string> | undefined
    json.object((field) => {
      if (field !== 'weight_map') return json.skip()
      const map = new Map<string, string>()
      json.object((name) => {
        const shard = json.string()
        // A plain name: an index must not reach into other folders.
        if (shard === '' || shard.startsWith('.') || /[/\\:\0]/.test(shard))
          json.refuse(`tensor ${quote(name)}: ${quote(shard)} is not a file name`)
        map.set(name, shard)
      })
      shards = map
    })
    json.end()
    return shards ?? json.refuse('there is no weight_map')
  } finally {
    await input.close()
  }
}
