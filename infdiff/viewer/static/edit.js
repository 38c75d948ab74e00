// The page for enlarging and filling: a picture and a mask go to the server, variants come back one after another.
"use strict";

const byId = (id) => document.getElementById(id);
const most = 32 * 2 ** 20;
let picture = null; // {picture, width, height} as the server names it
let loadedMask = null;
let job = null;
const painter = new MaskPainter(byId("paint"), byId("cursor"), () => { loadedMask = null; });

function say(message) { byId("error").textContent = message; }

async function ask(url, options) {
  let response;
  try {
    response = await fetch(url, options);
  } catch (error) {
    throw new Error("The server does not answer.");
  }
  const content = await response.json();
  if (!response.ok) throw new Error(content.error);
  return content;
}

const send = (url, body) => {
  if (body && body.size > most) throw new Error(`${(body.size / 2 ** 20).toFixed(0)} MiB: at most 32 MiB are taken`);
  return ask(url, { method: "POST", body: body ?? "" });
};

function sized(element, width, height) {
  element.style.aspectRatio = `${width} / ${height}`;
  element.style.maxWidth = `min(100%, ${(0.7 * innerHeight * width / height).toFixed(0)}px)`;
}

async function take(file) {
  say("");
  try {
    const given = await send(`/api/pictures?name=${encodeURIComponent(file.name || "picture")}`, file);
    const bitmap = await createImageBitmap(file).catch(() => null);
    picture = { ...given, name: (file.name || "picture").replace(/\.[^.]*$/, "") };
    const base = byId("base");
    [base.width, base.height] = [given.width, given.height];
    // A format that the browser cannot show is shown as the server reads it.
    if (bitmap && bitmap.width === given.width && bitmap.height === given.height) base.getContext("2d").drawImage(bitmap, 0, 0);
    else base.getContext("2d").drawImage(await loaded(bicubic(given)), 0, 0);
    painter.reset(given.width, given.height);
    loadedMask = null;
    sized(byId("stage"), given.width, given.height);
    byId("size").value = Math.max(given.width, given.height);
    byId("size").min = byId("size").value;
    byId("work").hidden = false;
    byId("results").hidden = true;
  } catch (error) {
    say(error.message);
  }
}

const bicubic = ({ height, width }) => `/api/pictures/${picture.picture}/bicubic.png?height=${height}&width=${width}`;

function loaded(url) {
  const image = new Image();
  image.src = url;
  return image.decode().then(() => image);
}

async function takeMask(file) {
  say("");
  try {
    const { mask } = await send(`/api/pictures/${picture.picture}/mask?name=${encodeURIComponent(file.name)}`, file);
    painter.load(await createImageBitmap(file));
    loadedMask = mask;
  } catch (error) {
    say(error.message);
  }
}

async function begin() {
  say("");
  try {
    let mask = loadedMask;
    if (!mask) {
      const drawn = await painter.mask();
      if (drawn) mask = (await send(`/api/pictures/${picture.picture}/mask?name=mask`, drawn)).mask;
    }
    const wanted = new URLSearchParams({ count: byId("count").value, seed: byId("seed").value });
    if (Number(byId("size").value) !== Math.max(picture.width, picture.height)) wanted.set("size", byId("size").value);
    if (mask) wanted.set("mask", mask);
    const started = await send(`/api/pictures/${picture.picture}/jobs?${wanted}`);
    job = { name: started.job, shown: 0, size: started.size, from: { ...picture } };
    byId("variants").replaceChildren();
    byId("results").hidden = true;
    follow(job);
  } catch (error) {
    say(error.message);
  }
}

async function follow(one) {
  busy(true);
  try {
    for (;;) {
      const state = await ask(`/api/jobs/${one.name}`);
      byId("progress").value = state.done;
      byId("status").textContent = state.running ? `${state.made} of ${state.count} made, ${Math.round(100 * state.done)} %` : `${state.made} made`;
      while (one.shown < state.made) await arrived(one, one.shown++);
      if (state.error) say(state.error);
      if (!state.running) break;
      await new Promise((resolve) => setTimeout(resolve, 250));
    }
  } catch (error) {
    say(error.message);
  }
  busy(false);
}

function busy(on) {
  byId("go").disabled = on;
  byId("cancel").hidden = byId("progress").hidden = !on;
}

async function arrived(one, number) {
  const url = `/api/jobs/${one.name}/${number}.png`;
  const image = await loaded(url);
  const button = document.createElement("button");
  const small = document.createElement("img");
  small.src = url;
  small.alt = `variant ${number + 1}`;
  button.append(small);
  button.addEventListener("click", () => choose(one, number, url, image));
  byId("variants").append(button);
  if (number === 0) choose(one, number, url, image);
}

function choose(one, number, url, image) {
  byId("results").hidden = false;
  byId("before").src = bicubic({ height: one.size[0], width: one.size[1] });
  byId("after").src = url;
  sized(byId("compare"), one.size[1], one.size[0]);
  byId("save").href = url;
  byId("save").download = `${one.from.name}-${one.size[1]}x${one.size[0]}-${number + 1}.png`;
  [...byId("variants").children].forEach((b, i) => b.setAttribute("aria-pressed", i === number));
  compare();
}

function compare() {
  const part = byId("slider").value;
  byId("after").style.clipPath = `inset(0 0 0 ${part}%)`;
  document.querySelector(".divider").style.left = `${part}%`;
}

function brush(erasing) {
  painter.erasing = erasing;
  byId("brush").setAttribute("aria-pressed", !erasing);
  byId("eraser").setAttribute("aria-pressed", erasing);
}

byId("picture").addEventListener("change", (event) => { if (event.target.files[0]) take(event.target.files[0]); event.target.value = ""; });
byId("mask").addEventListener("change", (event) => { if (event.target.files[0]) takeMask(event.target.files[0]); event.target.value = ""; });
byId("brush").addEventListener("click", () => brush(false));
byId("eraser").addEventListener("click", () => brush(true));
byId("width").addEventListener("input", (event) => { painter.width = Number(event.target.value); });
byId("undo").addEventListener("click", () => painter.undo());
byId("clear").addEventListener("click", () => painter.clear());
byId("go").addEventListener("click", begin);
byId("cancel").addEventListener("click", () => job && send(`/api/jobs/${job.name}/cancel`).catch((error) => say(error.message)));
byId("slider").addEventListener("input", compare);
const slide = (event) => {
  if (event.type === "pointermove" && !event.buttons) return;
  const box = byId("compare").getBoundingClientRect();
  byId("slider").value = 100 * (event.clientX - box.left) / box.width;
  compare();
};
byId("compare").addEventListener("pointerdown", slide);
byId("compare").addEventListener("pointermove", slide);
for (const name of ["dragover", "drop", "dragleave"]) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    byId("drop").classList.toggle("over", name === "dragover");
    if (name === "drop" && event.dataTransfer.files[0]) take(event.dataTransfer.files[0]);
  });
}
document.addEventListener("paste", (event) => { if (event.clipboardData.files[0]) take(event.clipboardData.files[0]); });
ask("/api/run").then((run) => { byId("run").textContent = `${run.run}, step ${run.step} as loaded at the start`; }).catch((error) => say(error.message));
