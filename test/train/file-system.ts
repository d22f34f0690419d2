/** A file system that begins to fail: the functions of node:fs/promises that change something, counted and replaced. */
import { promises } from 'node:fs'
import { syncBuiltinESMExports } from 'node:module'

const changing = ['appendFile', 'link', 'mkdir', 'open', 'rename', 'rm', 'unlink'] as const
type Name = (typeof changing)[number]

/**
 * Runs `body`; calls for which `fails` says so are not made and reject with an error of that code.
 * @returns what `body` did, and how many calls there were
 */
export async function withFailures<T>(
  fails: (call: { name: Name; paths: string; count: number }) => string | undefined,
  body: () => Promise<T>,
): Promise<{ outcome: PromiseSettledResult<T>; calls: number }> {
  const real = Object.fromEntries(changing.map((name) => [name, promises[name]]))
  let calls = 0
  for (const name of changing) {
    const call = real[name] as (...args: unknown[]) => Promise<unknown>
    const replaced = async (...args: unknown[]) => {
      const paths = args.slice(0, 2).join(' ')
      const code = fails({ name, paths, count: calls++ })
      if (code === undefined) return call(...args)
      throw Object.assign(new Error(`${code}: ${name} ${paths}`), { code })
    }
    Object.assign(promises, { [name]: replaced })
  }
  syncBuiltinESMExports()
  try {
    const [outcome] = await Promise.allSettled([body()])
    return { outcome, calls }
  } finally {
    Object.assign(promises, real)
    syncBuiltinESMExports()
  }
}
