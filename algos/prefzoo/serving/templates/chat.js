"use strict";
// The chat page. Replies are shown with textContent alone, so that nothing in them is markup.
const $ = (id) => document.getElementById(id);
const turns = $("turns"), text = $("text");
let messages = [], conversation = null, running = null, open = null;

function uuid() {
  const b = crypto.getRandomValues(new Uint8Array(16));
  b[6] = (b[6] & 15) | 64; b[8] = (b[8] & 63) | 128;
  const h = [...b].map((x) => x.toString(16).padStart(2, "0")).join("");
  return [h.slice(0, 8), h.slice(8, 12), h.slice(12, 16), h.slice(16, 20), h.slice(20)].join("-");
}

let user;
try { user = localStorage.getItem("prefzoo-user"); } catch { /* storage is off: a new user each time */ }
if (!user) {
  user = uuid();
  try { localStorage.setItem("prefzoo-user", user); } catch { /* as above */ }
}

function node(tag, attributes, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value !== false && value !== null) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children);
  return made;
}

function say(what, problem) {
  $("status").textContent = what;
  $("status").className = problem ? "problem" : "quiet";
}

async function post(path, body, signal) {
  const answer = await fetch(path, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body), signal });
  if (answer.ok) return answer;
  let why = answer.statusText;
  try { why = (await answer.json()).error.message; } catch { /* not ours */ }
  const error = new Error(why);
  error.final = answer.status < 500;
  throw error;
}

// The same answer is sent until the server has written it; its id makes a repetition harmless.
async function tell(what, id) {
  const body = { ...what, user, answer_id: id };
  for (let pause = 500; ; pause = Math.min(2 * pause, 10000)) {
    try {
      await post("/feedback", body);
      say(what.undo ? "Taken back." : "Thank you, that is kept.");
      return true;
    } catch (error) {
      if (error.final) { say(error.message, true); return false; }
      say("The server does not answer; trying again.", true);
      await new Promise((go) => setTimeout(go, pause));
    }
  }
}

async function* eventsOf(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) throw new Error("The server stopped in the middle of a reply.");
    rest += value;
    const parts = rest.split("\n\n");
    rest = parts.pop();
    for (const part of parts) {
      if (part === "data: [DONE]") return;
      yield JSON.parse(part.slice(6));
    }
  }
}

function begun(count) {
  const boxes = [];
  const replies = node("div", { class: "replies" });
  for (let i = 0; i < count; i++) {
    const said = node("p", { class: "text" });
    const box = node("article", { class: "reply", "aria-label": count > 1 ? `Reply ${i + 1}` : "Reply" });
    if (count > 1) box.append(node("h2", {}, `Reply ${i + 1}`));
    box.append(said);
    replies.append(box);
    boxes.push({ box, said, text: "" });
  }
  const turn = node("div", { class: "turn" }, replies);
  turns.append(turn);
  return { turn, boxes };
}

function thumbSign() {
  const space = "http://www.w3.org/2000/svg", sign = document.createElementNS(space, "svg"), path = document.createElementNS(space, "path");
  sign.setAttribute("viewBox", "0 0 24 24");
  sign.setAttribute("aria-hidden", "true");
  path.setAttribute("d", "M2 10h4v11H2zM8 21V10l5-8c2 0 3 1 2.5 3L14.500 9H20c1.500 0 2.300 1.200 2 2.500l-2 7.500c-.300 1.200-1 2-2.500 2z");
  sign.append(path);
  return sign;
}

function thumbs(turn, id) {
  const set = node("fieldset", {}, node("legend", { class: "quiet" }, "Is this reply good?"));
  let given = null;  // the answer that counts: {thumb, answer}
  for (const [thumb, words] of [["up", "Good"], ["down", "Bad"]]) {
    set.append(node("button", { type: "button", class: thumb, "aria-pressed": "false", onclick: async () => {
      const buttons = set.querySelectorAll("button"), before = given;
      for (const each of buttons) each.disabled = true;
      if (before && await tell({ undo: true }, before.answer)) given = null;
      if (!given && (!before || before.thumb !== thumb)) {
        const answer = uuid();
        if (await tell({ reply: id, thumb }, answer)) given = { thumb, answer };
      }
      for (const each of buttons) {
        each.disabled = false;
        each.setAttribute("aria-pressed", String(Boolean(given) && each.classList.contains(given.thumb)));
      }
      text.focus();
    } }, thumbSign(), words));
  }
  turn.append(set);
}

function choices(turn, boxes, ids, shownAt) {
  const set = node("fieldset", {}, node("legend", { class: "quiet" }, "Which of the two is better?"));
  const choose = async (choice) => {
    if (open !== choose) return;
    open = null;
    for (const each of set.querySelectorAll("button")) each.disabled = true;
    const kept = choice === "second" ? 1 : 0;
    messages.push({ role: "assistant", content: boxes[kept].text });
    if (choice === "first" || choice === "second") boxes[kept].box.classList.add("chosen");
    set.querySelector(`[value=${choice}]`).setAttribute("aria-pressed", "true");
    $("send").disabled = false;
    await tell({ first: ids[0], second: ids[1], choice, seconds: (Date.now() - shownAt) / 1000 }, uuid());
    text.focus();
  };
  [["first", "First"], ["second", "Second"], ["tie", "Equally good"], ["both_bad", "Both bad"]].forEach(([choice, words], i) => {
    set.append(node("button", { type: "button", value: choice, "aria-pressed": "false", "aria-keyshortcuts": `${i + 1}`, onclick: () => choose(choice) },
      words, node("kbd", { "aria-hidden": "true" }, `${i + 1}`)));
  });
  turn.append(set);
  open = choose;
  $("send").disabled = true;
  say("Choose the better reply, then the conversation goes on.");
  set.querySelector("button").focus();
}

async function ask(question) {
  const two = $("two").checked;
  messages.push({ role: "user", content: question });
  turns.append(node("div", { class: "turn user" }, node("p", { class: "text" }, question)));
  $("hint").hidden = true;
  const { turn, boxes } = begun(two ? 2 : 1);
  turn.setAttribute("aria-busy", "true");
  turn.scrollIntoView({ block: "end" });
  running = new AbortController();
  $("send").disabled = true; $("stop").hidden = false; say("Writing …");
  let ids = [];
  try {
    const answer = await post("/chat", { conversation, messages, two }, running.signal);
    for await (const event of eventsOf(answer)) {
      if (event.error) throw new Error(event.error.message);
      if (event.conversation) { conversation = event.conversation; ids = event.replies; continue; }
      const reply = boxes[event.index];
      reply.text += event.text;
      reply.said.textContent = reply.text;
    }
    say("");
    $("send").disabled = false;
    if (two) choices(turn, boxes, ids, Date.now());
    else {
      messages.push({ role: "assistant", content: boxes[0].text });
      thumbs(turn, ids[0]);
      text.focus();
    }
  } catch (error) {
    messages.pop();
    turn.previousElementSibling.remove(); turn.remove();
    text.value = question;
    $("send").disabled = false;
    if (error.name === "AbortError") say("Stopped."); else say(error.message, true);
    text.focus();
  } finally {
    turn.removeAttribute("aria-busy");
    running = null;
    $("stop").hidden = true;
    turn.scrollIntoView({ block: "end" });
  }
}

$("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  const question = text.value;
  if (!question.trim() || running || open) return;
  text.value = "";
  ask(question);
});
text.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); $("ask").requestSubmit(); }
});
document.addEventListener("keydown", (event) => {
  if (!open || event.target === text || event.ctrlKey || event.metaKey || event.altKey) return;
  const choice = { 1: "first", 2: "second", 3: "tie", 4: "both_bad" }[event.key];
  if (choice) { event.preventDefault(); open(choice); }
});
$("stop").addEventListener("click", () => running && running.abort());
$("new").addEventListener("click", () => {
  if (running) running.abort();
  messages = []; conversation = null; open = null;
  turns.replaceChildren();
  $("hint").hidden = false; $("send").disabled = false;
  say(""); text.focus();
});
