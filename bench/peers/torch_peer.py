"""The kernels' formulas in eager PyTorch, as a user would write them. Reads lines "task size", answers with seconds."""

import os
import sys
import time

import torch

torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
torch.manual_seed(0)
BATCH = 64
buffers = {}


def buffer(name, size):
    if (name, size) not in buffers:
        buffers[name, size] = torch.randn(BATCH, size // BATCH)
    return buffers[name, size]


def levels():
    t = torch.linspace(0.1, 0.9, BATCH)[:, None]
    return 1 - t, t


def perturb(size):
    x0 = buffer("x0", size)
    alpha, sigma = levels()
    return alpha * x0 + sigma * torch.randn_like(x0)


def integral_kl(size):
    """Flow predictions, guided teacher, diffused reward score; weighting x0."""
    xt, assistant, teacher, uncond, drs = (buffer(n, size) for n in ("xt", "assistant", "teacher", "uncond", "drs"))
    alpha, sigma = levels()
    guided = uncond + 3.0 * (teacher - uncond)
    denoised_assistant = xt - sigma * assistant
    denoised_teacher = xt - sigma * guided
    difference = denoised_assistant - denoised_teacher
    grad = difference - sigma**2 / alpha * drs
    target = (alpha / sigma * grad).square().sum(1)
    reference = (alpha / sigma * difference).square().sum(1)
    return grad, target, reference


def denoising_loss(size):
    """Flow prediction with the noise kept from the perturbation."""
    x0, output, noise = (buffer(n, size) for n in ("x0", "output", "noise"))
    error = output - (noise - x0)
    loss = error.square().mean(1)
    return loss, error * (2.0 / size)


def matmul(size):
    if ("a", size) not in buffers:
        buffers["a", size] = torch.randn(size, size)
        buffers["b", size] = torch.randn(size, size)
    return buffers["a", size] @ buffers["b", size]


tasks = {
    "perturb": perturb,
    "integralKL": integral_kl,
    "denoisingLoss": denoising_loss,
    "matmul": matmul,
}

with torch.no_grad():
    for line in sys.stdin:
        name, size = line.split()
        start = time.perf_counter()
        result = tasks[name](int(size))
        seconds = time.perf_counter() - start
        del result
        print(f"{seconds:.9f}", flush=True)
