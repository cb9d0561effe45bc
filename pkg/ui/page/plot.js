// A plot of up to the last five minutes, as far as the page was watching.

import { h, put, s, set } from "./dom.js";
import { note } from "./history.js";
import { clock } from "./words.js";

const SPANS = [1, 2, 5].map((min) => min * 60 * 1000); // the first that holds all is shown
const GAP = 15 * 1000; // a longer silence is no line
const W = 600, H = 96;

export class Plot {
  // lines are the names of what is plotted, points what is known already; format
  // says a value in words.
  constructor(title, format, points, lines = [title]) {
    Object.assign(this, { title, format, lines, points, limit: null });
    this.value = h("span", { class: "value" }, "–");
    this.top = h("span", { class: "top" });
    this.from = h("span", null, "1 min ago");
    this.paths = lines.map((_, i) => s("path", { class: `curve l${i}` }));
    this.area = s("path", { class: "area" });
    this.bound = s("path", { class: "bound" });
    this.svg = s("svg", { viewBox: `0 0 ${W} ${H}`, preserveAspectRatio: "none", role: "img" }, this.area, this.bound, this.paths);
    const legend = h("span", { class: "legend" }, lines.length > 1 && lines.map((name, i) => h("span", { class: `key l${i}` }, name)));
    this.root = h("figure", { class: "plot" },
      h("figcaption", null, h("span", { class: "title" }, title), this.value), this.top, this.svg,
      h("div", { class: "ends", "aria-hidden": "true" }, this.from, legend, h("span", null, "now")));
    this.describe();
  }

  // add takes the values of one moment.
  add(at, values, now, limit) {
    note(this.points, at, values, now);
    this.limit = limit || null;
    this.draw(now);
  }

  draw(now) {
    const all = this.points.flatMap((p) => p.values);
    const most = Math.max(0, ...all);
    // A limit that is far away is said, not drawn.
    const bound = this.limit && this.limit <= most * 4 ? this.limit : null;
    const top = bound ? Math.max(most, bound) : ceil(most);
    const reach = SPANS.find((ms) => now - (this.points[0]?.at ?? now) <= ms) ?? SPANS.at(-1);
    put(this.from, `${reach / 60000} min ago`);
    const x = (at) => (W * (1 - (now - at) / reach)).toFixed(1);
    const y = (v) => (H - 1 - (H - 4) * (top ? v / top : 0)).toFixed(1);
    this.paths.forEach((path, i) => set(path, "d", this.runs().map((run) => `M${run.map((p) => `${x(p.at)} ${y(p.values[i])}`).join("L")}${run.length === 1 ? "h.1" : ""}`).join("")));
    set(this.area, "d", this.lines.length > 1 ? "" : this.runs().map((run) =>
      `M${x(run[0].at)} ${H}L${run.map((p) => `${x(p.at)} ${y(p.values[0])}`).join("L")}L${x(run.at(-1).at)} ${H}Z`).join(""));
    set(this.bound, "d", bound ? `M0 ${y(bound)}H${W}` : "");
    put(this.top, top ? this.format(top) : "");
    this.describe(most);
  }

  describe(most) {
    const last = this.points.at(-1);
    if (!last) {
      put(this.value, "–");
      set(this.svg, "aria-label", `${this.title}: nothing measured yet`);
      return;
    }
    const words = last.values.map(this.format).join(" · ");
    put(this.value, this.limit ? `${words} of ${this.format(this.limit)}` : words);
    const named = last.values.map((v, i) => `${this.lines.length > 1 ? `${this.lines[i]} ` : ""}${this.format(v)}`).join(", ");
    set(this.svg, "aria-label", `${this.title}: ${named} now, at most ${this.format(most)} since ${clock(this.points[0].at)}`);
  }

  // runs are the points in pieces without a gap.
  runs() {
    const out = [];
    for (const p of this.points) {
      if (out.length && p.at - out.at(-1).at(-1).at <= GAP) out.at(-1).push(p);
      else out.push([p]);
    }
    return out;
  }
}

// ceil is the next round number above v.
function ceil(v) {
  if (v <= 0) return 0;
  const unit = 10 ** Math.floor(Math.log10(v));
  return [1, 1.5, 2, 3, 4, 5, 7.5, 10].map((n) => n * unit).find((n) => n >= v * 1.02) ?? 20 * unit;
}
