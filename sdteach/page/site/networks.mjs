// The three networks, run by onnxruntime: words to vectors, latents to a noise prediction, latents to a picture.
import * as ort from "./vendor/ort.wasm.min.mjs";

// A file from beside this module, as bytes; `came(size)` is told of every piece.
async function fetched(name, came) {
  const answer = await fetch(new URL(name, import.meta.url));
  if (!answer.ok) throw new Error(`expected the file ${name} beside this page, got ${answer.status}; write the folder again`);
  const parts = [], reader = answer.body.getReader();
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    parts.push(part.value);
    came(part.value.length);
  }
  return new Uint8Array(await new Blob(parts).arrayBuffer());
}

// `loading(fraction)` is told how far it is; `facts` is the checkpoint's description.
export async function loadNetworks(facts, loading) {
  ort.env.wasm.wasmPaths = new URL("./vendor/", import.meta.url).href;
  // One processor is left to the page and to whatever else runs: threads that wait for one another while it is busy are slower than one.
  ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.max(1, Math.min(4, navigator.hardwareConcurrency - 1)) : 1;
  const { text_encoder, unet, decoder } = facts.files, all = text_encoder + unet + decoder;
  let here = 0;
  const came = size => loading(0.9 * (here += size) / all);
  const begin = async name => ort.InferenceSession.create(await fetched(`model/${name}.onnx`, came), { executionProviders: ["wasm"] });
  const tower = await begin("text_encoder"), predictor = await begin("unet"), painter = await begin("decoder");
  loading(1);
  const [channels, height, width] = facts.latents, places = facts.places;
  const tensor = (values, ...shape) => new ort.Tensor("float32", values, shape);
  return {
    // Rows of the table, one for each place -> (places, features).
    async read(rows) {
      const { text } = await tower.run({ rows: new ort.Tensor("int64", BigInt64Array.from(rows, BigInt), [1, places]) });
      return text.data;
    },

    // A row of latents for each text. Gives each row's output, and what each cross-attention layer read for the last text:
    // by its name (places, height, width), summing to one over the places.
    async predict(latents, timestep, texts) {
      const rows = texts.length, size = latents.length, features = texts[0].length / places;
      const repeated = new Float32Array(rows * size), joined = new Float32Array(rows * texts[0].length);
      texts.forEach((text, row) => { repeated.set(latents, row * size); joined.set(text, row * text.length); });
      const { output, ...maps } = await predictor.run({
        latents: tensor(repeated, rows, channels, height, width), timestep: tensor([timestep]), text: tensor(joined, rows, places, features),
      });
      const read = Object.entries(maps).map(([layer, { data, dims: [, high, wide] }]) => [layer, { values: data, height: high, width: wide }]);
      return { outputs: texts.map((_, row) => output.data.slice(row * size, (row + 1) * size)), maps: Object.fromEntries(read) };
    },

    // Latents that are scaled for the UNet -> red, green, blue, opaque, row by row: what lies in -1..1 as 0..255.
    async decode(latents) {
      const { picture } = await painter.run({ latents: tensor(latents, 1, channels, height, width) });
      const [, , high, wide] = picture.dims, pixels = new Uint8ClampedArray(4 * high * wide).fill(255), plane = high * wide;
      for (let channel = 0; channel < 3; channel++) {
        for (let i = 0; i < plane; i++) pixels[4 * i + channel] = (picture.data[channel * plane + i] / 2 + 0.5) * 255; // rounded and cut off
      }
      return { pixels, height: high, width: wide };
    },
  };
}
