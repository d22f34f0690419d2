import { defineConfig } from 'vitest/config'

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    globalSetup: ['test/fixtures/build-package.ts'],
    // The addon is one per process; separate processes keep one test file's queue out of another's counters.
    pool: 'forks',
    maxWorkers: 2,
    testTimeout: 120_000,
  },
})
