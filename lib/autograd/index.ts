export { frozen, Parameter, type ParameterOptions } from './parameter.js'
export {
  type Cotangents,
  type CustomOp,
  checkpoint,
  customOp,
  noGrad,
  type Pullback,
  stopGradient,
  valueAndGrad,
  vjp,
} from './vjp.js'
