/** Derivatives of lib/tensor/elementwise.ts. dy is the cotangent of the result. */
import { binding } from '../../native/binding.js'
import type { BinaryKind, UnaryKind } from '../../tensor/elementwise.js'
import { fillScalar, where } from '../../tensor/elementwise.js'
import { activations } from '../../tensor/matmul.js'
import { idOf, Tensor } from '../../tensor/tensor.js'
import { type Backward, type Recorder, record } from '../tape.js'
import { sumToShape } from './broadcast.js'

type Saved = 'x' | 'y' | 'none'
/** What a unary rule keeps, and its derivative times dy. `kept` is x or y, whichever was asked for. */
type UnaryRule = [saved: Saved, derivative: (dy: Tensor, kept: Tensor) => Tensor]

/** dy · act'(x) in one pass, for the activations that matmul fuses. */
export function activationBackward(
  kind: (typeof activations)[number],
  x: Tensor,
  dy: Tensor,
): Tensor {
  const id = binding.activationBackward(activations.indexOf(kind), idOf('x', x), idOf('dy', dy))
  return new Tensor(id, x.shape, x.dtype, x.device)
}

/** A scalar 0 beside dy. */
function zeroLike(dy: Tensor): Tensor {
  return new Tensor(fillScalar(0, dy), [], dy.dtype, dy.device)
}

function activation(kind: (typeof activations)[number]): UnaryRule {
  return ['x', (dy, x) => activationBackward(kind, x, dy)]
}

const unaryRules: Partial<Record<UnaryKind, UnaryRule>> = {
  neg: ['none', (dy) => dy.neg()],
  abs: ['x', (dy, x) => dy.mul(x.sign())],
  square: ['x', (dy, x) => dy.mul(x).mul(2)],
  // At 0 the derivative is infinite, as it should be.
  sqrt: ['y', (dy, y) => dy.div(y).mul(0.5)],
  rsqrt: ['y', (dy, y) => dy.mul(y.square().mul(y)).mul(-0.5)],
  reciprocal: ['y', (dy, y) => dy.mul(y.square()).neg()],
  exp: ['y', (dy, y) => dy.mul(y)],
  log: ['x', (dy, x) => dy.div(x)],
  sin: ['x', (dy, x) => dy.mul(x.cos())],
  cos: ['x', (dy, x) => dy.mul(x.sin()).neg()],
  tanh: activation('tanh'),
  sigmoid: activation('sigmoid'),
  silu: activation('silu'),
  gelu: activation('gelu'),
  geluTanh: activation('geluTanh'),
  relu: activation('relu'),
}

export function recordUnary(
  kind: UnaryKind,
  x: Tensor,
  y: Tensor,
  low: number,
  high: number,
): void {
  if (kind === 'clip') {
    // 1 on the closed interval, as in PyTorch; NaN has none.
    record([y], [x], ({ save }) => {
      const kept = save(x)
      return (dy) => {
        const inside = kept.greaterEqual(low).logicalAnd(kept.lessEqual(high))
        return [where(inside, dy, zeroLike(dy))]
      }
    })
    return
  }
  const rule = unaryRules[kind]
  if (rule === undefined) return
  const [saved, derivative] = rule
  record([y], [x], ({ save }) => {
    const kept = saved === 'none' ? undefined : save(saved === 'x' ? x : y)
    return (dy) => [derivative(dy, kept as Tensor)]
  })
}

/** f(x, b) with a number b. */
export function recordBinaryNumber(kind: BinaryKind, x: Tensor, b: number, y: Tensor): void {
  const derivative = numberRules[kind]
  if (derivative === undefined) return
  record([y], [x], ({ save }) => {
    const kept = derivative.length > 2 ? save(x) : undefined
    return (dy) => [derivative(dy, b, kept as Tensor)]
  })
}

/** A rule that names x (its third argument) has it kept. */
const numberRules: Partial<
  Record<BinaryKind, (dy: Tensor, b: number, x: Tensor) => Tensor | undefined>
> = {
  add: (dy) => dy,
  sub: (dy) => dy,
  mul: (dy, b) => dy.mul(b),
  div: (dy, b) => dy.div(b),
  pow: (dy, b, x) => (b === 0 ? undefined : dy.mul(x.pow(b - 1)).mul(b)),
  maximum: (dy, b, x) => chosen(dy, x.greater(b), x.equal(b)),
  minimum: (dy, b, x) => chosen(dy, x.less(b), x.equal(b)),
}

/** dy where `yes`, half of it where the operands are equal, as in PyTorch. */
function chosen(dy: Tensor, yes: Tensor, equal: Tensor): Tensor {
  return dy.mul(yes.cast(dy.dtype).add(equal.cast(dy.dtype).mul(0.5)))
}

type BinaryRule = (recorder: Recorder, a: Tensor, b: Tensor, y: Tensor) => Backward

const binaryRules: Partial<Record<BinaryKind, BinaryRule>> = {
  add: () => (dy) => [dy, dy],
  sub:
    ({ needs }) =>
    (dy) => [dy, needs[1] ? dy.neg() : undefined],
  mul: ({ needs, save }, a, b) => {
    const keptA = needs[1] ? save(a) : undefined
    const keptB = needs[0] ? save(b) : undefined
    return (dy) => [keptB && dy.mul(keptB), keptA && dy.mul(keptA)]
  },
  div: ({ needs, save }, _a, b, y) => {
    const keptB = save(b)
    const keptY = needs[1] ? save(y) : undefined
    return (dy) => {
      const overB = dy.div(keptB)
      return [overB, keptY && overB.mul(keptY).neg()]
    }
  },
  // ∂/∂a = b a^(b-1); ∂/∂b = y log a, and 0 where a is 0 and b is not negative, where y is constantly 0 or 1.
  pow: ({ needs, save }, a, b, y) => {
    const keptA = save(a)
    const keptB = save(b)
    const keptY = needs[1] ? save(y) : undefined
    return (dy) => {
      const zero = zeroLike(dy)
      const da = needs[0]
        ? where(keptB.equal(0), zero, dy.mul(keptB.mul(keptA.pow(keptB.sub(1)))))
        : undefined
      const flat = keptA.equal(0).logicalAnd(keptB.greaterEqual(0))
      const db = keptY && where(flat, zero, dy.mul(keptY.mul(keptA.log())))
      return [da, db]
    }
  },
  maximum: choice((a, b) => a.greater(b)),
  minimum: choice((a, b) => a.less(b)),
}

function choice(first: (a: Tensor, b: Tensor) => Tensor): BinaryRule {
  return ({ save }, a, b) => {
    const keptA = save(a)
    const keptB = save(b)
    return (dy) => {
      const equal = keptA.equal(keptB)
      return [chosen(dy, first(keptA, keptB), equal), chosen(dy, first(keptB, keptA), equal)]
    }
  }
}

export function recordBinary(kind: BinaryKind, a: Tensor, b: Tensor, y: Tensor): void {
  const rule = binaryRules[kind]
  if (rule === undefined) return
  const [shapeA, shapeB] = [a.shape, b.shape]
  record([y], [a, b], (recorder) => {
    const backward = rule(recorder, a, b, y)
    return (dy) => {
      const [da, db] = backward(dy)
      return [
        da && recorder.needs[0] ? sumToShape(da, shapeA) : undefined,
        db && recorder.needs[1] ? sumToShape(db, shapeB) : undefined,
      ]
    }
  })
}

export function recordAddScaled(a: Tensor, b: Tensor, scale: number, y: Tensor): void {
  record([y], [a, b], ({ needs }) => (dy) => [dy, needs[1] ? dy.mul(scale) : undefined])
}

export function recordWhere(condition: Tensor<'uint8'>, a: Tensor, b: Tensor, y: Tensor): void {
  const [shapeA, shapeB] = [a.shape, b.shape]
  record([y], [a, b], ({ needs, save }) => {
    const kept = save(condition)
    return (dy) => {
      const zero = zeroLike(dy)
      return [
        needs[0] ? sumToShape(where(kept, dy, zero), shapeA) : undefined,
        needs[1] ? sumToShape(where(kept, zero, dy), shapeB) : undefined,
      ]
    }
  })
}
