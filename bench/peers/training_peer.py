"""Training steps in eager PyTorch. Reads lines, answers each with one:

    open TASK FILE      loads weights, inputs and the configuration that the package wrote; answers "ok" and the BLAS
    losses TASK N       N steps from the file's weights; answers their losses as JSON
    TASK N              N steps; answers with seconds per step

A step is forward, backward and AdamW.
"""

import json
import os
import sys
import time

import torch
import torch.nn.functional as F

import networks

torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


def blas():
    """The OpenBLAS that is mapped. The openmp build shares PyTorch's threads; the pthread build competes with them."""
    with open("/proc/self/maps") as maps:
        return sorted({line.split()[-1] for line in maps if "/libopenblas" in line})


class Mlp:
    def __init__(self, config):
        self.model = networks.Mlp(config["sizes"])

    def loss(self, inputs):
        return F.mse_loss(self.model(inputs["x"]), inputs["target"])


class S3DiT:
    def __init__(self, config):
        self.model = networks.S3DiT(config, config["pad_multiple"])

    def loss(self, inputs):
        x, captions, lengths = inputs["x"], inputs["captions"], inputs["lengths"].int().tolist()
        out = self.model(x[:, :, None], inputs["t"], captions.split(lengths))
        return F.mse_loss(torch.stack(out)[:, :, 0], inputs["target"])


class Autoencoder:
    def __init__(self, config):
        self.model = networks.AutoencoderKL(config)

    def loss(self, inputs):
        image, mean, log_variance = self.model(inputs["images"], inputs["noise"])
        divergence = (mean.square() + log_variance.exp() - 1 - log_variance).mean() * 0.5
        return F.mse_loss(image, inputs["images"]) + 1e-3 * divergence


TASKS = {"mlp": Mlp, "s3dit": S3DiT, "autoencoder": Autoencoder}


class Training:
    def __init__(self, task, path):
        metadata, tensors = networks.load_safetensors(path)
        self.task = TASKS[task](json.loads(metadata["config"]))
        self.weights = {name[6:]: value for name, value in tensors.items() if name.startswith("model.")}
        self.inputs = {name[3:]: value for name, value in tensors.items() if name.startswith("in.")}
        self.restart()

    def restart(self):
        self.task.model.load_state_dict(self.weights)
        # foreach: many parameters per call, the quickest of this version's variants.
        self.optimizer = torch.optim.AdamW(
            self.task.model.parameters(), lr=1e-4, betas=(0.9, 0.999), weight_decay=0.01, foreach=True
        )

    def step(self):
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.task.loss(self.inputs)
        loss.backward()
        self.optimizer.step()
        return loss


def main():
    trainings = {}
    for line in sys.stdin:
        words = line.split()
        if words[0] == "open":
            trainings[words[1]] = Training(words[1], words[2])
            answer = "ok " + " ".join(blas())
        elif words[0] == "losses":
            training = trainings[words[1]]
            training.restart()
            answer = json.dumps([float(training.step()) for _ in range(int(words[2]))])
        else:
            training, steps = trainings[words[0]], int(words[1])
            start = time.perf_counter()
            for _ in range(steps):
                training.step()
            answer = f"{(time.perf_counter() - start) / steps:.9f}"
        print(answer, flush=True)


if __name__ == "__main__":
    main()
