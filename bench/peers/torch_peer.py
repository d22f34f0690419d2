"""Eager PyTorch as a peer: the kernels' formulas as a user would write them, and the training steps."""

import os

import torch

import protocol
import torch_training

torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
torch.manual_seed(0)
BATCH = 64


def inputs_of(task, size):
    if task == "matmul":
        return {name: torch.randn(size, size) for name in ("a", "b")}
    names = {
        "perturb": ["x0"],
        "integralKL": ["xt", "assistant", "teacher", "uncond", "drs"],
        "denoisingLoss": ["x0", "output", "noise"],
    }
    return {name: torch.randn(BATCH, size // BATCH) for name in names[task]}


def levels():
    t = torch.linspace(0.1, 0.9, BATCH)[:, None]
    return 1 - t, t


def perturb(inputs):
    x0 = inputs["x0"]
    alpha, sigma = levels()
    noise = inputs["noise"] if "noise" in inputs else torch.randn_like(x0)
    return {"xt": alpha * x0 + sigma * noise}


def integral_kl(inputs):
    """Flow predictions, guided teacher, diffused reward score; weighting x0."""
    xt, assistant, teacher, uncond, drs = (inputs[n] for n in ("xt", "assistant", "teacher", "uncond", "drs"))
    alpha, sigma = levels()
    guided = uncond + 3.0 * (teacher - uncond)
    denoised_assistant = xt - sigma * assistant
    denoised_teacher = xt - sigma * guided
    difference = denoised_assistant - denoised_teacher
    grad = difference - sigma**2 / alpha * drs
    target = (alpha / sigma * grad).square().sum(1)
    reference = (alpha / sigma * difference).square().sum(1)
    return {"grad": grad, "target": target, "reference": reference}


def denoising_loss(inputs):
    """Flow prediction with the noise kept from the perturbation."""
    x0, output, noise = (inputs[n] for n in ("x0", "output", "noise"))
    error = output - (noise - x0)
    return {"perSample": error.square().mean(1), "grad": error * (2.0 / x0.numel())}


def without_grad(formula):
    def run(inputs):
        with torch.no_grad():
            return formula(inputs)

    return run


FORMULAS = {
    "perturb": perturb,
    "integralKL": integral_kl,
    "denoisingLoss": denoising_loss,
    "matmul": lambda inputs: {"c": inputs["a"] @ inputs["b"]},
}

kernels = protocol.Kernels(
    {name: without_grad(formula) for name, formula in FORMULAS.items()},
    inputs_of,
    to_tensor=torch.from_numpy,
    to_array=lambda value: value.numpy(),
)
protocol.serve(kernels, torch_training.TRAININGS, lambda: {"torch": torch.__version__})
