// What the node and all its pods used as long as the page was watching, so that a
// plot has a past when it is looked at.

const KEPT = 5 * 60 * 1000;
const all = new Map();

// past are the points of a pod, or of the node if uid is null: {at, values}.
export function past(uid, what) {
  if (!all.has(uid)) all.set(uid, { cpu: [], memory: [], network: [] });
  return all.get(uid)[what];
}

// note adds what is known of one moment, and forgets what is long ago.
export function note(points, at, values, now) {
  const last = points.at(-1);
  if (values.every((v) => v != null) && (!last || at > last.at)) points.push({ at, values });
  while (points.length && points[0].at < now - KEPT) points.shift();
}

export function noteAll(figures, now) {
  for (const uid of all.keys()) if (uid !== null && !figures.pods[uid]) all.delete(uid);
  for (const [uid, use] of [[null, figures.node], ...Object.entries(figures.pods)]) {
    note(past(uid, "cpu"), Date.parse(use.at), [use.cpu], now);
    note(past(uid, "memory"), Date.parse(use.at), [use.memory], now);
  }
}
