"""Score, velocity and flow against closed formulas and against diffusers."""

from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler
from scipy.integrate import solve_ivp
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from sdteach.picturebook.training import flow, live
from sdteach.picturebook.training.packing import new_scheduler

POINTS = torch.tensor([[1.0, 0.5], [-1.0, 0.0], [0.3, -2.0]], dtype=torch.float64)


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(("alpha", "sigma"), [(0.9, 0.1), (0.6, 0.8), (0.05, 0.99)])
def test_the_score_is_the_gradient_of_the_mixtures_log_density(alpha, sigma):
    noisy = noise(40, 2).requires_grad_()
    hills = Independent(Normal(alpha * POINTS, torch.full_like(POINTS, sigma)), 1)
    (slope,) = torch.autograd.grad(MixtureSameFamily(Categorical(torch.ones(3)), hills).log_prob(noisy).sum(), noisy)
    torch.testing.assert_close(flow.score(noisy.detach(), POINTS, alpha, sigma), slope)


def test_of_one_point_a_perfect_denoiser_knows_the_noise():
    one, added = POINTS[:1], noise(30, 2)
    noisy = 0.7 * one + 0.6 * added
    torch.testing.assert_close(flow.expected(noisy, one, 0.7, 0.6), one.expand(30, 2))
    torch.testing.assert_close(-0.6 * flow.score(noisy, one, 0.7, 0.6), added)
    torch.testing.assert_close(flow.exact(one, flow.interpolate(one, added, 0.4), 0.4), flow.velocity(one, added))


def test_little_noise_leaves_the_nearest_point_and_much_the_mean():
    near = POINTS + 0.01
    torch.testing.assert_close(flow.expected(near, POINTS, 1.0, 0.05), POINTS)
    torch.testing.assert_close(flow.expected(near, POINTS, 1e-4, 1.0), POINTS.mean(0).expand(3, 2), atol=1e-3, rtol=0)


def test_between_gaussians_the_velocity_is_the_closed_formula():
    """x_0 ~ N(m, s^2): E[noise - x_0 | x_t] is linear in x_t."""
    mean, spread, time, count = 0.8, 0.5, 0.35, 20_000
    quantiles = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    points = Normal(mean, spread).icdf(quantiles).to(torch.float64)[:, None]
    x = torch.linspace(-0.5, 1.5, 9, dtype=torch.float64)[:, None]
    variance = ((1 - time) * spread) ** 2 + time**2
    gain = (time - (1 - time) * spread**2) / variance
    torch.testing.assert_close(flow.exact(points, x, time), gain * (x - (1 - time) * mean) - mean, atol=2e-3, rtol=0)


def test_a_line_goes_from_clean_to_noise_at_one_velocity():
    clean, added = noise(5, 4, 8, 8), noise(5, 4, 8, 8, seed=1)
    assert torch.equal(flow.interpolate(clean, added, 0.0), clean)
    assert torch.equal(flow.interpolate(clean, added, 1.0), added)
    there, further = (flow.interpolate(clean, added, time) for time in (0.3, 0.8))
    torch.testing.assert_close(flow.euler_step(there, flow.velocity(clean, added), 0.3, 0.8), further)
    torch.testing.assert_close(flow.euler_step(further, flow.velocity(clean, added), 0.8, 0.0), clean)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_walking_is_the_librarys_flow_sampler(shift):
    scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
    scheduler.set_timesteps(sigmas=torch.linspace(1, 1 / 12, 12).tolist())
    start = noise(20, 2).float()
    field = partial(flow.exact, POINTS.float())
    seen = flow.walk(field, start, scheduler.sigmas.tolist())
    assert len(seen) == 13
    assert torch.equal(seen[0], start)
    x = start
    for index, timestep in enumerate(scheduler.timesteps):
        x = scheduler.step(field(x, timestep.item() / 1000), timestep, x).prev_sample
        torch.testing.assert_close(seen[index + 1], x)


def test_a_perfect_field_leads_to_what_it_was_made_of():
    end = flow.walk(partial(flow.exact, POINTS), noise(20, 2), torch.linspace(1, 0, 101).tolist())[-1]
    assert torch.cdist(end, POINTS).min(1).values.max() < 1e-3


def ddim(steps, x):
    sampler, kept = DDIMScheduler.from_config(new_scheduler().config, timestep_spacing="trailing"), new_scheduler().alphas_cumprod.double()
    sampler.set_timesteps(steps)
    for timestep in sampler.timesteps:
        alpha, sigma = kept[timestep] ** 0.5, (1 - kept[timestep]) ** 0.5
        x = sampler.step(-sigma * flow.score(x, POINTS, alpha, sigma), timestep, x).prev_sample
    return x


def test_ddim_comes_to_walk_the_ordinary_differential_equation():
    """dy / ds = noise, with y = x / alpha and s = sigma / alpha (Song et al., 2021), solved by scipy."""
    kept = new_scheduler().alphas_cumprod.double()
    alpha, units, start = kept.sqrt(), ((1 - kept) / kept).sqrt(), noise(6, 2)

    def slope(unit, y):
        named = -unit * flow.score(torch.from_numpy(y).view(6, 2), POINTS, 1.0, unit)
        return named.flatten().numpy()

    solved = solve_ivp(slope, (units[999].item(), units[0].item()), (start / alpha[999]).flatten().numpy(), rtol=1e-8, atol=1e-8)
    end = torch.from_numpy(solved.y[:, -1]).view(6, 2) * alpha[0]
    apart = [(ddim(steps, start) - end).abs().max().item() for steps in (20, 100, 500)]
    assert apart[0] > apart[1] > apart[2]
    assert apart[2] < 0.01


def test_one_step_of_ddim_is_one_of_eulers():
    kept = new_scheduler().alphas_cumprod.double()
    sampler = DDIMScheduler.from_config(new_scheduler().config)
    sampler.set_timesteps(50)
    x, named, units = noise(9, 4, 8, 8), noise(9, 4, 8, 8, seed=1), ((1 - kept) / kept).sqrt()
    ours = kept[580].sqrt() * flow.euler_step(x / kept[600].sqrt(), named, units[600], units[580])
    torch.testing.assert_close(ours, sampler.step(named, 600, x).prev_sample)


def test_guidance_goes_from_one_field_beyond_the_other():
    with_text, without = (lambda noisy, time: 3 + 0 * noisy), (lambda noisy, time: 1 + 0 * noisy)
    for scale, wanted in ((0, 1), (1, 3), (7.5, 16)):
        assert torch.equal(flow.guided(with_text, without, scale, torch.zeros(2, 2), 0.5), torch.full((2, 2), float(wanted)))


def test_the_objective_asks_for_the_velocity_at_the_time_that_it_says():
    clean, added, time = noise(6, 2, 3, 3), noise(6, 2, 3, 3, seed=1), torch.tensor([0.0, 0.2, 0.5, 0.7, 0.9, 1.0], dtype=torch.float64)

    def knowing(noisy, timestep, text):
        assert text == "the text"
        torch.testing.assert_close(timestep, 1000 * time)
        torch.testing.assert_close(noisy, torch.stack([flow.interpolate(*row) for row in zip(clean, added, time, strict=True)]))
        return SimpleNamespace(sample=added - clean + 0.5)

    objective = flow.FlowObjective(torch.nn.Identity())
    objective.unet.forward = knowing
    assert objective(clean, "the text", added, time).item() == pytest.approx(0.25)


def test_a_batch_keeps_what_belongs_together():
    clean, added, labels = torch.arange(50.0).view(50, 1), 100 + torch.arange(50.0).view(50, 1), torch.arange(50)
    chosen, text, given, time = flow.batch(clean, 20, added, labels)
    assert torch.equal(given, chosen + 100)
    assert torch.equal(text, chosen[:, 0].long())
    assert ((time >= 0) & (time <= 1)).all()
    chosen, text, fresh, _ = flow.batch(clean, 20)
    assert text is None
    assert fresh.shape == chosen.shape
    assert fresh.std() < 3


def test_the_distance_is_that_of_the_cheapest_pairs():
    points = noise(30, 2)
    assert flow.distance(points, points.flip(0)) == pytest.approx(0, abs=1e-6)
    assert flow.distance(points, points + torch.tensor([3.0, 4.0])) == pytest.approx(5)
    assert flow.distance(torch.tensor([[0.0], [10.0]]), torch.tensor([[10.5], [0.0]])) == pytest.approx(0.25)


def test_a_star_flows_from_noise_and_straightened_it_takes_one_step():
    star, held_out, start = live.points_of("star", 5000), live.points_of("star", 300, 1), noise(300, 2).float()
    torch.manual_seed(0)
    mover, straight = live.PointDenoiser(64), live.PointDenoiser(64)
    times = np.linspace(1, 0, 21).tolist()
    for _ in live.learn(flow.FlowObjective(mover), partial(flow.batch, star, 256), 500, 1e-2):
        pass
    field, starts = partial(flow.learned, mover), torch.randn(5000, 2)
    ends = flow.walk(field, starts, times)[-1]
    for _ in live.learn(flow.FlowObjective(straight), partial(flow.batch, ends, 256, starts), 400, 1e-2):
        pass
    walked, jumped = flow.walk(field, start, times)[-1], flow.walk(partial(flow.learned, straight), start, [1.0, 0.0])[-1]
    blurred = flow.walk(field, start, [1.0, 0.0])[-1]
    assert flow.distance(walked, held_out) < 0.3
    assert flow.distance(jumped, held_out) < 0.35
    assert flow.distance(blurred, held_out) > 0.8, "one step from noise leads to the mean"
