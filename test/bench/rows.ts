/** Results to make tables of. */
import type { PeerRow } from '../../bench/report/peers-table.mjs'
import type { Row } from '../../bench/report/rows.mjs'

/** 2^20 elements of 8 bytes and 3 operations in 1 ms: 1.05 ns, 8.39 GB/s, 3.15 GFLOP/s. */
export function row(fields: Partial<Row> = {}): Row {
  return {
    case: 'perturb',
    family: 'didr',
    dtype: 'float32',
    label: '1M',
    size: 2 ** 20,
    unit: 'elements',
    threads: 1,
    bound: 'memory',
    elements: 2 ** 20,
    bytes: 8 * 2 ** 20,
    flops: 3 * 2 ** 20,
    median: 1e-3,
    spread: 0.02,
    low: 0.99e-3,
    high: 1.01e-3,
    turns: 7,
    disturbed: 0,
    ...fields,
  }
}

export function loop(fields: Partial<Row> = {}): Row {
  return row({ case: 'copy', family: 'ceiling', ...fields })
}

/** A peers' row with the medians given, by contestant. */
export function peerRow(
  medians: Record<string, number>,
  fields: Partial<Omit<PeerRow, 'contestants'>> = {},
): PeerRow {
  return {
    task: 'perturb',
    size: 2 ** 20,
    threads: 2,
    training: false,
    errors: {},
    ...fields,
    contestants: Object.fromEntries(
      Object.entries(medians).map(([name, median]) => [
        name,
        { median, spread: 0.01, disturbed: 0 },
      ]),
    ),
  }
}
