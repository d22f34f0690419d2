// The smallest program: noise a batch the way the forward process does, and look at its moments.
import { device, normal, tidy } from 'didr'

const dev = await device('auto')
const [alpha, sigma] = [0.6, 0.8]
const xt = tidy(() => {
  const x0 = normal([1024, 64], { seed: 1, std: 0.5, device: dev })
  const noise = normal([1024, 64], { seed: 2, device: dev })
  return x0.mul(alpha).add(noise.mul(sigma))
})
const mean = await xt.mean().item()
const std = Math.sqrt(await xt.square().mean().item())
console.log(`x_t on ${dev.name}: mean ${mean.toFixed(4)}, std ${std.toFixed(4)}`)
console.log(`expected:     mean 0.0000, std ${Math.hypot(alpha * 0.5, sigma).toFixed(4)}`)
