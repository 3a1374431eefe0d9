// Directions: of words, and of noise predictions.

const dot = (a, b) => a.reduce((sum, value, i) => sum + value * b[i], 0);
const length = a => Math.sqrt(dot(a, a));
const minus = (a, b) => Float64Array.from(a, (value, i) => value - b[i]);

// Each word's vector, the mean over its places; `text` is (places, features).
function meanVector(text, places, features) {
  const mean = new Float64Array(features);
  for (const place of places) for (let i = 0; i < features; i++) mean[i] += text[place * features + i] / places.length;
  return mean;
}

// The cosine of every word with every other.
export function cosines(text, groups, features) {
  const vectors = groups.map(places => meanVector(text, places, features));
  return vectors.map(a => vectors.map(b => dot(a, b) / Math.max(length(a) * length(b), 1e-12)));
}

// The plane through three predictions: without the words (the origin), with them, and the noise that lies between x_t and the picture that
// the run ended in. In lengths of that noise: the words push by `push` along the first axis, `truth` is where that noise lies.
export function guidancePlane({ noise_uncond, noise_text, latents }, alpha_prod_t, ended) {
  const truth = Float64Array.from(latents, (x, i) => (x - Math.sqrt(alpha_prod_t) * ended[i]) / Math.sqrt(1 - alpha_prod_t));
  const hint = minus(noise_text, noise_uncond), missing = minus(truth, noise_uncond), push = length(hint), size = length(truth);
  const along = dot(missing, hint) / (push || 1), across = Math.sqrt(Math.max(dot(missing, missing) - along ** 2, 0));
  return { push: push / size, truth: [along / size, across / size], best_scale: along / (push || 1) };
}
