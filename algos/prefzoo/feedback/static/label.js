// The page for feedback: keys, and an answer that is kept in this browser until the server has written it.
"use strict";

const $ = (selector, within = document) => within.querySelector(selector);
const $$ = (selector, within = document) => [...within.querySelectorAll(selector)];
const OUTBOX = `prefzoo-outbox-${$(".who")?.textContent}`; // of this person, in a browser that several use
const csrf = $("meta[name=csrf]")?.content;
const task = $("#task");
let started = performance.now();
let away = 0; // milliseconds during which the page was hidden
let hiddenAt = null;
let busy = false;

const say = (text) => { $("#status").textContent = text; };
const warn = (text) => { $("#alert").textContent = text; };
const sleep = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));

async function post(path, content) {
  const headers = { "Content-Type": "application/json", ...(csrf && { "X-CSRF-Token": csrf }) };
  const response = await fetch(path, { method: "POST", headers, body: JSON.stringify(content) });
  const said = await response.json().catch(() => ({}));
  if (!response.ok) throw Object.assign(new Error(said.error || `error ${response.status}`), { status: response.status });
  return said;
}

// Until the server says that it has written it, an answer lies in this browser's storage, under one id: after a crash of
// either it is sent again, and counts once.
function outbox(entry) {
  try {
    if (entry === undefined) return JSON.parse(localStorage.getItem(OUTBOX) || "null");
    if (entry === null) localStorage.removeItem(OUTBOX);
    else localStorage.setItem(OUTBOX, JSON.stringify(entry));
  } catch { /* storage that is closed: the answer is only in memory */ }
  return entry;
}

async function deliver(entry) {
  for (let wait = 300; ; wait = Math.min(wait * 2, 5000)) {
    try {
      const next = await post("/answer", entry);
      outbox(null);
      warn("");
      return next;
    } catch (error) {
      if (error.status === 401 || error.status === 403) throw error; // kept until somebody signs in again
      if (error.status && error.status < 500) { // another tab was first, or it is no answer
        outbox(null);
        throw error;
      }
      warn("The server does not answer. Your answer is kept here and sent again.");
      await sleep(wait);
    }
  }
}

function show(next, message = "") {
  task.innerHTML = next.html; // the server has escaped it
  $("#bar").max = next.answered + next.left;
  $("#bar").value = next.answered;
  $("#count").textContent = `${next.answered} done, ${next.left} left`;
  say(message);
  begin();
  scrollTo(0, 0);
  $("h1", task)?.focus({ preventScroll: true });
}

async function guarded(work) {
  if (busy) return;
  busy = true;
  task.setAttribute("aria-busy", "true");
  try {
    await work();
  } catch (error) {
    warn(error.message);
    if (error.status === 409) show(await post("/next", {}), "That item has an answer already.");
  } finally {
    busy = false;
    task.removeAttribute("aria-busy");
  }
}

// crypto.randomUUID is there only in secure contexts, which plain HTTP beyond loopback is not.
function identifier() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

function send(value) {
  guarded(async () => {
    const section = $("section", task);
    const hidden = away + (hiddenAt === null ? 0 : performance.now() - hiddenAt);
    const seconds = (performance.now() - started - hidden) / 1000;
    const entry = { answer_id: identifier(), item_id: section.dataset.item, value, seconds };
    outbox(entry);
    const next = await deliver(entry);
    forget(section.dataset.item);
    show(next, "Saved.");
  });
}

// Drafts of long answers, so that a closed tab costs nothing.
const draftKey = (item) => `prefzoo-draft-${item}`;
function forget(item) { try { localStorage.removeItem(draftKey(item)); } catch { /* closed */ } }
function keep(item, text) { try { localStorage.setItem(draftKey(item), text); } catch { /* closed */ } }
function draft(item) { try { return localStorage.getItem(draftKey(item)); } catch { return null; } }

let order = []; // rank: indices of replies, best first; a list within is a tie
let marks = [];
let refresh = () => {};
let value = () => null;

const KINDS = {
  compare(section) {
    for (const button of $$("[data-choice]", section)) {
      button.addEventListener("click", () => send({ choice: button.dataset.choice, strength: button.dataset.strength ?? null }));
    }
  },
  rank(section) {
    const selects = $$("[data-rank]", section);
    order = [];
    refresh = () => {
      let rank = 1;
      for (const select of selects) select.value = "";
      for (const tied of order) {
        for (const i of tied) selects[i].value = rank;
        rank += tied.length;
      }
      check();
    };
    const check = () => { $("[data-save]", section).disabled = selects.some((select) => !select.value); };
    for (const select of selects) select.addEventListener("change", check);
    value = () => selects.every((select) => select.value) ? { ranks: selects.map((select) => Number(select.value)) } : null;
    check();
  },
  rate(section) {
    const rows = $$(".rate", section);
    const chosen = (row) => $("input:checked", row);
    const check = () => { $("[data-save]", section).disabled = !rows.every(chosen); };
    for (const row of rows) row.addEventListener("change", check);
    value = () => rows.every(chosen)
      ? { ratings: Object.fromEntries(rows.map((row) => [row.dataset.dimension, Number(chosen(row).value)])) } : null;
    check();
  },
  span(section) {
    const item = section.dataset.item, passage = $("#passage", section), reason = $("#reason", section);
    const letters = (end) => [...passage.value.slice(0, end)].length; // code points, as the server counts
    marks = JSON.parse(draft(item) || "[]");
    // A read-only field has no caret that keys could move, so this one can be written in, and nothing comes of it.
    const original = passage.value;
    passage.addEventListener("beforeinput", (event) => event.preventDefault());
    passage.addEventListener("input", () => { passage.value = original; });
    passage.setSelectionRange(0, 0);
    const list = () => {
      keep(item, JSON.stringify(marks));
      const points = [...passage.value];
      $("#marks").replaceChildren(...marks.map((mark, i) => {
        const entry = document.createElement("li"), quote = document.createElement("q");
        const remove = document.createElement("button");
        quote.textContent = points.slice(mark.start, mark.end).join("");
        remove.type = "button";
        remove.textContent = "Remove";
        remove.setAttribute("aria-label", `Remove mark ${i + 1}`);
        remove.addEventListener("click", () => { marks.splice(i, 1); list(); passage.focus(); });
        entry.append(quote, ` ${mark.reason} `, remove);
        return entry;
      }));
    };
    $("#marking", section).addEventListener("submit", (event) => {
      event.preventDefault();
      const [start, end] = [passage.selectionStart, passage.selectionEnd].map(letters);
      if (start === end) { warn("Select a passage of the reply first."); passage.focus(); return; }
      if (!reason.value.trim()) { warn("Say why you mark it."); reason.focus(); return; }
      warn("");
      marks.push({ start, end, reason: reason.value.trim() });
      reason.value = "";
      list();
      say(`Marked. ${marks.length} in all.`);
      passage.focus();
    });
    value = () => ({ spans: marks });
    list();
  },
  rewrite(section) {
    const item = section.dataset.item, field = $("#rewritten", section);
    const original = field.value;
    field.value = draft(item) ?? original;
    field.addEventListener("input", () => keep(item, field.value));
    value = () => {
      if (!field.value.trim()) { warn("The reply is empty."); return null; }
      if (field.value === original) { warn("The reply is unchanged. Write what you would rather read."); return null; }
      return { text: field.value };
    };
  },
  none() {
    $("#why")?.addEventListener("click", () => guarded(async () => show(await post("/why", {}))));
    $("#next").addEventListener("click", () => guarded(async () => show(await post("/next", {}))));
  },
};

function begin() {
  const section = $("section", task);
  started = performance.now();
  away = 0;
  refresh = () => {};
  value = () => null;
  KINDS[section.dataset.kind](section);
  $("[data-save]", section)?.addEventListener("click", save);
}

function save() {
  const said = value();
  if (said) send(said);
}

function typeRank(key, section) {
  const count = $$("[data-rank]", section).length;
  if (key === "Backspace") {
    order.at(-1)?.pop();
    order = order.filter((tied) => tied.length);
  } else {
    const i = Number(key) - 1;
    if (!(i >= 0 && i < count) || order.flat().includes(i)) return false;
    if (section.dataset.tie && order.length) order.at(-1).push(i);
    else order.push([i]);
  }
  delete section.dataset.tie;
  refresh();
  say(`Order: ${order.map((tied) => tied.map((i) => i + 1).join(" tied with ")).join(", then ") || "none"}`);
  return true;
}

function typeRate(key, section) {
  const rows = $$(".rate", section);
  const here = rows.findIndex((row) => row.contains(document.activeElement));
  const row = rows[here >= 0 ? here : Math.max(0, rows.findIndex((each) => !$("input:checked", each)))];
  const input = $(`input[value="${key === "t" ? 10 : key}"]`, row);
  input.checked = true;
  input.dispatchEvent(new Event("change", { bubbles: true }));
  const following = rows[rows.indexOf(row) + 1];
  if (following) ($("input:checked", following) ?? $("input", following)).focus();
  else $("[data-save]", section).focus();
  say(`${row.dataset.dimension}: ${input.value}`);
}

function pressed(event) {
  const section = $("section", task);
  const { target } = event;
  const writing = target.matches("input:not([type=radio]), textarea:not(#passage)");
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); save(); return; }
  if (event.ctrlKey || event.metaKey || event.altKey || writing || event.repeat) return;
  const kind = section.dataset.kind;
  let taken = true;
  if (key === "u") undo();
  else if (kind === "compare" && $(`[data-key="${key}"]`, section)) $(`[data-key="${key}"]`, section).click();
  else if (kind === "rank" && key === "=") section.dataset.tie = "1";
  else if (kind === "rank" && !target.matches("select") && (key === "Backspace" || /^[1-9]$/.test(key))) taken = typeRank(key, section);
  else if (kind === "rate" && /^[0-9t]$/.test(key)) typeRate(key, section);
  else if (kind === "span" && key === "m") $("#reason").focus();
  else if (kind === "none" && key === "Enter" && !target.matches("button")) $("#next").click();
  else if ((kind === "rank" || kind === "rate") && key === "Enter" && !target.matches("button, select, a")) save();
  else taken = false;
  if (taken) event.preventDefault();
}

function undo() {
  guarded(async () => {
    const next = await post("/undo", {});
    show(next, next.undone ? "Your last answer is taken back." : "There is nothing to undo.");
  });
}

function enter(content) {
  warn("");
  return post("/enter", content).then(() => location.replace("/")).catch((error) => warn(error.message));
}

const token = new URLSearchParams(location.hash.slice(1)).get("token");
if (token) {
  history.replaceState(null, "", "/"); // so that the token is not read off the address, or from the history
  enter({ token });
} else if (task) {
  document.addEventListener("keydown", pressed);
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) hiddenAt = performance.now();
    else if (hiddenAt !== null) { away += performance.now() - hiddenAt; hiddenAt = null; }
  });
  $("#undo").addEventListener("click", undo);
  $("#leave").addEventListener("click", () => guarded(async () => { await post("/leave", {}); location.replace("/"); }));
  begin();
  $("h1", task).focus(); // so that Tab goes on from the task
  const unsent = outbox();
  if (unsent) {
    guarded(async () => show(await deliver(unsent), "An answer that was not sent yet is saved now."));
  } else if ($("section", task).dataset.kind === "none" && $(".progress progress").max > $(".progress progress").value) {
    guarded(async () => show(await post("/next", {})));
  }
} else {
  $("#enter")?.addEventListener("submit", (event) => {
    event.preventDefault();
    enter({ name: $("#name").value });
  });
}
