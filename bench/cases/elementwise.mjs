// Elementwise operations and changes of layout.
import { concat } from 'didr'
import { streaming } from './case.mjs'

const one = (draw, size) => ({ x: draw([size]) })
const two = (draw, size) => ({ x: draw([size]), y: draw([size]) })
const columns = 256

export const cases = [
  streaming('add', { read: 2, written: 1, flops: 1, make: two, run: ({ x, y }) => [x.add(y)] }),
  streaming('mulNumber', { read: 1, written: 1, flops: 1, make: one, run: ({ x }) => [x.mul(3)] }),
  // x + 3y in one pass over memory: scale and add would be two.
  streaming('triad', {
    ...{ read: 2, written: 1, flops: 2 },
    make: two,
    run: ({ x, y }) => [x.addScaled(y, 3)],
  }),
  streaming('exp', { read: 1, written: 1, flops: 1, make: one, run: ({ x }) => [x.exp()] }),
  streaming('silu', { read: 1, written: 1, flops: 3, make: one, run: ({ x }) => [x.silu()] }),
  streaming('clip', { read: 1, written: 1, flops: 2, make: one, run: ({ x }) => [x.clip(-1, 1)] }),
  streaming('addRow', {
    ...{ read: 1, written: 1, flops: 1 },
    make: (draw, size) => ({ x: draw([size / columns, columns]), row: draw([columns]) }),
    run: ({ x, row }) => [x.add(row)],
  }),
  {
    ...streaming('toBfloat16', { read: 1, written: 0.5, flops: 1, dtypes: ['float32'] }),
    make: one,
    run: ({ x }) => [x.cast('bfloat16')],
  },
  streaming('transpose', {
    ...{ read: 1, written: 1, flops: 0 },
    make: (draw, size) => ({ x: draw([size / columns, columns]) }),
    run: ({ x }) => [x.permute([1, 0])],
  }),
  streaming('concat', {
    ...{ read: 1, written: 1, flops: 0 },
    make: (draw, size) => ({ x: draw([size / 2]), y: draw([size / 2]) }),
    run: ({ x, y }) => [concat([x, y])],
  }),
]
