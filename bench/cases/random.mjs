// Drawing random numbers.
import { normal, uniform } from 'didr'
import { streaming } from './case.mjs'

/** Of the dtype and on the device of a tensor that is at hand. */
const like = ({ model: { dtype, device } }) => ({ seed: 1, dtype, device })
const make = (draw) => ({ model: draw([1]) })

export const cases = [
  streaming('uniform', {
    ...{ read: 0, written: 1, flops: 1, make },
    run: (inputs, size) => [uniform([size], like(inputs))],
  }),
  streaming('normal', {
    ...{ read: 0, written: 1, flops: 1, make },
    run: (inputs, size) => [normal([size], like(inputs))],
  }),
]
