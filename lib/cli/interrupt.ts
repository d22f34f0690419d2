/** The exit code of a command that Ctrl-C stopped: 128 and the signal's number, as shells have it. */
export const interrupted = 130

/** A signal that the first Ctrl-C aborts; the second ends the process at once. */
export function abortOnInterrupt(message: string): AbortSignal {
  const controller = new AbortController()
  process.on('SIGINT', () => {
    if (controller.signal.aborted) process.exit(interrupted)
    controller.abort()
    process.stderr.write(`\n${message}; Ctrl-C again stops at once\n`)
  })
  return controller.signal
}
