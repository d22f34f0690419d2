// Runs on `npm install`: takes a prebuilt addon if there is one for this machine, else builds from source. Downloads
// nothing. Says which way was taken and why the others were not.
import { spawnSync } from 'node:child_process'
import { createRequire } from 'node:module'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { buildNative } from './build-native.mjs'

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..')

/** Why the prebuilt addon cannot be used, or undefined with its path. Loaded in a child: a wrong binary may crash. */
function findPrebuilt() {
  let file
  try {
    file = createRequire(import.meta.url)('node-gyp-build').path(root)
  } catch {
    return { reason: `none for ${process.platform}-${process.arch} in this package` }
  }
  const child = spawnSync(process.execPath, ['-e', 'require(process.argv[1])', file], {
    encoding: 'utf8',
  })
  if (child.status === 0) return { file }
  const said = child.stderr.split('\n').find((line) => line.includes('Error')) ?? ''
  return { reason: `${file} does not load here: ${said || child.signal || child.status}` }
}

const prebuilt = findPrebuilt()
if (prebuilt.file !== undefined && process.env.npm_config_build_from_source === undefined) {
  console.log(`didr: using ${prebuilt.file}`)
} else {
  console.log(
    `didr: building from source (prebuilt addon: ${prebuilt.reason ?? 'passed over by --build-from-source'})`,
  )
  const { built, failures } = buildNative()
  for (const failure of failures) console.error(`didr: build by ${failure}`)
  if (built === undefined) {
    console.error(
      'didr: the addon could not be built. Install a C++20 compiler and CMake (Debian, Ubuntu: ' +
        'apt-get install g++ cmake make libopenblas-pthread-dev), then: npm rebuild didr',
    )
    process.exit(1)
  }
  console.log(`didr: addon built by ${built}`)
}
