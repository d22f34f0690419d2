// Reductions and softmax, over rows of 1024 and over columns.
import { streaming } from './case.mjs'

const length = 1024
const make = (draw, size) => ({ x: draw([size / length, length]) })

export const cases = [
  streaming('sum', { read: 1, written: 0, flops: 1, make, run: ({ x }) => [x.sum()] }),
  streaming('sumRows', { read: 1, written: 0, flops: 1, make, run: ({ x }) => [x.sum(1)] }),
  streaming('sumColumns', { read: 1, written: 0, flops: 1, make, run: ({ x }) => [x.sum(0)] }),
  streaming('maxRows', { read: 1, written: 0, flops: 1, make, run: ({ x }) => [x.max(1)] }),
  streaming('softmax', { read: 1, written: 1, flops: 5, make, run: ({ x }) => [x.softmax(-1)] }),
]
