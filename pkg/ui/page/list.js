// The list of pods. A row is made once and brought up to date in place: focus
// and selection stay, and only what changed is painted.

import { find, h, mark, put, set, state } from "./dom.js";
import { age, bytes, cores } from "./words.js";

const columns = [
  { key: "state", title: "State", by: (p) => [rank[p.health] ?? 9, p.state] },
  { key: "ns", title: "Namespace", by: (p) => [p.namespace, p.name] },
  { key: "name", title: "Pod", by: (p) => [p.name] },
  { key: "ready", title: "Ready", number: true, by: (p) => [p.ready - p.of, p.of] },
  { key: "restarts", title: "Restarts", short: "Rest.", number: true, by: (p) => [-p.restarts] },
  { key: "cpu", title: "CPU", number: true, by: (p, use) => [-(use?.cpu ?? -1)] },
  { key: "memory", title: "Memory", number: true, by: (p, use) => [-(use?.memory ?? -1)] },
  { key: "age", title: "Age", number: true, by: (p) => [-(Date.parse(p.since) || 0)] },
];
const rank = { failing: 0, waiting: 1, ending: 2, running: 3, done: 4 };
const names = { failing: "Failing", waiting: "Waiting", ending: "Ending", running: "Running", done: "Done" };

function compare(a, b) {
  for (let i = 0; i < a.length; i++) {
    if (a[i] !== b[i]) return a[i] < b[i] ? -1 : 1;
  }
  return 0;
}

export class List {
  constructor() {
    this.rows = new Map(); // by UID
    this.pods = null;
    this.use = {};
    this.chosen = null;
    this.filter = null;
    this.words = [];
    this.order = { key: "name", down: false };
    this.makeHead();
    this.filters = new Map();
    for (const health of [null, ...Object.keys(names)]) this.makeFilter(health);
    find("search").addEventListener("input", (e) => {
      this.words = e.target.value.toLowerCase().split(/\s+/).filter(Boolean);
      this.show();
    });
    find("search").addEventListener("keydown", (e) => {
      if (e.key === "ArrowDown" || e.key === "Enter") {
        e.preventDefault();
        this.links()[0]?.focus();
      }
    });
    find("rows").addEventListener("keydown", (e) => this.walk(e));
    find("rows").addEventListener("click", (e) => {
      // The whole row is easy to hit; the link in it is what counts.
      if (!e.target.closest("a") && String(getSelection()) === "") e.target.closest("tr")?.querySelector("a").click();
    });
  }

  makeHead() {
    this.heads = new Map();
    for (const c of columns) {
      const button = h("button", { type: "button" }, h("span", null, c.title), h("span", { class: "arrow", "aria-hidden": "true" }));
      const th = h("th", { scope: "col", class: `c-${c.key}${c.number ? " num" : ""}` }, button);
      button.addEventListener("click", () => {
        this.order = { key: c.key, down: this.order.key === c.key && !this.order.down };
        this.show();
      });
      this.heads.set(c.key, th);
      find("columns").append(th);
    }
  }

  makeFilter(health) {
    const count = h("b", { class: "n" });
    const button = h("button", { type: "button", class: `filter state ${health ?? ""}`, "aria-pressed": "false" },
      health && mark(health), h("span", null, health ? names[health] : "All"), count);
    button.addEventListener("click", () => {
      this.filter = this.filter === health ? null : health;
      this.show();
    });
    this.filters.set(health, { button, count });
    find("filters").append(button);
  }

  // take takes what the node says of its pods, and returns in words what has
  // changed of their states.
  take(pods) {
    const changes = [], seen = new Set();
    for (const p of pods) {
      seen.add(p.uid);
      let row = this.rows.get(p.uid);
      if (!row) {
        row = this.makeRow(p);
        this.rows.set(p.uid, row);
        this.light(row, p.uid === this.chosen);
        if (this.pods) changes.push(`${p.name} is new: ${p.state}`);
      } else if (row.pod.state !== p.state) {
        changes.push(`${p.name} is ${p.state}`);
      }
      this.update(row, p);
    }
    for (const [uid, row] of this.rows) {
      if (seen.has(uid)) continue;
      changes.push(`${row.pod.name} is gone`);
      row.tr.remove();
      this.rows.delete(uid);
    }
    this.pods = pods;
    this.show();
    return changes;
  }

  makeRow(p) {
    const row = { pod: {}, cells: {} };
    row.link = h("a", { href: `#/pods/${encodeURIComponent(p.uid)}` }, h("bdi", { class: "name", title: p.name }, p.name), h("bdi", { class: "ns" }, p.namespace));
    row.why = h("span", { class: "why" });
    row.tr = h("tr");
    for (const c of columns) {
      row.cells[c.key] = c.key === "name" ? h("th", { scope: "row", class: "c-name" }, row.link, row.why)
        : h("td", { class: `c-${c.key}${c.number ? " num" : ""}` });
      row.tr.append(row.cells[c.key]);
    }
    put(row.cells.ns, p.namespace);
    return row;
  }

  update(row, p) {
    if (row.pod.state !== p.state || row.pod.health !== p.health) row.cells.state.replaceChildren(state(p.health, p.state));
    const why = p.waits ? `${p.stuck ? "stuck: " : ""}waits for ${p.waits}` : "";
    put(row.why, why);
    set(row.why, "title", why || null);
    put(row.cells.ready, `${p.ready}/${p.of}`);
    put(row.cells.restarts, p.restarts);
    row.cells.restarts.classList.toggle("zero", p.restarts === 0);
    row.pod = p;
    row.text = `${p.namespace}/${p.name} ${p.state} ${p.ip ?? ""} ${p.uid}`.toLowerCase();
  }

  // tick brings the ages up to date.
  tick(now) {
    for (const { pod, cells } of this.rows.values()) put(cells.age, pod.since ? age(now - Date.parse(pod.since)) : "–");
  }

  // measured takes what pods use, by UID.
  measured(use) {
    this.use = use;
    for (const [uid, { cells }] of this.rows) {
      put(cells.cpu, cores(use[uid]?.cpu));
      put(cells.memory, bytes(use[uid]?.memory));
    }
    if (this.order.key === "cpu" || this.order.key === "memory") this.show();
  }

  // show brings the rows that are asked for into their order.
  show() {
    if (!this.pods) return;
    const column = columns.find((c) => c.key === this.order.key), sign = this.order.down ? -1 : 1;
    const found = this.pods.filter((p) => this.words.every((w) => this.rows.get(p.uid).text.includes(w)));
    const shown = found.filter((p) => !this.filter || p.health === this.filter)
      .map((p) => ({ p, by: column.by(p, this.use[p.uid]) }))
      .sort((a, b) => sign * compare(a.by, b.by) || compare([a.p.namespace, a.p.name], [b.p.namespace, b.p.name]));
    const body = find("rows"), active = document.activeElement;
    const want = new Set(shown.map(({ p }) => this.rows.get(p.uid).tr));
    for (const tr of [...body.children]) if (!want.has(tr)) tr.remove();
    let at = body.firstChild;
    for (const tr of want) {
      if (tr === at) at = at.nextSibling;
      else body.insertBefore(tr, at);
    }
    if (active !== document.activeElement && body.contains(active)) active.focus({ preventScroll: true });
    for (const [key, th] of this.heads) set(th, "aria-sort", key !== this.order.key ? null : this.order.down ? "descending" : "ascending");
    this.count(found);
    const none = find("none");
    none.hidden = shown.length > 0;
    put(none, this.pods.length === 0 ? "No pods. They come from the apiserver, the manifest folder or its URL." : "No pod is like that.");
  }

  count(found) {
    for (const [health, { button, count }] of this.filters) {
      const n = health ? found.filter((p) => p.health === health).length : found.length;
      put(count, n);
      button.hidden = health !== null && n === 0 && this.filter !== health;
      set(button, "aria-pressed", this.filter === health);
    }
  }

  choose(uid) {
    this.before = this.chosen ?? this.before;
    this.chosen = uid;
    for (const [key, row] of this.rows) this.light(row, key === uid);
  }

  light({ tr, link }, chosen) {
    tr.classList.toggle("chosen", chosen);
    set(link, "aria-current", chosen ? "true" : null);
  }

  // focus is where one comes back to from a pod.
  focus() {
    return this.rows.get(this.before)?.link ?? find("pods-title");
  }

  links() {
    return [...find("rows").querySelectorAll("a")];
  }

  // walk goes from row to row by the arrow keys.
  walk(e) {
    const step = { ArrowDown: 1, ArrowUp: -1, Home: -Infinity, End: Infinity }[e.key];
    const links = this.links(), at = links.indexOf(e.target);
    if (step === undefined || at < 0) return;
    e.preventDefault();
    if (at + step === -1) find("search").focus();
    else links[Math.min(links.length - 1, Math.max(0, at + step))].focus();
  }
}
