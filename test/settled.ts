/** Waiting until garbage has been collected, for tests that count what is alive across an `await`. */
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { memory } from '../lib/index.js'

setFlagsFromString('--expose-gc')
const collect = runInNewContext('gc') as () => void

/** Bytes alive when everything unreachable has been collected. */
export async function settled(): Promise<number> {
  let bytes = Number.POSITIVE_INFINITY
  for (let i = 0; i < 20 && memory().bytes < bytes; i++) {
    bytes = memory().bytes
    for (let j = 0; j < 3; j++) {
      collect()
      await new Promise((resolve) => setImmediate(resolve))
    }
  }
  return memory().bytes
}
