import { checkInteger, checkOptions } from '../checks.js'
import { fail, show } from '../errors.js'
import { embedding } from '../nn/functional.js'
import { Initializer } from '../nn/initializer.js'
import { Embedding } from '../nn/layers.js'
import { Module } from '../nn/module.js'
import { type PlaceOptions, tensor } from '../tensor/create.js'
import type { FloatDType } from '../tensor/dtype.js'
import type { Tensor } from '../tensor/tensor.js'

/** A batch of captions as features, one caption after another without padding. */
export interface Captions {
  /** [the sum of lengths, feature size] */
  features: Tensor<FloatDType>
  /** Tokens of each caption. */
  lengths: readonly number[]
  /** The captions as text, for rewards that read them themselves. */
  texts?: readonly string[]
}

/** The words that a {@link CaptionEncoder} knows, and the size of its features. */
export interface CaptionEncoderConfig {
  /** The known words, lower case. A word's id is its place plus two. */
  vocabulary: readonly string[]
  /** Width of a word's features: the `cap_feat_dim` of the network that reads them. */
  dim: number
  /** Words past this many are dropped. Default 32. */
  max_length?: number
}

/** The id of words that are not in the vocabulary. */
const unknownWord = 0
/** The only token of a caption without words: the condition of an unconditional sample. */
const emptyCaption = 1
const reserved = 2

/** The words of a caption: runs of letters and digits, lower case. */
export function wordsOf(caption: string): string[] {
  return (
    caption
      .normalize('NFKC')
      .toLowerCase()
      .match(/[\p{L}\p{N}]+/gu) ?? []
  )
}

/**
 * The words of captions, the most frequent first and equals in alphabetical order.
 * @param least drop words that occur less often. Default 1.
 */
export function vocabularyOf(captions: Iterable<string>, least = 1): string[] {
  const counts = new Map<string, number>()
  for (const caption of captions)
    for (const word of wordsOf(caption)) counts.set(word, (counts.get(word) ?? 0) + 1)
  return [...counts]
    .filter(([, count]) => count >= least)
    .sort(([a, m], [b, n]) => n - m || (a < b ? -1 : 1))
    .map(([word]) => word)
}

/** Captions as one learned vector for each word. Their order is the network's business: it gives tokens positions. */
export class CaptionEncoder extends Module {
  readonly embedding: Embedding
  readonly config: Required<CaptionEncoderConfig>
  private readonly ids: ReadonlyMap<string, number>

  constructor(init: Initializer, config: CaptionEncoderConfig) {
    super()
    checkOptions('config', config, ['vocabulary', 'dim', 'max_length'])
    const { vocabulary, dim, max_length = 32 } = config
    if (!Array.isArray(vocabulary) || vocabulary.some((word) => typeof word !== 'string'))
      fail('ERR_CONFIG', `config.vocabulary: expected an array of words, got ${show(vocabulary)}`)
    checkInteger('config.dim', dim, 1)
    checkInteger('config.max_length', max_length, 1)
    this.config = { vocabulary: [...vocabulary], dim, max_length }
    this.ids = new Map(vocabulary.map((word, i) => [word, i + reserved]))
    if (this.ids.size !== vocabulary.length)
      fail('ERR_CONFIG', 'config.vocabulary: expected each word once')
    this.embedding = new Embedding(init, vocabulary.length + reserved, dim)
  }

  /** Ids of a caption's words. */
  tokenize(caption: string): number[] {
    const ids = wordsOf(caption)
      .slice(0, this.config.max_length)
      .map((word) => this.ids.get(word) ?? unknownWord)
    return ids.length > 0 ? ids : [emptyCaption]
  }

  forward(captions: readonly string[]): Captions {
    if (!Array.isArray(captions) || captions.some((caption) => typeof caption !== 'string'))
      fail('ERR_CONFIG', `captions: expected an array of strings, got ${show(captions)}`)
    const tokens = captions.map((caption) => this.tokenize(caption))
    const { device } = this.embedding.weight.value
    using ids = tensor(Int32Array.from(tokens.flat()), { device }) as Tensor<'int32'>
    return {
      features: embedding(ids, this.embedding.weight.value),
      lengths: tokens.map(({ length }) => length),
      texts: [...captions],
    }
  }
}

/** Where a caption encoder's first values come from and where they live. */
export interface CaptionEncoderOptions extends PlaceOptions<FloatDType> {
  /** Of the first values. Default 0. */
  seed?: number
}

/**
 * A caption encoder on words.
 * @example
 * const encoder = models.captionEncoder({ vocabulary: models.vocabularyOf(names), dim: 192 })
 * const captions = encoder.forward(['red heart', ''])
 */
export function captionEncoder(
  config: CaptionEncoderConfig,
  options: CaptionEncoderOptions = {},
): CaptionEncoder {
  checkOptions('options', options, ['seed', 'dtype', 'device'])
  return new CaptionEncoder(new Initializer({ seed: 0, ...options }), config)
}
