"""Training steps in eager PyTorch, as a PyTorch user would write them. A step is forward, backward and AdamW; of the ring
and the nano models, a whole step of Diff-Instruct with Diffused Reward (arXiv 2605.24001). Weights, inputs and the first
draws are those of a file that the package wrote."""

import json
import math

import torch
import torch.nn.functional as F
from torch import nn

import networks


def within(prefix, tensors):
    """The tensors whose names begin with the prefix, without it."""
    return {name[len(prefix):]: value for name, value in tensors.items() if name.startswith(prefix)}


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


class Regression:
    """A loss of a network, minimised."""

    def __init__(self, task, path):
        metadata, tensors = networks.load_safetensors(path)
        self.task = task(json.loads(metadata["config"]))
        self.weights, self.inputs = within("model.", tensors), within("in.", tensors)
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


class LowRank(nn.Module):
    """A frozen linear layer with a trained change of low rank (arXiv 2106.09685)."""

    def __init__(self, base, rank):
        super().__init__()
        self.base = base
        self.lora_A = nn.Linear(base.in_features, rank, bias=False)
        self.lora_B = nn.Linear(rank, base.out_features, bias=False)

    def forward(self, x):
        return self.base(x) + self.lora_B(self.lora_A(x))


def adapted(network, rank, weights):
    """The network with low-rank changes at the layers that the weights name."""
    for path in sorted({name.split(".lora_")[0] for name in weights}):
        parent, _, field = path.rpartition(".")
        owner = network.get_submodule(parent)
        setattr(owner, field, LowRank(getattr(owner, field), rank))
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(".lora_" in name)
    network.load_state_dict(weights, strict=False)
    return network


class Nano:
    """A step on the nano Z-Image: diffused reward proxy through two steps of the teacher, guidance, weighting dmd."""

    def __init__(self, path):
        metadata, tensors = networks.load_safetensors(path)
        self.config = json.loads(metadata["config"])
        self.weights, inputs = within("model.", tensors), within("in.", tensors)
        self.captions = inputs["captions"].split(inputs["lengths"].tolist())
        self.nothing = inputs["uncond"].split(inputs["uncondLengths"].tolist())
        self.draws = {name: value for name, value in inputs.items() if name[0] in "ztn"}
        self.given = len([name for name in self.draws if name.startswith("z")])
        self.autoencoder = networks.AutoencoderKL(self.config["autoencoder"])
        self.autoencoder.load_state_dict(within("teacher.autoencoder.", self.weights))
        self.autoencoder.requires_grad_(False)
        self.teacher = self.transformer().requires_grad_(False)
        self.restart()

    def transformer(self):
        config = self.config["transformer"]
        network = networks.S3DiT(config, config["pad_multiple"])
        network.load_state_dict(within("teacher.transformer.", self.weights))
        return network

    def trained(self, which):
        weights, rank = within(f"{which}.", self.weights), self.config["rank"]
        network = self.transformer()
        if rank is None:
            network.load_state_dict(weights)
        else:
            network = adapted(network, rank[which], weights)
        parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(
            parameters, lr=self.config["lr"][which], betas=(0, 0.99), weight_decay=0, foreach=True
        )
        return network, parameters, optimizer

    def restart(self):
        self.generator, self.of_generator, self.generator_optimizer = self.trained("generator")
        self.assistant, self.of_assistant, self.assistant_optimizer = self.trained("assistant")
        self.average = [value.detach().clone() for value in self.of_generator]
        self.drawn = 0

    def draw(self):
        """Noise, times and noise of one batch: those of the file while there are some, then new ones."""
        i = self.drawn
        self.drawn += 1
        if i < self.given:
            return self.draws[f"z{i}"], self.draws[f"t{i}"], self.draws[f"noise{i}"]
        z = self.draws["z0"]
        return torch.randn_like(z), 0.02 + 0.96 * torch.rand(len(z)), torch.randn_like(z)

    @staticmethod
    def flow(network, xt, t, captions):
        """eps - x0; the network's own output is its negative, its time 1 - t."""
        return -torch.stack(network(xt[:, :, None], 1 - t, captions))[:, :, 0]

    def generate(self, z):
        ones = torch.ones(len(z))
        return z - self.flow(self.generator, z, ones, self.captions)

    def decode(self, latents):
        config = self.config["autoencoder"]
        latents = latents / config["scaling_factor"] + (config.get("shift_factor") or 0)
        return (self.autoencoder.decoder(latents) * 0.5 + 0.5).clamp(0, 1)

    @staticmethod
    def colourfulness(images):
        """Hasler and Süsstrunk, 2003."""
        red, green, blue = images.flatten(2).unbind(1)
        colours = torch.stack([red - green, (red + green) / 2 - blue], 1)
        spread = colours.var(2, unbiased=False).sum(1)
        offset = colours.mean(2).square().sum(1)
        return (spread + 1e-10).sqrt() + 0.3 * (offset + 1e-10).sqrt()

    def diffused_reward_score(self, xt, t):
        """Through two deterministic steps, evenly spaced in log-SNR; and the teacher's output at x_t."""
        start = 2 * torch.log((1 - t) / t)
        span = (self.config["logSnrEnd"] - start).clamp(min=self.config["leastSpan"])
        then = torch.sigmoid(-(start + span / 2) / 2)
        at, next_at = t[:, None, None, None], then[:, None, None, None]
        x = xt.detach().requires_grad_()
        output = self.flow(self.teacher, x, t, self.captions)
        denoised = x - at * output
        x_next = (1 - next_at) * denoised + next_at / at * (x - (1 - at) * denoised)
        denoised = x_next - next_at * self.flow(self.teacher, x_next, then, self.captions)
        reward = self.colourfulness(self.decode(denoised)).sum() / self.config["beta"]
        (score,) = torch.autograd.grad(reward, x)
        return score, output.detach()

    def train_assistant(self):
        z, t, noise = self.draw()
        at = t[:, None, None, None]
        with torch.no_grad():
            x0 = self.generate(z)
            xt = (1 - at) * x0 + at * noise
        loss = F.mse_loss(self.flow(self.assistant, xt, t, self.captions), noise - x0)
        self.assistant_optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.of_assistant, self.config["maxNorm"])
        self.assistant_optimizer.step()
        return loss

    def step(self):
        for _ in range(self.config["assistantSteps"]):
            loss = self.train_assistant()
        z, t, noise = self.draw()
        at = t[:, None, None, None]
        x0 = self.generate(z)
        with torch.no_grad():
            xt = (1 - at) * x0 + at * noise
        reward_score, conditional = self.diffused_reward_score(xt, t)
        with torch.no_grad():
            unconditional = self.flow(self.teacher, xt, t, self.nothing)
            guided = unconditional + self.config["guidance"] * (conditional - unconditional)
            ours = xt - at * self.flow(self.assistant, xt, t, self.captions)
            theirs = xt - at * guided
            distance = (x0 - theirs).abs().mean((1, 2, 3), keepdim=True)
            gradient = (ours - theirs - at.square() / (1 - at) * reward_score) / distance / len(x0)
        self.generator_optimizer.zero_grad(set_to_none=True)
        x0.backward(gradient)
        norm = torch.nn.utils.clip_grad_norm_(self.of_generator, self.config["maxNorm"])
        self.generator_optimizer.step()
        with torch.no_grad():
            torch._foreach_mul_(self.average, self.config["ema"])
            torch._foreach_add_(self.average, list(self.of_generator), alpha=1 - self.config["ema"])
        return norm, loss, reward_score.flatten(1).norm(dim=1).mean()


TRAININGS = {
    "mlp": lambda path: Regression(Mlp, path),
    "s3dit": lambda path: Regression(S3DiT, path),
    "autoencoder": lambda path: Regression(Autoencoder, path),
    "ring": Ring,
    "nano": Nano,
    "nanoFull": Nano,
}
