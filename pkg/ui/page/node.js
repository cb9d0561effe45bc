// The node as a whole: what stands beside the list while no pod is chosen.

import { Question, now } from "./ask.js";
import { h } from "./dom.js";
import { eventTable } from "./events.js";
import { past } from "./history.js";
import { Plot } from "./plot.js";
import { bytes, cores } from "./words.js";

export class NodeView {
  constructor() {
    this.uid = null;
    this.question = new Question("events");
    this.cpu = new Plot("CPU", cores, past(null, "cpu"));
    this.memory = new Plot("Memory", bytes, past(null, "memory"));
    this.problems = h("div");
    this.events = h("div");
    this.root = h("div", { class: "view" },
      h("header", { class: "title" }, h("h2", { id: "detail-title", tabindex: "-1" }, "Node")),
      this.problems,
      h("section", { class: "figures", "aria-labelledby": "use-title" }, h("h3", { id: "use-title" }, "Usage"), h("div", { class: "plots" }, this.cpu.root, this.memory.root)),
      h("section", { "aria-labelledby": "events-title" }, h("h3", { id: "events-title" }, "Newest events"), this.events));
  }

  async ask(signal, node) {
    this.showProblems(node.problems ?? []);
    const { answer, news } = await this.question.ask(signal);
    if (news) this.events.replaceChildren(eventTable(answer, true));
  }

  showProblems(problems) {
    const text = JSON.stringify(problems);
    if (text === this.shown) return;
    this.shown = text;
    this.problems.replaceChildren();
    if (problems.length === 0) return;
    this.problems.append(h("section", { class: "note failing", "aria-labelledby": "problems-title" }, h("h3", { id: "problems-title" }, "Not taken"),
      h("ul", null, problems.map((p) => h("li", null, h("code", null, p.origin), p.field && [" ", h("code", null, p.field)], `: ${p.message}`)))));
  }

  measured(figures) {
    const use = figures.node, at = Date.parse(use.at);
    this.cpu.add(at, [use.cpu], now(), 1000 * figures.cores);
    this.memory.add(at, [use.memory], now(), use.limit);
  }

  pause() {}
  close() {}
}
