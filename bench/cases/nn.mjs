// The networks' operations, forward.
import { nn, tensor } from 'didr'
import { both, streaming } from './case.mjs'

const width = 256
const samples = 64
/** Tokens of 8 heads of 32, which is `width`. */
const heads = { count: 8, size: 32 }
const tokens = (size) => [samples, size / samples / width, width]

function rotations(count, device) {
  const shape = [count, heads.size / 2]
  const angles = Float32Array.from({ length: count * shape[1] }, (_, i) => i * 0.01)
  const table = (of) => tensor(angles.map(of), { shape, device })
  return { cos: table(Math.cos), sin: table(Math.sin) }
}

export const cases = [
  streaming('rmsNorm', {
    ...{ read: 1, written: 1, flops: 4 },
    make: (draw, size) => ({ x: draw([size / width, width]), weight: draw([width]) }),
    run: ({ x, weight }) => [nn.rmsNorm(x, { eps: 1e-5, weight })],
  }),
  streaming('layerNorm', {
    ...{ read: 1, written: 1, flops: 6 },
    make: (draw, size) => ({ x: draw([size / width, width]) }),
    run: ({ x }) => [nn.layerNorm(x, { eps: 1e-6 })],
  }),
  streaming('groupNorm', {
    // The statistics need a pass before the one that writes.
    ...{ read: 2, written: 1, flops: 9 },
    make: (draw, size) => ({ x: draw([4, 32, size / 128]) }),
    run: ({ x }) => [nn.groupNorm(x, { groups: 8, eps: 1e-6, activation: 'silu' })],
  }),
  streaming('swiGlu', {
    ...{ read: 2, written: 1, flops: 4 },
    make: (draw, size) => ({ a: draw([size]), b: draw([size]) }),
    run: ({ a, b }) => [nn.swiGlu(a, b)],
  }),
  streaming('gatedResidual', {
    ...{ read: 2, written: 1, flops: 2 },
    make: (draw, size) => ({
      x: draw(tokens(size)),
      h: draw(tokens(size)),
      gate: draw([samples, width]),
    }),
    run: ({ x, h, gate }) => [nn.gatedResidual(x, h, gate)],
  }),
  streaming('rope', {
    ...{ read: 1, written: 1, flops: 3 },
    make(draw, size) {
      const [batch, count] = tokens(size)
      const x = draw([batch, count, heads.count, heads.size])
      return { x, ...rotations(count, x.device) }
    },
    run: ({ x, cos, sin }) => [nn.rope(x, cos, sin)],
  }),
  streaming('mse', {
    // Value and gradient.
    ...{ read: 2, written: 1, flops: 4 },
    make: (draw, size) => ({ x: draw([size]), y: draw([size]) }),
    run: ({ x, y }) => [nn.mse(x, y)],
  }),
  {
    name: 'attention',
    sizes: [64, 256, 1024],
    unit: 'tokens',
    work: (count) => ({
      elements: 8 * count * width,
      moved: 4 * 8 * count * width,
      flops: 4 * 8 * count ** 2 * width,
    }),
    bound: 'compute',
    dtypes: both,
    make(draw, count) {
      const part = () => draw([8, count, heads.count, heads.size])
      return { q: part(), k: part(), v: part() }
    },
    run: ({ q, k, v }) => [nn.attention(q, k, v)],
  },
  {
    name: 'conv2d',
    sizes: [16, 32, 64],
    unit: 'pixels, edge',
    work: (edge) => ({
      elements: 16 * 32 * edge ** 2,
      moved: 2 * 16 * 32 * edge ** 2 + 9 * 32 ** 2,
      flops: 2 * 9 * 16 * 32 ** 2 * edge ** 2,
    }),
    bound: 'compute',
    dtypes: ['float32'],
    make: (draw, edge) => ({ x: draw([16, 32, edge, edge]), w: draw([32, 32, 3, 3]) }),
    run: ({ x, w }) => [nn.conv2d(x, w, { padding: 1 })],
  },
]
