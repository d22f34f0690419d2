/** What the server tells the page, as JSON. Both sides are compiled against it. */

/** A run as the list has it. */
export interface RunSummary {
  /** From the folder that is viewed, with `/`; empty for that folder itself. */
  path: string
  /** What its checkpoints say is trained: `train`, `pretrain teacher`, ...; null before the first one. */
  kind: string | null
  /** The objective, estimator and temperature, for runs that have them; else empty. */
  method: string
  /** Steps that are done. */
  step: number
  /** How many in all; null where the configuration cannot be read. */
  steps: number | null
  /** `training`: a process has the folder; `done`: all steps are; `stopped`: neither. */
  state: 'training' | 'done' | 'stopped'
  /** When its metrics, or its configuration where there are none, were last written, in ms since 1970. */
  changed: number
  /** The last number of bytes that was seen; two summaries with the same `changed` may differ in it. */
  bytes: number
  /** At the speed of the last steps; null where that is not known or nothing trains. */
  secondsLeft: number | null
  /** Steps with a picture, ascending. */
  samples: number[]
  /** Whether there is a report.html. */
  report: boolean
}

export interface ComparisonSummary {
  /** Of the folder with a compare.json, as that of a run. */
  path: string
  changed: number
}

/** `/api/runs` */
export interface RunList {
  /** The folder that is viewed. */
  folder: string
  /** The server's clock, in ms since 1970. */
  now: number
  /** Sorted by path. */
  runs: RunSummary[]
  comparisons: ComparisonSummary[]
  /** There were more folders than are looked through. */
  truncated: boolean
}

/** `/api/metrics?run=a&run=b`: names of the numbers in any of them, in the order in which they come. */
export interface MetricNames {
  names: string[]
}

/** `/api/chart?metric=loss&run=a&slot=0&run=b&slot=1&span=20&width=520&log` */
export interface Curves {
  /** A chart of `plot/chart.ts`. */
  svg: string
  /** The curves that are drawn, thinned out, as pairs of step and value; in the order of the request. */
  series: { run: string; slot: number; points: [step: number, value: number][] }[]
}

/** `/api/run?run=a` */
export interface RunDetails {
  path: string
  /** The text of config.json; null where it cannot be read. */
  config: string | null
  checkpoints: { name: string; bytes: number; changed: number }[]
  /** The last texts among the metrics, the latest first. */
  notes: { step: number; name: string; texts: string[] }[]
  /** Lines of metrics.jsonl that are none. */
  unreadableLines: number
}

/** `/api/comparison?comparison=a` */
export interface ComparisonView {
  path: string
  /** The first one is the head. */
  rows: string[][]
  /** Reward against the distance to each reference. */
  charts: { reference: string; svg: string }[]
  /** Why there is nothing; else null. */
  problem: string | null
}
