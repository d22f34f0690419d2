import { DidrError, fail, show } from '../errors.js'
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
  readonly #reason: string | undefined

  /** @internal */
  constructor(name: string, id: DeviceId, reason?: string) {
    this.name = name
    this.id = id
    this.#reason = reason
  }

  /**
   * Facts about the device: instruction level, threads and BLAS of a CPU; product, compute capability, memory and
   * versions of a GPU. `reason` says why `device('auto')` gave the CPU.
   */
  get info(): Readonly<Record<string, string>> {
    const info = binding.deviceInfo(this.id)
    return this.#reason === undefined ? info : { ...info, reason: this.#reason }
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
  cpu ??= new Device('cpu', binding.openDevice('cpu', 0))
  return cpu
}

const cudaDevices = new Map<number, Device>()

function cudaDevice(index: number): Device {
  let device = cudaDevices.get(index)
  if (device === undefined) {
    try {
      device = new Device(`cuda:${index}`, binding.openDevice('cuda', index))
    } catch (error) {
      if (!(error instanceof DidrError)) throw error
      fail(error.code, `cuda:${index}: ${error.message}`, { cause: error })
    }
    cudaDevices.set(index, device)
  }
  return device
}

let auto: Device | undefined

/** The first CUDA device, or else the CPU with the reason. */
function autoDevice(): Device {
  try {
    return cudaDevice(0)
  } catch (error) {
    return new Device('cpu', cpuDevice().id, (error as Error).message)
  }
}

/** What a device is asked for by; see {@link device}. */
export type DeviceName = 'cpu' | 'cuda' | `cuda:${number}` | 'auto'

/** Checks a device's name, where a configuration or a command gives it. */
export function checkDeviceName(path: string, name: unknown): asserts name is DeviceName {
  if (name === 'cpu' || name === 'auto') return
  if (typeof name !== 'string' || !cudaName.test(name))
    fail('ERR_CONFIG', `${path}: expected cpu, cuda, cuda:<index> or auto; got ${show(name)}`)
}

const cudaName = /^cuda(?::(\d{1,3}))?$/

/**
 * Opens a device.
 *
 * @param name `cpu`; `cuda` or `cuda:1`, which fail when there is none; `auto` (the default), the first CUDA device or
 *   else the CPU, with the reason in `info.reason`.
 * @throws {DidrError} (as a rejection) ERR_BACKEND when a CUDA device is asked for and cannot be had, saying which of
 *   module, driver, version or device is missing; ERR_CONFIG for another name.
 */
export async function device(name: DeviceName = 'auto'): Promise<Device> {
  checkDeviceName('name', name)
  if (name === 'cpu') return cpuDevice()
  if (name === 'auto') {
    auto ??= autoDevice()
    return auto
  }
  return cudaDevice(Number(cudaName.exec(name)?.[1] ?? 0))
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
