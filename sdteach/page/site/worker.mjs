// All that is heavy, beside the page: it asks by messages and is answered by messages.
import { denoise } from "./denoise.mjs";
import { loadNetworks } from "./networks.mjs";
import { Tokens } from "./tokens.mjs";

const json = async name => (await fetch(`model/${name}`)).json();
const others = () => new Promise(done => setTimeout(done)); // let a message come in between
let wanted = 0; // the number of the run that is asked for; another, or none, ends the one that is under way

async function describe() {
  const facts = await json("checkpoint.json");
  postMessage({ told: "facts", facts });
  return { facts, tokens: new Tokens(await json("tokenizer.json"), facts) };
}

async function load() {
  const { facts, tokens } = await described;
  return { facts, tokens, networks: await loadNetworks(facts, fraction => postMessage({ told: "loading", fraction })) };
}

async function paint({ facts, tokens, networks }, run, settings) {
  wanted = run;
  const words = tokens.of(settings.prompt), against = tokens.of(settings.negative_prompt);
  const text = await networks.read(words.table), negative = await networks.read(against.table), began = performance.now();
  postMessage({ told: "words", run, words, against, text });
  let last;
  for await (const step of denoise(networks, facts, { ...settings, text, negative, end: words.end })) {
    await others();
    if (wanted !== run) return;
    postMessage({ told: "step", run, step });
    last = step;
  }
  const picture = await networks.decode(last.next_latents);
  postMessage({ told: "picture", run, picture, seconds: (performance.now() - began) / 1000 });
}

const described = describe(), ready = load();
ready.then(() => postMessage({ told: "ready" }), failed);
let turn = ready.catch(() => {}); // one after the other: a network does one thing at a time

function failed(error) {
  postMessage({ told: "failed", why: error.message });
}

const answers = {
  paint: ({ run, settings }) => { wanted = run; return parts => wanted === run && paint(parts, run, settings); },
  stop: () => { wanted = 0; },
  words: ({ prompt }) => { described.then(({ tokens }) => postMessage({ told: "typed", words: tokens.of(prompt) })); },
  decode: ({ run, index, latents }) => async ({ networks }) => postMessage({ told: "decoded", run, index, picture: await networks.decode(latents) }),
};
addEventListener("message", ({ data }) => {
  const work = answers[data.ask](data);
  if (work) turn = turn.then(() => ready).then(work).catch(failed);
});
