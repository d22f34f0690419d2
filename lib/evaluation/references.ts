/** Features that others are compared with, in a file: of real images, of a teacher's samples. */
import { fail } from '../errors.js'
import { loadSafetensors, saveSafetensors } from '../io/safetensors.js'
import { tensor } from '../tensor/create.js'
import type { Tensor } from '../tensor/tensor.js'
import type { Features } from './features.js'

const format = 'didr features'

/**
 * Writes features as bfloat16 tensors [rows, columns] by name: their rounding is far below the spread of features.
 * @param origin how they were made, for readers of the file
 */
export async function saveReferences(
  file: string,
  references: Readonly<Record<string, Features>>,
  origin: Readonly<Record<string, string>>,
): Promise<void> {
  const tensors = Object.fromEntries(
    Object.entries(references).map(([name, { rows, columns, values }]) => [
      name,
      tensor(values, { shape: [rows, columns], dtype: 'bfloat16' }) as Tensor,
    ]),
  )
  try {
    await saveSafetensors(file, tensors, { metadata: { ...origin, format } })
  } finally {
    for (const one of Object.values(tensors)) one.dispose()
  }
}

/**
 * Reads what {@link saveReferences} wrote.
 * @param columns of the network that they are compared by
 * @throws {DidrError} (as a rejection) ERR_FORMAT for a file of anything else, or of another network; ERR_IO
 */
export async function loadReferences(
  file: string,
  columns: number,
): Promise<Record<string, Features>> {
  const { tensors, metadata } = await loadSafetensors(file)
  try {
    if (metadata.format !== format)
      fail('ERR_FORMAT', `${file}: expected ${format}, got ${metadata.format ?? 'something else'}`)
    const references: Record<string, Features> = {}
    for (const [name, one] of Object.entries(tensors)) {
      const [rows = 0, own = 0] = one.shape
      if (one.rank !== 2 || one.dtype !== 'bfloat16' || own !== columns)
        fail(
          'ERR_FORMAT',
          `${file}: ${name}: expected bfloat16 features of ${columns} columns, got ${one.dtype} [${one.shape.join(', ')}]`,
        )
      references[name] = { rows, columns, values: Float64Array.from(await one.data()) }
    }
    return references
  } finally {
    for (const one of Object.values(tensors)) one.dispose()
  }
}
