/** Images as points in the feature space of a network, where sets of images are compared. */
import { checkInteger } from '../checks.js'
import { fail, show } from '../errors.js'
import { checkImages } from '../rewards/images.js'
import type { FloatDType } from '../tensor/dtype.js'
import { tidy } from '../tensor/scope.js'
import { showShape } from '../tensor/shape.js'
import { checkFloat, idOf, type Tensor } from '../tensor/tensor.js'

/** One row for each image, row-major in float64. */
export interface Features {
  readonly rows: number
  readonly columns: number
  /** [rows · columns] */
  readonly values: Float64Array
}

/** A network's features of images [B, 3, H, W] from 0 to 1: a new tensor [B, columns], which becomes the caller's. */
export type FeatureExtractor = (images: Tensor<FloatDType>) => Tensor<FloatDType>

/**
 * The features of images.
 *
 * @param extract such as `(images) => clip.features(images)`; no gradients are kept
 * @param batches of images [B, 3, H, W] from 0 to 1. They stay the caller's; a generator may dispose each when the next
 *   one is asked for.
 * @throws {DidrError} (as a rejection) ERR_CONFIG, ERR_SHAPE, ERR_DTYPE for what is no batch of images, and for features
 *   other than a float tensor [B, columns] with the same columns each time; ERR_NONFINITE for features that are not
 *   finite
 * @example
 * const seen = await evaluation.featuresOf((images) => judge.features(images), batches)
 */
export async function featuresOf(
  extract: FeatureExtractor,
  batches: Iterable<Tensor<FloatDType>> | AsyncIterable<Tensor<FloatDType>>,
): Promise<Features> {
  if (typeof extract !== 'function')
    fail('ERR_CONFIG', `extract: expected a function, got ${show(extract)}`)
  const chunks: Float32Array[] = []
  let rows = 0
  let columns: number | undefined
  for await (const images of batches) {
    const [batch] = checkImages(images, 3)
    // After an `await`, so outside of every vjp: nothing is kept for gradients.
    const found = tidy(() => extract(images))
    try {
      idOf('features', found as Tensor)
      checkFloat('features', found as Tensor)
      const [, width = 0] = found.shape
      if (found.rank !== 2 || found.shape[0] !== batch || width !== (columns ?? width))
        fail(
          'ERR_SHAPE',
          `features: expected [${batch}, ${columns ?? 'columns'}], got ${showShape(found.shape)}`,
        )
      columns = width
      chunks.push(await found.data())
    } finally {
      if (found !== images) found?.dispose()
    }
    rows += batch
  }
  const values = new Float64Array(rows * (columns ?? 0))
  let first = 0
  for (const chunk of chunks) {
    values.set(chunk, first)
    first += chunk.length
  }
  const features = { rows, columns: columns ?? 0, values }
  checkFeatures('features', features, 0)
  return features
}

/** Refuses what are not at least `least` rows of finite features. */
export function checkFeatures(name: string, features: Features, least: number): void {
  if (typeof features !== 'object' || features === null)
    fail('ERR_CONFIG', `${name}: expected features, got ${show(features)}`)
  const { rows, columns, values } = features
  checkInteger(`${name}.rows`, rows, least)
  checkInteger(`${name}.columns`, columns, rows === 0 ? 0 : 1)
  if (!(values instanceof Float64Array))
    fail('ERR_CONFIG', `${name}.values: expected a Float64Array, got ${show(values)}`)
  if (values.length !== rows * columns)
    fail(
      'ERR_SHAPE',
      `${name}.values: expected ${rows * columns} elements for [${rows}, ${columns}], got ${values.length}`,
    )
  const wrong = values.findIndex((value) => !Number.isFinite(value))
  if (wrong >= 0)
    fail(
      'ERR_NONFINITE',
      `${name}.values: expected finite numbers, got ${values[wrong]} in row ${Math.floor(wrong / columns)}`,
    )
}

/** Refuses two sets of features that are not of one network. */
export function checkSameColumns(name: string, features: Features, other: Features): void {
  if (features.columns !== other.columns)
    fail(
      'ERR_SHAPE',
      `${name}: expected ${other.columns} columns, as the other set has, got ${features.columns}`,
    )
}

/**
 * ‖row i of a - row j of b‖². From the differences, not from a·b: equal rows are exactly 0 apart, and the distance is the
 * same number whichever row comes first, so that ties are ties.
 */
export function squaredDistance(a: Features, i: number, b: Features, j: number): number {
  const { columns } = a
  let sum = 0
  for (let k = 0, p = i * columns, q = j * columns; k < columns; k++, p++, q++) {
    const difference = (a.values[p] as number) - (b.values[q] as number)
    sum += difference * difference
  }
  return sum
}
