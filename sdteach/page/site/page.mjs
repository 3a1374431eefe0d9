// The page: what was asked for, the runs that are shown, and which stage of them.
import { keepForLater } from "./offline.mjs";
import { element, stages, lastWord } from "./stages.mjs";
import { captions } from "./tour.mjs";
import { light, scrubber } from "./way.mjs";

const find = what => document.querySelector(what);
const form = find("form"), notes = find(".notes"), loading = find("progress"), links = [...document.querySelectorAll(".map a")];
// The runs that are shown, one or two, the last one the newest; how each stage is looked at.
let runs = [], kept = null, facts, worker, ready = false, busy = false, count = 0, decoding = false;
// The stage that the address asks for, so that a link leads to it, and the way back through those that were seen.
const asked = () => Object.keys(stages).find(stage => location.hash === `#${stage}`);
const view = { stage: asked() ?? "steps", word: null, least: 0, spot: null };

find(".unserved").hidden = true;
find(".settings").open = matchMedia("(min-width: 40rem)").matches;

// ---- what is shown

const calls = run => run.calls ?? run.settings.steps;
const most = () => Math.max(1, ...runs.map(calls));
const controls = scrubber(most, show);
const stepAt = run => run.picture ? controls.stepOf(calls(run)) : Math.min(controls.stepOf(calls(run)), run.steps.length - 1);

const act = {
  choose(run, index) {
    const name = run.words.words[index];
    view.word = view.word?.name === name && view.word.index === index ? null : { name, index };
    view.least = view.word ? view.least : 0;
    show();
  },
  keep(least) { view.least = least; show(); },
  look(spot) { view.spot = spot; show(); },
  goTo(run, step) { controls.turnTo(controls.stopOf(step, calls(run))); },
};

const SETTINGS = { negative_prompt: value => value.trim() && `not: ${value}`, seed: value => `seed ${value}`, steps: value => `${value} steps`,
  guidance_scale: value => value > 1 ? `guidance ${value}` : "guidance off", sampler: value => value.replace("Scheduler", "").replace("Discrete", "") };

function heading(run, other) {
  const said = Object.entries(SETTINGS).flatMap(([key, tell]) => {
    const words = tell(run.settings[key]);
    return words ? [" ", element("span", {}, element(other && other.settings[key] !== run.settings[key] ? "b" : "bdi", {}, words))] : [];
  });
  return element("header", { hidden: !other }, element("h3", {}, element("bdi", {}, run.settings.prompt.trim() || "no words")), element("p", { className: "facts" }, ...said));
}

// A stage is built when it is turned to, or when other runs are shown, and filled at every change.
let built = "";
function build(host, shown) {
  const key = `${view.stage} ${shown.map(run => run.number)}`;
  if (built === key) return;
  built = key;
  const parts = shown.map((run, index) => {
    const copy = find(`template[data-of=${view.stage}]`).content.cloneNode(true), about = copy.querySelector("header");
    about.remove();
    run.host = element("article", { className: "run" }, heading(run, shown[1 - index]), copy);
    return { about, host: run.host };
  });
  host.replaceChildren(parts[0].about, element("div", { className: shown.length > 1 ? "runs two" : "runs" }, ...parts.map(part => part.host)));
}

function show() {
  const shown = runs.filter(run => run.steps.length), newest = shown.at(-1);
  if (!newest) return;
  const host = find("#stages"), longest = shown.find(run => calls(run) === Math.max(...shown.map(calls)));
  find(".way").hidden = find(".controls").hidden = false;
  const step = longest.steps[stepAt(longest)];
  controls.tell(step ? `step ${step.index + 1} of ${step.calls}, t = ${Math.round(step.timestep)}` : "the picture");
  find(".turns").textContent = `↻ ${calls(newest)} times`;
  const told = links.map(link => [link.dataset.stage, stages[link.dataset.stage].thumb(link.querySelector(".thumb"), newest, stepAt(newest), view)]);
  light(view.stage, Object.fromEntries(told));
  build(host, shown);
  for (const run of shown) stages[view.stage].show(run.host, run, stepAt(run), view, act);
  decodeNext();
}

function turnTo(stage) {
  view.stage = stage;
  history.replaceState(null, "", `#${stage}`);
  show();
}

// ---- what is asked for

function settings() {
  const { prompt, negative_prompt, seed, steps, guidance_scale, sampler } = form.elements;
  return { prompt: prompt.value, negative_prompt: negative_prompt.value, seed: +seed.value, steps: +steps.value, guidance_scale: +guidance_scale.value, sampler: sampler.value };
}

function paint() {
  if (!form.reportValidity()) return;
  const run = { number: ++count, settings: settings(), facts, steps: [], decoded: new Map() };
  controls.pause();
  runs = kept ? [kept, run] : [run];
  controls.stop = Infinity;
  working(true);
  progress(0, "Painting …");
  worker.postMessage({ ask: "paint", run: run.number, settings: run.settings });
}

function stop() {
  worker.postMessage({ ask: "stop" });
  working(false);
  tell("Stopped.");
}

function working(on) {
  busy = on;
  find(".paint").hidden = on;
  find(".stop").hidden = !on;
  loading.classList.toggle("idle", !on);
}

const tell = words => { notes.textContent = words; };

// The pictures of single steps are decoded when there is nothing else to do, the one that is looked at first.
function decodeNext() {
  if (decoding || busy) return;
  for (const run of runs.filter(run => run.picture)) {
    const order = [stepAt(run), ...run.steps.keys()], index = order.find(step => step < run.steps.length && !run.decoded.has(step));
    if (index === undefined) continue;
    decoding = true;
    worker.postMessage({ ask: "decode", run: run.number, index, latents: run.steps[index].predicted_x0 });
    return;
  }
}

const told = {
  facts(message) {
    facts = message.facts;
    const names = Object.keys(facts.samplers).map(name => Object.assign(element("option", { value: name }, SETTINGS.sampler(name)), { selected: name === facts.sampler }));
    form.elements.sampler.replaceChildren(...names);
    form.elements.guidance_scale.value = facts.guidance_scale;
  },
  loading({ fraction }) { progress(fraction, "Loading the networks …"); },
  ready() {
    ready = true;
    for (const button of document.querySelectorAll(".paint, .guide")) button.disabled = false;
    paint();
  },
  typed({ words }) {
    if (busy) return;
    const known = words.unknown.length ? `${facts.name} never read ${words.unknown.join(", ")}. ` : "";
    tell(`${known}${words.end + 1} tokens: ${words.ids.slice(0, words.end + 1).join(" ")}`);
  },
  words({ run, words, against, text }) { change(run, { words, against, text }); },
  step({ run, step }) {
    const own = runs.find(one => one.number === run);
    if (!own) return;
    if (!own.steps.length) controls.stop = Infinity;
    change(run, { calls: step.calls, steps: [...own.steps, step] });
    const following = controls.stop === Infinity || controls.stop >= own.steps.length - 1;
    if (own.steps.length === 1) controls.stop = 1;
    else if (following) controls.stop = own.steps.length;
    loading.value = (step.index + 1) / step.calls;
    show();
  },
  picture({ run, picture, seconds }) {
    const own = runs.find(one => one.number === run);
    if (!own) return;
    const following = controls.stop >= own.steps.length;
    change(run, { picture });
    working(false);
    find(".beside").disabled = false;
    if (following) controls.stop = most() + 1;
    const unknown = own.words.unknown.length ? ` It never read ${own.words.unknown.join(", ")}.` : "";
    tell(`Painted in ${seconds.toFixed(1)} seconds, on this device.${unknown}`);
    show();
  },
  decoded({ run, index, picture }) {
    decoding = false;
    runs.find(one => one.number === run)?.decoded.set(index, picture);
    show();
  },
  failed({ why }) { working(false); tell(`It did not work: ${why}`); },
};

const change = (number, parts) => Object.assign(runs.find(run => run.number === number) ?? {}, parts);

function progress(fraction, words) {
  loading.classList.remove("idle");
  loading.value = fraction;
  tell(words);
}

// ---- hands and keys

form.addEventListener("submit", event => { event.preventDefault(); paint(); });
find(".stop").addEventListener("click", stop);
form.elements.prompt.addEventListener("input", ({ target }) => { if (facts) worker.postMessage({ ask: "words", prompt: target.value }); });
for (const name of ["negative_prompt", "seed", "steps", "guidance_scale", "sampler"]) form.elements[name].addEventListener("change", () => { if (ready) paint(); });
find(".other").addEventListener("click", () => {
  form.elements.seed.value = Math.floor(Math.random() * 1000);
  if (ready) paint();
});
find(".beside").addEventListener("click", ({ target }) => {
  kept = kept ? null : runs.at(-1);
  target.setAttribute("aria-pressed", Boolean(kept));
  if (!kept) runs = runs.slice(-1);
  tell(kept ? "This run stays. Change something: the next one stands beside it." : "One run again.");
  show();
});
addEventListener("hashchange", () => turnTo(asked() ?? view.stage));

// ---- the tour

const tour = find(".tour");
let caption = 0;
function guide(number) {
  caption = number;
  tour.hidden = false;
  const { stage, far, word, says } = captions[number], run = runs.at(-1), index = lastWord(run);
  find(".tour .says").textContent = says;
  find(".tour .where").textContent = `${number + 1} of ${captions.length}`;
  find(".tour .earlier").disabled = number === 0;
  find(".tour .next").textContent = number + 1 < captions.length ? "Next" : "Done";
  turnTo(stage);
  if (word && index >= 0) view.word = { name: run.words.words[index], index };
  if (!matchMedia("(min-width: 40rem)").matches) find("#stages").scrollIntoView();
  controls.turnTo(far === 1 ? most() + 1 : 1 + Math.round(far * (most() - 1)));
}
function endTour() {
  tour.hidden = true;
  find(".guide").focus();
}
find(".guide").addEventListener("click", () => { guide(0); find(".tour .next").focus(); });
find(".tour .next").addEventListener("click", () => caption + 1 < captions.length ? guide(caption + 1) : endTour());
find(".tour .earlier").addEventListener("click", () => guide(caption - 1));
find(".tour .end").addEventListener("click", endTour);
tour.addEventListener("keydown", event => { if (event.key === "Escape") endTour(); });

// ---- the start

await keepForLater(fraction => progress(fraction, "Fetching the page once; then it needs no network …"));
worker = new Worker("worker.mjs", { type: "module" });
worker.addEventListener("message", ({ data }) => told[data.told](data));
worker.addEventListener("error", () => told.failed({ why: "this browser cannot run the page's worker; a current Firefox, Chrome, Edge or Safari can" }));
