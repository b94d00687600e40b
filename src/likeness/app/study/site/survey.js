"use strict";

// One page, three views: welcome, a video with its questions, the end. What a rater says is first written to the
// browser's storage and then sent until the server has it, so neither a reload nor a lost connection loses it.

const study = window.STUDY;
const hasServer = window.COLLECT;
const STORE = "likeness-study-" + study.study;
const main = document.getElementById("main");
const SHORTEST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 15000;

let state = read();
let shownAt = 0;
let isSending = false;
let waitMs = SHORTEST_WAIT_MS;

function read() {
  try {
    const kept = JSON.parse(localStorage.getItem(STORE));
    if (kept) return kept;
  } catch { /* No storage in this browser: answers then live as long as the page. */ }
  return { rater: randomName(), plan: null, index: -1, answers: {}, rows: [], outbox: [] };
}

function keep() {
  try { localStorage.setItem(STORE, JSON.stringify(state)); } catch { /* As above. */ }
}

function randomName() {
  // randomUUID is missing where a phone reads the page from a plain http address.
  return Array.from(crypto.getRandomValues(new Uint8Array(12)), (b) => b.toString(16).padStart(2, "0")).join("");
}

function element(tag, properties, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties || {})) {
    if (name in made && name !== "list") made[name] = value; else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

function notice(text) { document.getElementById("notice").textContent = text; }

// --- Sending ---------------------------------------------------------------------------------------------------------

async function post(path, body) {
  const reply = await fetch(path, {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body),
  });
  if (reply.ok) return reply.json();
  let reason = "status " + reply.status;
  try { reason = (await reply.json()).error.message; } catch { /* Something between us and the server answered. */ }
  const error = new Error(reason);
  error.isFinal = reply.status >= 400 && reply.status < 500 && reply.status !== 408 && reply.status !== 429;
  throw error;
}

async function send() {
  if (!hasServer || isSending) return;
  isSending = true;
  while (state.outbox.length) {
    try {
      await post("api/answers", { study: study.study, ...state.outbox[0] });
      state.outbox.shift();
      keep();
      waitMs = SHORTEST_WAIT_MS;
      notice("");
    } catch (error) {
      if (error.isFinal) {
        notice("The server refuses an answer: " + error.message + " Your answers are kept on this device. "
          + "Please tell who sent you here.");
        break;
      }
      notice("No connection. Your answers are kept on this device and are sent as soon as it is back.");
      await new Promise((resolve) => setTimeout(resolve, waitMs));
      waitMs = Math.min(2 * waitMs, LONGEST_WAIT_MS);
    }
  }
  isSending = false;
  if (isOver()) showEnd();
}

// --- Views -----------------------------------------------------------------------------------------------------------

function plan() { return study.plans[state.plan]; }
function isOver() { return state.plan !== null && state.index >= plan().length; }

function show() {
  document.title = study.title;
  if (state.plan === null || state.index < 0) showWelcome();
  else if (isOver()) showEnd();
  else showTrial();
  window.scrollTo(0, 0);
  main.focus({ preventScroll: true });
}

function showWelcome() {
  document.getElementById("top").hidden = true;
  const count = study.plans[0].length;
  const start = element("button", { id: "start", type: "button" }, "Start");
  start.addEventListener("click", () => begin(start));
  main.replaceChildren(element("section", { className: "card welcome" },
    element("h1", {}, study.title),
    element("p", {}, "You will see " + count + " short videos, one after the other, and answer "
      + study.questions.length + " questions about each."),
    element("ul", {},
      element("li", {}, "There is no right or wrong; your own impression counts."),
      element("li", {}, "Use the whole scale, from " + study.lowest + " to " + study.highest + "."),
      element("li", {}, "Videos repeat by themselves. Watch each at least once in full."),
      element("li", {}, "Now and then you are told what to answer, to see that questions are read."),
      element("li", {}, "You can stop at any time and go on later on this device.")),
    element("p", { className: "soft" }, "Only your answers, their order and how long they took are recorded. No name, "
      + "no address, nothing about your device. By starting you agree that they are used for this study."),
    element("div", { className: "buttons" }, start)));
}

async function begin(button) {
  button.disabled = true;
  try {
    state.plan = hasServer
      ? (await post("api/raters", { study: study.study, rater: state.rater })).plan
      : crypto.getRandomValues(new Uint32Array(1))[0] % study.plans.length;
  } catch (error) {
    button.disabled = false;
    notice(error.isFinal ? "The server refuses to begin: " + error.message
      : "The survey cannot be reached. Please try again in a moment.");
    return;
  }
  notice("");
  state.index = 0;
  keep();
  show();
}

function showTrial() {
  const order = plan();
  const name = order[state.index];
  const trial = study.trials[name];
  const before = state.answers[name] || {};
  document.getElementById("top").hidden = false;
  document.getElementById("bar").value = state.index / order.length;
  document.getElementById("count").textContent = (state.index + 1) + " of " + order.length;

  const form = element("form", { noValidate: true },
    ...(trial.check === null ? [] : [element("p", { className: "check" },
      "Attention check: whatever the video shows, please choose " + trial.check + " at every question here.")]),
    element("div", { className: "questions" }, ...study.questions.map((question) => ask(question, before))),
    buttons(), element("p", { className: "hint" },
      "By keyboard: a digit answers the question you are at" + (study.highest === 10 ? " (0 after 1 for 10)" : "")
      + ", Tab goes to the next question, Enter to the next video."));
  form.addEventListener("submit", (event) => { event.preventDefault(); submit(name, form); });
  form.addEventListener("change", (event) => event.target.closest("fieldset").classList.remove("missing"));
  form.addEventListener("keydown", byKey);
  main.replaceChildren(element("h1", { className: "unseen" }, "Video " + (state.index + 1)),
    element("div", { className: "trial" }, watch(trial), form));
  shownAt = performance.now();
  preload(order[state.index + 1]);
}

function watch(trial) {
  const isCalm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  const video = element("video", {
    src: trial.video, loop: true, muted: true, playsInline: true, controls: true, autoplay: !isCalm, preload: "auto",
    "aria-label": "The video to rate",
  });
  video.addEventListener("error", () => notice("The video cannot be played. Reload the page to try again."));
  const side = element("section", { className: "watch card", "aria-label": "Video" }, video);
  if (needed("references")) {
    const many = trial.references.length > 1;
    side.append(element("div", {}, element("h2", {}, many ? "The person, in pictures" : "The person, in a picture"),
      element("div", { className: "people" }, ...trial.references.map((source, number) =>
        element("img", { src: source, alt: "Picture " + (number + 1) + " of the person who should be in the video" })))));
  }
  if (trial.prompt) {
    side.append(element("div", {}, element("h2", {}, "The description"),
      element("p", { className: "prompt" }, trial.prompt)));
  }
  return side;
}

function needed(part) { return study.questions.some((question) => question.needs.includes(part)); }

function ask(question, before) {
  const labels = [];
  for (let value = study.lowest; value <= study.highest; value += 1) {
    const end = value === study.lowest ? question.low_label : value === study.highest ? question.high_label : "";
    const input = element("input", {
      type: "radio", name: question.name, value: String(value), checked: before[question.name] === value,
      "aria-label": value + (end ? ", " + end : ""),
    });
    labels.push(element("label", {}, input, element("span", { "aria-hidden": "true" }, String(value))));
  }
  return element("fieldset", { id: "q-" + question.name, "aria-describedby": "ask-" + question.name },
    element("legend", {}, question.title),
    element("p", { className: "ask", id: "ask-" + question.name }, question.text),
    element("div", { className: "scale" }, ...labels),
    element("div", { className: "ends", "aria-hidden": "true" },
      element("span", {}, question.low_label), element("span", {}, question.high_label)));
}

function buttons() {
  const back = element("button", { type: "button", className: "quiet", id: "back", disabled: state.index === 0 }, "Back");
  back.addEventListener("click", () => { state.index -= 1; keep(); show(); });
  return element("div", { className: "buttons" }, back, element("button", { id: "next", type: "submit" }, "Next"));
}

function byKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const group = event.target.closest("fieldset");
  if (event.key === "Enter" && group) { event.preventDefault(); event.currentTarget.requestSubmit(); return; }
  if (!group || !/^[0-9]$/.test(event.key)) return;
  const chosen = group.querySelector("input:checked");
  // 1 and then 0 is 10; a lone 0 is 10 where the scale has no 0.
  const isTen = event.key === "0" && ((chosen && chosen.value === "1") || study.lowest > 0);
  const value = isTen ? "10" : event.key;
  const input = Array.from(group.querySelectorAll("input")).find((one) => one.value === value);
  if (input) { input.checked = true; input.focus(); group.classList.remove("missing"); event.preventDefault(); }
}

function preload(name) {
  if (!name) return;
  const next = document.createElement("video");
  next.preload = "auto";
  next.src = study.trials[name].video;
}

function submit(name, form) {
  const ratings = {};
  const missing = [];
  for (const question of study.questions) {
    const chosen = form.querySelector("input[name='" + question.name + "']:checked");
    if (chosen) ratings[question.name] = Number(chosen.value); else missing.push(question);
  }
  if (missing.length) {
    for (const question of missing) document.getElementById("q-" + question.name).classList.add("missing");
    notice("Please answer: " + missing.map((question) => question.title).join(", ") + ".");
    document.querySelector("#q-" + missing[0].name + " input").focus();
    return;
  }
  notice("");
  const before = state.answers[name];
  if (!before || study.questions.some((question) => before[question.name] !== ratings[question.name])) {
    const row = { key: randomName(), rater: state.rater, trial: name, position: state.index,
      seconds: Math.round(performance.now() - shownAt) / 1000, ratings };
    state.answers[name] = ratings;
    if (hasServer) state.outbox.push(row); else state.rows.push(row);
  }
  state.index += 1;
  keep();
  send();
  show();
}

function showEnd() {
  document.getElementById("bar").value = 1;
  document.getElementById("count").textContent = "Done";
  const section = element("section", { className: "card finish" }, element("h1", {}, "Thank you"));
  if (hasServer && state.outbox.length) {
    section.append(element("p", {}, "Sending your last answers. Please leave this page open for a moment."));
  } else if (hasServer) {
    section.append(element("p", { id: "done" }, "All your answers have arrived. You can close this page."));
  } else {
    section.append(element("p", {}, "One step is left: save your answers as a file, and send it to who asked you."),
      element("div", { className: "buttons" }, download()));
  }
  const again = element("button", { type: "button", className: "quiet" }, "Begin as another person");
  again.addEventListener("click", () => {
    if (!hasServer && !window.confirm("This deletes the answers here. Have you saved the file?")) return;
    state = { rater: randomName(), plan: null, index: -1, answers: {}, rows: [], outbox: [] };
    keep();
    show();
  });
  if (!state.outbox.length) section.append(element("div", { className: "buttons" }, again));
  main.replaceChildren(section);
}

function download() {
  const file = { study: study.study, rater: state.rater, plan: state.plan, answers: state.rows };
  const link = element("a", { className: "button", id: "download", download: "answers_" + state.rater + ".json" },
    "Save my answers");
  link.href = URL.createObjectURL(new Blob([JSON.stringify(file)], { type: "application/json" }));
  return link;
}

window.addEventListener("online", () => { waitMs = SHORTEST_WAIT_MS; send(); });
window.addEventListener("beforeunload", (event) => { if (hasServer && state.outbox.length) event.preventDefault(); });
show();
send();
