import path from 'node:path'
import { describe, expect, it } from 'vitest'
import { concat, data, io, memory, models, normal, type Tensor, zeros } from '../../lib/index.js'
import { expectRejection } from '../expectations.js'
import { expectSame } from '../models/goldens.js'
import { temporaryFolder } from './shapes.js'

const prompts = ['a red fox', 'zwei Bären, "groß"', 'a red fox']
const features = [
  normal([3, 8], { seed: 1, offset: 0, dtype: 'bfloat16' }),
  normal([1, 8], { seed: 1, offset: 1 }),
  normal([5, 8], { seed: 1, offset: 2, dtype: 'bfloat16' }),
] as Tensor[]
const empty = normal([2, 8], { seed: 2, dtype: 'bfloat16' }) as Tensor

/** A file with what a test changes in it. */
async function written(
  change: Record<string, Tensor | undefined> = {},
  text: string | undefined = JSON.stringify(prompts),
): Promise<string> {
  const file = path.join(await temporaryFolder(), 'captions.safetensors')
  const named = Object.entries({
    ...Object.fromEntries(features.map((x, i) => [`prompt.${i}`, x])),
    empty,
    ...change,
  }).filter(([, x]) => x !== undefined) as [string, Tensor][]
  await io.saveSafetensors(file, Object.fromEntries(named), {
    metadata: { prompts: text },
  })
  return file
}

describe('caption embeddings', () => {
  it('are batches of captions in the order asked for, prompts of any length', async () => {
    using captions = await data.loadCaptionEmbeddings(await written())
    expect(captions.prompts).toEqual(prompts)
    expect([captions.length, captions.width]).toEqual([3, 8])
    const batch = captions.condition([2, 1, 2, 0])
    expect(batch.lengths).toEqual([5, 1, 5, 3])
    expect(batch.texts).toEqual([2, 1, 2, 0].map((i) => prompts[i]))
    const [a, b, c] = features.map((x) => x.cast('bfloat16')) as [Tensor, Tensor, Tensor]
    await expectSame('features', batch.features as Tensor, concat([c, b, c, a]) as Tensor)
    const none = captions.unconditional(3)
    expect([none.lengths, none.texts]).toEqual([
      [2, 2, 2],
      ['', '', ''],
    ])
    await expectSame('empty', none.features as Tensor, concat([empty, empty, empty]) as Tensor)
    // A batch of one is the caller's too.
    captions.condition([0]).features.dispose()
    using again = captions.condition([0]).features
    await expectSame('one', again as Tensor, a)
  })

  it('are what the transformer reads', async () => {
    using captions = await data.loadCaptionEmbeddings(await written(), { dtype: 'float32' })
    using model = models.s3dit({
      ...{ dim: 12, n_layers: 1, n_refiner_layers: 1, n_heads: 1, in_channels: 2 },
      ...{ cap_feat_dim: captions.width, axes_dims: [4, 4, 4], axes_lens: [16, 8, 8] },
      pad_multiple: 4,
    })
    const x = normal([2, 2, 4, 4], { seed: 5 })
    const condition = captions.condition([1, 2])
    expect(condition.features.dtype).toBe('float32')
    expect(model.forward(x, Float32Array.of(0.1, 0.5), condition).shape).toEqual([2, 2, 4, 4])
  })

  it('take the memory of the features, and give it back', async () => {
    const file = await written()
    const before = memory()
    const captions = await data.loadCaptionEmbeddings(file)
    expect(memory().bytes - before.bytes).toBe((3 + 1 + 5 + 2) * 8 * 2)
    captions.dispose()
    expect([memory().tensors, memory().bytes]).toEqual([before.tensors, before.bytes])
  })

  it('refuse indices and counts that cannot be', async () => {
    using captions = await data.loadCaptionEmbeddings(await written())
    expect(() => captions.condition([0, 3])).toThrow(
      'indices[1]: expected an integer from 0 to 2, got 3',
    )
    expect(() => captions.condition([])).toThrow('indices: expected an array of at least one')
    expect(() => captions.unconditional(0)).toThrow('count: expected an integer from 1 on, got 0')
  })

  const wide = zeros([3, 9], { dtype: 'bfloat16' }) as Tensor
  const shape = 'expected BF16 or F32 [tokens, 8], got'
  const cases: [change: Record<string, Tensor | undefined>, text: string, message: string][] = [
    [{ 'prompt.1': undefined }, JSON.stringify(prompts), 'missing tensors prompt.1'],
    [{ empty: undefined }, JSON.stringify(prompts), 'missing tensors empty'],
    [{ 'prompt.3': empty }, JSON.stringify(prompts), 'unknown tensors prompt.3'],
    [{}, JSON.stringify([...prompts, 'more']), 'missing tensors prompt.3'],
    [{ 'prompt.0': wide }, JSON.stringify(prompts), `${shape} prompt.0 BF16 [3, 9]`],
    [
      { 'prompt.0': zeros([1, 3, 8]) as Tensor, 'prompt.2': zeros([0, 8]) as Tensor },
      JSON.stringify(prompts),
      `${shape} prompt.0 F32 [1, 3, 8], prompt.2 F32 [0, 8]`,
    ],
    [
      { 'prompt.0': zeros([3, 8], { dtype: 'int32' }) as Tensor },
      JSON.stringify(prompts),
      `${shape} prompt.0 I32 [3, 8]`,
    ],
    [{}, '["a"', '__metadata__.prompts: not JSON'],
    [{}, '{}', '__metadata__.prompts: expected a JSON array of strings, got an object'],
    [{}, '[]', '__metadata__.prompts: expected a JSON array of strings, got []'],
    [{}, '["a", 3]', '__metadata__.prompts[1]: expected a string, got 3'],
  ]
  for (const [change, text, message] of cases)
    it(`are refused: ${message}`, async () => {
      const file = await written(change, text)
      await expectRejection(
        () => data.loadCaptionEmbeddings(file),
        'ERR_FORMAT',
        message.endsWith('JSON') ? /: not JSON: / : `${file}: ${message}`,
      )
    })

  it('are refused without prompts', async () => {
    const file = path.join(await temporaryFolder(), 'captions.safetensors')
    await io.saveSafetensors(file, { empty })
    await expectRejection(
      () => data.loadCaptionEmbeddings(file),
      'ERR_FORMAT',
      `${file}: __metadata__.prompts: expected a JSON array of strings, got undefined`,
    )
  })
})
