// jax-js as a peer, on its WebAssembly backend: formulas as a user would write them, compiled by jit, and the MLP's step.
// Arrays count references: a function takes over what it is given, `.ref` keeps a hold.
import { readFileSync } from 'node:fs'
import * as jax from '@jax-js/jax'
import { levels, loadSafetensors, serve, within } from './protocol.mjs'

const { numpy: np, nn, random } = jax
await jax.init('wasm')
jax.defaultDevice('wasm')

const make = ({ shape, data }) => np.array(data).reshape(shape)
let seed = 0
const draw = (shape) => random.normal(random.key(seed++), shape)

const { alpha: alphas, sigma: sigmas, shape } = levels()
const alpha = make({ shape, data: alphas })
const sigma = make({ shape, data: sigmas })

const perturb = jax.jit((x0, noise) => alpha.ref.mul(x0).add(sigma.ref.mul(noise)))

const integralKL = jax.jit((xt, assistant, teacher, uncond, drs) => {
  const guided = uncond.ref.add(teacher.sub(uncond).mul(3))
  const ours = xt.ref.sub(sigma.ref.mul(assistant))
  const theirs = xt.sub(sigma.ref.mul(guided))
  const difference = ours.sub(theirs)
  const grad = difference.ref.sub(np.square(sigma.ref).div(alpha.ref).mul(drs))
  const ratio = () => alpha.ref.div(sigma.ref)
  const target = np.sum(np.square(ratio().mul(grad.ref)), 1)
  const reference = np.sum(np.square(ratio().mul(difference)), 1)
  return { grad, target, reference }
})

const denoisingLoss = jax.jit((x0, output, noise) => {
  const size = x0.size
  const error = output.sub(noise.sub(x0))
  return { perSample: np.mean(np.square(error.ref), 1), grad: error.mul(2 / size) }
})

const matmul = jax.jit((a, b) => np.matmul(a, b))

function compute(task, inputs) {
  const given = Object.fromEntries(Object.entries(inputs).map(([name, x]) => [name, x.ref]))
  switch (task) {
    case 'perturb':
      return { xt: perturb(given.x0, given.noise ?? draw(inputs.x0.shape)) }
    case 'integralKL':
      return integralKL(given.xt, given.assistant, given.teacher, given.uncond, given.drs)
    case 'denoisingLoss':
      return denoisingLoss(given.x0, given.output, given.noise)
    case 'matmul':
      return { c: matmul(given.a, given.b) }
    default:
      throw new Error(`${task}: no such task here`)
  }
}

class Mlp {
  #given
  #x
  #target
  #depth
  #state
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
    this.#steps = 0
    this.#state = {}
    for (const [name, value] of Object.entries(this.#given))
      this.#state[name] = {
        value: make(value),
        first: np.zeros(value.shape),
        second: np.zeros(value.shape),
      }
  }

  #loss = (weights, x, target) => {
    for (let i = 0; i < this.#depth; i++) {
      const linear = np.matmul(x, weights[`layers.${i}.weight`].transpose())
      x = linear.add(weights[`layers.${i}.bias`])
      if (i + 1 < this.#depth) x = nn.silu(x)
    }
    return np.mean(np.square(x.sub(target)))
  }

  #valueAndGrad = jax.jit(jax.valueAndGrad(this.#loss))

  /** AdamW of one parameter; `rate` and `root` are the corrections of the moments' bias. */
  #update = jax.jit((value, first, second, gradient, rate, root) => {
    first = first.mul(0.9).add(gradient.ref.mul(0.1))
    second = second.mul(0.999).add(np.square(gradient).mul(0.001))
    const step = first.ref.div(np.sqrt(second.ref).div(root).add(1e-8)).mul(rate)
    return { value: value.mul(1 - 1e-4 * 0.01).sub(step), first, second }
  })

  async step() {
    const names = Object.keys(this.#state)
    const weights = Object.fromEntries(names.map((name) => [name, this.#state[name].value.ref]))
    const [loss, gradients] = this.#valueAndGrad(weights, this.#x.ref, this.#target.ref)
    this.#steps++
    const rate = 1e-4 / (1 - 0.9 ** this.#steps)
    const root = Math.sqrt(1 - 0.999 ** this.#steps)
    for (const name of names) {
      const { value, first, second } = this.#state[name]
      this.#state[name] = this.#update(
        ...[value, first, second, gradients[name], np.array(rate), np.array(root)],
      )
    }
    await jax.blockUntilReady(names.map((name) => this.#state[name].value))
    return (await loss.data())[0]
  }
}

const manifest = new URL('./node_modules/@jax-js/jax/package.json', import.meta.url)
await serve({
  make,
  draw,
  compute,
  async settle(results) {
    await jax.blockUntilReady(Object.values(results))
    for (const array of Object.values(results)) array.dispose()
  },
  read: (array) => array.data(),
  release(inputs) {
    for (const array of Object.values(inputs)) array.dispose()
  },
  trainings: { mlp: (file) => new Mlp(file) },
  about: { '@jax-js/jax': JSON.parse(readFileSync(manifest, 'utf8')).version },
})
