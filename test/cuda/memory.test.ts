/** What the CUDA device keeps for reuse, and gives back. */
import { describe, expect, it } from 'vitest'
import { memory, normal, tensor } from '../../lib/index.js'
import { cuda } from './both.js'

describe('memory of the device', () => {
  it('that reads and uploads go through is pinned, used again, and given back when asked', async () => {
    await cuda.synchronize()
    cuda.releaseCached()
    using x = normal([70_000], { seed: 1, device: cuda })
    const once = await x.data()
    expect(await x.data()).toEqual(once)
    using y = tensor(once, { device: cuda })
    expect(await y.data()).toEqual(once)
    await cuda.synchronize()
    // One block of the next power of two has served them all, or two where an upload met a read.
    const released = cuda.releaseCached()
    expect([2 ** 19, 2 ** 20]).toContain(released)
    expect(cuda.releaseCached()).toBe(0)
    expect(await x.data()).toEqual(once)
  })

  it('is counted tensor by tensor, with the peak', () => {
    const before = memory(cuda)
    cuda.resetPeakBytes()
    using x = normal([1000], { seed: 1, device: cuda })
    normal([500], { seed: 1, device: cuda }).dispose()
    expect(memory(cuda).bytes).toBe(before.bytes + x.bytes)
    expect(memory(cuda).peakBytes).toBe(before.bytes + x.bytes + 2000)
  })
})
