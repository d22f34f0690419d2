import { checkOneOf } from '../checks.js'
import { fail, show } from '../errors.js'
import { binding, type DeviceId } from '../native/binding.js'

/** What `memory()` counts. */
export interface MemoryReport {
  /** Tensors alive on this JavaScript thread. */
  tensors: number
  /** Bytes of the process's living tensors. */
  bytes: number
  /** Bytes kept for reuse. */
  pooledBytes: number
  /** The most `bytes` has been since the process started or `resetPeakBytes()`. */
  peakBytes: number
}

/** A place where tensors live and ops run, one after another, off the event loop. Get one with {@link device}. */
export class Device {
  /** `cpu`, `cuda:0`, ... */
  readonly name: string
  /** @internal */
  readonly id: DeviceId
  /** Why `device('auto')` did not choose something faster; undefined where it did or was not asked. */
  readonly reason: string | undefined

  /** @internal */
  constructor(name: string, id: DeviceId, reason?: string) {
    this.name = name
    this.id = id
    this.reason = reason
  }

  /** Facts about the device: instruction level, threads and BLAS of a CPU; `reason` as above. */
  get info(): Readonly<Record<string, string>> {
    const info = binding.deviceInfo(this.id)
    return this.reason === undefined ? info : { ...info, reason: this.reason }
  }

  /**
   * Resolves when everything enqueued so far has run.
   * @throws {DidrError} (as a rejection) the first failure of an op since the last wait.
   */
  async synchronize(): Promise<void> {
    await binding.synchronize(this.id)
  }

  /** Memory of this device; see {@link MemoryReport}. */
  memory(): MemoryReport {
    const [tensors, bytes, pooledBytes, peakBytes] = binding.counters(this.id)
    return { tensors, bytes, pooledBytes, peakBytes }
  }

  /** Starts a new peak at what is alive now. */
  resetPeakBytes(): void {
    binding.resetPeak(this.id)
  }

  /** Gives memory kept for reuse back to the system; returns the number of bytes. */
  releaseCached(): number {
    return binding.trim(this.id)
  }

  toString(): string {
    return `Device(${this.name})`
  }
}

let cpu: Device | undefined

/** The CPU, which is always there. */
export function cpuDevice(): Device {
  cpu ??= new Device('cpu', binding.openDevice('cpu'))
  return cpu
}

const cudaNames = /^cuda(:\d+)?$/

/**
 * Opens a device.
 *
 * @param name `cpu`; `cuda` or `cuda:1`, which fail when there is none; `auto`, the first CUDA device or else the CPU,
 *   with the reason in `info.reason`.
 * @throws {DidrError} ERR_BACKEND when a CUDA device is asked for and cannot be had, ERR_CONFIG for another name.
 */
export async function device(
  name: 'cpu' | 'cuda' | `cuda:${number}` | 'auto' = 'auto',
): Promise<Device> {
  if (typeof name !== 'string')
    fail('ERR_CONFIG', `name: expected cpu, cuda, cuda:<index> or auto; got ${show(name)}`)
  if (cudaNames.test(name)) fail('ERR_BACKEND', `${name}: this build has no CUDA module`)
  checkOneOf('name', name, ['cpu', 'auto'])
  if (name === 'auto') return new Device('cpu', cpuDevice().id, 'this build has no CUDA module')
  return cpuDevice()
}

/**
 * Bytes and tensors in use on the CPU, or on the device given.
 *
 * @example
 * const before = memory().tensors
 */
export function memory(of: Device = cpuDevice()): MemoryReport {
  return of.memory()
}
