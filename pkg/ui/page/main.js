// The page: what is asked when, and which pod is looked at. It asks every two
// seconds, for figures every four, and only while somebody can see the answer.

import { Question, now, takeKey } from "./ask.js";
import { find, h, mark, put, set, visible } from "./dom.js";
import { noteAll } from "./history.js";
import { List } from "./list.js";
import { NodeView } from "./node.js";
import { PodView } from "./pod.js";
import { clock, many } from "./words.js";

const PERIOD = 2000;
const MEASURE = 4000; // measuring is most of what a page costs the node
const PATIENCE = 15000;

const pods = new Question("pods");
const list = new List();
const figures = { question: null, uid: undefined, at: 0 };

let view = null; // what stands in the right half
let paused = false;
let failed = null; // since when there is no answer
let timer = 0;
let asking = null; // ends the questions under way

// route shows what the address names.
function route(focus) {
  const uid = /^#\/pods\/([^/]+)$/.exec(location.hash)?.[1];
  const wanted = uid ? decodeURIComponent(uid) : null;
  if (view && view.uid === wanted) return;
  view?.close();
  view = wanted ? new PodView(wanted) : new NodeView();
  find("detail").replaceChildren(view.root);
  find("detail").scrollTop = 0;
  document.body.classList.toggle("chosen", wanted !== null);
  list.choose(wanted);
  figures.uid = undefined;
  if (focus) (wanted ? find("detail-title") : list.focus())?.focus({ preventScroll: true });
  soon();
}

// soon asks at once.
function soon() {
  asking?.abort();
  clearTimeout(timer);
  timer = setTimeout(ask, 0);
}

async function ask() {
  if (paused || document.hidden) return;
  const mine = new AbortController();
  asking = mine;
  const late = setTimeout(() => mine.abort(), PATIENCE);
  try {
    await answers(mine.signal);
    failed = null;
  } catch (e) {
    if (asking !== mine) return; // others are under way
    if (e.status === undefined && e.name !== "AbortError") throw e;
    failed ??= { since: Date.now() };
    failed.why = e.name === "AbortError" ? "it takes too long" : e.message;
    failed.status = e.status;
  } finally {
    clearTimeout(late);
    if (asking === mine) {
      asking = null;
      timer = setTimeout(ask, PERIOD);
    }
  }
  say();
}

async function answers(signal) {
  const { answer, news } = await pods.ask(signal);
  if (news) {
    showNode(answer);
    tell(list.take(answer.pods));
  }
  list.tick(now());
  const shown = view;
  await shown.ask(signal, answer);
  await measure(signal, shown, answer);
}

// measure asks for the figures of what is shown.
async function measure(signal, shown, node) {
  if (!node.measured) return;
  const uid = shown.uid;
  if (figures.uid === uid && Date.now() - figures.at < MEASURE - PERIOD / 2) return;
  figures.at = Date.now();
  if (figures.uid !== uid) {
    figures.uid = uid;
    figures.question = new Question(uid ? `stats?pod=${encodeURIComponent(uid)}` : "stats");
  }
  try {
    const { answer } = await figures.question.ask(signal);
    noteAll(answer, now());
    list.measured(answer.pods);
    shown.measured(answer, node);
    document.body.classList.add("measured");
  } catch (e) {
    if (e.status !== 503) throw e; // not now
  }
}

function showNode(node) {
  put(find("node"), node.name || "node");
  document.title = visible(`${node.name || "node"} · nodeagent`);
  const part = (name, why) => h("li", { class: "state " + (why ? "failing" : "running"), title: why || null },
    mark(why ? "failing" : "running"), h("span", null, why ? `${name}: ${why}` : `${name} ready`));
  const bad = node.problems?.length ?? 0;
  find("parts").replaceChildren(part("runtime", node.runtime), part("network", node.network),
    ...(bad ? [h("li", { class: "state failing" }, mark("failing"), h("span", null, `${many(bad, "manifest")} not taken`))] : []));
}

// tell says to those who don't see it what has changed.
function tell(changes) {
  if (changes.length === 0) return;
  const first = changes.slice(0, 3).join(". ");
  put(find("said"), changes.length > 3 ? `${many(changes.length, "pod")} changed. ${first}. And others.` : `${first}.`);
}

// say says how fresh all this is.
function say() {
  const live = find("live");
  let kind = "on", text = "Live";
  if (failed?.status === 401) [kind, text] = ["off", "Not let in: open the link that nodeagent ui prints"];
  else if (failed) [kind, text] = ["off", `No answer since ${clock(failed.since)}: ${failed.why}`];
  else if (paused) [kind, text] = ["held", "Paused"];
  set(live, "class", `live ${kind}`);
  put(live, text);
}

find("pause").addEventListener("click", () => {
  paused = !paused;
  set(find("pause"), "aria-pressed", paused);
  view.pause(paused);
  say();
  soon();
});

document.addEventListener("visibilitychange", () => {
  view.pause(paused || document.hidden);
  if (!document.hidden) soon();
});

addEventListener("hashchange", () => {
  if (takeKey()) soon(); // a new link was opened where the page was already
  route(true);
});

document.addEventListener("keydown", (e) => {
  if (e.ctrlKey || e.metaKey || e.altKey) return;
  const typing = e.target.matches("input, select, textarea");
  if (e.key === "/" && !typing) {
    e.preventDefault();
    find("search").focus();
  } else if (e.key === "Escape" && !typing && view.uid) {
    location.hash = "#/";
  }
});

takeKey();
route(false);
