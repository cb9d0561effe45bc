// A start as a waterfall: what was done when, side by side. It is a table whose
// last column is drawn; the numbers before it say the same.

import { h, s, visible } from "./dom.js";
import { age, span } from "./words.js";

const words = {
  admit: "Admit", allocate: "Allocate", actuate: "Actuate", prepare: "Prepare", mount: "Mount volumes", pull: "Pull image", observe: "Look",
  sandbox: "Sandbox", create: "Create", start: "Start", poststart: "postStart", prestop: "preStop", stop: "Stop", remove: "Remove",
  stopsandbox: "Stop sandbox", removesandbox: "Remove sandbox", unmount: "Unmount", clean: "Remove cgroup", erase: "Remove files",
  release: "Give back grant", save: "Save",
};

// waterfall draws a start; now is the end of what goes on.
export function waterfall(start, now) {
  const began = Date.parse(start.began);
  const spans = start.spans.map((x) => ({ ...x, from: Date.parse(x.began) - began, to: (x.ended ? Date.parse(x.ended) : now) - began, open: !x.ended }));
  const end = Math.max(1, ...spans.map((x) => x.to));
  const ticks = scale(end);
  return h("table", { class: "waterfall" },
    h("thead", null, h("tr", null, h("th", { scope: "col" }, "Step"), h("th", { scope: "col", class: "num at" }, "At"), h("th", { scope: "col", class: "num" }, "Took"),
      h("td", { class: "chart", "aria-hidden": "true" }, axis(ticks, end)))),
    h("tbody", null, spans.flatMap((x) => rows(x, ticks, end))));
}

function rows(x, ticks, end) {
  const failed = Boolean(x.error);
  const first = h("tr", { class: [x.critical && "critical", failed && "failed", x.open && "open"].filter(Boolean).join(" ") || null },
    h("th", { scope: "row" }, words[x.name] ?? x.name, x.container && h("span", { class: "of" }, " ", h("bdi", null, x.container)),
      failed && h("span", { class: "error" }, " ✕ failed"), x.open && h("span", { class: "of" }, " … goes on")),
    h("td", { class: "num at" }, `+${span(x.from)}`),
    h("td", { class: "num took" }, span(x.to - x.from)),
    h("td", { class: "chart", "aria-hidden": "true" }, bar(x, ticks, end)));
  return failed ? [first, h("tr", { class: "why-failed" }, h("td", { colspan: 4 }, h("bdi", null, x.error)))] : [first];
}

const percent = (v, end) => `${((100 * v) / end).toFixed(3)}%`;

function bar(x, ticks, end) {
  const drawn = s("svg", { class: "bars" }, ticks.map((t) => s("line", { class: "tick", x1: percent(t, end), x2: percent(t, end), y1: 0, y2: "100%" })));
  const box = (from, to, name) => s("rect", { class: name, x: percent(from, end), y: 6, width: percent(Math.max(to - from, 0), end), height: 12 });
  // What takes no time is still seen.
  drawn.append(s("line", { class: "dot", x1: percent(x.from, end), x2: percent(x.from, end), y1: 6, y2: 18 }), box(x.from, x.to, "box"));
  return drawn;
}

function axis(ticks, end) {
  return s("svg", { class: "axis" }, ticks.map((t) => s("text", { x: percent(t, end), y: "70%", "text-anchor": t === 0 ? "start" : "middle" }, visible(label(t)))));
}

const label = (ms) => (ms === 0 ? "0" : ms < 1000 ? `${ms} ms` : ms < 120000 ? `${ms / 1000} s` : age(ms));

// scale are three to six round times until end.
function scale(end) {
  const steps = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 60000, 120000, 300000, 600000, 1800000, 3600000, 7200000, 21600000, 43200000, 86400000];
  const step = steps.find((n) => end / n <= 5) ?? Math.ceil(end / 5);
  const out = [];
  for (let t = 0; t < end * 0.94; t += step) out.push(t);
  return out;
}
