/** A network's weights as diffusers keeps them in a folder: one safetensors file, or shards with an index. */
import { readdir } from 'node:fs/promises'
import path from 'node:path'
import type { Parameter } from '../autograd/parameter.js'
import { fail, listed } from '../errors.js'
import {
  inspectSafetensors,
  loadSafetensors,
  readShardIndex,
  type StoredTensor,
} from '../io/safetensors.js'
import { type Module, wrongNames, wrongShapes } from '../nn/module.js'
import type { FloatDType } from '../tensor/dtype.js'
import type { Tensor } from '../tensor/tensor.js'

/** The name that diffusers gives to weights in safetensors, before the ending. */
const base = 'diffusion_pytorch_model.safetensors'

/** What loading takes beside the network itself. */
const defaultBytesAtOnce = 2 ** 28

/** What the files of a folder hold. */
export interface Checkpoint {
  /** The file, or the index of the shards: for messages. */
  file: string
  tensors: ReadonlyMap<string, StoredTensor>
}

/**
 * Finds out which tensors a folder has, from the headers of its files alone. With an index, every shard must be there
 * and hold exactly the tensors that the index says.
 *
 * @throws {DidrError} (as a rejection) ERR_IO naming the files that are missing; ERR_FORMAT naming the tensors that are
 *   where the index does not have them; what `inspectSafetensors` throws
 */
export async function inspectCheckpoint(folder: string): Promise<Checkpoint> {
  const files = new Set(await filesOf(folder))
  const index = `${base}.index.json`
  if (files.has(base) && files.has(index))
    fail('ERR_FORMAT', `${folder}: expected ${base} or ${index}, got both`)
  if (files.has(base)) {
    const file = path.join(folder, base)
    const { tensors } = await inspectSafetensors(file)
    return { file, tensors: new Map(Object.entries(tensors)) }
  }
  if (!files.has(index)) fail('ERR_IO', `${folder}: expected ${base} or ${index}, got neither`)

  const file = path.join(folder, index)
  const shardOf = await readShardIndex(file)
  const shards = [...new Set(shardOf.values())]
  const absent = shards.filter((shard) => !files.has(shard))
  if (absent.length > 0) fail('ERR_IO', `${file}: missing shards ${listed(absent)}`)
  const tensors = new Map<string, StoredTensor>()
  const [strays, unlisted]: [string[], string[]] = [[], []]
  for (const shard of shards) {
    const stored = await inspectSafetensors(path.join(folder, shard))
    for (const [name, tensor] of Object.entries(stored.tensors)) {
      const home = shardOf.get(name)
      if (home === undefined) unlisted.push(`${name} of ${shard}`)
      else if (home === shard) tensors.set(name, tensor)
      else strays.push(`${name} in ${shard}, listed for ${home}`)
    }
  }
  const gone = [...shardOf]
    .filter(([name]) => !tensors.has(name))
    .map(([name, shard]) => `${name} of ${shard}`)
  const remarks = Object.entries({
    'tensors that are not in their shard': gone,
    'tensors in a shard that is not theirs': strays,
    'tensors that are not in the index': unlisted,
  })
    .filter(([, names]) => names.length > 0)
    .map(([remark, names]) => `${remark}: ${listed(names)}`)
  if (remarks.length > 0) fail('ERR_FORMAT', `${file}: ${remarks.join('; ')}`)
  return { file, tensors }
}

/**
 * Reads a folder's tensors into a module's parameters, converted to their dtype.
 *
 * @param bytesAtOnce bytes of tensors read before they are copied and released; a larger tensor is read by itself.
 *   Default 256 MiB.
 * @throws {DidrError} (as a rejection) ERR_FORMAT naming missing, unknown or ill-shaped tensors and those that are not
 *   floating-point, before anything is read; what `loadSafetensors` throws
 */
export async function loadCheckpoint(
  module: Module,
  { file, tensors }: Checkpoint,
  bytesAtOnce = defaultBytesAtOnce,
): Promise<void> {
  const parameters = module.namedParameters()
  const wrong =
    wrongNames(parameters, [...tensors.keys()]) ??
    wrongShapes(parameters, (name) => (tensors.get(name) as StoredTensor).shape)
  if (wrong !== undefined) fail('ERR_FORMAT', `${file}: ${wrong}`)
  const others = [...tensors].filter(([, { dtype }]) => !['F32', 'BF16', 'F16'].includes(dtype))
  if (others.length > 0)
    fail(
      'ERR_FORMAT',
      `${file}: expected tensors of F32, BF16 or F16, got ${listed(others.map(([name, { dtype }]) => `${name} ${dtype}`))}`,
    )

  const [first] = parameters.values()
  if (first === undefined) return
  const { dtype, device } = first.value
  for (const { source, names } of parts(tensors, bytesAtOnce)) {
    const loaded = await loadSafetensors(source, { names, dtype, device })
    try {
      for (const [name, tensor] of Object.entries(loaded.tensors))
        (parameters.get(name) as Parameter).value.copyFrom(tensor as Tensor<FloatDType>)
    } finally {
      for (const tensor of Object.values(loaded.tensors)) tensor.dispose()
    }
    // Memory that the queue still writes to is not used again for uploads.
    await device.synchronize()
  }
}

/** Names of tensors that are read together, from one file. */
interface Part {
  source: string
  names: string[]
  bytes: number
}

function parts(tensors: Checkpoint['tensors'], bytesAtOnce: number): Part[] {
  const made: Part[] = []
  for (const [name, { file, bytes }] of tensors) {
    const last = made.at(-1)
    if (last === undefined || last.source !== file || last.bytes + bytes > bytesAtOnce)
      made.push({ source: file, names: [name], bytes })
    else {
      last.names.push(name)
      last.bytes += bytes
    }
  }
  return made
}

async function filesOf(folder: string): Promise<string[]> {
  try {
    return await readdir(folder)
  } catch (error) {
    return fail('ERR_IO', `${folder}: could not be read: ${(error as Error).message}`, {
      cause: error,
    })
  }
}
