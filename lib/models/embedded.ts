/** The models that come with the package, in `assets/`: a nano Z-Image on emoji. See `assets/README.md`. */
import { fileURLToPath } from 'node:url'

const files = {
  /** The teacher: autoencoder, transformer and caption encoder. */
  teacher: 'nano-z-image.safetensors',
  /** The one-step base generator, distilled from the teacher. */
  generator: 'nano-generator.safetensors',
  /** A CLIP, as a reward. */
  clip: 'clip.safetensors',
  /** A CLIP trained apart from that one; its image features are for evaluation alone. */
  features: 'features.safetensors',
  /** Features of the images for training and of samples of the teacher, which evaluation compares with. */
  references: 'references.safetensors',
  /** The prompts that the teacher was trained on, one a line. */
  prompts: 'prompts.txt',
  /** Combinations of known words that it was not trained on. */
  'held-out-prompts': 'held-out-prompts.txt',
} as const

/** Names of the files that come with the package, for {@link embeddedFile}. */
export type EmbeddedFile = keyof typeof files

/** The path of a file that comes with the package. */
export function embeddedFile(name: EmbeddedFile): string {
  return fileURLToPath(new URL(`../../assets/${files[name]}`, import.meta.url))
}

/** The path that a configuration means: `embedded` is the file that comes with the package. */
export function embeddedOr(name: EmbeddedFile, file: string): string {
  return file === 'embedded' ? embeddedFile(name) : file
}
