/** A module's weights in one file, with the configuration that it is built from. */
import { fail, show } from '../errors.js'
import { loadSafetensors, saveSafetensors } from '../io/safetensors.js'
import type { Module } from '../nn/module.js'
import type { Device } from '../tensor/device.js'
import type { FloatDType } from '../tensor/dtype.js'
import type { Tensor } from '../tensor/tensor.js'

export interface Weights {
  /** What the module is built from: the `didr` entry of the metadata, without `model`. */
  config: unknown
  tensors: Record<string, Tensor>
}

/**
 * Writes a safetensors file whose metadata has the entry `didr`, JSON: `{"model": kind, "config": ...}`.
 * @param options `dtype` of the tensors in the file. Default bfloat16.
 */
export async function saveWeights(
  file: string,
  kind: string,
  config: unknown,
  module: Module,
  { dtype = 'bfloat16' }: { dtype?: FloatDType } = {},
): Promise<void> {
  const tensors = Object.fromEntries(
    Object.entries(module.state()).map(([name, tensor]) => [name, tensor.cast(dtype) as Tensor]),
  )
  try {
    const didr = JSON.stringify({ model: kind, config })
    await saveSafetensors(file, tensors, { metadata: { didr } })
  } finally {
    for (const tensor of Object.values(tensors)) tensor.dispose()
  }
}

/**
 * Reads what {@link saveWeights} wrote. The caller disposes the tensors.
 * @throws {DidrError} (as a rejection) ERR_FORMAT for a file of another kind; what `loadSafetensors` throws
 */
export async function loadWeights(
  file: string,
  kind: string,
  { device }: { device?: Device | undefined } = {},
): Promise<Weights> {
  const { tensors, metadata } = await loadSafetensors(file, device === undefined ? {} : { device })
  try {
    const { model, config } = parsed(metadata.didr)
    if (model !== kind)
      fail('ERR_FORMAT', `${file}: expected the weights of ${kind}, got ${show(model)}`)
    return { config, tensors }
  } catch (error) {
    for (const tensor of Object.values(tensors)) tensor.dispose()
    throw error
  }
}

/** Builds a module from its configuration and fills it; takes the tensors over. */
export function moduleFrom<M extends Module>(
  { config, tensors }: Weights,
  build: (config: unknown) => M,
): M {
  let module: M | undefined
  try {
    module = build(config)
    module.loadState(tensors)
    return module
  } catch (error) {
    module?.dispose()
    throw error
  } finally {
    for (const tensor of Object.values(tensors)) tensor.dispose()
  }
}

function parsed(text: string | undefined): { model?: unknown; config?: unknown } {
  try {
    return Object(JSON.parse(text ?? '{}'))
  } catch {
    return {}
  }
}
