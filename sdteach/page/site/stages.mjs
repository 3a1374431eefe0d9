// The stages of a run, each with a small picture for the map and a page of its own. `at` is the step that is shown, from 0; the number
// of steps stands for the result. A stage draws what the run holds so far.
import { heatMap, lastQuarter, ranked } from "./attention.mjs";
import * as draw from "./draw.mjs";
import { placesOf } from "./tokens.mjs";
import { cosines, guidancePlane } from "./vectors.mjs";
import { markFrame } from "./way.mjs";

const find = (within, what) => within.querySelector(what);
export function element(tag, options = {}, ...inside) {
  const { data = {}, ...rest } = options, made = Object.assign(document.createElement(tag), rest);
  Object.assign(made.dataset, data);
  made.append(...inside);
  return made;
}
const text = (tag, words, className = "") => element(tag, { className }, element("bdi", {}, words));
const canvas = (className, label) => {
  const made = element("canvas", { className });
  made.setAttribute("role", "img");
  made.setAttribute("aria-label", label);
  return made;
};
const figure = (drawing, caption) => element("figure", {}, element("div", { className: "frame" }, drawing), element("figcaption", {}, ...[caption].flat()));
const label = (drawing, words) => drawing.setAttribute("aria-label", words);
const percent = share => `${Math.round(100 * share)} %`;

// Build what is in `host` anew only if it is of something else than it was.
function once(host, of, build) {
  if (host.madeOf === of) return;
  host.madeOf = of;
  host.replaceChildren(...build());
}

const recordAt = (run, at) => run.steps[Math.min(at, run.steps.length - 1)];
const done = (run, at) => run.picture && at >= run.steps.length;
const name = (run, at) => done(run, at) ? "the picture" : `the picture it predicts at step ${at + 1}`;

// The picture of a step: decoded, or, until it is, about its colours.
function paintStep(drawing, run, at) {
  const { latents, preview } = run.facts, decoded = done(run, at) ? run.picture : run.decoded.get(at);
  if (decoded) draw.picture(drawing, decoded);
  else draw.preview(drawing, recordAt(run, at).predicted_x0, latents, preview);
  label(drawing, name(run, at));
}

function chosenWord(run, { word }) {
  if (!word) return -1;
  return run.words.words[word.index] === word.name ? word.index : run.words.words.indexOf(word.name);
}

// Maps of whole runs are kept; the run grows a new list with every step.
function wholeMap(run, word) {
  const [, height, width] = run.facts.latents, key = `${run.steps.length} ${word}`;
  run.maps ??= new Map();
  if (!run.maps.has(key)) run.maps.set(key, heatMap(lastQuarter(run.steps), placesOf(run.words, word), height, width));
  return run.maps.get(key);
}

function mapAt(run, at, word) {
  const [, height, width] = run.facts.latents;
  return at >= run.steps.length ? wholeMap(run, word) : heatMap([run.steps[at]], placesOf(run.words, word), height, width);
}

function tokenList(host, words, places) {
  once(host, words, () => [
    ...words.pieces.map((piece, place) => element("li", { className: place === 0 || place === words.end ? "special" : "" },
      text("span", piece, "piece"), element("span", { className: "id" }, String(words.ids[place])))),
    element("li", { className: "special" }, element("span", { className: "piece" }, `+ ${places - words.end - 1}`), element("span", { className: "id" }, "padding")),
  ]);
}

function notice(host, lead, words) {
  host.hidden = !words;
  if (words) host.replaceChildren(element("strong", {}, lead), " ", element("bdi", {}, words));
}

const words = {
  thumb(grid, run) {
    once(grid, run.words, () => run.words.ids.slice(1, Math.min(run.words.end, 4)).map(id => element("span", {}, String(id))));
    return `${run.words.end + 1} tokens`;
  },
  show(host, run) {
    tokenList(find(host, ".said"), run.words, run.facts.places);
    tokenList(find(host, ".against"), run.against, run.facts.places);
    const { unknown, dropped } = run.words;
    notice(find(host, ".unknown"), `${run.facts.name} never read:`, unknown.join(", ") &&
      `${unknown.join(", ")}. The number is there, but nothing was learned for it: it may draw anything.`);
    notice(find(host, ".dropped"), "Cut off, never read:", dropped);
  },
};

const vectors = {
  thumb(drawing, run) {
    const features = run.text.length / run.facts.places;
    draw.signed(drawing, run.text.subarray(0, 24 * features).filter((_, i) => i % features < 24), 24, 24);
    return `${run.facts.places} × ${features}`;
  },
  show(host, run) {
    const { places } = run.facts, features = run.text.length / places, rows = run.words.pieces.length;
    find(host, ".size").textContent = `${features} numbers for each of ${places} places`;
    once(find(host, ".strips"), run.text, () => Array.from({ length: rows + (rows < places) }, (_, place) => {
      const piece = run.words.pieces[place] ?? "padding", strip = canvas("cells", `the vector of ${piece}`);
      draw.signed(strip, run.text.subarray(place * features, (place + 1) * features), 1, features);
      return element("li", {}, text("span", piece), strip);
    }));
    const names = run.words.words, groups = names.map((_, word) => placesOf(run.words, word));
    find(host, ".alike").hidden = names.length < 2;
    once(find(host, "table"), run.text, () => {
      const heading = (word, scope) => Object.assign(text("th", word), { scope });
      const rows = cosines(run.text, groups, features).map((row, first) => element("tr", {}, heading(names[first], "row"),
        ...row.map(value => element("td", { className: `shade${Math.round(10 * value + 10)}` }, value.toFixed(2)))));
      return [element("thead", {}, element("tr", {}, element("td"), ...names.map(word => heading(word, "col")))), element("tbody", {}, ...rows)];
    });
  },
};

const noise = {
  thumb(drawing, run) {
    draw.latents(drawing, run.steps[0].latents, run.facts.latents);
    return `seed ${run.settings.seed}`;
  },
  show(host, run, at) {
    const [channels, height, width] = run.facts.latents, now = recordAt(run, at), plane = height * width;
    const shown = done(run, at) ? now.next_latents : now.latents, when = done(run, at) ? "at the end" : `at step ${now.index + 1}`;
    find(host, ".count").textContent = `${(channels * plane).toLocaleString("en")} numbers from seed ${run.settings.seed}, made in this page as torch makes them`;
    find(host, ".later").textContent = `The same numbers ${when}`;
    for (const [row, values, told] of [["first", run.steps[0].latents, "at the start"], ["last", shown, when]]) {
      once(find(host, `.${row}`), values, () => Array.from({ length: channels }, (_, channel) => {
        const drawing = canvas("cells", `channel ${channel} ${told}`);
        draw.signed(drawing, values.subarray(channel * plane, (channel + 1) * plane), height, width);
        return figure(drawing, `channel ${channel}`);
      }));
    }
  },
};

// The last word with letters: where nothing is chosen, it is more often the name of a thing than the others.
export const lastWord = run => run.words.words.findLastIndex(word => /\p{L}/u.test(word));

const reading = {
  thumb(drawing, run, at, view) {
    const [, height, width] = run.facts.latents, chosen = chosenWord(run, view), word = chosen < 0 ? lastWord(run) : chosen;
    if (word < 0) return "no words";
    draw.heat(drawing, mapAt(run, at, word), height, width);
    return `“${run.words.words[word]}”`;
  },
  show(host, run, at, view, act) {
    const [, height, width] = run.facts.latents, chosen = chosenWord(run, view), over = find(host, ".over"), under = find(host, ".under");
    paintStep(under, run, at);
    const when = at >= run.steps.length ? "in the last quarter of the run" : `at step ${at + 1}`;
    over.hidden = chosen < 0;
    over.classList.toggle("heat", !view.least);
    under.classList.toggle("gray", chosen >= 0 && !view.least);
    let caption = name(run, at);
    if (chosen >= 0) {
      const map = mapAt(run, at, chosen), word = `“${run.words.words[chosen]}”`, region = map.filter(value => value >= view.least).length / map.length;
      if (view.least) draw.mask(over, map, height, width, view.least);
      else draw.heat(over, map, height, width);
      caption = view.least ? `${percent(region)} of the picture read ${word} more than ${percent(view.least)} of its most, ${when}` : `where ${word} was read ${when}`;
      label(over, caption);
    }
    find(host, "figcaption").textContent = caption;
    once(find(host, ".chips ul"), run.words, () => run.words.words.map((word, index) =>
      element("li", {}, Object.assign(text("button", word, "chip"), { type: "button", onclick: () => act.choose(run, index) }))));
    host.querySelectorAll(".chip").forEach((chip, index) => chip.setAttribute("aria-pressed", index === chosen));
    const slider = find(host, ".mask input");
    find(host, ".mask").hidden = chosen < 0;
    slider.value = 100 * view.least;
    slider.oninput = () => act.keep(slider.value / 100);
    find(host, ".mask output").textContent = percent(view.least);
    spot(host, run, at, view, act);
    find(host, ".when").textContent = `Every word, in the last quarter of ${run.picture ? "the run" : "the steps so far"}`;
    once(find(host, ".every"), run.picture ?? run.steps.length, () => run.words.words.map((word, index) => {
      const drawing = canvas("", `where “${word}” was read`);
      draw.heat(drawing, wholeMap(run, index), height, width);
      return figure(drawing, text("span", word));
    }));
  },
};

// What was read at a spot: [left, top] in positions of the latents.
function spot(host, run, at, view, act) {
  const [, height, width] = run.facts.latents, button = find(host, ".spot"), mark = find(host, ".mark"), list = find(host, ".ranking ol");
  const within = (value, most) => Math.min(Math.max(value, 0), most - 1);
  button.onclick = ({ offsetX, offsetY, detail }) => act.look(detail
    ? [within(Math.floor((offsetX / button.clientWidth) * width), width), within(Math.floor((offsetY / button.clientHeight) * height), height)]
    : view.spot ?? [width >> 1, height >> 1]);
  button.onkeydown = event => {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (!step) return;
    event.preventDefault();
    const [left, top] = view.spot ?? [width >> 1, height >> 1];
    act.look([within(left + step[0], width), within(top + step[1], height)]);
  };
  mark.hidden = !view.spot;
  let told = "Choose a spot; the arrow keys move it";
  const rows = [];
  if (view.spot) {
    const [left, top] = view.spot, where = [(left + 0.5) / width, (top + 0.5) / height];
    Object.assign(mark.style, { left: `${100 * where[0]}%`, top: `${100 * where[1]}%` });
    const steps = at >= run.steps.length ? lastQuarter(run.steps) : [run.steps[at]], names = [...run.words.words, "the end of the text"];
    const groups = names.map((_, word) => word < run.words.words.length ? placesOf(run.words, word) : [run.words.end]);
    for (const [group, share] of ranked(steps, groups, height, width, top * width + left)) {
      const bar = element("span", { className: "bar" });
      bar.style.width = `${100 * share}%`;
      rows.push(element("li", {}, text("span", names[group], group === names.length - 1 ? "word last" : "word"), element("span", { className: "track" }, bar), element("span", { className: "share" }, percent(share))));
    }
    told = `${percent(where[0])} from the left, ${percent(where[1])} from the top: most read is ${rows[0].firstChild.textContent}`;
  }
  label(button, told);
  list.replaceChildren(...rows);
}

const difference = (a, b) => a.map((value, i) => value - b[i]);
function tiles(host, run, at, rule) {
  const now = recordAt(run, at), when = `at step ${now.index + 1}`;
  for (const [className, [values, most]] of Object.entries(rule(now))) {
    const drawing = find(host, `canvas.${className}`);
    drawing.closest("figure").hidden = !values;
    if (!values) continue;
    const [, height, width] = run.facts.latents;
    draw.latents(drawing, most ? values.map(value => (3 * value) / most) : values, run.facts.latents);
    label(drawing, `${drawing.closest("figure").textContent}, ${when}`);
  }
}

const SVG = "http://www.w3.org/2000/svg";
function shape(tag, attributes, words) {
  const made = document.createElementNS(SVG, tag);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (words) made.textContent = words;
  return made;
}

// An arrow from the origin along the axis, its head at `end`.
const arrow = (kind, from, end, high, head = 16) => [
  shape("line", { class: kind, x1: from, y1: high, x2: end - Math.sign(end - from) * head * 0.8, y2: high }),
  shape("polygon", { class: kind, points: `${end},${high} ${end - Math.sign(end - from) * head},${high - head / 2} ${end - Math.sign(end - from) * head},${high + head / 2}` }),
];

const guidance = {
  thumb(drawing, run, at) {
    const { noise, noise_uncond } = recordAt(run, at);
    draw.latents(drawing, noise_uncond ? difference(noise, noise_uncond) : noise, run.facts.latents);
    return noise_uncond ? `× ${run.settings.guidance_scale}` : "off";
  },
  show(host, run, at) {
    const now = recordAt(run, at), svg = find(host, ".arrows"), told = find(host, ".told"), scale = run.settings.guidance_scale;
    const negative = run.against.words.length ? "for what it is to be kept away from" : "without the words";
    const wanted = now.noise_uncond && difference(now.noise_text, now.noise_uncond), most = wanted && Math.max(...wanted.map(Math.abs));
    find(host, "canvas.uncond").closest("figure").lastChild.textContent = negative;
    find(host, "canvas.push").closest("figure").lastChild.textContent = `the difference, ${Math.round(3 / (most || 3))} times as bright`;
    tiles(host, run, at, step => ({
      uncond: [step.noise_uncond], "told-of": [step.noise_text], guided: [step.noise],
      push: [wanted, most],
    }));
    if (!now.noise_uncond) {
      svg.replaceChildren();
      told.textContent = "Guidance is off: it takes a scale above 1. The UNet is asked once a step, with the words.";
      label(svg, told.textContent);
      return;
    }
    const ended = run.picture && run.steps.at(-1).next_latents, { alphas_cumprod } = run.facts;
    const plane = guidancePlane(now, alphas_cumprod[Math.round(now.timestep)], ended || now.predicted_x0), far = scale * plane.push;
    const [along, across] = plane.truth, left = Math.min(0, along), right = Math.max(far, along, plane.push), wide = right - left || 1;
    const x = value => 70 + (500 * (value - left)) / wide, base = 225, y = value => base - (150 * value) / (across || 1);
    const marks = [
      shape("line", { class: "axis", x1: 30, y1: base, x2: 620, y2: base }), ...arrow("guided", x(0), x(far), base), ...arrow("told-of", x(0), x(plane.push), base),
      shape("circle", { class: "uncond", cx: x(0), cy: base, r: 7 }), shape("text", { class: "uncond", x: x(0), y: base + 32 }, "without the words"),
      shape("text", { class: "told-of", x: x(plane.push), y: base - 20 }, "with the words"),
      shape("text", { class: "guided", x: x(far), y: base + 58 }, `guided, × ${scale}`),
    ];
    if (ended) marks.push(
      shape("line", { class: "truth", x1: x(along), y1: y(across), x2: x(along), y2: base }), shape("circle", { class: "truth", cx: x(along), cy: y(across), r: 9 }),
      shape("text", { class: "truth", x: Math.min(x(along), 480), y: y(across) - 18 }, "the noise between here and the picture"),
    );
    svg.replaceChildren(...marks);
    told.textContent = `At step ${now.index + 1} the words push by ${percent(plane.push)} of the noise’s length; guidance goes on to ${percent(far)}.`
      + (ended ? ` Straight along the arrow, × ${plane.best_scale.toFixed(1)} comes nearest to the noise that the picture of this run leaves.` : "");
    label(svg, told.textContent);
  },
};

const steps = {
  thumb(drawing, run, at) {
    const now = recordAt(run, at);
    draw.latents(drawing, done(run, at) ? now.next_latents : now.latents, run.facts.latents);
    return `${now.index + 1} of ${now.calls}`;
  },
  show(host, run, at, view, act) {
    paintStep(find(host, ".picture"), run, at);
    const now = recordAt(run, at), shown = Math.min(at, now.calls);
    find(host, "figcaption").textContent = name(run, at);
    tiles(host, run, at, step => ({
      latents: [done(run, at) ? step.next_latents : step.latents], uncond: [step.noise_uncond], guided: [step.noise],
      push: [step.noise_uncond && difference(step.noise, step.noise_uncond)],
    }));
    const frames = [...new Set(Array.from({ length: 8 }, (_, i) => Math.round((i * (now.calls - 1)) / 7)))];
    const here = frames.filter(index => index < run.steps.length);
    once(find(host, ".film"), `${run.number} ${here.length} ${Boolean(run.picture)} ${here.filter(index => run.decoded.has(index))}`, () => [...here, ...run.picture ? [run.steps.length] : []].map(index => {
      const result = index === run.steps.length, above = element("canvas", { className: "cells", ariaHidden: "true" }), below = element("canvas", { ariaHidden: "true" }), step = recordAt(run, index);
      draw.latents(above, result ? step.next_latents : step.latents, run.facts.latents);
      paintStep(below, run, index);
      return element("li", {}, element("button", { type: "button", className: "jump", data: { step: index }, onclick: () => act.goTo(run, index) },
        above, below, element("span", {}, result ? "picture" : `step ${index + 1}`), element("small", {}, result ? "decoded" : `t = ${Math.round(step.timestep)}`)));
    }));
    markFrame(host, shown);
    const note = find(host, ".note"), again = now.calls - run.settings.steps;
    note.hidden = !again;
    note.textContent = `${now.calls} calls of the UNet for ${run.settings.steps} steps: PNDM visits the second time twice, to correct the step that led there.`;
  },
};

const quoted = words => `'${words.replaceAll("'", "'\\''")}'`;
const picture = {
  thumb(drawing, run, at) {
    paintStep(drawing, run, at);
    return done(run, at) ? `${run.picture.width} × ${run.picture.height}` : `step ${Math.min(at, run.steps.length - 1) + 1}`;
  },
  show(host, run, at) {
    const drawing = find(host, ".picture"), now = recordAt(run, at), { latents, factor, name: model } = run.facts, { settings } = run;
    paintStep(drawing, run, at);
    find(host, "figcaption").textContent = name(run, at);
    const small = find(host, ".latents");
    draw.latents(small, done(run, at) ? now.next_latents : now.predicted_x0, latents);
    const [channels, height, width] = latents;
    small.closest("figure").lastChild.textContent = `${channels} × ${height} × ${width} latents become ${3} × ${factor * height} × ${factor * width} numbers of colour`;
    label(small, "the latents that it is decoded from");
    const not = settings.negative_prompt.trim() ? ` --negative-prompt ${quoted(settings.negative_prompt)}` : "";
    find(host, "pre").textContent = `sdteach generate ${quoted(settings.prompt)} --out picture.png${model === "picturebook" ? "" : ` --model ${quoted(model)}`}`
      + ` --seed ${settings.seed} --steps ${settings.steps} --guidance-scale ${settings.guidance_scale} --scheduler ${settings.sampler}${not}`;
    find(host, ".save").onclick = () => drawing.toBlob(data => {
      const link = element("a", { href: URL.createObjectURL(data), download: "picture.png" });
      link.click();
      URL.revokeObjectURL(link.href);
    });
  },
};

export const stages = { words, vectors, noise, reading, guidance, steps, picture };
