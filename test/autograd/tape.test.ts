import { describe, expect, test } from 'vitest'
import {
  checkpoint,
  customOp,
  keep,
  memory,
  noGrad,
  normal,
  Parameter,
  stopGradient,
  type Tensor,
  tensor,
  tidy,
  valueAndGrad,
  vjp,
  zeros,
} from '../../lib/index.js'
import { expectRefusal } from '../expectations.js'

const list = async (x: Tensor | undefined) => [...(await (x as Tensor).data())]
const draw = (shape: number[], seed: number) => normal(shape, { seed }) as Tensor

describe('vjp', () => {
  test('gradients of inputs, in their order; zeros where there is no dependence', async () => {
    const [a, b, c] = [tensor([1, 2]), tensor([3, 4]), tensor([5, 6])]
    const { value, pullback } = vjp((x, y, _z) => x.mul(y).add(x), [a, b, c])
    expect(await list(value)).toEqual([4, 10])
    const [da, db, dc] = pullback(tensor([1, 10]))
    expect(await list(da)).toEqual([4, 50])
    expect(await list(db)).toEqual([1, 20])
    expect(await list(dc)).toEqual([0, 0])
  })

  test('inputs are tracked wherever the function gets them from', async () => {
    const a = tensor([3])
    const { pullback } = vjp(() => a.square(), [a])
    expect(await list(pullback(tensor([1]))[0])).toEqual([6])
  })

  test('several values, some without a cotangent', async () => {
    const a = tensor([2])
    const fn = (x: Tensor) => [x.square(), x.exp(), x] as const
    const { pullback } = vjp(fn, [a as Tensor])
    expect(await list(pullback([tensor([1]), undefined, tensor([5])])[0])).toEqual([9])
    const again = vjp(fn, [a as Tensor])
    expect(await list(again.pullback([undefined, undefined, undefined])[0])).toEqual([0])
  })

  test('a value that is an input or a constant', async () => {
    const a = tensor([1, 2])
    const same = vjp((x) => x, [a])
    const cotangent = tensor([3, 4])
    const [gradient] = same.pullback(cotangent)
    cotangent.copyFrom(tensor([0, 0]))
    expect(await list(gradient)).toEqual([3, 4])
    const constant = vjp(() => tensor([7]), [a])
    expect(await list(constant.pullback(tensor([1]))[0])).toEqual([0, 0])
  })

  test('one tensor used many times', async () => {
    const a = tensor([1.5])
    const { pullback } = vjp(
      (x) =>
        x
          .add(x)
          .mul(x)
          .add(x.mul(x).mul(x))
          .add(x.reshape([1])),
      [a],
    )
    expect(await list(pullback(tensor([1]))[0])).toEqual([4 * 1.5 + 3 * 1.5 * 1.5 + 1])
  })

  test('a shared cotangent is not summed into in place', async () => {
    // Both operands of the outer sum receive the same memory; x then receives more.
    const [a, b] = [tensor([1]), tensor([2])]
    const { pullback } = vjp(
      (x, y) =>
        x
          .add(y)
          .add(x.mul(3))
          .add(y.reshape([1])),
      [a, b],
    )
    const cotangent = tensor([1])
    const [da, db] = pullback(cotangent)
    expect([await list(da), await list(db), await list(cotangent)]).toEqual([[4], [2], [1]])
  })

  test('bfloat16 gradients of bfloat16 inputs', async () => {
    const a = tensor([1, 2], { dtype: 'bfloat16' })
    const [gradient] = vjp((x) => x.square(), [a]).pullback(tensor([1, 1], { dtype: 'bfloat16' }))
    expect(gradient.dtype).toBe('bfloat16')
    expect(await list(gradient)).toEqual([2, 4])
  })

  test('what the function disposes is still there for the backward pass', async () => {
    const a = draw([50], 1)
    const plain = vjp((x) => x.exp().sin().mul(x), [a])
    const tidied = vjp(
      (x) => {
        const e = x.exp()
        const s = tidy(() => e.sin())
        e.dispose()
        const y = s.mul(x)
        s.dispose()
        return y
      },
      [a],
    )
    const one = draw([50], 2)
    expect(await list(tidied.pullback(one)[0])).toEqual(await list(plain.pullback(one)[0]))
  })

  test('values and gradients belong to the caller’s tidy', () => {
    const before = memory().tensors
    tidy(() => {
      const a = tensor([1, 2])
      const { value, pullback } = vjp((x) => x.square().add(x), [a])
      expect(value.disposed).toBe(false)
      pullback(value)
    })
    expect(memory().tensors).toBe(before)
  })

  test('keep() spares what the function makes beside its value', async () => {
    let beside: Tensor | undefined
    let gone: Tensor | undefined
    vjp(
      (x) => {
        beside = keep(x.mul(2) as Tensor)
        gone = x.mul(3)
        return x.square()
      },
      [tensor([2])],
    ).pullback.dispose()
    expect(gone?.disposed).toBe(true)
    expect(await list(beside)).toEqual([4])
  })

  test('refusals', () => {
    const [a, integers] = [tensor([1, 2]), tensor(new Int32Array(2))]
    expectRefusal(() => vjp(1 as never, []), 'ERR_CONFIG', 'fn: expected a function, got 1')
    expectRefusal(
      () => vjp((x) => x, a as never),
      'ERR_CONFIG',
      'inputs: expected an array of tensors, got a Tensor',
    )
    expectRefusal(
      () => vjp((x, y) => x.add(y), [a, a]),
      'ERR_CONFIG',
      'inputs[1]: the same tensor as inputs[0]',
    )
    expectRefusal(
      () => vjp((x) => x, [integers]),
      'ERR_DTYPE',
      /^inputs\[0\]: expected float32 or bfloat16, got int32/,
    )
    expectRefusal(
      () => vjp(() => 3 as never, [a]),
      'ERR_CONFIG',
      'fn: expected a function that returns a tensor or an array of tensors, got 3',
    )
    expectRefusal(
      () => vjp((async (x: Tensor) => x.square()) as never, [a]),
      'ERR_CONFIG',
      'fn: expected a synchronous function, got one that returns a promise',
    )
  })

  test('cotangents are checked', () => {
    const { pullback } = vjp((x) => x.square(), [tensor([1, 2])])
    const wrong = [zeros([3]), tensor([1, 2], { dtype: 'bfloat16' })] as unknown as Tensor[]
    expectRefusal(
      () => pullback(wrong[0] as never),
      'ERR_SHAPE',
      'cotangent: expected shape [2], got [3]',
    )
    expectRefusal(() => pullback(wrong[1] as never), 'ERR_DTYPE', /^cotangent: expected float32/)
    expectRefusal(() => pullback(undefined as never), 'ERR_CONFIG', /^cotangent: expected a tensor/)
    const several = vjp((x) => [x.square()] as const, [tensor([1, 2])])
    expectRefusal(
      () => several.pullback([] as never),
      'ERR_CONFIG',
      /^cotangents: expected an array of 1/,
    )
    // A refused call uses nothing up.
    pullback(tensor([1, 1]))
    several.pullback.dispose()
  })

  test('a second backward pass is refused, and one after dispose()', () => {
    const first = vjp((x) => x.square(), [tensor([1])]).pullback
    first(tensor([1]))
    const one = tensor([1])
    expectRefusal(
      () => first(one),
      'ERR_CONFIG',
      'pullback: it has been called already, and a backward pass releases what it has used',
    )
    const second = vjp((x) => x.square(), [tensor([1])]).pullback
    second.dispose()
    second.dispose()
    expectRefusal(() => second(one), 'ERR_CONFIG', 'pullback: it is disposed')
  })

  test('overwriting a tracked tensor is refused', () => {
    const [a, other] = [tensor([1]), tensor([2])]
    const run = (fn: (x: Tensor<'float32'>) => void) => () =>
      vjp(
        (x) => {
          fn(x)
          return x
        },
        [a],
      )
    expectRefusal(
      run((x) => x.copyFrom(other)),
      'ERR_CONFIG',
      'tensor: the running vjp tracks it, so it must not be overwritten',
    )
    expectRefusal(
      run((x) => other.copyFrom(x)),
      'ERR_CONFIG',
      /^source: the running vjp tracks it/,
    )
    vjp(
      (x) => {
        other.copyFrom(stopGradient(x))
        return x
      },
      [a],
    ).pullback.dispose()
  })
})

describe('parameters', () => {
  test('gradients accumulate over uses and over backward passes', async () => {
    const w = new Parameter('w', tensor([2, 3]))
    const x = tensor([5, 7])
    const loss = () => w.value.mul(x).add(w.value.square()).sum()
    const { value, gradients } = valueAndGrad(loss)
    expect(gradients).toEqual([])
    expect(await value.item()).toBe(10 + 21 + 4 + 9)
    expect(await list(w.grad)).toEqual([9, 13])
    const first = w.grad
    valueAndGrad(loss)
    expect(w.grad).toBe(first)
    expect(await list(w.grad)).toEqual([18, 26])
    w.zeroGrad()
    expect(w.grad).toBeUndefined()
    expect(first?.disposed).toBe(true)
    w.dispose()
  })

  test('a gradient shares no memory with the cotangent', async () => {
    const w = new Parameter('w', tensor([1, 1]))
    const cotangent = tensor([1, 2])
    vjp((x) => w.value.add(x), [tensor([0, 0])]).pullback(cotangent)
    vjp((x) => w.value.add(x), [tensor([0, 0])]).pullback(cotangent)
    expect(await list(cotangent)).toEqual([1, 2])
    expect(await list(w.grad)).toEqual([2, 4])
    w.dispose()
  })

  test('frozen ones are constants, and nothing is kept for them', () => {
    const w = new Parameter('w', draw([64, 64], 1) as never, { trainable: false })
    const x = draw([64, 64], 2)
    const before = memory().tensors
    const { value, pullback } = vjp(() => x.matmul(w.value as Tensor), [])
    value.dispose()
    expect(memory().tensors).toBe(before)
    pullback.dispose()
    w.trainable = true
    const tracked = vjp(() => x.matmul(w.value as Tensor), [])
    // The value, and the handle on x that the weight's gradient needs.
    expect(memory().tensors).toBe(before + 2)
    tracked.pullback.dispose()
    expect(memory().tensors).toBe(before + 1)
    tracked.value.dispose()
    w.dispose()
  })

  test('the value can be replaced', async () => {
    const w = new Parameter('w', tensor([1]))
    const old = w.value
    w.value = tensor([4])
    valueAndGrad(() => w.value.square().sum())
    expect(await list(w.grad)).toEqual([8])
    const { pullback } = vjp(() => old.square().sum(), [])
    pullback(tensor(1, { shape: [] }) as never)
    expect(await list(w.grad)).toEqual([8])
    const longer = zeros([2])
    expectRefusal(
      () => {
        w.value = longer as never
      },
      'ERR_SHAPE',
      'value: expected shape [1], got [2]',
    )
  })

  test('tidy leaves value and gradient alone', async () => {
    const w = tidy(() => {
      const parameter = new Parameter('w', tensor([1, 2]))
      valueAndGrad(() => parameter.value.square().sum())
      return [parameter] as const
    })[0]
    expect(await list(w.value)).toEqual([1, 2])
    expect(await list(w.grad)).toEqual([2, 4])
    w.dispose()
  })

  test('valueAndGrad wants a scalar', () => {
    const x = tensor([1, 2])
    expectRefusal(
      () => valueAndGrad((v) => v.square(), [x]),
      'ERR_SHAPE',
      'fn: expected a function that returns a tensor of one element, got [2]',
    )
  })
})

describe('constants', () => {
  test('noGrad and stopGradient', async () => {
    const a = tensor([3])
    const { value, pullback } = vjp(
      (x) => x.mul(noGrad(() => x.square())).mul(stopGradient(x)),
      [a],
    )
    expect(await list(value)).toEqual([81])
    expect(await list(pullback(tensor([1]))[0])).toEqual([27])
  })

  test('nothing is recorded outside', () => {
    const w = new Parameter('w', tensor([1]))
    const before = memory().tensors
    const y = tidy(() => w.value.square().exp())
    expect(memory().tensors).toBe(before + 1)
    y.dispose()
    w.dispose()
  })

  test('recording ends when the function throws', () => {
    const [a, one] = [tensor([1]), tensor([1])]
    const before = memory().tensors
    expect(() =>
      vjp(
        (x) => {
          x.square()
          throw new RangeError('mine')
        },
        [a],
      ),
    ).toThrow('mine')
    one.square().dispose()
    expect(memory().tensors).toBe(before)
  })
})

describe('nesting', () => {
  test('the value of an inner vjp is tracked by both', async () => {
    const a = tensor([2])
    let inner: Tensor | undefined
    const { pullback } = vjp(
      (x) => {
        const { value, pullback: back } = vjp((y) => y.square().mul(y), [x])
        inner = keep(noGrad(() => back(tensor([1])))[0] as Tensor)
        return value.mul(2)
      },
      [a],
    )
    expect(await list(inner)).toEqual([12])
    expect(await list(pullback(tensor([1]))[0])).toEqual([24])
  })

  test('an inner gradient by something else is a constant', async () => {
    const [a, b] = [tensor([2]), tensor([5])]
    const { pullback } = vjp(
      (x) => {
        const inner = vjp((y) => y.square(), [b])
        const [db] = inner.pullback(tensor([1]))
        return x.mul(db)
      },
      [a],
    )
    expect(await list(pullback(tensor([1]))[0])).toEqual([10])
  })

  test('a gradient of a gradient is refused', () => {
    const [a, b] = [tensor([2]), tensor([5])]
    const inner: { dispose(): void }[] = []
    const refused = (by: Tensor<'float32'>, fn: (x: Tensor<'float32'>) => void) =>
      expectRefusal(
        () =>
          vjp(
            (x) => {
              try {
                fn(x)
              } finally {
                // The refusal uses nothing up; what the inner vjp keeps is released here.
                for (const pullback of inner) pullback.dispose()
              }
              return x
            },
            [by],
          ),
        'ERR_CONFIG',
        /^pullback: gradients of gradients are not computed/,
      )
    const run = (fn: (y: Tensor<'float32'>) => Tensor<'float32'>, y: Tensor<'float32'>) => {
      const { pullback } = vjp((v) => fn(v), [y])
      inner.push(pullback)
      return pullback
    }
    refused(a, (x) => run((y) => y.square(), x)(tensor([1])))
    // By a closure, and by the cotangent.
    refused(a, (x) => run((y) => y.mul(x), b)(tensor([1])))
    refused(a, (x) => run((y) => y.square(), b)(x))
  })

  test('an inner pullback may run after the outer function', async () => {
    const a = tensor([3])
    let back: ((cotangent: Tensor<'float32'>) => Tensor[]) | undefined
    const outer = vjp(
      (x) => {
        const inner = vjp((y) => y.square(), [x])
        back = inner.pullback as never
        return inner.value.mul(x)
      },
      [a],
    )
    expect(await list(back?.(tensor([1]))[0])).toEqual([6])
    expect(await list(outer.pullback(tensor([1]))[0])).toEqual([27])
  })
})

describe('customOp', () => {
  test('uses the pullback that is given', async () => {
    const needed: (readonly boolean[])[] = []
    const scaled = customOp({
      forward: (x: Tensor<'float32'>, y: Tensor<'float32'>) => x.mul(y),
      pullback: ({ cotangent, inputs: [x, y], value, needs }) => {
        needed.push(needs)
        return [cotangent.mul(y).mul(100), cotangent.mul(x).add(value)]
      },
    })
    const [a, b] = [tensor([2]), tensor([3])]
    const { value, pullback } = vjp((x, y) => scaled(x, y).mul(2), [a, b])
    expect(await list(value)).toEqual([12])
    const [da, db] = pullback(tensor([1]))
    expect(await list(da)).toEqual([600])
    expect(await list(db)).toEqual([10])
    const [only] = vjp((x) => scaled(x, b), [a]).pullback(tensor([1]))
    expect(await list(only)).toEqual([300])
    expect(needed).toEqual([
      [true, true],
      [true, false],
    ])
    expect(await list(scaled(a, b))).toEqual([6])
  })

  test('a returned tensor stays the user’s', async () => {
    const constant = tensor([7])
    const op = customOp({
      forward: (x: Tensor<'float32'>) => x.mul(1),
      pullback: () => [constant],
    })
    const a = tensor([1])
    expect(await list(vjp((x) => op(x), [a]).pullback(tensor([1]))[0])).toEqual([7])
    expect(await list(vjp((x) => op(x).add(op(x)), [a]).pullback(tensor([1]))[0])).toEqual([14])
    expect(await list(constant)).toEqual([7])
  })

  test('wrong gradients are refused and release everything', () => {
    const before = memory().tensors
    const run = (gradients: (x: Tensor) => unknown) =>
      tidy(() => {
        const op = customOp({
          forward: (x: Tensor<'float32'>) => x.exp(),
          pullback: ({ cotangent }) => gradients(cotangent) as never,
        })
        const { pullback } = vjp((x) => op(x.square()), [tensor([1, 2])])
        pullback(tensor([1, 1]))
      })
    expect(() => run(() => [])).toThrow(/op.pullback: expected an array of 1 gradients/)
    expect(() => run((x) => [x.sum()])).toThrow(/gradient: expected the shape of its tensor/)
    expect(() => run((x) => [x.cast('bfloat16')])).toThrow(/gradient: expected the dtype/)
    expect(memory().tensors).toBe(before)
  })
})

describe('checkpoint', () => {
  const weights = () =>
    [1, 2, 3, 4].map((seed) => new Parameter(`w${seed}`, draw([16, 16], seed) as never))
  const layer = (x: Tensor, w: Parameter): Tensor =>
    x.add(
      x
        .matmul(w.value as Tensor)
        .tanh()
        .mul(w.value.sum([0]) as Tensor),
    ) as Tensor

  test('the same bits, also of parameters used inside and outside and of earlier gradients', async () => {
    const run = async (checkpointed: boolean) => {
      const parameters = weights()
      const x = draw([8, 16], 9)
      const results: number[][] = []
      for (let pass = 0; pass < 2; pass++) {
        const { value, pullback } = vjp(
          (v) => {
            let y: Tensor = v
            for (const w of [...parameters, parameters[0] as Parameter]) {
              const step = (u: Tensor) => layer(layer(u, w), w)
              y = checkpointed ? checkpoint(step, [y]) : step(y)
              y = layer(y, w)
            }
            return y
          },
          [x],
        )
        const [dx] = pullback(draw([8, 16], 10))
        results.push(await list(value), await list(dx))
      }
      for (const w of parameters) results.push(await list(w.grad as Tensor))
      for (const w of parameters) w.dispose()
      return results
    }
    expect(await run(true)).toEqual(await run(false))
  })

  test('nested', async () => {
    const run = async (wrap: typeof checkpoint) => {
      const [w] = weights() as [Parameter]
      const x = draw([8, 16], 9)
      const { pullback } = vjp(
        (v) =>
          wrap(
            (u: Tensor) =>
              layer(
                wrap((y: Tensor) => layer(y, w), [u]),
                w,
              ),
            [v],
          ),
        [x],
      )
      const [dx] = pullback(draw([8, 16], 10))
      return [await list(dx), await list(w.grad as Tensor)]
    }
    expect(await run(checkpoint)).toEqual(
      await run(((fn: never, x: never[]) => (fn as (...x: never[]) => Tensor)(...x)) as never),
    )
  })

  test('keeps the inputs alone', () => {
    const parameters = weights()
    const x = draw([256, 16], 9)
    const kept = (checkpointed: boolean) => {
      const before = memory().bytes
      const { value, pullback } = vjp(
        (v) =>
          parameters.reduce(
            (y: Tensor, w) =>
              checkpointed
                ? checkpoint((u: Tensor) => layer(layer(u, w), w), [y])
                : layer(layer(y, w), w),
            v,
          ),
        [x],
      )
      value.dispose()
      const bytes = memory().bytes - before
      pullback.dispose()
      expect(memory().bytes).toBe(before)
      return bytes
    }
    expect(kept(true)).toBeLessThan(kept(false) / 3)
    for (const w of parameters) w.dispose()
  })

  test('several values, and inputs that are constants', async () => {
    const [a, b] = [tensor([2]), tensor([3])]
    const { pullback } = vjp(
      (x) => {
        const [p, q] = checkpoint((u, v) => [u.mul(v), u.square()] as const, [x, b])
        return p.add(q)
      },
      [a],
    )
    expect(await list(pullback(tensor([1]))[0])).toEqual([7])
  })

  test('without a vjp it runs the function', async () => {
    expect(await list(checkpoint((x) => x.square(), [tensor([3])]))).toEqual([9])
  })

  test('a tracked tensor from outside is refused', () => {
    const a = tensor([2])
    expectRefusal(
      () =>
        vjp(
          (x) => {
            const y = x.square()
            return checkpoint((u) => u.mul(y), [x])
          },
          [a],
        ),
      'ERR_CONFIG',
      'checkpoint: fn uses a tracked tensor [1] that is not among its inputs',
    )
    const b = tensor([3])
    expectRefusal(
      () =>
        vjp(
          (x) => {
            const y = x.square()
            return checkpoint((u) => checkpoint((v) => v.mul(y), [u]), [b])
          },
          [a],
        ),
      'ERR_CONFIG',
      'checkpoint: fn uses a tracked tensor [1] that is not among its inputs',
    )
  })

  test('of parameters alone', async () => {
    const w = new Parameter('w', tensor([3]))
    valueAndGrad(() => checkpoint(() => w.value.square().sum(), []))
    expect(await list(w.grad)).toEqual([6])
    w.dispose()
  })
})
