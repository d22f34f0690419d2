/**
 * Prompts as features of a text encoder, computed beforehand: a safetensors file with
 *
 *     prompt.0, prompt.1, ...   [tokens, features] of each prompt, BF16 or F32; tokens may differ
 *     empty                     [tokens, features] of the empty prompt, for unconditional samples
 *     __metadata__.prompts      the prompts, a JSON array of strings
 */
import { checkInteger, checkOneOf, checkOptions } from '../checks.js'
import { fail, listed, show } from '../errors.js'
import { inspectSafetensors, loadSafetensors, type StoredTensor } from '../io/safetensors.js'
import type { Captions } from '../models/caption-encoder.js'
import type { PlaceOptions } from '../tensor/create.js'
import type { FloatDType } from '../tensor/dtype.js'
import { concat } from '../tensor/layout.js'
import { showShape } from '../tensor/shape.js'
import type { Tensor } from '../tensor/tensor.js'

type Float = Tensor<FloatDType>

/** Prompts and their features. */
export class CaptionEmbeddings {
  readonly prompts: readonly string[]
  /** Width of a token's features: the `cap_feat_dim` of the network that reads them. */
  readonly width: number
  readonly #features: readonly Float[]
  readonly #empty: Float

  /** Takes the tensors over. @internal */
  constructor(prompts: readonly string[], features: readonly Float[], empty: Float) {
    this.prompts = prompts
    this.width = empty.shape[1] as number
    this.#features = features
    this.#empty = empty
  }

  get length(): number {
    return this.prompts.length
  }

  /**
   * A batch of prompts. The caller disposes its `features`.
   * @param indices of the prompts; at least one
   * @throws {DidrError} ERR_RANGE for an index that no prompt has
   */
  condition(indices: readonly number[]): Captions {
    if (!Array.isArray(indices) || indices.length === 0)
      fail('ERR_CONFIG', `indices: expected an array of at least one, got ${show(indices)}`)
    for (const [row, index] of indices.entries())
      checkInteger(`indices[${row}]`, index, 0, this.length - 1)
    return captionsOf(
      indices.map((index) => this.#features[index] as Float),
      indices.map((index) => this.prompts[index] as string),
    )
  }

  /** As many empty prompts, for unconditional samples. The caller disposes the `features`. */
  unconditional(count: number): Captions {
    checkInteger('count', count, 1)
    return captionsOf(new Array<Float>(count).fill(this.#empty), new Array<string>(count).fill(''))
  }

  /** Releases the features. */
  dispose(): void {
    for (const features of this.#features) features.dispose()
    this.#empty.dispose()
  }

  [Symbol.dispose](): void {
    this.dispose()
  }
}

function captionsOf(features: readonly Float[], texts: string[]): Captions {
  return {
    features: concat(features) as Float,
    lengths: features.map(({ shape }) => shape[0] as number),
    texts,
  }
}

/**
 * Loads the file that docs/z-image.md says how to write.
 *
 * @param options where to and as what: the device and dtype of the network that reads them. Default: bfloat16, as
 *   `loadZImage`, on the CPU.
 * @throws {DidrError} (as a rejection) ERR_FORMAT naming the tensor or field that is missing, unknown or ill-shaped;
 *   ERR_IO. Nothing is left behind.
 * @example
 * using captions = await data.loadCaptionEmbeddings('captions.safetensors')
 * const condition = captions.condition([0, 3])
 */
export async function loadCaptionEmbeddings(
  file: string,
  options: PlaceOptions<FloatDType> = {},
): Promise<CaptionEmbeddings> {
  checkOptions('options', options, ['dtype', 'device'])
  const { dtype = 'bfloat16', device } = options
  checkOneOf('options.dtype', dtype, ['bfloat16', 'float32'])
  const stored = await inspectSafetensors(file)
  const prompts = promptsOf(file, stored.metadata.prompts)
  const names = [...prompts.keys()].map((i) => `prompt.${i}`)
  checkTensors(file, [...names, 'empty'], new Map(Object.entries(stored.tensors)))
  const { tensors } = await loadSafetensors(file, {
    dtype,
    ...(device === undefined ? {} : { device }),
  })
  const of = (name: string) => tensors[name] as Float
  return new CaptionEmbeddings(prompts, names.map(of), of('empty'))
}

function promptsOf(file: string, text: string | undefined): string[] {
  let prompts: unknown
  try {
    prompts = text === undefined ? undefined : JSON.parse(text)
  } catch (error) {
    fail('ERR_FORMAT', `${file}: __metadata__.prompts: not JSON: ${(error as Error).message}`, {
      cause: error,
    })
  }
  if (!Array.isArray(prompts) || prompts.length === 0)
    return fail(
      'ERR_FORMAT',
      `${file}: __metadata__.prompts: expected a JSON array of strings, got ${show(prompts)}`,
    )
  for (const [i, prompt] of prompts.entries())
    if (typeof prompt !== 'string')
      fail(
        'ERR_FORMAT',
        `${file}: __metadata__.prompts[${i}]: expected a string, got ${show(prompt)}`,
      )
  return prompts
}

function checkTensors(
  file: string,
  wanted: readonly string[],
  tensors: ReadonlyMap<string, StoredTensor>,
): void {
  const known = new Set(wanted)
  const missing = wanted.filter((name) => !tensors.has(name))
  const unknown = [...tensors.keys()].filter((name) => !known.has(name))
  if (missing.length > 0) fail('ERR_FORMAT', `${file}: missing tensors ${listed(missing)}`)
  if (unknown.length > 0) fail('ERR_FORMAT', `${file}: unknown tensors ${listed(unknown)}`)
  const width = tensors.get('empty')?.shape[1]
  const wrong = [...tensors].filter(
    ([, { dtype, shape }]) =>
      (dtype !== 'BF16' && dtype !== 'F32') ||
      shape.length !== 2 ||
      shape.some((size) => size === 0) ||
      shape[1] !== width,
  )
  if (wrong.length > 0)
    fail(
      'ERR_FORMAT',
      `${file}: expected BF16 or F32 [tokens, ${width ?? 'features'}], got ${listed(
        wrong.map(([name, { dtype, shape }]) => `${name} ${dtype} ${showShape(shape)}`),
      )}`,
    )
}
