"use strict";
// Shows changes as they happen. Who moves over them, or from row to row, stops them until the pointer leaves or `p`.

const MOST_ROWS = 200;
const FLUSH_MILLISECONDS = 250;
const LONGEST_TEXT = 200;
const changes = document.getElementById("changes");
const body = changes.querySelector("tbody");
const pause = document.getElementById("pause");
const waiting = new Map(); // the newest row of each booking that is not shown yet
const leaving = new Set(); // the keys of rows whose bookings no longer have the chosen status
let paused = ""; // by what
let state = "connecting";

// Texts are strangers': what does not show is made visible, as on the other pages.
function visible(value) {
  const text = value === null || value === undefined ? "" : String(value);
  const shown = text.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, (mark) => `\\u${mark.codePointAt(0).toString(16).padStart(4, "0")}`);
  return shown.length > LONGEST_TEXT ? `${shown.slice(0, LONGEST_TEXT)}…` : shown;
}

function toSecond(instant) {
  return instant ? `${instant.slice(0, 19).replace("T", " ")}Z` : "-";
}

function rowOf(key, booking) {
  const row = document.getElementById("change").content.firstElementChild.cloneNode(true);
  row.dataset.key = key;
  for (const cell of row.cells) {
    const place = cell.querySelector("a") || cell;
    const column = cell.dataset.column;
    place.textContent = visible(column.endsWith("_at") ? toSecond(booking[column]) : booking[column]);
  }
  const query = new URLSearchParams({ vendor: booking.vendor, account: booking.account, id: booking.booking_id });
  row.querySelector("a").href = `/booking?${query}`;
  return row;
}

function shownRows() {
  return new Map([...body.rows].map((row) => [row.dataset.key, row]));
}

function tell() {
  const count = waiting.size ? `, ${waiting.size} new` : "";
  document.getElementById("live-state").textContent = paused ? `paused${count}` : state;
  pause.firstChild.textContent = paused ? "Go on " : "Pause ";
}

function flush() {
  if (!paused && (waiting.size || leaving.size)) {
    const shown = shownRows();
    for (const key of leaving) shown.get(key)?.remove();
    for (const [key, booking] of waiting) {
      shown.get(key)?.remove();
      body.prepend(rowOf(key, booking));
    }
    leaving.clear();
    waiting.clear();
    while (body.rows.length > MOST_ROWS) body.lastElementChild.remove();
    changes.hidden = !body.rows.length;
    document.getElementById("nothing").hidden = !changes.hidden;
  }
  tell();
}

function take(message) {
  const booking = JSON.parse(message.data).data;
  const key = `${booking.vendor}/${booking.account}/${booking.booking_id}`;
  waiting.delete(key); // the newest comes last
  if (changes.dataset.status && booking.status !== changes.dataset.status) {
    if (shownRows().has(key)) leaving.add(key);
    return;
  }
  waiting.set(key, booking);
  if (waiting.size > MOST_ROWS) waiting.delete(waiting.keys().next().value);
}

function setPaused(by) {
  paused = by;
  flush();
}

if (changes.dataset.source) {
  const source = new EventSource(changes.dataset.source);
  for (const type of ["ingest.booking.changed", "ingest.booking.gone"]) source.addEventListener(type, take);
  source.addEventListener("open", () => { state = "live"; });
  source.addEventListener("error", () => {
    state = source.readyState === EventSource.CLOSED ? "ended: load the page again" : "connecting again";
  });
  changes.addEventListener("pointermove", () => paused || setPaused("pointer"));
  changes.addEventListener("pointerleave", () => paused === "pointer" && setPaused(""));
  pause.addEventListener("click", () => setPaused(paused ? "" : "key"));
  keys.p = () => setPaused(paused ? "" : "key");
  for (const key of ["j", "k"]) {
    const move = keys[key];
    keys[key] = () => { setPaused("key"); move(); };
  }
  setInterval(flush, FLUSH_MILLISECONDS);
}
