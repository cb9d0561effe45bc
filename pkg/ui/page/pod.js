// One pod: what it waits for, how it started, its containers, figures, logs and
// events.

import { Question, now } from "./ask.js";
import { h, put, set, state } from "./dom.js";
import { eventTable } from "./events.js";
import { past } from "./history.js";
import { LogView } from "./log.js";
import { Plot } from "./plot.js";
import { startFigures } from "./waterfall.js";
import { age, bytes, clock, cores, rate } from "./words.js";

const section = (id, title, ...children) => h("section", { "aria-labelledby": `${id}-title`, class: `s-${id}` }, h("h3", { id: `${id}-title` }, title), ...children);

export class PodView {
  constructor(uid) {
    this.uid = uid;
    this.question = new Question(`pods/${encodeURIComponent(uid)}`);
    this.pod = null;
    this.title = h("h2", { id: "detail-title", tabindex: "-1" }, "…");
    this.state = h("span");
    this.facts = h("dl", { class: "facts" });
    this.waits = h("div");
    this.start = h("div", { class: "starts" });
    this.containers = h("div", { class: "wide", tabindex: "0", role: "region", "aria-label": "Containers" });
    this.cpu = new Plot("CPU", cores, past(uid, "cpu"));
    this.memory = new Plot("Memory", bytes, past(uid, "memory"));
    this.network = new Plot("Network", rate, past(uid, "network"), ["in", "out"]);
    this.log = new LogView(uid);
    this.events = h("div");
    this.root = h("div", { class: "view pod" },
      h("header", { class: "title" }, h("a", { class: "back", href: "#/", "aria-label": "Back to the pods" }, "← Pods"), this.title, this.state),
      this.facts, this.waits,
      h("div", { class: "halves" },
        h("div", null,
          section("start", "Start", this.start),
          section("containers", "Containers", this.containers),
          section("figures", "Usage", h("div", { class: "plots" }, this.cpu.root, this.memory.root, this.network.root))),
        h("div", null,
          section("log", "Log", this.log.root),
          section("events", "Events", this.events))));
  }

  async ask(signal, node) {
    if (!node.pods.some((p) => p.uid === this.uid)) return this.gone();
    try {
      const { answer, news } = await this.question.ask(signal);
      if (news) this.show(answer);
      this.tick();
    } catch (e) {
      if (e.status !== 404) throw e;
      this.gone(); // just now
    }
  }

  // gone says that nothing more will be heard of the pod; what was known stays.
  gone() {
    put(this.title, this.pod ? `${this.pod.namespace}/${this.pod.name}` : "No such pod");
    this.state.replaceChildren(state("ending", "Gone"));
    this.log.pause(true);
    this.pod = null;
  }

  show(p) {
    this.pod = p;
    this.title.replaceChildren(h("span", { class: "ns" }, `${p.namespace}/`), h("bdi", null, p.name));
    this.state.replaceChildren(state(p.health, p.state));
    this.showFacts(p);
    this.showWaits(p);
    this.containers.replaceChildren(containerTable(p.containers));
    this.use = null;
    this.events.replaceChildren(eventTable(p.events, false));
    this.log.show(p.containers);
    this.drawn = false;
  }

  showFacts(p) {
    this.age = h("dd", { class: "mono" });
    const facts = [["Ready", `${p.ready} of ${p.of}`], ["Restarts", p.restarts], ["Address", p.ip || "–"], ["Age", this.age], ["QoS", p.qos],
      ["Restart policy", p.restartPolicy], ["From", p.origin], ["UID", p.uid]];
    this.facts.replaceChildren(...facts.map(([name, value]) => h("div", null, h("dt", null, name), value instanceof Node ? value : h("dd", { class: "mono" }, value))));
  }

  showWaits(p) {
    this.waits.replaceChildren();
    this.times = null;
    if (p.message) this.waits.append(h("p", { class: "note failing" }, h("bdi", null, p.message)));
    if (!p.blocker) return;
    this.times = h("p", { class: "sum" });
    this.waits.append(h("section", { class: `note ${p.blocker.trouble || p.stuck ? "failing" : "waiting"}`, "aria-labelledby": "waits-title" },
      h("h3", { id: "waits-title" }, p.stuck ? "Stuck: waits for" : "Waits for"),
      h("p", null, h("bdi", null, p.blocker.what)), this.times, p.stuck && p.blocker.remedy && h("p", null, "What helps: ", h("bdi", null, p.blocker.remedy))));
  }

  // tick brings up to date what changes by itself.
  tick() {
    put(this.age, this.pod.since ? age(now() - Date.parse(this.pod.since)) : "–");
    if (this.times) put(this.times, this.waiting(this.pod.blocker));
    const open = this.pod.starts.at(-1)?.open;
    if (this.drawn && !open) return;
    this.drawn = true;
    this.start.replaceChildren(...startFigures(this.pod.starts));
  }

  // waiting says since when and until when the pod waits.
  waiting(b) {
    const next = Date.parse(b.next) - now();
    const until = next > 0 ? (b.step ? `, at the latest for ${age(next)} more` : `, next try in ${age(next)}`) : "";
    return `since ${clock(b.since)}, for ${age(now() - Date.parse(b.since))}${until}`;
  }

  measured(figures) {
    if (!this.pod) return;
    const use = figures.pods[this.uid];
    const at = Date.parse(use?.at), sum = (key) => this.pod.containers.filter((c) => c.role !== "init").every((c) => c[key])
      ? this.pod.containers.filter((c) => c.role !== "init").reduce((n, c) => n + c[key], 0) : null;
    if (use) {
      this.cpu.add(at, [use.cpu], now(), sum("cpuLimit"));
      this.memory.add(at, [use.memory], now(), sum("memoryLimit"));
    }
    this.measureNetwork(figures.network);
    const rows = this.containers.querySelectorAll("tr[data-name]");
    for (const [i, c] of this.pod.containers.entries()) {
      const row = rows[i], of = figures.containers?.[c.name];
      put(row.querySelector(".u-cpu"), cores(of?.cpu) + (c.cpuLimit ? ` / ${cores(c.cpuLimit)}` : ""));
      put(row.querySelector(".u-memory"), bytes(of?.memory) + (c.memoryLimit ? ` / ${bytes(c.memoryLimit)}` : ""));
    }
  }

  // measureNetwork makes rates of what came and went since the last time.
  measureNetwork(n) {
    set(this.network.root, "hidden", n ? null : "");
    if (!n) return;
    const at = Date.parse(n.at), last = this.traffic;
    if (last && at <= last.at) return;
    this.traffic = { at, in: n.in, out: n.out };
    if (!last || n.in < last.in || n.out < last.out) return;
    const per = (key) => ((n[key] - last[key]) * 1000) / (at - last.at);
    this.network.add(at, [per("in"), per("out")], now());
  }

  pause(yes) {
    this.log.pause(yes || !this.pod);
  }

  close() {
    this.log.close();
  }
}

function containerTable(containers) {
  const head = [["Container", ""], ["State", ""], ["Restarts", "num"], ["CPU", "num m"], ["Memory", "num m"]];
  return h("table", { class: "containers" },
    h("thead", null, h("tr", null, head.map(([text, name]) => h("th", { scope: "col", class: name }, text)))),
    h("tbody", null, containers.flatMap((c) => containerRows(c, head.length))));
}

// containerRows are one container, and below it what there is to say of it.
function containerRows(c, columns) {
  const image = c.image.replace(/(@sha256:[0-9a-f]{12})[0-9a-f]{52}/, "$1…");
  const more = [c.health === "running" && !c.ready && c.role !== "debug" && "not ready", c.message].filter(Boolean).join("; ");
  return [h("tr", { "data-name": c.name },
    h("th", { scope: "row" }, h("span", { class: "cname" }, h("bdi", null, c.name), c.role !== "main" && h("span", { class: "role" }, c.role)), h("bdi", { class: "image", title: c.image }, image)),
    h("td", null, state(c.health, c.state)),
    h("td", { class: "num" }, c.restarts),
    h("td", { class: "num m u-cpu" }, "–"),
    h("td", { class: "num m u-memory" }, "–")),
  ...(more ? [h("tr", { class: "more" }, h("td", { colspan: columns }, h("bdi", { class: "message" }, more)))] : [])];
}
