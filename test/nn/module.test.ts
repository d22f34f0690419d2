import { describe, expect, test } from 'vitest'
import { memory, nn, ones, Parameter, type Tensor, tensor, zeros } from '../../lib/index.js'
import { expectRefusal } from '../expectations.js'

class Block extends nn.Module {
  norm: nn.RmsNorm
  to_out: [null, nn.Linear]
  named: Record<string, nn.Linear>
  nothing = null
  count = 3
  readonly #hidden: nn.Linear

  constructor(init: nn.Initializer) {
    super()
    this.norm = new nn.RmsNorm(init, 3)
    this.to_out = [null, new nn.Linear(init, 3, 2, { bias: false })]
    this.named = { '2-1': new nn.Linear(init, 2, 1, { zero: true }) }
    this.#hidden = new nn.Linear(init, 3, 3)
  }

  get hidden() {
    return this.#hidden
  }
}

class Net extends nn.Module {
  scale = new Parameter('scale', ones([1]))
  layers: Block[]
  again: Block

  constructor(init: nn.Initializer) {
    super()
    this.layers = [new Block(init), new Block(init)]
    this.again = this.layers[0] as Block
  }
}

const init = () => new nn.Initializer({ seed: 1 })

describe('names', () => {
  test('are paths of public fields; what is held twice comes once', () => {
    const net = new Net(init())
    expect([...net.namedParameters().keys()]).toEqual([
      'scale',
      'layers.0.norm.weight',
      'layers.0.to_out.1.weight',
      'layers.0.named.2-1.weight',
      'layers.0.named.2-1.bias',
      'layers.1.norm.weight',
      'layers.1.to_out.1.weight',
      'layers.1.named.2-1.weight',
      'layers.1.named.2-1.bias',
    ])
    expect(net.parameters().map(({ name }) => name)).toEqual([...net.namedParameters().keys()])
    // Asking a part does not shorten them.
    net.layers[0]?.parameters()
    expect(net.layers[0]?.norm.weight.name).toBe('layers.0.norm.weight')
  })
})

describe('state', () => {
  test('goes out and in again, and converts dtypes', async () => {
    const [net, other] = [
      new Net(init()),
      new Net(new nn.Initializer({ seed: 2, dtype: 'bfloat16' })),
    ]
    const state = net.state()
    expect(Object.keys(state)).toEqual([...net.namedParameters().keys()])
    expect(state.scale).toBe(net.scale.value)
    const bytes = memory().bytes
    other.loadState(state)
    expect(memory().bytes).toBe(bytes)
    for (const [path, { value }] of other.namedParameters()) {
      const wanted = (state[path] as Tensor).cast(value.dtype)
      expect(await value.data(), path).toEqual(await wanted.data())
    }
  })

  test('missing, unknown and ill-shaped tensors are named, and nothing is changed', async () => {
    const net = new nn.Linear(init(), 3, 2)
    const before = await net.weight.value.data()
    const [weight, bias, wide] = [zeros([2, 3]), zeros([2]), zeros([3])] as unknown as Tensor[]
    expectRefusal(
      () => net.loadState({ weight, biass: bias } as never),
      'ERR_CONFIG',
      'tensors: missing bias; unknown biass',
    )
    expectRefusal(
      () => net.loadState({ weight, bias, more: bias } as never),
      'ERR_CONFIG',
      'tensors: unknown more',
    )
    expectRefusal(
      () => net.loadState({ weight, bias: wide } as never),
      'ERR_SHAPE',
      'tensors: expected bias [2], got [3]',
    )
    expect(await net.weight.value.data()).toEqual(before)
  })
})

test('dispose releases every parameter; setTrainable reaches every one', () => {
  const before = memory().tensors
  const net = new Net(init())
  net.setTrainable(false)
  expect(net.parameters().some(({ trainable }) => trainable)).toBe(false)
  for (const layer of net.layers) layer.hidden.dispose()
  net.dispose()
  expect(memory().tensors).toBe(before)
})

test('layers hold the parameters of their functions', async () => {
  const start = init()
  const x = tensor(
    Float32Array.from({ length: 2 * 4 * 6 * 6 }, (_, i) => Math.sin(i)),
    {
      shape: [2, 4, 6, 6],
    },
  ) as Tensor<'float32'>
  const conv = new nn.Conv2d(start, 4, 3, 3, { stride: 2, padding: [0, 1, 0, 1] })
  expect(await conv.forward(x).data()).toEqual(
    await nn
      .conv2d(x, conv.weight.value, {
        bias: conv.bias?.value,
        stride: 2,
        padding: [0, 1, 0, 1],
      })
      .data(),
  )
  const group = new nn.GroupNorm(start, 2, 4, { eps: 1e-3 })
  expect(await group.forward(x, 'silu').data()).toEqual(
    await nn.groupNorm(x, { groups: 2, eps: 1e-3, activation: 'silu' }).data(),
  )
  const layer = new nn.LayerNorm(start, 6, { affine: false })
  expect(layer.parameters()).toEqual([])
  expect(await layer.forward(x).data()).toEqual(await nn.layerNorm(x, { eps: 1e-5 }).data())
  const table = new nn.Embedding(start, 5, 3)
  const ids = tensor(Int32Array.of(4, 0, 4)) as Tensor<'int32'>
  const rows = await table.weight.value.data()
  expect([...(await table.forward(ids).data())]).toEqual(
    [4, 0, 4].flatMap((id) => [...rows.slice(3 * id, 3 * id + 3)]),
  )
  const bound = 1 / Math.sqrt(10)
  const weights = await new nn.Linear(start, 10, 100).weight.value.data()
  expect(Math.max(...weights)).toBeLessThanOrEqual(bound)
  expect(Math.max(...weights)).toBeGreaterThan(0.99 * bound)
  expect(Math.min(...weights)).toBeLessThan(-0.99 * bound)
})
