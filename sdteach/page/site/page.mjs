// The page: what was asked for, the runs that are shown, and which stage of them.
import { keepForLater } from "./offline.mjs";
import { element, stages, lastWord } from "./stages.mjs";
import { captions } from "./tour.mjs";

const find = what => document.querySelector(what);
const form = find("form"), notes = find(".notes"), loading = find("progress"), slider = find(".controls input"), play = find(".play");
const calm = matchMedia("(prefers-reduced-motion: reduce)"), tabs = [...document.querySelectorAll("[role=tab]")];
// The runs that are shown, one or two, the last one the newest; how each stage is looked at.
let runs = [], kept = null, facts, worker, ready = false, busy = false, count = 0, decoding = false, timer = null;
const view = { stage: "steps", stop: 1, word: null, least: 0, spot: null };

find(".unserved").hidden = true;
find(".settings").open = matchMedia("(min-width: 40rem)").matches;

// ---- what is shown

const calls = run => run.calls ?? run.settings.steps;
const most = () => Math.max(1, ...runs.map(calls));
// The step of a run at a stop of the slider, from 0; its number of steps stands for the result.
function stepAt(run) {
  const last = calls(run), step = view.stop > most() ? last : most() < 2 ? 0 : Math.round(((view.stop - 1) / (most() - 1)) * (last - 1));
  return run.picture ? step : Math.min(step, run.steps.length - 1);
}

const act = {
  choose(run, index) {
    const name = run.words.words[index];
    view.word = view.word?.name === name && view.word.index === index ? null : { name, index };
    view.least = view.word ? view.least : 0;
    show();
  },
  keep(least) { view.least = least; show(); },
  look(spot) { view.spot = spot; show(); },
  goTo(run, step) { pause(); goTo(step >= calls(run) ? most() + 1 : calls(run) < 2 ? 1 : 1 + Math.round((step / (calls(run) - 1)) * (most() - 1))); },
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
    const copy = find(`template#${view.stage}`).content.cloneNode(true), about = copy.querySelector("header");
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
  find(".way").hidden = false;
  slider.max = most() + 1;
  slider.value = view.stop;
  const step = longest.steps[stepAt(longest)], now = step ? `step ${step.index + 1} of ${step.calls}, t = ${Math.round(step.timestep)}` : "the picture";
  slider.setAttribute("aria-valuetext", now);
  find(".now").textContent = now;
  find(".turns").textContent = `↻ ${calls(newest)} times`;
  for (const tab of tabs) {
    const chosen = tab.dataset.stage === view.stage;
    tab.setAttribute("aria-selected", chosen);
    tab.tabIndex = chosen ? 0 : -1;
    tab.querySelector("small").textContent = stages[tab.dataset.stage].thumb(tab.querySelector(".thumb"), newest, stepAt(newest), view);
  }
  host.setAttribute("aria-labelledby", `tab-${view.stage}`);
  build(host, shown);
  for (const run of shown) stages[view.stage].show(run.host, run, stepAt(run), view, act);
  decodeNext();
}

function goTo(stop) {
  view.stop = Math.min(Math.max(stop, 1), most() + 1);
  show();
}

function turnTo(stage) {
  view.stage = stage;
  show();
  find(`#tab-${stage}`).scrollIntoView({ block: "nearest", inline: "center" });
}

// ---- what is asked for

function settings() {
  const { prompt, negative_prompt, seed, steps, guidance_scale, sampler } = form.elements;
  return { prompt: prompt.value, negative_prompt: negative_prompt.value, seed: +seed.value, steps: +steps.value, guidance_scale: +guidance_scale.value, sampler: sampler.value };
}

function paint() {
  if (!form.reportValidity()) return;
  const run = { number: ++count, settings: settings(), facts, steps: [], decoded: new Map() };
  pause();
  runs = kept ? [kept, run] : [run];
  view.stop = Infinity;
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
    if (!own.steps.length) view.stop = Infinity;
    change(run, { calls: step.calls, steps: [...own.steps, step] });
    const following = view.stop === Infinity || view.stop >= own.steps.length - 1;
    if (own.steps.length === 1) view.stop = 1;
    else if (following) view.stop = own.steps.length;
    loading.value = (step.index + 1) / step.calls;
    show();
  },
  picture({ run, picture, seconds }) {
    const own = runs.find(one => one.number === run);
    if (!own) return;
    const following = view.stop >= own.steps.length;
    change(run, { picture });
    working(false);
    find(".beside").disabled = false;
    if (following) view.stop = most() + 1;
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
for (const tab of tabs) tab.addEventListener("click", () => turnTo(tab.dataset.stage));
find("[role=tablist]").addEventListener("keydown", event => {
  const here = tabs.indexOf(event.target.closest("[role=tab]"));
  const next = { ArrowLeft: here - 1, ArrowRight: here + 1, Home: 0, End: tabs.length - 1 }[event.key];
  if (next === undefined) return;
  event.preventDefault();
  event.stopPropagation();
  const tab = tabs[(next + tabs.length) % tabs.length];
  turnTo(tab.dataset.stage);
  tab.focus();
});

function pause() {
  clearInterval(timer);
  timer = null;
  play.textContent = "Play";
}
play.addEventListener("click", () => {
  if (timer) return pause();
  if (view.stop > most()) goTo(1);
  play.textContent = "Pause";
  timer = setInterval(() => {
    goTo(view.stop + 1);
    if (view.stop > most()) pause();
  }, Math.max(Math.min(6000 / most(), 700), calm.matches ? 1000 : 80));
});
slider.addEventListener("input", () => { pause(); goTo(+slider.value); });
find(".back").addEventListener("click", () => { pause(); goTo(view.stop - 1); });
find(".on").addEventListener("click", () => { pause(); goTo(view.stop + 1); });
addEventListener("keydown", event => { // a presenter's keys, wherever the focus rests
  if (event.ctrlKey || event.altKey || event.metaKey || event.defaultPrevented || find(".way").hidden) return;
  if (event.target.closest("input:not([type=range]), select, .wide, pre, .mask")) return;
  const at = { ArrowLeft: view.stop - 1, ArrowRight: view.stop + 1, Home: 1, End: most() + 1 }[event.key];
  if (event.key === " " && !event.target.closest("button, a")) play.click();
  else if (at !== undefined) { pause(); goTo(at); }
  else return;
  event.preventDefault();
});

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
  pause();
  if (!matchMedia("(min-width: 40rem)").matches) find("#stages").scrollIntoView();
  goTo(far === 1 ? most() + 1 : 1 + Math.round(far * (most() - 1)));
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
