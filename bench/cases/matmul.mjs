// Matrix products, and what a call costs.
import { ones } from 'didr'
import { both } from './case.mjs'

const square = (name, { products, run }) => ({
  name,
  sizes: [256, 512, 1024, 2048],
  unit: 'edge',
  work: (edge) => ({
    elements: products * edge ** 2,
    moved: products * 3 * edge ** 2,
    flops: products * 2 * edge ** 3,
  }),
  bound: 'compute',
  dtypes: both,
  make: (draw, edge) => ({ a: draw([edge, edge]), b: draw([edge, edge]) }),
  run,
})

export const cases = [
  {
    ...square('matmul', { products: 1, run: ({ a, b }) => [a.matmul(b)] }),
    check: ({ a, b }) => ({ given: { a, b }, results: { c: a.matmul(b) } }),
  },
  // Two that do not wait for each other.
  square('twoMatmuls', { products: 2, run: ({ a, b }) => [a.matmul(b), b.matmul(a)] }),
  {
    // What a training step's linear layers are: many rows, few columns.
    name: 'linear',
    sizes: [256, 1024, 4096],
    unit: 'rows',
    work: (rows) => ({
      elements: rows * 160,
      moved: 2 * rows * 160 + 160 ** 2,
      flops: 2 * rows * 160 ** 2,
    }),
    bound: 'compute',
    dtypes: both,
    make: (draw, rows) => ({ x: draw([rows, 160]), w: draw([160, 160]) }),
    run: ({ x, w }) => [x.matmul(w)],
  },
  {
    // Checks, allocation and the queue: 16 elements take no time of their own.
    name: 'callOverhead',
    sizes: [16],
    unit: 'elements',
    work: (size) => ({ elements: size, moved: 3 * size, flops: size }),
    bound: 'call',
    dtypes: ['float32'],
    measures: 'call',
    make: (draw, size) => ({ x: ones([size], { device: draw([1]).device }), y: draw([size]) }),
    run: ({ x, y }) => [x.add(y)],
  },
]
