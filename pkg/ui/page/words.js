// Numbers as people read them, in as few characters as tell them.

// span is a length of time in milliseconds.
export function span(ms) {
  if (!Number.isFinite(ms)) return "–";
  if (ms < 0) ms = 0;
  if (ms < 0.05) return "0 ms";
  if (ms < 9.95) return `${ms.toFixed(1)} ms`;
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 99950) return `${(ms / 1000).toFixed(ms < 9995 ? 2 : 1)} s`;
  return age(ms);
}

// moment is a time in milliseconds, with what a Date leaves out behind the third
// digit.
export function moment(text) {
  const fine = /\.\d{3}(\d+)/.exec(text)?.[1];
  return Date.parse(text) + (fine ? Number(`0.${fine}`) : 0);
}

// age is a length of time, in its largest one or two units.
export function age(ms) {
  const s = Math.max(0, Math.floor(ms / 1000));
  if (s < 120) return `${s}s`;
  const m = Math.floor(s / 60), h = Math.floor(m / 60), d = Math.floor(h / 24);
  if (m < 10) return s % 60 ? `${m}m${s % 60}s` : `${m}m`;
  if (h < 3) return `${m}m`;
  if (h < 8) return m % 60 ? `${h}h${m % 60}m` : `${h}h`;
  if (d < 2) return `${h}h`;
  return `${d}d`;
}

// cores are 1e-3 cores.
export function cores(milli) {
  if (milli == null) return "–";
  if (milli > 0 && milli < 0.95) return "<1m";
  return milli < 999.5 ? `${Math.round(milli)}m` : (milli / 1000).toFixed(milli < 9995 ? 2 : 1);
}

// bytes with a binary unit.
export function bytes(n) {
  if (n == null) return "–";
  for (const unit of ["B", "Ki", "Mi", "Gi", "Ti"]) {
    if (n < 1023.5 || unit === "Ti") return `${n < 9.95 && unit !== "B" ? n.toFixed(1) : Math.round(n)}${unit === "B" ? " B" : ` ${unit}`}`;
    n /= 1024;
  }
}

export const rate = (n) => (n == null ? "–" : `${bytes(n)}/s`);

const two = (n) => String(n).padStart(2, "0");

// clock is the time of day; with ms to the millisecond.
export function clock(time, ms) {
  const t = new Date(time);
  if (Number.isNaN(t.getTime())) return "–";
  const text = `${two(t.getHours())}:${two(t.getMinutes())}:${two(t.getSeconds())}`;
  return ms ? `${text}.${String(t.getMilliseconds()).padStart(3, "0")}` : text;
}

// many is a number and what it counts.
export const many = (n, one, more = `${one}s`) => `${n} ${n === 1 ? one : more}`;
