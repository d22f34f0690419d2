import path from 'node:path'
import { describe, expect, it } from 'vitest'
import { device, io, memory, nn, type Tensor } from '../../lib/index.js'
import { inspectCheckpoint, loadCheckpoint } from '../../lib/models/checkpoint.js'
import { temporaryFolder } from '../data/shapes.js'
import { expectSame } from './goldens.js'

class Stack extends nn.Module {
  readonly layers: nn.Linear[]

  constructor(init: nn.Initializer) {
    super()
    this.layers = Array.from({ length: 6 }, () => new nn.Linear(init, 64, 64))
  }
}

const layerBytes = (64 * 64 + 64) * 4

describe('a folder of weights', () => {
  it('is read in parts, so that little memory is needed beside the module', async () => {
    const folder = await temporaryFolder()
    using stack = new Stack(new nn.Initializer({ seed: 3 }))
    await io.saveSafetensors(
      path.join(folder, 'diffusion_pytorch_model.safetensors'),
      stack.state(),
    )
    const stored = await inspectCheckpoint(folder)
    using again = new Stack(new nn.Initializer({ seed: 0, draw: false }))
    const cpu = await device('cpu')
    for (const [bytesAtOnce, most] of [
      // One tensor at a time where even that is more than asked for.
      [1, 64 * 64 * 4],
      [2 * layerBytes, 2 * layerBytes],
      [2 ** 28, 6 * layerBytes],
    ] as const) {
      for (const { value } of again.parameters()) value.copyFrom(value.mul(0) as typeof value)
      await cpu.synchronize()
      cpu.resetPeakBytes()
      const before = memory()
      await loadCheckpoint(again, stored, bytesAtOnce)
      expect(memory().peakBytes - before.bytes).toBeLessThanOrEqual(most)
      expect(memory().peakBytes - before.bytes).toBeGreaterThan(most / 2)
      expect(memory().tensors).toBe(before.tensors)
      for (const [name, value] of Object.entries(again.state()))
        await expectSame(name, value, stack.state()[name] as Tensor)
    }
  })

  it('starts from zeros where the initializer does not draw', async () => {
    using layer = new nn.Embedding(new nn.Initializer({ seed: 1, draw: false }), 3, 4)
    using linear = new nn.Linear(new nn.Initializer({ seed: 1, draw: false }), 3, 4)
    for (const { value } of [...layer.parameters(), ...linear.parameters()])
      expect(new Set(await value.data())).toEqual(new Set([0]))
    expect(() => new nn.Initializer({ seed: 1, draw: 'no' as never })).toThrow(
      'options.draw: expected a boolean, got "no"',
    )
  })
})
