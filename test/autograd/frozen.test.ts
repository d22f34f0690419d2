import { describe, expect, it } from 'vitest'
import {
  checkpoint,
  frozen,
  models,
  normal,
  type Parameter,
  type Tensor,
  vjp,
} from '../../lib/index.js'

type Float = ReturnType<models.ScoreModel['forward']>

const network = () => models.mlp({ size: 3, hidden: [5], time: 'none', seed: 1 })
const input = () => normal([4, 3], { seed: 2 }) as Float
const gradsOf = (model: models.Mlp) => model.parameters().map(({ grad }: Parameter) => grad)

/** The gradient by the input of the sum of the outputs. */
function inputGradient(forward: (x: Float) => Float): Tensor {
  const { value, pullback } = vjp(forward, [input()])
  return pullback(value.mul(0).add(1) as typeof value)[0] as Tensor
}

describe('frozen', () => {
  it('gives the same gradients by the inputs, and none by parameters', async () => {
    const model = network()
    const plain = await inputGradient((x) => model.forward(x)).data()
    expect(gradsOf(model).every((grad) => grad !== undefined)).toBe(true)
    model.zeroGrad()
    for (const forward of [
      (x: Float) => model.forward(x),
      (x: Float) => checkpoint((y: Float) => model.forward(y), [x]),
    ]) {
      const got = await frozen(() => inputGradient(forward)).data()
      expect([...got]).toEqual([...plain])
      expect(gradsOf(model)).toEqual([undefined, undefined, undefined, undefined])
    }
  })

  it('leaves trainable as it is, and ends with its function', () => {
    const model = network()
    const seen = frozen(() => model.parameters().map(({ trainable }) => trainable))
    expect(seen).toEqual([true, true, true, true])
    expect(() =>
      frozen(() => {
        throw new Error('in between')
      }),
    ).toThrow('in between')
    frozen(() => frozen(() => {}))
    inputGradient((x) => model.forward(x))
    expect(gradsOf(model).every((grad) => grad !== undefined)).toBe(true)
  })

  it('stays while an inner one ends', () => {
    const model = network()
    frozen(() => {
      frozen(() => inputGradient((x) => model.forward(x)))
      inputGradient((x) => model.forward(x))
    })
    expect(gradsOf(model)).toEqual([undefined, undefined, undefined, undefined])
  })

  it('refuses what is no function', () => {
    expect(() => frozen(3 as unknown as () => void)).toThrow('fn: expected a function, got 3')
  })
})
