import { checkFinite, checkInteger, checkOptions } from '../checks.js'
import { fail } from '../errors.js'
import type { TensorId } from '../native/binding.js'
import { tensor } from '../tensor/create.js'
import { cpuDevice, type Device } from '../tensor/device.js'
import { keep } from '../tensor/scope.js'
import { idOf, type Tensor } from '../tensor/tensor.js'
import type { Schedule } from './schedules.js'

/** The bins of a {@link KlAccumulator} and where it lives. */
export interface KlAccumulatorOptions {
  /** Bins over the log-SNR. Default 64. */
  bins?: number
  /** The range of log-SNRs that is divided into bins; samples outside are not counted. Default [-10, 10]. */
  logSnrRange?: readonly [low: number, high: number]
  /** Where the samples are. Default: the CPU. */
  device?: Device
}

/** What the accumulated samples say, in nats. */
export interface KlEstimate {
  /** ½ ∫ E‖σ(s_ψ - s̃_ref - s_r)‖² d(-λ) over `logSnrRange`: to the reward-tilted target p*. */
  klToTarget: number
  /** ½ ∫ E‖σ(s_ψ - s̃_ref)‖² d(-λ) over `logSnrRange`: to the reference p_ref. */
  klToReference: number
  /** The range of log-SNRs that the samples covered, and so the integral; undefined before two bins have samples. */
  logSnrRange: readonly [low: number, high: number] | undefined
  /** The bins that have samples, by rising log-SNR: their centres, mean squared norms and sample counts. */
  bins: { logSnr: number; target: number; reference: number; count: number }[]
}

/**
 * Running sums of the score differences per bin of log-SNR λ, from which the Kullback-Leibler divergence of the
 * generator from target and reference follows: KL(p_0‖q_0) = KL(p_T‖q_T) + ½ ∫ E‖σ (s_p - s_q)‖² d(-λ).
 *
 * What it says is as good as the assistant, whose score stands in for the generator's, and covers the noise levels
 * visited: KL at the noisiest of them and below the cleanest is not in it. Sums are float64 in sample order: any split
 * of the samples into batches gives the same bits.
 */
export class KlAccumulator {
  readonly device: Device
  readonly bins: number
  readonly logSnrRange: readonly [low: number, high: number]
  /** Three rows of float64: target, reference and count. */
  readonly #sums: Tensor<'uint8'>

  constructor(options: KlAccumulatorOptions = {}) {
    checkOptions('options', options, ['bins', 'logSnrRange', 'device'])
    const { bins = 64, logSnrRange = [-10, 10], device = cpuDevice() } = options
    checkInteger('options.bins', bins, 2, 1_000_000)
    const [low, high] = logSnrRange
    checkFinite('options.logSnrRange[0]', low)
    checkFinite('options.logSnrRange[1]', high)
    if (!(low < high))
      fail('ERR_RANGE', `options.logSnrRange: expected low < high, got ${low} and ${high}`)
    this.device = device
    this.bins = bins
    this.logSnrRange = [low, high]
    // It outlives the `tidy` that the accumulator may be made in.
    this.#sums = keep(tensor(new Uint8Array(24 * bins), { device }) as Tensor<'uint8'>)
  }

  /** The bin of each time, -1 outside the range. @internal */
  binsOf(t: Float32Array, schedule: Schedule): Int32Array {
    const [low, high] = this.logSnrRange
    return Int32Array.from(t, (time) => {
      const position = ((schedule.logSnr(time) - low) / (high - low)) * this.bins
      return position >= 0 && position < this.bins ? Math.floor(position) : -1
    })
  }

  /** @internal */
  sumsId(): TensorId {
    return idOf('accumulator', this.#sums as Tensor)
  }

  /** The sums themselves, for snapshots. @internal */
  get sums(): Tensor {
    return this.#sums as Tensor
  }

  /**
   * The estimate from everything accumulated so far.
   * @param other counts too: an accumulator with as many bins over the same range
   */
  async read(other?: KlAccumulator): Promise<KlEstimate> {
    if (
      other !== undefined &&
      `${[other.bins, ...other.logSnrRange]}` !== `${[this.bins, ...this.logSnrRange]}`
    )
      fail(
        'ERR_CONFIG',
        `other: expected ${this.bins} bins over ${this.logSnrRange}, got ${other.bins} over ${other.logSnrRange}`,
      )
    const [sums, more] = await Promise.all([
      this.#read(),
      other === undefined ? undefined : other.#read(),
    ])
    if (more !== undefined)
      for (const [i, value] of more.entries()) sums[i] = (sums[i] as number) + value
    const [low, high] = this.logSnrRange
    const width = (high - low) / this.bins
    const bins: KlEstimate['bins'] = []
    for (let bin = 0; bin < this.bins; bin++) {
      const count = sums[2 * this.bins + bin] as number
      if (count === 0) continue
      bins.push({
        logSnr: low + (bin + 0.5) * width,
        target: (sums[bin] as number) / count,
        reference: (sums[this.bins + bin] as number) / count,
        count,
      })
    }
    return {
      klToTarget: integrate(bins, (bin) => bin.target),
      klToReference: integrate(bins, (bin) => bin.reference),
      logSnrRange:
        bins.length < 2 ? undefined : [bins[0]?.logSnr as number, bins.at(-1)?.logSnr as number],
      bins,
    }
  }

  async #read(): Promise<Float64Array> {
    return new Float64Array((await this.#sums.rawData()).buffer)
  }

  /** Forgets everything accumulated, in queue order. */
  reset(): void {
    this.#replace(new Uint8Array(24 * this.bins))
  }

  /** The sums as they are stored, for checkpoints. */
  async save(): Promise<Uint8Array<ArrayBuffer>> {
    return this.#sums.rawData()
  }

  /**
   * Goes on from saved sums, of an accumulator with as many bins over the same range.
   * @throws {DidrError} ERR_SHAPE for sums of another number of bins
   */
  load(sums: Uint8Array): void {
    if (!(sums instanceof Uint8Array) || sums.length !== 24 * this.bins)
      fail(
        'ERR_SHAPE',
        `sums: expected the ${24 * this.bins} bytes of ${this.bins} bins, got ${sums?.length}`,
      )
    this.#replace(sums)
  }

  #replace(sums: Uint8Array): void {
    using uploaded = tensor(sums, { device: this.device }) as Tensor<'uint8'>
    this.#sums.copyFrom(uploaded)
  }

  dispose(): void {
    this.#sums.dispose()
  }

  [Symbol.dispose](): void {
    this.dispose()
  }
}

/** Half the integral over the log-SNR by the trapezoid rule. */
function integrate(bins: KlEstimate['bins'], value: (bin: KlEstimate['bins'][number]) => number) {
  let twice = 0
  for (let i = 1; i < bins.length; i++) {
    const [a, b] = [bins[i - 1], bins[i]] as [
      KlEstimate['bins'][number],
      KlEstimate['bins'][number],
    ]
    twice += ((value(a) + value(b)) / 2) * (b.logSnr - a.logSnr)
  }
  return twice / 2
}
