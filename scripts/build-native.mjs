// Builds the addon from source: by CMake (with CUDA and OpenBLAS where they are found), or, where that fails, by
// node-gyp (CPU only, own matrix products). `npm run build:native` and the install script come here.
import { spawnSync } from 'node:child_process'
import { createRequire } from 'node:module'
import path from 'node:path'
import { fileURLToPath } from 'node:url'

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..')
const require = createRequire(import.meta.url)

/** The JavaScript file of a package's command: run with this Node, no shell and no PATH needed. */
function command(name, bin) {
  const manifest = require.resolve(`${name}/package.json`)
  return path.join(path.dirname(manifest), bin)
}

function run(file, args) {
  const result = spawnSync(process.execPath, [file, ...args], { cwd: root, stdio: 'inherit' })
  if (result.error) return result.error.message
  return result.status === 0 ? undefined : `exit status ${result.status ?? result.signal}`
}

const builds = [
  {
    name: 'CMake',
    run: () =>
      run(command('cmake-js', 'bin/cmake-js'), [
        'compile',
        '-O',
        'out',
        '--CDDIDR_BUILD_TESTS=OFF',
      ]),
  },
  {
    name: 'node-gyp (CPU only, without an external BLAS)',
    run: () => run(command('node-gyp', 'bin/node-gyp.js'), ['rebuild', '--', '-Ddidr_build=1']),
  },
]

/** Tries the builds in turn; returns the name of the one that worked and why those before it did not. */
export function buildNative() {
  const failures = []
  for (const build of builds) {
    let reason
    try {
      reason = build.run()
    } catch (error) {
      reason = error.message
    }
    if (reason === undefined) return { built: build.name, failures }
    failures.push(`${build.name}: ${reason}`)
  }
  return { built: undefined, failures }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { built, failures } = buildNative()
  for (const failure of failures) console.error(`didr: build by ${failure}`)
  if (built === undefined) {
    console.error(
      'didr: no build worked. It needs a C++20 compiler, and CMake or Python; see the output above.',
    )
    process.exit(1)
  }
  console.log(`didr: addon built by ${built}`)
}
