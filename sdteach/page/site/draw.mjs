// Numbers as colours, on a canvas.
const scales = JSON.parse(document.getElementById("scales").textContent);
const diverging = Object.keys(scales).find(name => name !== "inferno");

// A canvas of so many pixels, each as `colour(i)` gives it: red, green, blue of 0..255, perhaps opacity.
function fill(canvas, height, width, colour) {
  const pixels = new ImageData(width, height);
  for (let i = 0; i < height * width; i++) {
    const [red, green, blue, opacity = 255] = colour(i);
    pixels.data.set([red, green, blue, opacity], 4 * i);
  }
  Object.assign(canvas, { width, height });
  canvas.getContext("2d").putImageData(pixels, 0, 0);
}

const scaled = (name, value) => {
  const at = 3 * Math.round(255 * Math.min(Math.max(value, 0), 1));
  return scales[name].slice(at, at + 3);
};

// Latents (channels, height, width): the first three channels as red, green and blue, -3..3 from dark to bright.
export function latents(canvas, values, [, height, width]) {
  fill(canvas, height, width, i => [0, 1, 2].map(channel => (values[channel * height * width + i] / 6 + 0.5) * 255));
}

// Numbers around zero, -3..3: orange, white, purple.
export function signed(canvas, values, height, width, most = 3) {
  fill(canvas, height, width, i => scaled(diverging, values[i] / (2 * most) + 0.5));
}

// A map of 0..1, dark to bright, smooth between its positions.
export function heat(canvas, values, height, width) {
  const small = document.createElement("canvas");
  fill(small, height, width, i => scaled("inferno", values[i]));
  Object.assign(canvas, { width: 8 * width, height: 8 * height });
  canvas.getContext("2d").drawImage(small, 0, 0, canvas.width, canvas.height);
}

// Darkness over all that is not in the region: positions where `values` are at least `least`.
export function mask(canvas, values, height, width, least) {
  fill(canvas, height, width, i => [0, 0, 0, values[i] >= least ? 0 : 225]);
}

export function picture(canvas, { pixels, height, width }) {
  Object.assign(canvas, { width, height });
  canvas.getContext("2d").putImageData(new ImageData(pixels, width, height), 0, 0);
}

// About the picture that latents decode to, at a fraction of its size: each colour a weighted sum of the channels, and a constant.
export function preview(canvas, values, [channels, height, width], weights) {
  const small = document.createElement("canvas"), plane = height * width, edge = 4;
  fill(small, height, width, i => [0, 1, 2].map(colour =>
    weights.reduce((sum, weight, channel) => sum + weight[colour] * (channel < channels ? values[channel * plane + i] : 1), 0)));
  Object.assign(canvas, { width: edge * width, height: edge * height });
  const brush = canvas.getContext("2d");
  brush.imageSmoothingQuality = "high";
  brush.drawImage(small, 0, 0, canvas.width, canvas.height);
}
