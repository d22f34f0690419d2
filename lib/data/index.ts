export { CaptionedImages, type Placement } from './captioned-images.js'
export { holdOutCombinations, type Split } from './held-out.js'
export { encodeImages, readPixels, type WriteImagesOptions, writeImages } from './images.js'
export { type LoadImagesOptions, loadCaptionedImages } from './load.js'
