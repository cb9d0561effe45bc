// A start as a waterfall: what was done and waited for when, side by side. It is
// a table whose last column is drawn; the numbers before it say the same.

import { now } from "./ask.js";
import { h, s } from "./dom.js";
import { age, clock, moment, span } from "./words.js";

const words = {
  admit: "Admit", allocate: "Allocate", actuate: "Actuate", prepare: "Prepare", mount: "Mount volumes", pull: "Pull image", observe: "Look",
  sandbox: "Sandbox", create: "Create", start: "Start", poststart: "postStart", prestop: "preStop", stop: "Stop", remove: "Remove",
  stopsandbox: "Stop sandbox", removesandbox: "Remove sandbox", unmount: "Unmount", clean: "Remove cgroup", erase: "Remove files",
  release: "Give back grant", save: "Save", source: "Source", status: "Turn to be told", patch: "Told to the apiserver", apiserver: "Apiserver",
  init: "Runs", look: "Look at the runtime", readiness: "Readiness probe", startup: "Startup probe", notice: "End to be noticed", admission: "Admission",
  "back-off": "Back-off", hook: "Hook", network: "Wait for the network", runtime: "Wait for the runtime", slot: "Turn", volumes: "Wait for volumes", image: "Wait for image",
};

const title = (name) => words[name] ?? name[0].toUpperCase() + name.slice(1);

// startFigures draws starts, the newest first.
export function startFigures(starts) {
  if (starts.length === 0) return [h("p", { class: "sum" }, "Nothing was done for it yet.")];
  return starts.map((start, i) => figure(start, i === starts.length - 1)).reverse();
}

function figure(start, newest) {
  const name = newest ? "Steps of the start" : "Steps of the first start";
  if (start.spans.length === 0) return h("p", { class: "sum" }, start.found ? "It ran already when the agent came up." : "Nothing was done for it yet.");
  const began = moment(start.began), ended = start.open ? now() : moment(start.ended);
  const spans = start.spans.map((x) => ({ ...x, from: moment(x.began) - began, to: (x.open ? now() : moment(x.ended)) - began }));
  const own = spans.filter((x) => x.kind === "agent").reduce((sum, x) => sum + x.to - x.from, 0);
  const said = [newest ? null : "The first one", start.open ? `goes on for ${span(ended - began)}` : `took ${span(ended - began)}`, `began at ${clock(start.began, true)}`,
    start.why && `after ${start.why}`, own > 0 && `${span(own)} the agent's own`, start.accounted > 0 && `${(100 * start.accounted).toFixed(1)} % accounted for`];
  return h("div", null,
    h("p", { class: "sum" }, said.filter(Boolean).join(", ").replace(/^./, (c) => c.toUpperCase())),
    h("div", { class: "wide", tabindex: "0", role: "region", "aria-label": name }, table(worth(spans))),
    h("p", { class: "legend", "aria-hidden": "true" }, [["critical", "what the start waited for"], ["beside", "beside it"], ["wait", "a wait"]].map(([kind, text]) =>
      h("span", { class: "key" }, s("svg", { class: `swatch ${kind}` }, s("rect", { class: "box", x: 1, y: kind === "critical" ? 1 : 3, width: 14, height: kind === "critical" ? 10 : 6 })), text))));
}

// worth leaves out the agent's own moments, and what is but the beginning of
// something that had to wait for its turn.
function worth(spans) {
  const same = (a, b) => a !== b && a.name === b.name && a.container === b.container;
  return spans.filter((x) => x.kind !== "agent" && (x.to - x.from >= 0.05 || x.error || x.open || !spans.some((y) => same(x, y))));
}

function table(spans) {
  spans.sort((a, b) => a.from - b.from || a.to - b.to);
  const end = Math.max(1, ...spans.map((x) => x.to));
  const ticks = scale(end);
  return h("table", { class: "waterfall" },
    h("thead", null, h("tr", null, h("th", { scope: "col" }, "Step"), h("th", { scope: "col", class: "num at" }, "At"), h("th", { scope: "col", class: "num" }, "Took"),
      h("td", { class: "chart", "aria-hidden": "true" }, axis(ticks, end)))),
    h("tbody", null, spans.flatMap((x, i) => rows(x, ticks, end, spans.slice(0, i).findLast((y) => y.error)?.error))));
}

// rows are one step and why it failed, unless that was said just before.
function rows(x, ticks, end, said) {
  const failed = Boolean(x.error);
  const first = h("tr", { class: [x.critical ? "critical" : "beside", x.kind === "wait" && "wait", failed && "failed", x.open && "open"].filter(Boolean).join(" ") },
    h("th", { scope: "row" }, title(x.name), x.of && ` for ${title(x.of).toLowerCase()}`,
      x.container && h("span", { class: "of" }, " ", h("bdi", null, x.container)), x.critical && h("span", { class: "sr" }, ", the start waited for it"),
      failed && h("span", { class: "error" }, " ✕ failed"), x.open && h("span", { class: "of" }, " …", h("span", { class: "sr" }, " goes on"))),
    h("td", { class: "num at" }, `+${span(x.from)}`),
    h("td", { class: "num took" }, span(x.to - x.from)),
    h("td", { class: "chart", "aria-hidden": "true" }, bar(x, ticks, end)));
  return failed && x.error !== said ? [first, h("tr", { class: "why-failed" }, h("td", { colspan: 4 }, h("bdi", null, x.error)))] : [first];
}

const percent = (v, end) => `${((100 * v) / end).toFixed(3)}%`;

function bar(x, ticks, end) {
  const [y, height] = x.critical ? [6, 12] : [9, 6];
  return s("svg", { class: "bars" }, ticks.map((t) => s("line", { class: "tick", x1: percent(t, end), x2: percent(t, end), y1: 0, y2: "100%" })),
    // What takes no time is still seen.
    s("line", { class: "dot", x1: percent(x.from, end), x2: percent(x.from, end), y1: y, y2: y + height }),
    s("rect", { class: "box", x: percent(x.from, end), y, width: percent(Math.max(x.to - x.from, 0), end), height }));
}

function axis(ticks, end) {
  return s("svg", { class: "axis" }, ticks.map((t, i) => s("text", { x: percent(t, end), y: "70%", "text-anchor": i === 0 ? "start" : "middle" }, label(t, ticks))));
}

// label is a tick in words; the unit stands with the last one only.
function label(ms, ticks) {
  const last = ticks.at(-1);
  if (last >= 120000) return age(ms);
  const [per, unit] = last >= 1000 ? [1000, " s"] : [1, " ms"];
  return `${ms / per}${ms === last ? unit : ""}`;
}

// scale are three to six round times until end.
function scale(end) {
  const steps = [1, 2, 2.5, 5, 10, 20, 25, 50, 100, 200, 250, 500, 1000, 2000, 2500, 5000, 10000, 20000, 60000, 120000, 300000, 600000, 1800000, 3600000, 7200000, 21600000, 43200000, 86400000];
  const step = steps.find((n) => end / n <= 5) ?? Math.ceil(end / 5);
  const out = [];
  for (let t = 0; t < end * 0.94; t += step) out.push(t);
  return out;
}
