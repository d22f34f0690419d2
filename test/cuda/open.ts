/**
 * The CUDA device of these tests: that of the module which DIDR_CUDA_MODULE names, as `npm run test:gpu` sets it for a real
 * one; else kernels that run on the host, as the native tests build them.
 */
import { existsSync } from 'node:fs'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { type Device, device } from '../../lib/index.js'

/** The module whose kernels run on the host. */
export function hostModule(): string {
  const out = path.join(path.dirname(fileURLToPath(import.meta.url)), '../../out')
  const found = ['Release', 'native-tests-plain/test/native/cuda']
    .map((folder) => path.join(out, folder, 'didr_cuda_on_host.so'))
    .find((file) => existsSync(file))
  if (found === undefined)
    throw new Error(`there is no didr_cuda_on_host.so in ${out}: npm run test:native builds it`)
  return found
}

export async function openCuda(): Promise<Device> {
  process.env.DIDR_CUDA_MODULE ??= hostModule()
  return device('cuda')
}
