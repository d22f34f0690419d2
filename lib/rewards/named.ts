/** Rewards by name, as configurations and commands give them. */
import path from 'node:path'
import { pathToFileURL } from 'node:url'
import { createJiti } from 'jiti'
import { checkOptions } from '../checks.js'
import { fail, show } from '../errors.js'
import { loadClip } from '../models/clip.js'
import { embeddedOr } from '../models/embedded.js'
import type { Device } from '../tensor/device.js'
import { fromFunction } from './from-function.js'
import { colourfulness, sharpness } from './image-statistics.js'
import { onnx } from './onnx.js'
import { checkReward, type Reward } from './reward.js'
import { type WeightedPart, weighted } from './weighted.js'

/** A part of the reward in a configuration: which one, and how it is weighted. */
export interface NamedPart extends Omit<WeightedPart, 'reward'> {
  /**
   * `clip`, `colourfulness`, `sharpness`; the path of an ONNX model (.onnx) or of a module (.js, .mjs, .ts, .mts) whose
   * default export is a reward, a function for {@link fromFunction}, or a function without parameters that resolves to a
   * reward.
   */
  reward: string
}

/** What the rewards of {@link named} and {@link loadReward} are loaded with. */
export interface NamedRewardOptions {
  /** The file of the CLIP that `clip` is. Default `embedded`: the one that comes with the package. */
  clip?: string
  device?: Device
}

/** A reward and what it holds, to be released when it is no longer needed. */
export interface LoadedReward {
  reward: Reward
  release(): Promise<void>
}

const partFields = ['reward', 'weight', 'mean', 'std', 'normalize', 'margin']

/**
 * The weighted sum of rewards given by name.
 * @returns undefined if there are none
 * @throws {DidrError} (as a rejection) ERR_CONFIG for unknown names, and modules that export no reward; ERR_IO, ERR_FORMAT,
 *   ERR_BACKEND for files that cannot be loaded
 * @example const loaded = await rewards.named([{ reward: 'clip' }, { reward: './brightness.ts', weight: 0.1 }])
 */
export async function named(
  parts: readonly NamedPart[],
  options: NamedRewardOptions = {},
): Promise<LoadedReward | undefined> {
  checkOptions('options', options, ['clip', 'device'])
  if (!Array.isArray(parts)) fail('ERR_CONFIG', `parts: expected an array, got ${show(parts)}`)
  if (parts.length === 0) return undefined
  const releases: (() => Promise<void>)[] = []
  const release = async () => {
    for (const one of releases.splice(0)) await one()
  }
  try {
    const loaded: WeightedPart[] = []
    for (const [i, part] of parts.entries()) {
      checkOptions(`parts[${i}]`, part, partFields)
      const { reward: name, ...weighting } = part
      const one = await loadReward(name, options, `parts[${i}].reward`)
      releases.push(one.release)
      loaded.push({ reward: one.reward, ...weighting })
    }
    return { reward: weighted(loaded, { name: 'reward' }), release }
  } catch (error) {
    await release()
    throw error
  }
}

const nothing = async () => {}

/**
 * One reward by name.
 * @param name as in {@link NamedPart}
 * @param where for messages
 * @throws {DidrError} (as a rejection) as {@link named}
 */
export async function loadReward(
  name: string,
  options: NamedRewardOptions = {},
  where = 'name',
): Promise<LoadedReward> {
  checkOptions('options', options, ['clip', 'device'])
  const { clip = 'embedded', device } = options
  switch (name) {
    case 'clip': {
      const place = device === undefined ? {} : { device }
      const model = await loadClip(embeddedOr('clip', clip), place)
      model.setTrainable(false)
      return { reward: model.reward(), release: async () => model.dispose() }
    }
    case 'colourfulness':
      return { reward: colourfulness(), release: nothing }
    case 'sharpness':
      return { reward: sharpness(), release: nothing }
  }
  if (typeof name === 'string' && name.endsWith('.onnx')) {
    const reward = await onnx({ file: name, name: path.basename(name, '.onnx') })
    return { reward, release: () => reward.release() }
  }
  if (typeof name === 'string' && /\.[cm]?[jt]s$/.test(name))
    return { reward: await loadModule(where, name), release: nothing }
  return fail(
    'ERR_CONFIG',
    `${where}: expected clip, colourfulness, sharpness, or the path of a module (.js, .ts) or model (.onnx); got ${show(name)}`,
  )
}

/** Node 20 has no types in modules; jiti takes them away, and is given those modules alone. */
async function loadModule(where: string, file: string): Promise<Reward> {
  const absolute = path.resolve(file)
  let module: { default?: unknown }
  try {
    module = /\.[cm]?ts$/.test(file)
      ? await createJiti(import.meta.url, { interopDefault: false }).import(absolute)
      : await import(pathToFileURL(absolute).href)
  } catch (error) {
    return fail(
      'ERR_CONFIG',
      `${where}: ${file} could not be loaded: ${error instanceof Error ? error.message : show(error)}`,
      { cause: error },
    )
  }
  const exported = module.default
  if (typeof exported !== 'function') {
    checkReward(`${where}: the default export of ${file}`, exported)
    return exported
  }
  if (exported.length > 0) {
    const name = path.basename(file).replace(/\.[cm]?[jt]s$/, '')
    return fromFunction(name, exported as Parameters<typeof fromFunction>[1])
  }
  const made: unknown = await exported()
  checkReward(`${where}: what the default export of ${file} resolves to`, made)
  return made
}
