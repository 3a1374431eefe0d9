// The loop: noise becomes a picture, step by step (Rombach et al., 2022).
import { map, meant, samplers } from "./samplers.mjs";
import { randn } from "./noise.mjs";

// What was read, from the start token to the end token, the padding summed up in one row more: as the kit keeps it.
function kept({ values, height, width }, end) {
  const size = height * width, rows = values.slice(0, (end + 2) * size).fill(0, (end + 1) * size);
  for (let i = (end + 1) * size; i < values.length; i++) rows[(end + 1) * size + (i % size)] += values[i];
  return { values: rows, height, width };
}

// Yields each call of the UNet: the latents as it saw them, its predictions with and without the words, the guided one, the clean latents
// that follow from it, and what every layer read. `text` and `negative` are what the UNet reads; `end` the place of the end token.
export async function* denoise(networks, facts, { text, negative, end, seed, steps, guidance_scale, sampler }) {
  const { alphas_cumprod, velocity, latents: shape } = facts, setting = facts.samplers[sampler];
  const walk = samplers[sampler](steps, alphas_cumprod, setting, velocity), guided = guidance_scale > 1;
  let sample = randn(shape.reduce((a, b) => a * b), seed).map(x => x * walk.first);
  for (const [index, timestep] of walk.timesteps.entries()) {
    const latents = walk.sees(sample, index), a = alphaAt(alphas_cumprod, timestep);
    const { outputs, maps } = await networks.predict(latents, timestep, guided ? [negative, text] : [text]);
    const [unguided, told] = guided ? outputs : [null, outputs[0]];
    // Ho & Salimans, 2022, equation 6, with w + 1 written as one number.
    const output = guided ? map((u, c) => u + guidance_scale * (c - u), unguided, told) : told;
    const noise = of => of && meant(of, latents, a, velocity).noise;
    sample = walk.step(output, index, sample);
    yield {
      index, calls: walk.timesteps.length, timestep, latents, noise_uncond: noise(unguided), noise_text: noise(told),
      ...meant(output, latents, a, velocity), next_latents: sample,
      attention: Object.fromEntries(Object.entries(maps).map(([layer, read]) => [layer, kept(read, end)])),
    };
  }
}

// How much of the signal is left at a timestep; between two, the noise level is interpolated, as samplers with float timesteps do.
function alphaAt(alphas_cumprod, timestep) {
  const low = Math.floor(timestep), high = Math.ceil(timestep), sigma = t => Math.sqrt((1 - alphas_cumprod[t]) / alphas_cumprod[t]);
  if (low === high) return alphas_cumprod[low];
  return 1 / (1 + (sigma(low) + (timestep - low) * (sigma(high) - sigma(low))) ** 2);
}
