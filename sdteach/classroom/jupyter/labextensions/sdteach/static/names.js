// The sliders and players of ipywidgets have no names of their own, and a slider of choices tells the place of its value instead of it.
(() => {
  const players = { play: "Play", pause: "Pause", stop: "Stop", retweet: "Repeat" };
  const set = (element, name, value) => element.getAttribute(name) !== value && element.setAttribute(name, value);
  const nameAll = () => {
    for (const slider of document.querySelectorAll(".widget-slider")) {
      const label = slider.querySelector(".widget-label")?.textContent ?? "";
      const value = slider.querySelector(".widget-readout")?.textContent ?? "";
      const handles = slider.querySelectorAll(".noUi-handle");
      handles.forEach((handle, index) => {
        set(handle, "aria-label", handles.length > 1 ? `${label}, ${index ? "to" : "from"}` : label);
        if (handles.length === 1) set(handle, "aria-valuetext", value);
      });
    }
    for (const icon of document.querySelectorAll(".widget-play button > i")) {
      const name = Object.keys(players).find((kind) => icon.classList.contains(`fa-${kind}`));
      if (name) set(icon.parentElement, "aria-label", players[name]);
    }
  };
  const seen = { childList: true, subtree: true, characterData: true, attributeFilter: ["class", "aria-valuetext"] };
  const extension = { id: "sdteach:names", autoStart: true, activate: () => new MutationObserver(nameAll).observe(document.body, seen) };
  (window._JUPYTERLAB ??= {}).sdteach = { init: () => {}, get: async () => () => ({ __esModule: true, default: extension }) };
})();
