// What every list of cases is written in.
//
// A case is one thing to time: what it is given, how it is run, and the least work that its contract asks for, from which
// rates are computed (the package may move more bytes than that; then its percentage is lower).
//
//   name         unique; what `--filter` looks for
//   sizes        `elements`, for any size along the sweep from cache-resident to 10 times the last-level cache; or the
//                sizes that make sense, of which the smaller ones stay in cache
//   unit         what a size counts, for cases with sizes of their own
//   work(size)   { elements, moved, flops }: elements that "per element" refers to; elements read and written at least;
//                operations of the formula (an exponential or a random number counts as one)
//   bound        `memory` or `compute`: what the percentage is of, a streaming loop or a BLAS product
//   dtypes       that the op takes
//   make(draw, size)   inputs; draw(shape) gives normal numbers of the dtype asked for
//   run(inputs, size)  enqueues; returns the tensors to release, or a promise of them
//   check(inputs)    { given, results }: what a peer is given, and what it should find; for cases with peers
//   repeats      how many runs back to back are timed. Default: as many as take a few milliseconds
//   measures     `call`: the time until the call returns, not until its work is done. Default: its work

export const both = ['float32', 'bfloat16']

/** The work of an op that does the same for each of `size` elements. */
export function perElement({ read, written, flops }) {
  return (size) => ({ elements: size, moved: (read + written) * size, flops: flops * size })
}

/** An elementwise or row-wise op on arrays of `size` elements. */
export function streaming(name, { read, written, flops, dtypes = both, make, run, check }) {
  return {
    name,
    sizes: 'elements',
    unit: 'elements',
    work: perElement({ read, written, flops }),
    bound: 'memory',
    dtypes,
    make,
    run,
    check,
  }
}
