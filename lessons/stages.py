"""The stages as a learner writes them, and as they usually go wrong: what a function that `classroom.check` is given is held against.

Each exercise of `exercises.toml` that has `slips` has an entry in STAGES under the same number: the stage itself; what it is given in
the n-th try, where `rng` is a numpy generator; and each slip, by the name that its hint has. To add an exercise, add to both files.

In formulas x0 are clean latents, xt noisy ones, eps is noise, v a velocity, and a is one of alphas_cumprod.
"""

import torch
from torch.nn.functional import normalize, scaled_dot_product_attention

from sdteach.classroom.trying import Stage
from sdteach.picturebook.evaluation.measures import iou
from sdteach.picturebook.training.flow import euler_step, interpolate, velocity
from sdteach.vectors import cosine_similarity, slerp


def normal(rng, *shape):
    return torch.from_numpy(rng.standard_normal(shape, "float32"))


def uniform(rng, *shape):
    """Numbers that are neither near 0 nor near 1."""
    return torch.from_numpy(rng.uniform(0.1, 0.9, shape)).float()


# 01 Tokens


def merge(pieces, pair):
    """One merge of byte-pair encoding: wherever the two stand side by side, from the left, they become one piece."""
    merged = []
    for piece in pieces:
        merged.append(merged.pop() + piece if (*merged[-1:], piece) == pair else piece)
    return merged


def merge_letters(pieces, pair, times=-1):
    """Looks for the letters, and finds them where a piece only ends in them."""
    return " ".join(pieces).replace(" ".join(pair), "".join(pair), times).split()


def merge_once(pieces, pair):
    for end in range(2, len(pieces) + 1):
        if tuple(pieces[end - 2 : end]) == pair:
            return [*pieces[: end - 2], "".join(pair), *pieces[end:]]
    return pieces


def some_pieces(n, rng):
    return rng.choice(["a", "b", "ba"], 20 * n).tolist(), ("a", "ba"[n % 2])


# 02 Text vectors


def cosines_along_the_wrong_axis(a, b):
    return normalize(a, dim=0) @ normalize(b, dim=0).T


# 03 Latents


def sample(mean, std, eps, scaling_factor):
    """A sample of the VAE's cloud, scaled for the UNet."""
    return (mean + std * eps) * scaling_factor


def a_cloud(n, rng):
    return normal(rng, n, 4, 5, 7), uniform(rng, n, 4, 5, 7), normal(rng, n, 4, 5, 7), 0.18215


# 04 Noise, 05 The UNet


def add_noise(x0, eps, a):
    """Ho et al., 2020, equation 4."""
    return a**0.5 * x0 + (1 - a) ** 0.5 * eps


def snr(betas):
    """What is kept of the picture's variance, for each part of noise, at every timestep."""
    a = (1 - betas).cumprod(0)
    return a / (1 - a)


def predicted_x0(xt, eps, a):
    """Ho et al., 2020, equation 15."""
    return (xt - (1 - a) ** 0.5 * eps) / a**0.5


def x0_of_velocity(xt, v, a):
    """Salimans & Ho, 2022, appendix D."""
    return a**0.5 * xt - (1 - a) ** 0.5 * v


def some_latents(n, rng):
    """Two of one odd shape, such as latents and noise, and one of alphas_cumprod."""
    return normal(rng, n, 4, 5, 7), normal(rng, n, 4, 5, 7), uniform(rng)


# 06 Guidance and samplers


def guide(output, scale):
    """Ho & Salimans, 2022, equation 6: the first half of the batch was predicted without the text, the second with it."""
    without, with_text = output.chunk(2)
    return without + scale * (with_text - without)


def ddim_step(xt, eps, a, a_next):
    """Song et al., 2021, equation 12 without noise of its own: to the x0 that eps implies, and back, only not as deep."""
    return add_noise(predicted_x0(xt, eps, a), eps, a_next)


# 07 Cross-attention


def attend(query, key, value, heads, scale=None):
    """softmax(Q K^T / sqrt(d)) V (Vaswani et al., 2017, equation 1), for each head by itself; (rows, places, heads * d)."""
    split = (each.unflatten(-1, (heads, -1)).transpose(1, 2) for each in (query, key, value))
    return scaled_dot_product_attention(*split, scale=scale).transpose(1, 2).flatten(2)


def attend_along_the_wrong_axis(query, key, value, heads):
    query, key, value = (each.unflatten(-1, (heads, -1)).transpose(1, 2) for each in (query, key, value))
    shares = (query @ key.mT / query.shape[-1] ** 0.5).softmax(-2)
    return (shares @ value).transpose(1, 2).flatten(2)


def some_queries(n, rng):
    return normal(rng, n, 5, 12), normal(rng, n, 7, 12), normal(rng, n, 7, 12), n + 1


def overlap(heat, mask, threshold):
    return iou((heat > threshold).numpy(), mask.numpy())


def both(heat, mask, threshold):
    return (mask & (heat > threshold)).sum()


def some_map(n, rng):
    return uniform(rng, 5, 2 * n + 5), normal(rng, 5, 2 * n + 5) > 0, 0.35


# 08 One loop, many tasks


def slerp_of_unit_length(first, second, weight):
    return slerp(first / first.norm(), second / second.norm(), weight)


def two_noises(n, rng):
    return normal(rng, 1, 4, 5, 2 * n + 1), normal(rng, 1, 4, 5, 2 * n + 1), n / 5


# 09 The learning phase


def drop_captions(texts, empty, draws, share):
    """Ho & Salimans, 2022, algorithm 1: now and then a caption gives way to the empty one."""
    return torch.where((draws < share)[:, None, None], empty, texts)


def some_captions(n, rng):
    return normal(rng, 6 * n, 7, 3), normal(rng, 7, 3), uniform(rng, 6 * n), 0.5


def descend(weight, x, y, rate):
    """One step of gradient descent on the mean squared error of x W^T, the gradient by hand."""
    gradient = 2 * (x @ weight.T - y).T @ x / y.numel()
    return weight - rate * gradient


def some_examples(n, rng):
    return normal(rng, 3, 4), normal(rng, n + 4, 4), normal(rng, n + 4, 3), 0.1


# 11 From noise to flow


def flow(x0, eps, t):
    """What flow matching sees, and what it is asked for (Lipman et al., 2023)."""
    return [interpolate(x0, eps, t), velocity(x0, eps)]


STAGES = {
    "01.5": Stage(merge, some_pieces, {"once": merge_once, "letters": merge_letters}),
    "02.5": Stage(cosine_similarity, lambda n, rng: (normal(rng, 2 * n + 1, 7), normal(rng, n, 7)), {
        "no lengths": lambda a, b: a @ b.T,
        "turned": lambda a, b: cosine_similarity(b, a),
        "axis": cosines_along_the_wrong_axis,
    }),
    "03.5": Stage(sample, a_cloud, {
        "no factor": lambda mean, std, eps, factor: sample(mean, std, eps, 1),
        "divided": lambda mean, std, eps, factor: sample(mean, std, eps, 1 / factor),
        "mean alone": lambda mean, std, eps, factor: factor * mean,
        "noise unscaled": lambda mean, std, eps, factor: factor * mean + std * eps,
    }),
    "04.5": Stage(add_noise, some_latents, {
        "no root": lambda x0, eps, a: a * x0 + (1 - a) * eps,
        "swapped": lambda x0, eps, a: add_noise(x0, eps, 1 - a),
        "one minus root": lambda x0, eps, a: a**0.5 * x0 + (1 - a**0.5) * eps,
    }),
    "04.6": Stage(snr, lambda n, rng: (uniform(rng, 5 * n + 2) / 5,), {
        "no product": lambda betas: (1 - betas) / betas,
        "root": lambda betas: snr(betas) ** 0.5,
        "turned": lambda betas: 1 / snr(betas),
    }),
    "05.5": Stage(predicted_x0, some_latents, {
        "no root": lambda xt, eps, a: (xt - (1 - a) * eps) / a,
        "no division": lambda xt, eps, a: xt - (1 - a) ** 0.5 * eps,
        "all the noise": lambda xt, eps, a: (xt - eps) / a**0.5,
    }),
    "05.6": Stage(x0_of_velocity, some_latents, {
        "no root": lambda xt, v, a: a * xt - (1 - a) * v,
        "sign": lambda xt, v, a: a**0.5 * xt + (1 - a) ** 0.5 * v,
        "as noise": predicted_x0,
        "the noise": lambda xt, v, a: a**0.5 * v + (1 - a) ** 0.5 * xt,
    }),
    "06.5": Stage(guide, lambda n, rng: (normal(rng, 2 * n, 4, 5, 7), 7.5), {
        "swapped": lambda output, scale: guide(output.roll(len(output) // 2, 0), scale),
        "from the text": lambda output, scale: guide(output, scale + 1),
        "no start": lambda output, scale: guide(output, scale) - guide(output, 0),
    }),
    "06.6": Stage(ddim_step, lambda n, rng: (*some_latents(n, rng), uniform(rng)), {
        "xt for x0": lambda xt, eps, a, a_next: add_noise(xt, eps, a_next),
        "no noise": lambda xt, eps, a, a_next: a_next**0.5 * predicted_x0(xt, eps, a),
        "swapped": lambda xt, eps, a, a_next: ddim_step(xt, eps, a_next, a),
        "no root": lambda xt, eps, a, a_next: a_next * (xt - (1 - a) * eps) / a + (1 - a_next) * eps,
    }),
    "07.5": Stage(attend, some_queries, {
        "unscaled": lambda query, key, value, heads: attend(query, key, value, heads, 1),
        "no root": lambda query, key, value, heads: attend(query, key, value, heads, heads / query.shape[-1]),
        "whole width": lambda query, key, value, heads: attend(query, key, value, heads, query.shape[-1] ** -0.5),
        "one head": lambda query, key, value, heads: attend(query, key, value, 1),
        "axis": attend_along_the_wrong_axis,
    }),
    "07.6": Stage(overlap, some_map, {
        "counted twice": lambda heat, mask, threshold: both(heat, mask, threshold) / (mask.sum() + (heat > threshold).sum()),
        "of the thing": lambda heat, mask, threshold: both(heat, mask, threshold) / mask.sum(),
        "of the map": lambda heat, mask, threshold: both(heat, mask, threshold) / (heat > threshold).sum(),
    }),
    "08.5": Stage(slerp, two_noises, {
        "line": torch.lerp,
        "swapped": lambda first, second, weight: slerp(second, first, weight),
        "unit length": slerp_of_unit_length,
    }),
    "09.5": Stage(drop_captions, some_captions, {
        "others": lambda texts, empty, draws, share: torch.where((draws < share)[:, None, None], texts, empty),
        "zeros": lambda texts, empty, draws, share: drop_captions(texts, 0 * empty, draws, share),
    }),
    "09.6": Stage(descend, some_examples, {
        "uphill": lambda weight, x, y, rate: descend(weight, x, y, -rate),
        "sum": lambda weight, x, y, rate: descend(weight, x, y, rate * y.numel()),
        "no two": lambda weight, x, y, rate: descend(weight, x, y, rate / 2),
        "no rate": lambda weight, x, y, rate: descend(weight, x, y, 1),
        "gradient alone": lambda weight, x, y, rate: (weight - descend(weight, x, y, rate)) / rate,
    }),
    "11.5": Stage(flow, lambda n, rng: (normal(rng, n, 4, 5, 7), normal(rng, n, 4, 5, 7), uniform(rng)), {
        "swapped": lambda x0, eps, t: flow(eps, x0, t),
        "sign": lambda x0, eps, t: [flow(x0, eps, t)[0], x0 - eps],
        "roots": lambda x0, eps, t: [add_noise(x0, eps, 1 - t), eps - x0],
    }),
    "11.6": Stage(euler_step, lambda n, rng: (normal(rng, n, 4, 5, 7), normal(rng, n, 4, 5, 7), uniform(rng), 0.1 * uniform(rng)), {
        "sign": lambda x, v, t, t_next: euler_step(x, v, t_next, t),
        "whole way": lambda x, v, t, t_next: euler_step(x, v, t, 0),
        "no time": lambda x, v, t, t_next: x - v,
    }),
}  # fmt: skip
