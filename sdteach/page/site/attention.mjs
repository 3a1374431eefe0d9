// Where words were read: what each cross-attention layer gave each place of the prompt at each position, added up as the kit does.

// What each place has of what the words and the end token were read; the start token and the padding take most and say little.
function overText({ values, height, width }) {
  const size = height * width, rows = values.length / size, shares = new Float64Array(values.length);
  for (let i = 0; i < size; i++) {
    let sum = 0;
    for (let row = 1; row < rows - 1; row++) sum += values[row * size + i];
    for (let row = 1; row < rows - 1; row++) shares[row * size + i] = values[row * size + i] / Math.max(sum, 1e-12);
  }
  return row => shares.subarray(row * size, (row + 1) * size);
}

// Weights of the old positions for each new one, of a line brought to another length (a triangle, as wide as the coarser of both).
function stretched(from, to) {
  const scale = from / to, wide = Math.max(scale, 1);
  return Array.from({ length: to }, (_, x) => {
    const middle = (x + 0.5) * scale, first = Math.max(Math.floor(middle - wide + 0.5), 0), last = Math.min(Math.floor(middle + wide + 0.5), from);
    const weights = Array.from({ length: last - first }, (_, i) => Math.max(1 - Math.abs(first + i - middle + 0.5) / wide, 0));
    const sum = weights.reduce((a, b) => a + b);
    return weights.map((weight, i) => [first + i, weight / sum]);
  });
}

// A map, bilinearly, at another size.
function resized(values, height, width, high, wide) {
  if (height === high && width === wide) return values;
  const across = stretched(width, wide), down = stretched(height, high), lines = new Float64Array(height * wide);
  for (let y = 0; y < height; y++) across.forEach((weights, x) => { for (const [i, w] of weights) lines[y * wide + x] += w * values[y * width + i]; });
  const out = new Float64Array(high * wide);
  down.forEach((weights, y) => { for (const [i, w] of weights) for (let x = 0; x < wide; x++) out[y * wide + x] += w * lines[i * wide + x]; });
  return out;
}

// What some places were read at each position of the latents: the mean over steps and layers, fine layers weighing more.
function readings(steps, places, height, width) {
  const total = new Float64Array(height * width);
  let weights = 0;
  for (const { attention } of steps) for (const layer of Object.values(attention)) {
    const share = overText(layer), size = layer.height * layer.width, mean = new Float64Array(size);
    for (const place of places) share(place).forEach((value, i) => { mean[i] += value / places.length; });
    resized(mean, layer.height, layer.width, height, width).forEach((value, i) => { total[i] += size * value; });
    weights += size;
  }
  return total.map(value => value / weights);
}

// The last quarter of a run, when the picture has taken shape.
export const lastQuarter = steps => steps.slice(Math.floor((3 * steps.length) / 4));

// Where some places were read, stretched to 0..1; one that is the same everywhere becomes 0.
export function heatMap(steps, places, height, width) {
  const map = readings(steps, places, height, width), least = Math.min(...map), most = Math.max(...map) - least || 1;
  return Float32Array.from(map, value => (value - least) / most);
}

// What each group of places has of all that was read at one position of the latents, from most to least: [group, share].
export function ranked(steps, groups, height, width, position) {
  return groups.map((places, group) => [group, places.length * readings(steps, places, height, width)[position]]).sort((a, b) => b[1] - a[1]);
}
