// The log of one container, as it grows. What came is kept up to a bound, and no
// more is taken from the node than the browser has painted.

import { stream } from "./ask.js";
import { h, put } from "./dom.js";
import { clock } from "./words.js";

const KEPT = 2000; // lines on the page
const AGAIN = 2000;

export class LogView {
  constructor(uid) {
    this.uid = uid;
    this.containers = [];
    this.paused = false;
    this.select = h("select", { id: "log-container" });
    this.previous = h("input", { type: "checkbox", id: "log-previous" });
    const wrap = h("input", { type: "checkbox", id: "log-wrap", checked: true });
    const times = h("input", { type: "checkbox", id: "log-times" });
    this.status = h("span", { class: "logstatus", role: "status" });
    this.newest = h("button", { type: "button", hidden: true }, "Newest ↓");
    this.lines = h("div", { class: "lines", role: "log", "aria-live": "off", "aria-label": "Log lines", tabindex: "0" });
    this.root = h("div", { class: "log" },
      h("div", { class: "tools" },
        h("label", { for: "log-container" }, "Container"), this.select,
        h("label", null, this.previous, "Previous instance"), h("label", null, wrap, "Wrap"), h("label", null, times, "Times"),
        this.status, this.newest),
      this.lines);
    this.select.addEventListener("change", () => this.open());
    this.previous.addEventListener("change", () => this.open());
    wrap.addEventListener("change", () => this.lines.classList.toggle("nowrap", !wrap.checked));
    times.addEventListener("change", () => this.lines.classList.toggle("times", times.checked));
    this.newest.addEventListener("click", () => this.toEnd());
    this.lines.addEventListener("scroll", () => { this.newest.hidden = this.atEnd(); }, { passive: true });
  }

  // show takes the pod's containers; it may be time to open a log, or the next
  // instance's.
  show(containers) {
    const names = containers.map((c) => c.name).join("\n");
    if (names !== this.names) {
      this.names = names;
      const chosen = this.container()?.name;
      this.select.replaceChildren(...containers.map((c, i) => h("option", { value: i }, c.name + (c.role === "main" ? "" : ` (${c.role})`))));
      // The one that is most worth reading: that which fails, else the first main one.
      const best = containers.find((c) => c.name === chosen) ?? containers.find((c) => c.health === "failing" && c.log)
        ?? containers.find((c) => c.role === "main") ?? containers[0];
      this.select.value = containers.indexOf(best);
    }
    this.containers = containers;
    const c = this.container();
    this.previous.disabled = !c?.previous;
    if (this.paused || this.reading || !c) return;
    if (!c.log) this.say("Not started yet");
    else if (!this.read || this.read.name !== c.name) this.open();
    else if (!this.previous.checked && c.log !== this.read.log) this.open(true);
  }

  container() {
    return this.containers[this.select.value];
  }

  say(text) {
    put(this.status, text);
  }

  // open reads the log of what is chosen; with more, behind what is there.
  async open(more) {
    this.close();
    const c = this.container();
    if (!c) return;
    if (!c.previous) this.previous.checked = false;
    if (!more) this.lines.replaceChildren();
    else this.remark("the next instance");
    this.read = { name: c.name, log: c.log };
    this.previous.disabled = !c.previous;
    if (!c.log) return this.say("Not started yet");
    const mine = new AbortController();
    this.reading = mine;
    this.say("Following");
    const which = this.previous.checked ? "previous" : "follow";
    let why, lasting = false;
    try {
      why = await stream(`pods/${encodeURIComponent(this.uid)}/log?container=${encodeURIComponent(c.name)}&${which}`, mine.signal,
        (text) => this.take(text), () => this.paint());
    } catch (e) {
      why = e.status ? e.message : "cut";
      lasting = e.status >= 400 && e.status < 500 && e.status !== 429;
    }
    if (this.reading !== mine) return; // another one is read by now
    this.reading = null;
    this.flush();
    if (why === "end") return this.say(which === "previous" ? "All of the previous instance" : "The container has ended");
    this.say({ limit: "Too much at once: going on with the newest lines", cut: "The connection was cut: trying again" }[why] ?? why);
    if (lasting) this.read = null; // until there is news of the pod
    else this.again = setTimeout(() => this.open(), AGAIN);
  }

  // take keeps a line until it is painted.
  take(text) {
    (this.waiting ??= []).push(text);
    if (this.waiting.length > KEPT) this.waiting.splice(0, this.waiting.length - KEPT);
  }

  // paint paints with the next frame, which is when there may be more.
  paint() {
    return new Promise((done) => requestAnimationFrame(() => {
      this.flush();
      done();
    }));
  }

  flush() {
    const lines = this.waiting ?? [];
    if (lines.length === 0) return;
    this.waiting = [];
    const end = this.atEnd();
    this.lines.append(...lines.map((text) => line(text)));
    while (this.lines.childElementCount > KEPT) this.lines.firstElementChild.remove();
    if (end) this.toEnd();
    else this.newest.hidden = false;
  }

  remark(text) {
    this.lines.append(h("div", { class: "remark" }, `— ${text} —`));
  }

  atEnd() {
    return this.lines.scrollHeight - this.lines.scrollTop - this.lines.clientHeight < 24;
  }

  toEnd() {
    this.lines.scrollTop = this.lines.scrollHeight;
    this.newest.hidden = true;
  }

  // pause stops reading, and goes on with the newest lines.
  pause(yes) {
    if (this.paused === yes) return;
    this.paused = yes;
    if (yes) {
      this.close();
      this.say("Paused");
    } else this.open();
  }

  close() {
    clearTimeout(this.again);
    this.reading?.abort();
    this.reading = null;
    this.waiting = [];
  }
}

// line is "o2026-01-02T15:04:05.000000000Z text", or with e of stderr.
function line(text) {
  const cut = text.indexOf(" ");
  const time = text.slice(1, cut), error = text[0] === "e";
  return h("div", { class: error ? "line err" : "line" },
    h("time", { datetime: time }, clock(time, true)),
    h("span", { class: "from" }, error ? "err" : ""),
    h("bdi", null, text.slice(cut + 1)));
}
