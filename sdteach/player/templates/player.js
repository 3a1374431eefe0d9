{% include "way.mjs" %}

const { runs, heat } = JSON.parse(document.getElementById("runs").textContent);
const bytes = text => Uint8Array.from(atob(text), letter => letter.charCodeAt(0));
const find = (within, what) => within.querySelector(what);
const each = (within, what, act) => within.querySelectorAll(what).forEach(act);
const inferno = bytes(heat);
const most = Math.max(...runs.map(run => run.steps.length));
const controls = scrubber(() => most, show);
let word = null; // the chosen word: {run, index}

// The maps of a run's words lie one behind the other, a byte for each position.
function mapOf(run, maps, index) {
  const [width, height] = run.grid, all = bytes(maps);
  return all.subarray(index * width * height, (index + 1) * width * height);
}

// Values as colours, smooth between them: on paper too, where a browser does not smooth what it makes larger.
function draw(canvas, values, width, height) {
  const pixels = new ImageData(width, height), small = new OffscreenCanvas(width, height);
  values.forEach((value, at) => pixels.data.set([...inferno.subarray(3 * value, 3 * value + 3), 255], 4 * at));
  small.getContext("2d").putImageData(pixels, 0, 0);
  Object.assign(canvas, { width: 9 * width, height: 9 * height });
  canvas.getContext("2d").drawImage(small, 0, 0, canvas.width, canvas.height);
}

function where(run, values, index) {
  const [width, height] = run.grid, at = values.indexOf(Math.max(...values));
  const across = Math.round((100 * (at % width + 0.5)) / width), down = Math.round((100 * (Math.floor(at / width) + 0.5)) / height);
  return `where “${run.words[index]}” was read: most at ${across}% from the left, ${down}% from the top`;
}

// Which word of a run is the chosen one: itself, or in the other run the same at its place, or wherever it stands there.
function wordOf(run) {
  if (!word) return -1;
  const name = runs[word.run].words[word.index];
  return run === runs[word.run] || run.words[word.index] === name ? word.index : run.words.indexOf(name);
}

function showRun(run) {
  const { element } = run, step = controls.stepOf(run.steps.length), record = run.steps[step]; // none: the result
  const from = record ? run.steps.slice(0, step + 1).findLastIndex(one => one.picture) : -1; // some traces hold a picture now and then
  const picture = find(element, "img.picture");
  const count = runs.length > 1 ? `, step ${from + 1} of ${run.steps.length}` : from < step ? `, of step ${from + 1}` : "";
  let caption = from < 0 ? "the picture" : run.caption + count;
  picture.src = from < 0 ? run.picture : run.steps[from].picture;
  picture.alt = from < 0 ? run.alt : `${run.caption} at step ${from + 1}`;
  picture.classList.toggle("blocks", from >= 0 && run.blocks);
  each(element, ".tiles img", image => {
    const part = image.classList[1], shown = record ?? { ...run.steps.at(-1), latents: run.latents };
    const when = record ? `at step ${step + 1}` : part === "latents" ? "at the end" : "at the last step";
    image.src = shown[part];
    image.alt = `${image.closest("figure").textContent}, ${when}`;
  });
  const canvas = find(element, ".main .heat"), index = run.maps ? wordOf(run) : -1, maps = record?.maps ?? run.maps;
  canvas.hidden = index < 0;
  canvas.parentElement.classList.toggle("heated", index >= 0);
  if (index >= 0) {
    const values = mapOf(run, maps, index), when = record?.maps ? `at step\u00a0${step + 1}` : run.when;
    draw(canvas, values, ...run.grid);
    canvas.setAttribute("aria-label", `${where(run, values, index)}, ${when}`);
    caption = `where “${run.words[index]}” was read ${when}, over ${from < 0 ? "the picture" : run.caption}`;
  }
  find(element, ".caption").textContent = caption;
  each(element, ".chip[data-word]", chip => chip.setAttribute("aria-pressed", +chip.dataset.word === index));
  markFrame(element, step);
  const thumb = (stage, draw) => each(document, `[data-stage=${stage}] .of-${runs.indexOf(run)}`, image => { image.src = draw(); });
  thumb("guidance", () => find(element, ".push").src);
  thumb("steps", () => (find(element, ".tiles .latents") ?? picture).src);
  thumb("picture", () => picture.src);
  thumb("reading", () => {
    const drawing = document.createElement("canvas");
    draw(drawing, mapOf(run, maps, index < 0 ? run.lead : index), ...run.grid);
    return drawing.toDataURL();
  });
}

function show() {
  const longest = runs.find(run => run.steps.length === most), at = controls.stepOf(most), step = longest.steps[at];
  controls.tell(step ? `step ${at + 1} of ${most}, t = ${Math.round(step.t)}` : "the picture");
  runs.forEach(showRun);
  const [run] = runs, told = { steps: `${Math.min(at + 1, most)} of ${most}`, reading: `“${run.words[word?.index ?? run.lead]}”` };
  light(word ? "reading" : step ? "steps" : "picture", runs.length > 1 ? {} : told);
}

function choose(run, index) {
  word = word && wordOf(runs[run]) === index ? null : { run, index };
  show();
  find(document, ".status").textContent = word ? runs.filter(one => one.maps && wordOf(one) >= 0)
    .map(one => find(one.element, ".main .heat").getAttribute("aria-label")).join("; ") : "No word is chosen.";
}

document.querySelectorAll(".run").forEach((element, number) => {
  const run = Object.assign(runs[number], { element, lead: +element.dataset.lead }), picture = find(element, "img.picture");
  run.alt = picture.alt;
  element.style.setProperty("--aspect", picture.getAttribute("width") / picture.getAttribute("height"));
  run.picture = picture.src;
  each(element, ".chip[data-word]", chip => chip.addEventListener("click", () => choose(number, +chip.dataset.word)));
  each(element, ".jump", jump => jump.addEventListener("click", () => controls.turnTo(controls.stopOf(+jump.dataset.step, run.steps.length))));
  each(element, ".of-word", canvas => {
    const index = +canvas.dataset.word, values = mapOf(run, run.maps, index), under = picture.cloneNode();
    under.alt = "";
    under.className = "";
    canvas.before(under);
    canvas.parentElement.classList.add("heated");
    draw(canvas, values, ...run.grid);
    canvas.setAttribute("aria-label", where(run, values, index));
  });
});
each(document, ".map a", link => link.addEventListener("click", () => {
  const { stage } = link.dataset;
  each(document, `#${stage}, #other-${stage}`, part => part.closest("details")?.setAttribute("open", ""));
  if (stage === "picture" && most > 0) controls.turnTo(most + 1);
}));
each(document, ".scale", canvas => draw(canvas, Uint8Array.from({ length: 256 }, (_, value) => value), 256, 1));

if (most > 0) {
  find(document, ".controls").hidden = false;
  controls.goTo(most + 1);
}

// On paper everything is open.
const closed = [];
addEventListener("beforeprint", () => each(document, "details:not([open])", one => { closed.push(one); one.open = true; }));
addEventListener("afterprint", () => closed.splice(0).forEach(one => { one.open = false; }));
