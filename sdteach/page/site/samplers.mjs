// From one step to the next, as diffusers' schedulers go. Each is made of `alphas_cumprod` and of its scheduler's configuration, for a
// number of steps: its `timesteps`, the size of its first noise, what the UNet `sees` of a sample, and a `step`.

// One number of each list to one number of the new one.
export const map = (rule, ...lists) => lists[0].map((_, i) => rule(...lists.map(list => list[i])));

// A tie goes to the even number, as in numpy.
function round(value) {
  const nearest = Math.round(value);
  return nearest - value === 0.5 && nearest % 2 ? nearest - 1 : nearest;
}

// Which times of the training the steps visit, from the noisiest on.
function spaced(steps, { timestep_spacing, steps_offset }, total, whole) {
  const at = {
    leading: i => (steps - 1 - i) * Math.floor(total / steps) + steps_offset,
    trailing: i => round(total - i * (total / steps)) - 1,
    linspace: i => { const time = steps > 1 ? ((total - 1) / (steps - 1)) * (steps - 1 - i) : 0; return whole ? round(time) : Math.fround(time); },
  }[timestep_spacing];
  return Array.from({ length: steps }, (_, i) => at(i));
}

// What an output says of the sample x_t: its noise, and the clean x_0. A velocity is sqrt(a) noise - sqrt(1 - a) x_0 (Salimans & Ho, 2022).
export function meant(output, sample, alpha_prod_t, velocity) {
  const signal = Math.sqrt(alpha_prod_t), spread = Math.sqrt(1 - alpha_prod_t);
  return {
    noise: velocity ? map((v, x) => signal * v + spread * x, output, sample) : output,
    predicted_x0: velocity ? map((v, x) => signal * x - spread * v, output, sample) : map((e, x) => (x - spread * e) / signal, output, sample),
  };
}

// Song et al., 2021, equation 12 without its random part: along the predicted noise to the next smaller amount of it.
function ddim(steps, alphas_cumprod, config, velocity) {
  const total = alphas_cumprod.length, timesteps = spaced(steps, config, total, true), stride = Math.floor(total / steps);
  return {
    timesteps, first: 1, sees: sample => sample,
    step(output, index, sample) {
      const t = timesteps[index], before = t - stride, alpha_prod_t_prev = alphas_cumprod[before] ?? beyond(alphas_cumprod, config);
      const { noise, predicted_x0 } = meant(output, sample, alphas_cumprod[t], velocity), most = config.clip_sample ? config.clip_sample_range : Infinity;
      return map((x0, e) => Math.sqrt(alpha_prod_t_prev) * Math.min(Math.max(x0, -most), most) + Math.sqrt(1 - alpha_prod_t_prev) * e, predicted_x0, noise);
    },
  };
}

// Liu et al., 2022: DDIM's step along a mixture of the last four outputs. The second time is visited twice, to correct the step to it.
function pndm(steps, alphas_cumprod, config, velocity) {
  const total = alphas_cumprod.length, stride = Math.floor(total / steps), once = spaced(steps, config, total, true);
  const timesteps = steps > 1 ? [once[0], once[1], ...once.slice(1)] : [once[0]];
  const outputs = []; // the newest first
  let start;
  function mixed(output, index) {
    if (index === 1) return map((now, last) => (now + last) / 2, output, outputs[0]);
    outputs.unshift(output);
    const weights = [[1], [3, -1], [23, -16, 5], [55, -59, 37, -9]][Math.min(outputs.length, 4) - 1], sum = weights.reduce((a, b) => a + b);
    return map((...last) => last.reduce((all, one, i) => all + weights[i] * one, 0) / sum, ...outputs.slice(0, 4));
  }
  return {
    timesteps, first: 1, sees: sample => sample,
    step(output, index, sample) {
      const again = index === 1, t = timesteps[index] + (again ? stride : 0), before = t - stride;
      if (index === 0) start = sample;
      const from = again ? start : sample, e = meant(mixed(output, index), from, alphas_cumprod[t], velocity).noise;
      const now = alphas_cumprod[t], next = alphas_cumprod[before] ?? beyond(alphas_cumprod, config);
      const slope = (next - now) / (now * Math.sqrt(1 - next) + Math.sqrt(now * (1 - now) * next));
      return map((x, noise) => Math.sqrt(next / now) * x - slope * noise, from, e);
    },
  };
}

// Karras et al., 2022, algorithm 1 without churn: the sample is x_0 + sigma noise, and a step goes straight along the noise.
function euler(steps, alphas_cumprod, config, velocity) {
  const timesteps = spaced(steps, config, alphas_cumprod.length, false), trained = alphas_cumprod.map(a => Math.sqrt((1 - a) / a));
  const sigmas = timesteps.map(t => {
    const low = Math.floor(t), high = Math.min(low + 1, trained.length - 1);
    return trained[low] + (t - low) * (trained[high] - trained[low]);
  });
  const most = Math.max(...sigmas);
  const sees = (sample, index) => map(x => x / Math.sqrt(sigmas[index] ** 2 + 1), sample);
  return {
    timesteps, sees, first: config.timestep_spacing === "leading" ? Math.sqrt(most ** 2 + 1) : most,
    step(output, index, sample) {
      const sigma = sigmas[index], { noise } = meant(output, sees(sample, index), 1 / (sigma ** 2 + 1), velocity);
      return map((x, e) => x + ((sigmas[index + 1] ?? 0) - sigma) * e, sample, noise);
    },
  };
}

// What is left of the signal beyond the last step.
const beyond = (alphas_cumprod, config) => config.set_alpha_to_one ? 1 : alphas_cumprod[0];

export const samplers = { DDIMScheduler: ddim, PNDMScheduler: pndm, EulerDiscreteScheduler: euler };
