export type { StoredDType } from './header.js'
export {
  inspectSafetensors,
  type LoadOptions,
  loadSafetensors,
  type StoredTensor,
  saveSafetensors,
} from './safetensors.js'
