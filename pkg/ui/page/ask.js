// How the page asks: always its own origin, with what it had last time, so that
// an answer that did not change costs nothing.

// What `nodeagent ui` printed behind the # opens the door. It is kept for this
// tab only, and taken out of the address at once. On other ways here there is
// none, and none is needed.
const KEY = "nodeagent-key";
export function takeKey() {
  const given = /^#key=([\w-]{20,100})$/.exec(location.hash);
  if (!given) return false;
  sessionStorage.setItem(KEY, given[1]);
  history.replaceState(null, "", "#/");
  return true;
}

function headers(more) {
  const key = sessionStorage.getItem(KEY);
  return key ? { ...more, Authorization: `Bearer ${key}` } : more;
}

// ahead is how far the node's clock is ahead of the browser's, in ms.
let ahead = 0;
export const now = () => Date.now() + ahead;

// Refused says why there is no answer; status is 0 when nobody answered.
export class Refused extends Error {
  constructor(status, text) {
    super(text);
    this.status = status;
  }
}

async function refusal(response) {
  const text = (await response.text()).slice(0, 500).trim();
  return new Refused(response.status, text || response.statusText);
}

// A Question is asked again and again.
export class Question {
  constructor(path) {
    this.path = path;
    this.tag = null;
    this.answer = null;
  }

  // ask returns the answer, and whether it is another than before.
  async ask(signal) {
    const response = await fetch(`api/${this.path}`, {
      headers: headers(this.tag ? { "If-None-Match": this.tag } : {}),
      cache: "no-store", credentials: "same-origin", redirect: "error", signal,
    }).catch((e) => { throw e.name === "AbortError" ? e : new Refused(0, "nobody answers"); });
    const time = Number(response.headers.get("Node-Time"));
    if (time > 0) {
      const off = time - Date.now();
      if (Math.abs(off - ahead) > 500) ahead = off; // less is the way here
    }
    if (response.status === 304) return { answer: this.answer, news: false };
    if (!response.ok) throw await refusal(response);
    this.answer = await response.json();
    this.tag = response.headers.get("ETag");
    return { answer: this.answer, news: true };
  }
}

// stream reads a log: it calls line for each one, all(n) after each bunch, which
// may return a promise to wait for. It returns why there are no more.
export async function stream(path, signal, line, bunch) {
  const response = await fetch(`api/${path}`, {
    headers: headers({}), cache: "no-store", credentials: "same-origin", redirect: "error", signal,
  });
  if (!response.ok) throw await refusal(response);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return "cut";
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const text of lines) {
      if (text[0] === "!") return text.slice(1);
      line(text);
    }
    await bunch();
  }
}
