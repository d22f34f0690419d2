// The CUDA kernels on a real device: the comparisons with the CPU kernels and float64 that run on the host everywhere
// (test/native/cuda), by the same program; those of the whole package (test/cuda); and the times of the fused ops. Where there is no device it says so and ends
// with 0: then nothing was tested.
//
//   node test/gpu/run.mjs [--elements 16777216]
import { spawnSync } from 'node:child_process'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'

const ROOT = join(dirname(fileURLToPath(import.meta.url)), '../..')
const FOLDER = join(ROOT, 'out/gpu-tests')

function run(command, args, options = {}) {
  const result = spawnSync(command, args, { stdio: 'inherit', cwd: ROOT, ...options })
  if (result.error) throw result.error
  if (result.status !== 0) {
    console.error(`test:gpu: ${command} ended with ${result.status ?? result.signal}`)
    process.exit(result.status ?? 1)
  }
}

// Why this machine cannot run CUDA code of ours; undefined when it can.
function missing() {
  const driver = spawnSync('nvidia-smi', ['-L'], { encoding: 'utf8' })
  if (driver.error) return 'no NVIDIA driver (nvidia-smi is not there)'
  if (driver.status !== 0 || !driver.stdout.includes('GPU')) {
    return `no device: ${(driver.stdout + driver.stderr).trim()}`
  }
  console.log(driver.stdout.trim())
  const nvcc = spawnSync(process.env.CUDACXX ?? 'nvcc', ['--version'])
  return nvcc.error ? 'a device, but no nvcc to build the module with (set CUDACXX)' : undefined
}

const { values } = parseArgs({ options: { elements: { type: 'string', default: `${2 ** 24}` } } })
const reason = missing()
if (reason !== undefined) {
  console.log(`\n*** test:gpu: NOTHING WAS TESTED ON A GPU: ${reason} ***\n`)
  process.exit(0)
}

run('cmake', ['-S', '.', '-B', FOLDER, '-DDIDR_BUILD_TESTS=ON', '-DDIDR_CUDA=ON'])
run('cmake', [
  '--build',
  FOLDER,
  '-j',
  '--target',
  'didr_cuda',
  'didr_cuda_tests',
  'didr_cuda_bench',
])
const module = join(FOLDER, 'native/cuda/didr_cuda.so')
const programs = join(FOLDER, 'test/native/cuda')
console.log('\n-- CUDA kernels on the device against the CPU kernels and float64\n')
run(join(programs, 'didr_cuda_tests'), [], { env: { ...process.env, DIDR_CUDA_MODULE: module } })
console.log('\n-- The package on the device against the CPU\n')
// The stand-in for cuBLAS is for kernels that run on the host.
run('npx', ['vitest', 'run', 'test/cuda', '--exclude', 'test/cuda/cublas.test.ts'], {
  env: { ...process.env, DIDR_CUDA_MODULE: module },
})
console.log('\n-- Times\n')
run(join(programs, 'didr_cuda_bench'), [module, values.elements])
