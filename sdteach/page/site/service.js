// Keeps this version of the page's files, and answers with them, with or without a network.
"use strict";
const FILES = {{ files | tojson }};
const OWN = `sdteach ${registration.scope}`, KEPT = `${OWN} {{ version }}`;

async function keep() {
  const cache = await caches.open(KEPT);
  for (const [index, name] of FILES.entries()) {
    const answer = await fetch(name, { cache: "no-cache" });
    if (!answer.ok) throw new Error(name);
    await cache.put(name, answer);
    for (const page of await clients.matchAll({ includeUncontrolled: true })) page.postMessage({ fraction: (index + 1) / FILES.length });
  }
  await skipWaiting();
}

async function takeOver() {
  for (const name of await caches.keys()) if (name.startsWith(`${OWN} `) && name !== KEPT) await caches.delete(name);
  await clients.claim();
}

async function answer(request) {
  const name = new URL(request.url).href.slice(registration.scope.length).split(/[?#]/)[0] || "index.html";
  const kept = await (await caches.open(KEPT)).match(name) ?? await fetch(request);
  const headers = new Headers(kept.headers);
  headers.set("Cross-Origin-Opener-Policy", "same-origin");
  headers.set("Cross-Origin-Embedder-Policy", "require-corp");
  return new Response(kept.body, { status: kept.status, headers });
}

addEventListener("install", event => event.waitUntil(keep()));
addEventListener("activate", event => event.waitUntil(takeOver()));
addEventListener("fetch", event => {
  if (event.request.method === "GET" && event.request.url.startsWith(registration.scope)) event.respondWith(answer(event.request));
});
