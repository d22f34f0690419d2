"""The package's networks in PyTorch, as a PyTorch user would write them, with diffusers' parameter names.

They are the peers of the training benchmark, and in float64 a second implementation for the golden files:

    python3 networks.py --check test/fixtures/s3dit-tiny.safetensors test/fixtures/autoencoder-tiny.safetensors

Architecture facts: Tongyi-MAI/Z-Image and diffusers' ZImageTransformer2DModel and AutoencoderKL.
"""

import json
import math
import sys

import torch
import torch.nn.functional as F
from torch import nn

import protocol


# --- Files -------------------------------------------------------------------------------------------------------------


def load_safetensors(path):
    """Metadata and tensors of a safetensors file."""
    metadata, arrays = protocol.load_safetensors(path)
    return metadata, {name: torch.from_numpy(value) for name, value in arrays.items()}


# --- MLP ---------------------------------------------------------------------------------------------------------------


class Mlp(nn.Module):
    """Linear layers with SiLU between them."""

    def __init__(self, sizes):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip(sizes, sizes[1:]))

    def forward(self, x):
        for layer in self.layers[:-1]:
            x = F.silu(layer(x))
        return self.layers[-1](x)


# --- S3-DiT ------------------------------------------------------------------------------------------------------------


class RmsNorm(nn.Module):
    def __init__(self, size, eps):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x):
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps) * self.weight


def rotate(x, table):
    """Rotary embedding of x [B, T, H, Dh] on interleaved pairs; the table holds e^{i angle}, [T or B·T, Dh/2]."""
    pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)))
    table = table.reshape(-1, x.shape[1], 1, table.shape[-1])
    return torch.view_as_real(pairs * table).flatten(-2)


class Attention(nn.Module):
    def __init__(self, dim, heads, eps):
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(dim, dim, bias=False)
        self.to_k = nn.Linear(dim, dim, bias=False)
        self.to_v = nn.Linear(dim, dim, bias=False)
        self.to_out = nn.ModuleList([nn.Linear(dim, dim, bias=False)])
        self.norm_q = RmsNorm(dim // heads, eps)
        self.norm_k = RmsNorm(dim // heads, eps)

    def forward(self, x, mask, table):
        q, k, v = (f(x).unflatten(-1, (self.heads, -1)) for f in (self.to_q, self.to_k, self.to_v))
        q, k = rotate(self.norm_q(q), table), rotate(self.norm_k(k), table)
        q, k, v = (part.transpose(1, 2) for part in (q, k, v))
        scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
        if mask is not None:
            scores = scores.masked_fill(~mask[:, None, None, :], -math.inf)
        out = scores.softmax(-1) @ v
        return self.to_out[0](out.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    def __init__(self, dim):
        super().__init__()
        hidden = int(dim / 3 * 8)
        self.w1 = nn.Linear(dim, hidden, bias=False)
        self.w2 = nn.Linear(hidden, dim, bias=False)
        self.w3 = nn.Linear(dim, hidden, bias=False)

    def forward(self, x):
        return self.w2(F.silu(self.w1(x)) * self.w3(x))


class Block(nn.Module):
    def __init__(self, dim, heads, eps, modulation):
        super().__init__()
        self.attention = Attention(dim, heads, eps)
        self.feed_forward = FeedForward(dim)
        self.attention_norm1 = RmsNorm(dim, eps)
        self.ffn_norm1 = RmsNorm(dim, eps)
        self.attention_norm2 = RmsNorm(dim, eps)
        self.ffn_norm2 = RmsNorm(dim, eps)
        if modulation:
            self.adaLN_modulation = nn.ModuleList([nn.Linear(min(dim, 256), 4 * dim)])
        else:
            self.adaLN_modulation = None

    def forward(self, x, mask, table, time=None):
        if self.adaLN_modulation is None:
            x = x + self.attention_norm2(self.attention(self.attention_norm1(x), mask, table))
            return x + self.ffn_norm2(self.feed_forward(self.ffn_norm1(x)))
        s1, g1, s2, g2 = self.adaLN_modulation[0](time)[:, None].chunk(4, -1)
        attended = self.attention(self.attention_norm1(x) * (1 + s1), mask, table)
        x = x + g1.tanh() * self.attention_norm2(attended)
        return x + g2.tanh() * self.ffn_norm2(self.feed_forward(self.ffn_norm1(x) * (1 + s2)))


class FinalLayer(nn.Module):
    def __init__(self, dim, out):
        super().__init__()
        self.linear = nn.Linear(dim, out)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(min(dim, 256), dim))

    def forward(self, x, time):
        scale = 1 + self.adaLN_modulation(time)[:, None]
        return self.linear(F.layer_norm(x, x.shape[-1:], eps=1e-6) * scale)


class TimestepEmbedder(nn.Module):
    def __init__(self, out, hidden=1024, frequencies=256):
        super().__init__()
        self.frequencies = frequencies
        self.mlp = nn.Sequential(nn.Linear(frequencies, hidden), nn.SiLU(), nn.Linear(hidden, out))

    def forward(self, t):
        # Angles are float32 whatever the weights are, as in the original: at t = 1000 that is visible in float64.
        half = self.frequencies // 2
        rates = torch.exp(-math.log(10000) * torch.arange(half, dtype=torch.float32) / half)
        angles = (t[:, None].float() * rates).to(t.dtype)
        return self.mlp(torch.cat([angles.cos(), angles.sin()], -1))


class S3DiT(nn.Module):
    """Single-stream diffusion transformer; `multiple` is what token counts are padded to."""

    def __init__(self, config, multiple=32):
        super().__init__()
        self.config, self.multiple = config, multiple
        dim, heads, eps = config["dim"], config["n_heads"], config["norm_eps"]
        self.patch = config["all_patch_size"][0]
        key = f"{self.patch}-{config['all_f_patch_size'][0]}"
        channels = self.patch**2 * config["in_channels"]
        self.key = key
        self.all_x_embedder = nn.ModuleDict({key: nn.Linear(channels, dim)})
        self.all_final_layer = nn.ModuleDict({key: FinalLayer(dim, channels)})
        refiners = range(config["n_refiner_layers"])
        self.noise_refiner = nn.ModuleList(Block(dim, heads, eps, True) for _ in refiners)
        self.context_refiner = nn.ModuleList(Block(dim, heads, eps, False) for _ in refiners)
        self.t_embedder = TimestepEmbedder(min(dim, 256))
        self.cap_embedder = nn.Sequential(
            RmsNorm(config["cap_feat_dim"], eps), nn.Linear(config["cap_feat_dim"], dim)
        )
        self.x_pad_token = nn.Parameter(torch.empty(1, dim))
        self.cap_pad_token = nn.Parameter(torch.empty(1, dim))
        self.layers = nn.ModuleList(Block(dim, heads, eps, True) for _ in range(config["n_layers"]))

    def table(self, ids):
        """e^{i position / theta^(2j/d)} for every axis's positions, [tokens, head size / 2]."""
        parts = []
        for axis, size in enumerate(self.config["axes_dims"]):
            exponents = torch.arange(0, size, 2, dtype=torch.float64) / size
            angles = ids[:, axis, None].double() / self.config["rope_theta"] ** exponents
            parts.append(torch.polar(torch.ones_like(angles), angles))
        double = self.x_pad_token.dtype == torch.float64
        return torch.cat(parts, -1).to(torch.complex128 if double else torch.complex64)

    def forward(self, images, t, captions):
        """Lists of images [C, 1, H, W] and captions [L, features]; t [B] as the 6B model takes it. A list like images."""
        p, channels = self.patch, self.config["in_channels"]
        time = self.t_embedder(t * self.config["t_scale"])
        x_tokens, x_ids, cap_tokens, cap_ids = [], [], [], []
        for image, caption in zip(images, captions):
            pad = -len(caption) % self.multiple
            embedded = self.cap_embedder(caption)
            cap_tokens.append(torch.cat([embedded, self.cap_pad_token.expand(pad, -1)]) if pad else embedded)
            first = torch.arange(1, len(caption) + pad + 1)
            cap_ids.append(torch.stack([first, torch.zeros_like(first), torch.zeros_like(first)], -1))

            rows, columns = image.shape[-2] // p, image.shape[-1] // p
            patches = image.reshape(channels, rows, p, columns, p).permute(1, 3, 2, 4, 0).reshape(rows * columns, -1)
            pad = -len(patches) % self.multiple
            embedded = self.all_x_embedder[self.key](patches)
            x_tokens.append(torch.cat([embedded, self.x_pad_token.expand(pad, -1)]) if pad else embedded)
            grid = torch.cartesian_prod(torch.tensor([len(first) + 1]), torch.arange(rows), torch.arange(columns))
            x_ids.append(torch.cat([grid, torch.zeros(pad, 3, dtype=grid.dtype)]))

        x = self.run(self.noise_refiner, x_tokens, x_ids, time)
        cap = self.run(self.context_refiner, cap_tokens, cap_ids)
        joint = [torch.cat(pair) for pair in zip(x, cap)]
        joint = self.run(self.layers, joint, [torch.cat(pair) for pair in zip(x_ids, cap_ids)], time)
        longest = max(len(tokens) for tokens in joint)
        out = torch.stack([F.pad(tokens, (0, 0, 0, longest - len(tokens))) for tokens in joint])
        out = self.all_final_layer[self.key](out, time)
        results = []
        for sample, image in zip(out, images):
            rows, columns = image.shape[-2] // p, image.shape[-1] // p
            patches = sample[: rows * columns].reshape(rows, columns, p, p, channels)
            results.append(patches.permute(4, 0, 2, 1, 3).reshape(channels, 1, rows * p, columns * p))
        return results

    def run(self, blocks, tokens, ids, *time):
        """Blocks over sequences of unequal length, padded to the longest and masked."""
        lengths = [len(part) for part in tokens]
        longest = max(lengths)
        mask = None
        if min(lengths) < longest:
            mask = torch.arange(longest)[None] < torch.tensor(lengths)[:, None]
        x = torch.stack([F.pad(part, (0, 0, 0, longest - len(part))) for part in tokens])
        same = all(torch.equal(part, ids[0]) for part in ids)
        padded = ids[:1] if same else [F.pad(part, (0, 0, 0, longest - len(part))) for part in ids]
        table = self.table(torch.cat(padded))
        for block in blocks:
            x = block(x, mask, table, *time)
        return [sample[:length] for sample, length in zip(x, lengths)]


# --- AutoencoderKL -----------------------------------------------------------------------------------------------------


class Resnet(nn.Module):
    def __init__(self, channels, out, groups):
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, channels, eps=1e-6)
        self.conv1 = nn.Conv2d(channels, out, 3, padding=1)
        self.norm2 = nn.GroupNorm(groups, out, eps=1e-6)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1)
        self.conv_shortcut = nn.Conv2d(channels, out, 1) if channels != out else None

    def forward(self, x):
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        return h + (x if self.conv_shortcut is None else self.conv_shortcut(x))


class SpatialAttention(nn.Module):
    """One head over the pixels, with a residual."""

    def __init__(self, channels, groups):
        super().__init__()
        self.group_norm = nn.GroupNorm(groups, channels, eps=1e-6)
        self.to_q = nn.Linear(channels, channels)
        self.to_k = nn.Linear(channels, channels)
        self.to_v = nn.Linear(channels, channels)
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])

    def forward(self, x):
        h = self.group_norm(x).flatten(2).transpose(1, 2)
        q, k, v = self.to_q(h), self.to_k(h), self.to_v(h)
        h = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).softmax(-1) @ v
        return x + self.to_out[0](h).transpose(1, 2).reshape(x.shape)


class Sampler(nn.Module):
    """Halves (a row and a column of zeros behind, stride 2) or doubles (nearest) the resolution."""

    def __init__(self, channels, down):
        super().__init__()
        self.down = down
        self.conv = nn.Conv2d(channels, channels, 3, stride=2) if down else nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x):
        return self.conv(F.pad(x, (0, 1, 0, 1)) if self.down else F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Level(nn.Module):
    def __init__(self, channels, out, groups, depth, sampler):
        super().__init__()
        self.resnets = nn.ModuleList(Resnet(channels if i == 0 else out, out, groups) for i in range(depth))
        if sampler:
            setattr(self, sampler, nn.ModuleList([Sampler(out, sampler == "downsamplers")]))
        self.sampler = sampler

    def forward(self, x):
        for resnet in self.resnets:
            x = resnet(x)
        return getattr(self, self.sampler)[0](x) if self.sampler else x


class Middle(nn.Module):
    def __init__(self, channels, groups):
        super().__init__()
        self.resnets = nn.ModuleList(Resnet(channels, channels, groups) for _ in range(2))
        self.attentions = nn.ModuleList([SpatialAttention(channels, groups)])

    def forward(self, x):
        return self.resnets[1](self.attentions[0](self.resnets[0](x)))


class Encoder(nn.Module):
    def __init__(self, config):
        super().__init__()
        widths, groups, depth = config["block_out_channels"], config["norm_num_groups"], config["layers_per_block"]
        self.conv_in = nn.Conv2d(config["in_channels"], widths[0], 3, padding=1)
        self.down_blocks = nn.ModuleList(
            Level(widths[max(i - 1, 0)], width, groups, depth, "downsamplers" if i + 1 < len(widths) else None)
            for i, width in enumerate(widths)
        )
        self.mid_block = Middle(widths[-1], groups)
        self.conv_norm_out = nn.GroupNorm(groups, widths[-1], eps=1e-6)
        self.conv_out = nn.Conv2d(widths[-1], 2 * config["latent_channels"], 3, padding=1)

    def forward(self, x):
        x = self.conv_in(x)
        for block in self.down_blocks:
            x = block(x)
        return self.conv_out(F.silu(self.conv_norm_out(self.mid_block(x))))


class Decoder(nn.Module):
    def __init__(self, config):
        super().__init__()
        widths, groups = config["block_out_channels"][::-1], config["norm_num_groups"]
        depth = config["layers_per_block"] + 1
        self.conv_in = nn.Conv2d(config["latent_channels"], widths[0], 3, padding=1)
        self.mid_block = Middle(widths[0], groups)
        self.up_blocks = nn.ModuleList(
            Level(widths[max(i - 1, 0)], width, groups, depth, "upsamplers" if i + 1 < len(widths) else None)
            for i, width in enumerate(widths)
        )
        self.conv_norm_out = nn.GroupNorm(groups, widths[-1], eps=1e-6)
        self.conv_out = nn.Conv2d(widths[-1], config["out_channels"], 3, padding=1)

    def forward(self, x):
        x = self.mid_block(self.conv_in(x))
        for block in self.up_blocks:
            x = block(x)
        return self.conv_out(F.silu(self.conv_norm_out(x)))


class AutoencoderKL(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)

    def forward(self, images, noise):
        """The reconstruction from a draw of the posterior, its mean and its log-variance."""
        mean, log_variance = self.encoder(images).chunk(2, 1)
        log_variance = log_variance.clamp(-30, 20)
        return self.decoder(mean + (0.5 * log_variance).exp() * noise), mean, log_variance


# --- Goldens -----------------------------------------------------------------------------------------------------------


def weights_of(tensors):
    return {name[6:]: value.double() for name, value in tensors.items() if name.startswith("model.")}


def report(what, pairs):
    worst = max(float((got - want.double()).abs().max() / want.double().abs().max().clamp(min=1e-9)) for got, want in pairs)
    print(f"{what}: {len(pairs)} tensors, worst error {worst:.2e} of the largest magnitude")


def check_s3dit(config, tensors):
    model = S3DiT(config).double()
    model.load_state_dict(weights_of(tensors))
    count = sum(name.startswith("in.x.") for name in tensors)
    given = {name: value.double() for name, value in tensors.items()}
    x = [given[f"in.x.{i}"].requires_grad_() for i in range(count)]
    caps = [given[f"in.cap.{i}"].requires_grad_() for i in range(count)]
    out = model(x, given["in.t"], caps)
    report("outputs", [(out[i], tensors[f"out.{i}"]) for i in range(count)])
    sum((out[i] * given[f"in.grad_out.{i}"]).sum() for i in range(count)).backward()
    report(
        "gradients",
        [(x[i].grad, tensors[f"grad.x.{i}"]) for i in range(count)]
        + [(caps[i].grad, tensors[f"grad.cap.{i}"]) for i in range(count)]
        + [(p.grad, tensors[f"grad.model.{n}"]) for n, p in model.named_parameters() if f"grad.model.{n}" in tensors],
    )


def check_autoencoder(config, tensors):
    model = AutoencoderKL(config).double()
    model.load_state_dict(weights_of(tensors))
    latent = tensors["in.latent"].double().requires_grad_()
    image = model.decoder(latent)
    moments = model.encoder(tensors["in.image"].double())
    report("outputs", [(moments, tensors["out.moments"]), (image, tensors["out.image"])])
    (image * tensors["in.grad_out"].double()).sum().backward()
    pairs = [(latent.grad, tensors["grad.latent"])]
    pairs += [(p.grad, tensors[f"grad.model.{n}"]) for n, p in model.named_parameters() if f"grad.model.{n}" in tensors]
    # The bias of the keys shifts every score of a row alike: its gradient is zero up to rounding.
    report("gradients", [pair for pair in pairs if pair[1].abs().max() > 1e-9])


if __name__ == "__main__":
    if sys.argv[1:2] != ["--check"]:
        sys.exit(__doc__)
    for path in sys.argv[2:]:
        metadata, tensors = load_safetensors(path)
        config = json.loads(metadata["config"])
        print(path)
        (check_autoencoder if "block_out_channels" in config else check_s3dit)(config, tensors)
