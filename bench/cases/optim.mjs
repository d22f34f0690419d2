// What an optimiser does to its parameters.
import { optim, Parameter } from 'didr'
import { streaming } from './case.mjs'

/** Parameters are changed in place, and what is drawn is shared. */
const own = (draw, size) => draw([size]).clone()

export const cases = [
  streaming('adamw', {
    // Parameter, gradient and two moments; the norm for clipping reads the gradient before that.
    ...{ read: 5, written: 3, flops: 14, dtypes: ['float32'] },
    make(draw, size) {
      const value = own(draw, size)
      const optimizer = new optim.AdamW([new Parameter('w', value)], { lr: 1e-4 })
      return { value, optimizer, gradient: draw([size]) }
    },
    run: ({ optimizer, gradient }) => [optimizer.step({ gradients: [gradient] })],
  }),
  streaming('ema', {
    ...{ read: 2, written: 1, flops: 3, dtypes: ['float32'] },
    make(draw, size) {
      const value = own(draw, size)
      return { value, ema: new optim.Ema([new Parameter('w', value)], { decay: 0.99 }) }
    },
    run({ ema }) {
      ema.update()
      return []
    },
  }),
]
