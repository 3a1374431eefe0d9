// After the first visit the page needs no network: a service worker keeps its files. They come through it with the two headers without
// which browsers allow no threads, so the first visit ends with one reload.
export async function keepForLater(loading) {
  const keeper = navigator.serviceWorker; // not there on a plain http address of another machine: then the page runs without
  if (!keeper || keeper.controller || sessionStorage.getItem("kept")) return;
  keeper.addEventListener("message", ({ data }) => loading(data.fraction));
  try {
    const { installing, active } = await keeper.register("service.js");
    if (!active) await new Promise((done, failed) => installing.addEventListener("statechange", () => {
      if (installing.state === "activated") done();
      if (installing.state === "redundant") failed(new Error("the files could not be kept"));
    }));
    sessionStorage.setItem("kept", "once");
    location.reload();
    await new Promise(() => {});
  } catch {
    sessionStorage.setItem("kept", "never"); // too little room, or not allowed: the page runs all the same, with the network
  }
}
