"""NumPy as a peer: the kernels' formulas as a user would write them, and, as it has no gradients, an MLP's by hand."""

import numpy

import protocol

BATCH = 64
random = numpy.random.default_rng(0)


def draw(*shape):
    return random.standard_normal(shape, dtype=numpy.float32)


def inputs_of(task, size):
    if task == "matmul":
        return {name: draw(size, size) for name in ("a", "b")}
    names = {
        "perturb": ["x0"],
        "integralKL": ["xt", "assistant", "teacher", "uncond", "drs"],
        "denoisingLoss": ["x0", "output", "noise"],
    }
    return {name: draw(BATCH, size // BATCH) for name in names[task]}


def levels():
    t = numpy.linspace(0.1, 0.9, BATCH, dtype=numpy.float32)[:, None]
    return 1 - t, t


def perturb(inputs):
    x0 = inputs["x0"]
    alpha, sigma = levels()
    noise = inputs["noise"] if "noise" in inputs else draw(*x0.shape)
    return {"xt": alpha * x0 + sigma * noise}


def integral_kl(inputs):
    xt, assistant, teacher, uncond, drs = (inputs[n] for n in ("xt", "assistant", "teacher", "uncond", "drs"))
    alpha, sigma = levels()
    guided = uncond + numpy.float32(3) * (teacher - uncond)
    difference = (xt - sigma * assistant) - (xt - sigma * guided)
    grad = difference - sigma**2 / alpha * drs
    target = numpy.square(alpha / sigma * grad).sum(1)
    reference = numpy.square(alpha / sigma * difference).sum(1)
    return {"grad": grad, "target": target, "reference": reference}


def denoising_loss(inputs):
    x0, output, noise = (inputs[n] for n in ("x0", "output", "noise"))
    error = output - (noise - x0)
    return {"perSample": numpy.square(error).mean(1), "grad": error * numpy.float32(2.0 / x0.size)}


class Mlp:
    """Linear layers with SiLU between them, mean squared error, AdamW."""

    lr, betas, eps, decay = 1e-4, (0.9, 0.999), 1e-8, 0.01

    def __init__(self, path):
        _, arrays = protocol.load_safetensors(path)
        self.given = {name[6:]: value for name, value in arrays.items() if name.startswith("model.")}
        self.x, self.target = arrays["in.x"], arrays["in.target"]
        self.depth = len(self.given) // 2
        self.restart()

    def restart(self):
        self.weights = {name: value.copy() for name, value in self.given.items()}
        self.moments = {name: (numpy.zeros_like(v), numpy.zeros_like(v)) for name, v in self.weights.items()}
        self.steps = 0

    def step(self):
        inputs, gates, x = [], [], self.x
        for i in range(self.depth):
            inputs.append(x)
            x = x @ self.weights[f"layers.{i}.weight"].T + self.weights[f"layers.{i}.bias"]
            if i + 1 < self.depth:
                gate = 1 / (1 + numpy.exp(-x))
                gates.append(gate * (1 + x * (1 - gate)))
                x = x * gate
        error = x - self.target
        loss = numpy.square(error).mean()
        slope, gradients = error * numpy.float32(2 / error.size), {}
        for i in reversed(range(self.depth)):
            gradients[f"layers.{i}.weight"] = slope.T @ inputs[i]
            gradients[f"layers.{i}.bias"] = slope.sum(0)
            if i > 0:
                slope = (slope @ self.weights[f"layers.{i}.weight"]) * gates[i - 1]
        self.update(gradients)
        return loss

    def update(self, gradients):
        self.steps += 1
        first, second = self.betas
        rate = self.lr / (1 - first**self.steps)
        scale = (1 - second**self.steps) ** 0.5
        for name, gradient in gradients.items():
            value, (m, v) = self.weights[name], self.moments[name]
            value *= 1 - self.lr * self.decay
            m += (1 - first) * (gradient - m)
            v += (1 - second) * (numpy.square(gradient) - v)
            value -= rate * m / (numpy.sqrt(v) / scale + self.eps)


FORMULAS = {
    "perturb": perturb,
    "integralKL": integral_kl,
    "denoisingLoss": denoising_loss,
    "matmul": lambda inputs: {"c": inputs["a"] @ inputs["b"]},
}

if __name__ == "__main__":
    kernels = protocol.Kernels(FORMULAS, inputs_of, to_tensor=lambda value: value, to_array=lambda value: value)
    protocol.serve(kernels, {"mlp": Mlp}, lambda: {"numpy": numpy.__version__})
