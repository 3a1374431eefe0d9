// The bar across the top of both pages: the controls that go from step to step, and the map of the stages, of which one is lit.
const slider = document.querySelector(".controls input"), play = document.querySelector(".play"), now = document.querySelector(".now");
const calm = matchMedia("(prefers-reduced-motion: reduce)");

// `most()` steps there are at this moment; the stop behind them is the result. `show()` draws the `stop` that is gone to.
export function scrubber(most, show) {
  let timer = null;
  const self = {
    stop: 1,
    goTo(stop) {
      self.stop = Math.min(Math.max(stop, 1), most() + 1);
      show();
    },
    turnTo(stop) {
      self.pause();
      self.goTo(stop);
    },
    pause() {
      clearInterval(timer);
      timer = null;
      play.textContent = "Play";
    },
    start() {
      if (self.stop > most()) self.goTo(1);
      play.textContent = "Pause";
      timer = setInterval(() => {
        self.goTo(self.stop + 1);
        if (self.stop > most()) self.pause();
      }, Math.max(Math.min(6000 / most(), 700), calm.matches ? 1000 : 80));
    },
    // The step that a run of `last` steps shows here, from 0, its number of steps for the result; and the stop where it shows a step.
    stepOf: last => self.stop > most() ? last : most() < 2 ? 0 : Math.round(((self.stop - 1) / (most() - 1)) * (last - 1)),
    stopOf: (step, last) => step >= last ? most() + 1 : last < 2 ? 1 : 1 + Math.round((step / (last - 1)) * (most() - 1)),
    tell(words) {
      Object.assign(slider, { max: most() + 1, value: Math.min(self.stop, most() + 1) });
      slider.setAttribute("aria-valuetext", words);
      now.textContent = words;
    },
  };
  slider.addEventListener("input", () => self.turnTo(+slider.value));
  document.querySelector(".back").addEventListener("click", () => self.turnTo(self.stop - 1));
  document.querySelector(".on").addEventListener("click", () => self.turnTo(self.stop + 1));
  play.addEventListener("click", () => timer ? self.pause() : self.start());
  addEventListener("keydown", event => { // a presenter's keys, wherever the focus rests
    if (event.ctrlKey || event.altKey || event.metaKey || event.defaultPrevented || slider.closest("[hidden]")) return;
    if (event.target.closest("input:not(.controls input), select, .wide, pre")) return;
    const stop = { ArrowLeft: self.stop - 1, ArrowRight: self.stop + 1, Home: 1, End: most() + 1 }[event.key];
    if (event.key === " " && !event.target.closest("button, summary, a")) play.click();
    else if (stop !== undefined) self.turnTo(stop);
    else return;
    event.preventDefault();
  });
  return self;
}

// Lights a stage of the map and has it in sight; `told` are the small words under each stage that has changed.
export function light(stage, told) {
  const list = document.querySelector(".map > ol"), { left, width } = list.getBoundingClientRect();
  for (const link of list.querySelectorAll("a")) {
    const words = told[link.dataset.stage], own = link.getBoundingClientRect();
    if (words !== undefined) link.querySelector("small").textContent = words;
    if (link.dataset.stage !== stage) link.removeAttribute("aria-current");
    else if (!link.hasAttribute("aria-current")) {
      link.setAttribute("aria-current", "step");
      list.scrollLeft += own.left + own.width / 2 - left - width / 2;
    }
  }
}

// Marks the frame of a film where a step is: the last one that does not come after it.
export function markFrame(host, step) {
  const frames = [...host.querySelectorAll(".jump")], near = frames.findLast(frame => +frame.dataset.step <= step);
  for (const frame of frames) if (frame === near) frame.setAttribute("aria-current", "step"); else frame.removeAttribute("aria-current");
}
