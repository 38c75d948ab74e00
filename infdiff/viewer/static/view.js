// The page of a zoom: one viewer for each seed, which move together, and tiles that are sampled when they are looked at.
"use strict";

const byId = (id) => document.getElementById(id);
const views = new Map(); // seed -> {viewer, element, pending}
let run = null;
let leading = null; // the viewer that the others follow

// A tile that is given up is no error, which the viewer would log.
const givenUp = ["out of sight", "Image load aborted."], log = OpenSeadragon.console;
OpenSeadragon.console = Object.assign(Object.create(log), {
  error: (...words) => { if (!givenUp.includes(words.at(-1))) log.error(...words); },
});

// A browser opens few connections to one server, and tiles are drawn one at a time: the rest waits here.
const queue = { running: 0, waiting: [], most: 2 };

function next() {
  while (queue.running < queue.most && queue.waiting.length) {
    const job = queue.waiting.shift();
    if (job.ended) continue;
    queue.running += 1;
    load(job).finally(() => { queue.running -= 1; next(); });
  }
}

async function load(job) {
  try {
    const response = await fetch(job.context.src, { signal: job.abort.signal });
    if (!response.ok) throw new Error((await response.json()).error);
    const blob = await response.blob();
    end(job);
    job.context.finish(blob, null, "rasterBlob");
  } catch (error) {
    if (job.ended) return;
    end(job);
    byId("error").textContent = error instanceof TypeError ? "The server does not answer." : error.message;
    job.context.fail(error.message, null);
  }
}

function end(job) {
  job.ended = true;
  job.view.pending.delete(job.context.tile);
}

// A tile that is out of sight again is not waited for: the server notices, and ends its sampling.
function dropUnseen(view) {
  const seen = view.viewer.viewport.getBounds();
  for (const [tile, job] of [...view.pending]) {
    const b = tile.bounds;
    const apart = b.x > seen.x + seen.width || b.x + b.width < seen.x || b.y > seen.y + seen.height || b.y + b.height < seen.y;
    const pixels = b.width / seen.width * view.viewer.container.clientWidth;
    if (!apart && pixels > run.tile / 4) continue;
    end(job);
    job.abort.abort();
    job.context.fail(givenUp[0], null);
    setTimeout(() => { tile.exists = true; view.viewer.forceRedraw(); }, 0);
  }
}

function sourceOf(seed, view) {
  return {
    width: run.size[1], height: run.size[0], tileSize: run.tile, tileOverlap: 0,
    minLevel: run.firstLevel, maxLevel: run.levels,
    getTileUrl: (level, x, y) => `/tiles/${seed}/${level}/${x}_${y}.png`,
    downloadTileStart(context) {
      const job = { context, view, abort: new AbortController(), ended: false };
      view.pending.set(context.tile, job);
      queue.waiting.push(job);
      next();
    },
    downloadTileAbort(context) {
      const job = view.pending.get(context.tile);
      if (job) { end(job); job.abort.abort(); }
    },
  };
}

function show(seed) {
  if (views.has(seed)) return;
  const element = document.createElement("div");
  element.className = "view";
  element.innerHTML = '<div class="canvas"></div><div class="name"><span></span><button aria-label="Close">×</button></div>';
  element.querySelector(".name span").textContent = `seed ${seed}`;
  element.querySelector(".name button").addEventListener("click", () => hide(seed));
  byId("views").append(element);
  const view = { seed, element, pending: new Map() };
  views.set(seed, view);
  view.viewer = OpenSeadragon({
    element: element.querySelector(".canvas"), tileSources: sourceOf(seed, view), drawer: "canvas",
    showNavigationControl: false, maxZoomPixelRatio: 4, visibilityRatio: 0.5, imageLoaderLimit: 0, timeout: 3600000,
    gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: true },
  });
  view.viewer.addHandler("open", () => {
    const other = [...views.values()].find((v) => v !== view && v.viewer.isOpen());
    if (other) follow(view, other); else place(view);
  });
  view.viewer.addHandler("viewport-change", () => moved(view));
  view.viewer.addHandler("tile-loaded", () => { byId("error").textContent = ""; });
  view.viewer.addHandler("canvas-press", () => { leading = view; });
  view.viewer.addHandler("canvas-scroll", () => { leading = view; });
  view.viewer.addHandler("canvas-key", (event) => {
    leading = view;
    // The viewer's own keys for these are places on an American keyboard.
    if (keys[event.originalEvent.key]) event.preventDefaultAction = true;
  });
  listed();
}

function hide(seed) {
  if (views.size < 2) return;
  const view = views.get(seed);
  for (const job of view.pending.values()) { job.ended = true; job.abort.abort(); }
  views.delete(seed);
  if (leading === view) leading = null;
  view.viewer.destroy();
  view.element.remove();
  listed();
}

function listed() {
  for (const view of views.values()) view.element.querySelector("button").hidden = views.size < 2;
  setTimeout(keep, 0);
}

function follow(view, other) {
  const from = other.viewer.viewport, to = view.viewer.viewport;
  to.zoomTo(from.getZoom(false), null, true);
  to.panTo(from.getCenter(false), true);
}

let resting = null;
function moved(view) {
  if (views.get(view.seed) !== view) return; // a last move of a view that was closed while it moved
  if (!leading) leading = view;
  if (view === leading) {
    for (const other of views.values()) if (other !== view && other.viewer.isOpen()) follow(other, view);
  }
  clearTimeout(resting);
  resting = setTimeout(() => {
    for (const one of views.values()) if (one.viewer.isOpen()) dropUnseen(one);
    keep();
  }, 250);
}

// The link: seeds, the centre in parts of the image, and how often the image is wider than the view.
function keep() {
  const view = leading || [...views.values()][0];
  if (!view || !view.viewer.isOpen()) return;
  const c = view.viewer.viewport.getCenter(false), zoom = view.viewer.viewport.getZoom(false);
  const part = new URLSearchParams({
    seeds: [...views.keys()].join(","), x: c.x.toFixed(6), y: (c.y * run.size[1] / run.size[0]).toFixed(6), zoom: zoom.toFixed(4),
  });
  history.replaceState(null, "", `#${decodeURIComponent(part)}`);
}

function linked() {
  const part = new URLSearchParams(location.hash.slice(1));
  const seeds = (part.get("seeds") || "").split(",").filter((s) => /^\d{1,10}$/.test(s)).map(Number);
  return {
    seeds: seeds.filter((s) => s <= run.mostSeed).slice(0, 8),
    x: Number(part.get("x")), y: Number(part.get("y")), zoom: Number(part.get("zoom")),
  };
}

function place(view) {
  const { x, y, zoom } = linked();
  if (!(zoom > 0) || !Number.isFinite(x + y + zoom)) return;
  view.viewer.viewport.zoomTo(zoom, null, true);
  view.viewer.viewport.panTo(new OpenSeadragon.Point(x, y * run.size[0] / run.size[1]), true);
}

function opened() {
  const wanted = linked().seeds;
  const seeds = wanted.length ? wanted : run.seeds;
  for (const seed of seeds) show(seed);
  for (const seed of [...views.keys()]) if (!seeds.includes(seed)) hide(seed);
}

async function watch() {
  const pending = [...views.values()].reduce((sum, view) => sum + view.pending.size, 0);
  try {
    if (pending) {
      const state = await (await fetch("/api/progress")).json();
      const now = state.drawing;
      byId("progress").hidden = !now;
      if (now) byId("progress").value = now.step / now.steps;
      const tile = now ? `seed ${now.seed}, ${run.base[1] * 2 ** (now.level - run.firstLevel)} pixels, tile ${now.column}, ${now.row}: step ${now.step} of ${now.steps}; ` : "";
      byId("status").textContent = `${tile}${pending} ${pending === 1 ? "tile" : "tiles"} to come`;
    } else {
      byId("progress").hidden = true;
      byId("status").textContent = "";
    }
    marked();
  } catch (error) {
    byId("error").textContent = "The server does not answer.";
  }
  setTimeout(watch, pending ? 300 : 600);
}

// A frame around each tile that is on its way.
function marked() {
  for (const view of views.values()) {
    if (!view.viewer.isOpen()) continue;
    view.viewer.clearOverlays();
    for (const tile of view.pending.keys()) {
      const frame = document.createElement("div");
      frame.className = "pending";
      view.viewer.addOverlay({ element: frame, location: tile.bounds.clone() });
    }
  }
}

function lead(act) {
  const view = leading || [...views.values()][0];
  leading = view;
  act(view.viewer.viewport);
}

const zoomIn = () => lead((v) => v.zoomBy(2)), zoomOut = () => lead((v) => v.zoomBy(0.5)), home = () => lead((v) => v.goHome());
const keys = { "+": zoomIn, "=": zoomIn, "-": zoomOut, "0": home };
byId("in").addEventListener("click", zoomIn);
byId("out").addEventListener("click", zoomOut);
byId("home").addEventListener("click", home);
document.addEventListener("keydown", (event) => {
  const act = keys[event.key];
  if (!act || !views.size || event.ctrlKey || event.altKey || event.metaKey || event.target.matches("input")) return;
  act();
  event.preventDefault();
});
byId("add").addEventListener("click", () => {
  const seed = Number(byId("seed").value);
  if (!Number.isInteger(seed) || seed < 0 || seed > run.mostSeed) {
    byId("error").textContent = `Seeds are whole numbers from 0 to ${run.mostSeed}.`;
    return;
  }
  show(seed);
  byId("seed").value = seed + 1;
});
byId("link").addEventListener("click", async () => {
  keep();
  try {
    await navigator.clipboard.writeText(location.href);
    byId("status").textContent = "Copied.";
  } catch (error) {
    byId("status").textContent = "Copy the address of this page: it says the place and the seeds.";
  }
});
window.addEventListener("hashchange", () => { opened(); for (const view of views.values()) if (view.viewer.isOpen()) place(view); });

async function begin() {
  try {
    run = await (await fetch("/api/run")).json();
  } catch (error) {
    byId("error").textContent = "The server does not answer.";
    return;
  }
  byId("run").textContent = `${run.run}, step ${run.step} as loaded at the start: a training that goes on changes nothing here. ${run.size[1]} × ${run.size[0]} pixels.`;
  opened();
  watch();
}
begin();
