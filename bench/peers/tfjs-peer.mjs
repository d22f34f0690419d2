// TensorFlow.js as a peer, on its WebAssembly backend: formulas as a user would write them, and the MLP's step. In Node
// that backend has one thread; each operation is done when its call returns.
import * as tf from '@tensorflow/tfjs'
import * as wasm from '@tensorflow/tfjs-backend-wasm'
import { levels, loadSafetensors, serve, within } from './protocol.mjs'

// Detection of the graphics processor asks for it, and Node 20 has none.
globalThis.navigator ??= {}
await tf.setBackend('wasm')
await tf.ready()

const make = ({ shape, data }) => tf.tensor(data, shape)
const { alpha: alphas, sigma: sigmas, shape } = levels()
const alpha = make({ shape, data: alphas })
const sigma = make({ shape, data: sigmas })

const formulas = {
  perturb: ({ x0, noise = tf.randomNormal(x0.shape) }) => ({
    xt: tf.add(tf.mul(alpha, x0), tf.mul(sigma, noise)),
  }),
  integralKL({ xt, assistant, teacher, uncond, drs }) {
    const guided = tf.add(uncond, tf.mul(3, tf.sub(teacher, uncond)))
    const ours = tf.sub(xt, tf.mul(sigma, assistant))
    const theirs = tf.sub(xt, tf.mul(sigma, guided))
    const difference = tf.sub(ours, theirs)
    const grad = tf.sub(difference, tf.mul(tf.div(tf.square(sigma), alpha), drs))
    const ratio = tf.div(alpha, sigma)
    return {
      grad,
      target: tf.sum(tf.square(tf.mul(ratio, grad)), 1),
      reference: tf.sum(tf.square(tf.mul(ratio, difference)), 1),
    }
  },
  denoisingLoss({ x0, output, noise }) {
    const error = tf.sub(output, tf.sub(noise, x0))
    return { perSample: tf.mean(tf.square(error), 1), grad: tf.mul(error, 2 / x0.size) }
  },
  matmul: ({ a, b }) => ({ c: tf.matMul(a, b) }),
}

class Mlp {
  #given
  #x
  #target
  #depth
  #weights = {}
  #moments = {}
  #steps = 0

  constructor(file) {
    const { arrays } = loadSafetensors(file)
    this.#given = within('model.', arrays)
    this.#x = make(arrays['in.x'])
    this.#target = make(arrays['in.target'])
    this.#depth = Object.keys(this.#given).length / 2
    this.restart()
  }

  restart() {
    tf.dispose([this.#weights, this.#moments])
    this.#steps = 0
    const entries = Object.entries(this.#given)
    this.#weights = Object.fromEntries(entries.map(([name, x]) => [name, tf.variable(make(x))]))
    this.#moments = Object.fromEntries(
      entries.map(([name, x]) => [
        name,
        { first: tf.variable(tf.zeros(x.shape)), second: tf.variable(tf.zeros(x.shape)) },
      ]),
    )
  }

  #loss() {
    let x = this.#x
    for (let i = 0; i < this.#depth; i++) {
      const weight = this.#weights[`layers.${i}.weight`]
      x = tf.add(tf.matMul(x, weight, false, true), this.#weights[`layers.${i}.bias`])
      if (i + 1 < this.#depth) x = tf.mul(x, tf.sigmoid(x))
    }
    return tf.mean(tf.square(tf.sub(x, this.#target)))
  }

  async step() {
    const loss = tf.tidy(() => {
      const { value, grads } = tf.variableGrads(() => this.#loss())
      this.#update(grads)
      return value
    })
    const [number] = await loss.data()
    loss.dispose()
    return number
  }

  /** AdamW; the library's Adam has no weight decay. */
  #update(grads) {
    this.#steps++
    const rate = 1e-4 / (1 - 0.9 ** this.#steps)
    const root = Math.sqrt(1 - 0.999 ** this.#steps)
    for (const [name, weight] of Object.entries(this.#weights)) {
      const { first, second } = this.#moments[name]
      const gradient = grads[weight.name]
      first.assign(tf.add(tf.mul(first, 0.9), tf.mul(gradient, 0.1)))
      second.assign(tf.add(tf.mul(second, 0.999), tf.mul(tf.square(gradient), 0.001)))
      const step = tf.div(first, tf.add(tf.div(tf.sqrt(second), root), 1e-8))
      weight.assign(tf.sub(tf.mul(weight, 1 - 1e-4 * 0.01), tf.mul(step, rate)))
    }
  }
}

await serve({
  make,
  draw: (shape) => tf.randomNormal(shape),
  compute(task, inputs) {
    const formula = formulas[task]
    if (formula === undefined) throw new Error(`${task}: no such task here`)
    return tf.tidy(() => formula(inputs))
  },
  settle: (results) => tf.dispose(results),
  read: (array) => array.data(),
  release: (inputs) => tf.dispose(inputs),
  trainings: { mlp: (file) => new Mlp(file) },
  about: {
    '@tensorflow/tfjs': tf.version.tfjs,
    '@tensorflow/tfjs-backend-wasm': wasm.version_wasm,
  },
})
