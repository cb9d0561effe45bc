// What was told about pods.

import { h, mark } from "./dom.js";
import { clock } from "./words.js";

// eventTable is a table of events, the newest first; with pods, each names its
// pod.
export function eventTable(events, pods) {
  if (events.length === 0) return h("p", { class: "none" }, "Nothing was told yet.");
  const head = ["Time", pods && "Pod", "Event", "Message"].filter(Boolean);
  return h("div", { class: "wide", tabindex: "0", role: "region", "aria-label": "Events, newest first" },
    h("table", { class: pods ? "events all" : "events" },
      h("thead", null, h("tr", null, head.map((text) => h("th", { scope: "col", class: `e-${text.toLowerCase()}` }, text)))),
      h("tbody", null, events.map((e) => row(e, pods)))));
}

function row(e, pods) {
  return h("tr", { class: e.warning ? "warning" : null },
    h("td", { class: "when" }, h("time", { datetime: e.at, title: new Date(e.at).toISOString() }, clock(e.at))),
    pods && h("td", { class: "of" }, h("a", { href: `#/pods/${encodeURIComponent(e.uid)}`, title: `${e.namespace}/${e.pod}` }, h("bdi", null, e.pod))),
    h("th", { scope: "row", class: "reason" },
      e.warning && h("span", { class: "state failing" }, mark("failing"), h("span", { class: "sr" }, "Warning: ")), e.reason,
      e.count > 1 && h("span", { class: "times" }, ` ×${e.count}`)),
    h("td", { class: "message" }, e.container && h("span", { class: "of" }, h("bdi", null, e.container), ": "), h("bdi", null, e.message)));
}
