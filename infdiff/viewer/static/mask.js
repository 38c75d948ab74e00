// Painting of a mask over a picture, by mouse, pen, finger and keyboard.
"use strict";

class MaskPainter {
  // cursor: an element that shows the brush of the keyboard, over the canvas.
  constructor(canvas, cursor, onStroke) {
    this.canvas = canvas;
    this.cursor = cursor;
    this.pen = canvas.getContext("2d", { willReadFrequently: true });
    this.onStroke = onStroke;
    this.erasing = false;
    this.width = 20;
    this.earlier = [];
    this.at = null; // the keyboard's place
    canvas.addEventListener("pointerdown", (event) => {
      if (event.button) return;
      cursor.hidden = true;
      canvas.setPointerCapture(event.pointerId);
      this.remember();
      this.last = this.place(event);
      this.line(this.last, this.last);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (!this.last) return;
      for (const one of event.getCoalescedEvents?.() ?? [event]) {
        const here = this.place(one);
        this.line(this.last, here);
        this.last = here;
      }
    });
    for (const name of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(name, () => { if (this.last) { this.last = null; this.onStroke(); } });
    }
    canvas.addEventListener("keydown", (event) => this.key(event));
    canvas.addEventListener("focus", () => { if (canvas.matches(":focus-visible")) this.showCursor(); });
    canvas.addEventListener("blur", () => { cursor.hidden = true; this.lift(); });
  }

  reset(width, height) {
    this.canvas.width = width;
    this.canvas.height = height;
    this.earlier = [];
    this.at = [width / 2, height / 2];
    this.painting = false;
  }

  // The end of a stroke by keyboard.
  lift() {
    if (!this.painting) return;
    this.painting = false;
    this.onStroke();
  }

  showCursor() {
    const { cursor, canvas } = this;
    cursor.hidden = false;
    cursor.classList.toggle("painting", Boolean(this.painting));
    cursor.style.left = `${100 * this.at[0] / canvas.width}%`;
    cursor.style.top = `${100 * this.at[1] / canvas.height}%`;
    cursor.style.width = `${200 * this.radius / canvas.width}%`;
  }

  // Of the brush, in pixels of the picture.
  get radius() { return Math.max(0.5, this.width / 400 * Math.max(this.canvas.width, this.canvas.height)); }

  place(event) {
    const box = this.canvas.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width * this.canvas.width, (event.clientY - box.top) / box.height * this.canvas.height];
  }

  line(from, to) {
    const pen = this.pen;
    pen.globalCompositeOperation = this.erasing ? "destination-out" : "source-over";
    pen.strokeStyle = pen.fillStyle = "rgb(230, 30, 90)";
    pen.lineCap = "round";
    pen.lineWidth = 2 * this.radius;
    pen.beginPath();
    pen.moveTo(...from);
    pen.lineTo(to[0] + 0.01, to[1]);
    pen.stroke();
  }

  remember() {
    this.earlier.push(this.pen.getImageData(0, 0, this.canvas.width, this.canvas.height));
    if (this.earlier.length > 12) this.earlier.shift();
  }

  undo() {
    const image = this.earlier.pop();
    if (image) this.pen.putImageData(image, 0, 0);
    this.onStroke();
  }

  clear() {
    this.remember();
    this.pen.clearRect(0, 0, this.canvas.width, this.canvas.height);
    this.onStroke();
  }

  // White where it is painted, on black.
  mask() {
    const { width, height } = this.canvas;
    const image = this.pen.getImageData(0, 0, width, height);
    let painted = 0;
    for (let i = 0; i < image.data.length; i += 4) {
      const on = image.data[i + 3] > 127;
      painted += on;
      image.data[i] = image.data[i + 1] = image.data[i + 2] = on ? 255 : 0;
      image.data[i + 3] = 255;
    }
    if (!painted) return null;
    const out = document.createElement("canvas");
    out.width = width;
    out.height = height;
    out.getContext("2d").putImageData(image, 0, 0);
    return new Promise((resolve) => out.toBlob(resolve, "image/png"));
  }

  // A mask from a file: what is white in it is painted.
  load(bitmap) {
    this.clear();
    this.pen.globalCompositeOperation = "source-over";
    this.pen.drawImage(bitmap, 0, 0);
    const image = this.pen.getImageData(0, 0, this.canvas.width, this.canvas.height);
    for (let i = 0; i < image.data.length; i += 4) {
      const on = image.data[i] + image.data[i + 1] + image.data[i + 2] > 381;
      image.data.set(on ? [230, 30, 90, 255] : [0, 0, 0, 0], i);
    }
    this.pen.putImageData(image, 0, 0);
    this.onStroke();
  }

  key(event) {
    const step = Math.max(1, this.radius / 2);
    const moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
    const move = moves[event.key];
    if (move) {
      const from = this.at;
      this.at = [Math.min(Math.max(from[0] + move[0], 0), this.canvas.width), Math.min(Math.max(from[1] + move[1], 0), this.canvas.height)];
      if (this.painting) this.line(from, this.at);
    } else if (event.key === " ") {
      if (this.painting) {
        this.lift();
      } else {
        this.painting = true;
        this.remember();
        this.line(this.at, this.at);
      }
    } else if (event.key === "[" || event.key === "]") {
      this.width = Math.min(100, Math.max(1, this.width + (event.key === "]" ? 4 : -4)));
    } else if (event.key === "z") {
      this.undo();
    } else return;
    this.showCursor();
    event.preventDefault();
  }
}
