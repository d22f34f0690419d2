"""Training steps in eager PyTorch. Reads lines, answers each with one:

    open TASK FILE      loads weights, inputs and the configuration that the package wrote; answers "ok" and the BLAS
    losses TASK N       N steps from the file's weights; answers their losses as JSON
    TASK N              N steps; answers with seconds per step

A step is forward, backward and AdamW; of "ring", a whole step of Diff-Instruct with Diffused Reward on the ring of
Gaussians, as a PyTorch user would write it; its "losses" are the norms of the generator's gradient.
"""

import json
import math
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


class Mixture:
    """Equal Gaussians, diffused by x_t = (1 - t) x0 + t eps."""

    def __init__(self, means, weights, std):
        self.means, self.log_weights, self.variance = means, weights.log(), std * std

    def tilt(self, center, beta):
        shrink = 1 + self.variance / beta
        means = (self.means + self.variance / beta * center) / shrink
        distance = (self.means - center).square().sum(1)
        weights = torch.softmax(self.log_weights - distance / (2 * beta * shrink), 0)
        return Mixture(means, weights, math.sqrt(self.variance / shrink))

    def score(self, xt, t):
        alpha = 1 - t
        variance = alpha.square() * self.variance + t.square()
        offset = xt[:, None] - alpha[:, :, None] * self.means
        logits = self.log_weights - offset.square().sum(2) / (2 * variance) - variance.log()
        return -(torch.softmax(logits, 1)[:, :, None] * offset).sum(1) / variance


class Ring:
    def __init__(self, path):
        metadata, tensors = networks.load_safetensors(path)
        self.config = json.loads(metadata["config"])
        self.weights = {name[6:]: value for name, value in tensors.items() if name.startswith("model.")}
        self.draws = {name[3:]: value for name, value in tensors.items() if name.startswith("in.")}
        means = torch.tensor(self.config["means"])
        self.reference = Mixture(means, torch.full([len(means)], 1 / len(means)), self.config["std"])
        self.target = self.reference.tilt(torch.tensor(self.config["center"]), self.config["beta"])
        frequencies = torch.arange(32, dtype=torch.float32)
        self.frequencies = 1000 * torch.exp(-math.log(10000) * frequencies / 32)
        self.restart()
        self.given = len([name for name in self.draws if name.startswith("z")])

    def restart(self):
        self.generator = networks.Mlp([2, 128, 128, 128, 2])
        self.assistant = networks.Mlp([66, 128, 128, 128, 2])
        for name, model in [("generator.", self.generator), ("assistant.", self.assistant)]:
            state = {key[len(name):]: value for key, value in self.weights.items() if key.startswith(name)}
            model.load_state_dict(state)
        adam = lambda model: torch.optim.AdamW(
            model.parameters(), lr=self.config["lr"], betas=(0, 0.99), weight_decay=0, foreach=True
        )
        self.optimizers = adam(self.generator), adam(self.assistant)
        self.average = [value.detach().clone() for value in self.generator.parameters()]
        self.drawn = 0

    def draw(self):
        """Noise, time and noise of one batch: those of the file while there are some, then new ones."""
        i, batch = self.drawn, self.config["batch"]
        self.drawn += 1
        if i < self.given:
            return self.draws[f"z{i}"], self.draws[f"t{i}"][:, None], self.draws[f"noise{i}"]
        return torch.randn(batch, 2), 0.02 + 0.96 * torch.rand(batch, 1), torch.randn(batch, 2)

    def flow(self, xt, t):
        angles = t * self.frequencies
        return self.assistant(torch.cat([xt, angles.cos(), angles.sin()], 1))

    def step(self):
        of_generator, of_assistant = self.optimizers
        for _ in range(self.config["assistantSteps"]):
            z, t, noise = self.draw()
            with torch.no_grad():
                x0 = self.generator(z)
                xt = (1 - t) * x0 + t * noise
            loss = F.mse_loss(self.flow(xt, t), noise - x0)
            of_assistant.zero_grad(set_to_none=True)
            loss.backward()
            of_assistant.step()
        z, t, noise = self.draw()
        x0 = self.generator(z)
        with torch.no_grad():
            xt = (1 - t) * x0 + t * noise
            ours = xt - t * self.flow(xt, t)
            reference = self.reference.score(xt, t)
            theirs = (xt + t.square() * reference) / (1 - t)
            reward_score = self.target.score(xt, t) - reference
            gradient = (ours - theirs - t.square() / (1 - t) * reward_score) / len(x0)
        of_generator.zero_grad(set_to_none=True)
        x0.backward(gradient)
        norm = torch.nn.utils.clip_grad_norm_(self.generator.parameters(), math.inf)
        of_generator.step()
        with torch.no_grad():
            torch._foreach_mul_(self.average, 0.99)
            torch._foreach_add_(self.average, list(self.generator.parameters()), alpha=0.01)
        return norm


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
            trainings[words[1]] = Ring(words[2]) if words[1] == "ring" else Training(words[1], words[2])
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
