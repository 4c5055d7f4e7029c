// A generation that runs is followed; one that has ended is played step by step. Whatever comes is text.
"use strict";

const state = document.querySelector(".live-state");
if (state) {
  const codes = new Map();
  const status = state.querySelector(".live-status");
  const list = state.querySelector(".events");
  const show = (variant) => {
    const place = state.querySelector(`[data-variant="${Number(variant)}"]`);
    if (!place) return;
    const code = codes.get(variant);
    place.querySelector(".characters").textContent = String(code.length);
    const tail = place.querySelector(".tail");
    tail.textContent = code.slice(-4000);
    tail.scrollTop = tail.scrollHeight;
  };
  const running = status.textContent;
  const source = new EventSource(state.dataset.events);
  source.addEventListener("open", () => { status.textContent = running; });
  source.addEventListener("code", (event) => {
    const { variant, code } = JSON.parse(event.data);
    codes.set(variant, code);
    show(variant);
  });
  source.addEventListener("patch", (event) => {
    const { variant, start, end, text } = JSON.parse(event.data);
    // Places are counted in characters, not in the units that strings of JavaScript have.
    const before = Array.from(codes.get(variant) || "");
    codes.set(variant, before.slice(0, start).join("") + text + before.slice(before.length - end).join(""));
    show(variant);
  });
  source.addEventListener("event", (event) => {
    const { kind, payload } = JSON.parse(event.data);
    const item = document.createElement("li");
    const marker = document.createElement("span");
    const heading = document.createElement("strong");
    const text = document.createElement("pre");
    marker.className = "marker";
    text.className = "prompt";
    heading.textContent = kind;
    text.textContent = typeof payload.text === "string" ? payload.text : JSON.stringify(payload, null, 1);
    item.append(marker, heading, text);
    list.append(item);
  });
  let left = state.querySelectorAll("[data-variant]").length;
  source.addEventListener("end", () => {
    left -= 1;
    if (left > 0) return;
    source.close();
    status.textContent = state.dataset.ended;
    setTimeout(() => location.reload(), 1500);
  });
  source.addEventListener("problem", () => source.close());
  source.addEventListener("error", () => { if (source.readyState !== EventSource.CLOSED) status.textContent = state.dataset.lost; });
}

const play = document.getElementById("play");
if (play) {
  const steps = [...document.querySelectorAll(".events > li")];
  let timer = 0;
  play.hidden = false;
  play.addEventListener("click", () => {
    clearInterval(timer);
    let next = 0;
    for (const step of steps) step.hidden = true;
    timer = setInterval(() => {
      if (next >= steps.length) return clearInterval(timer);
      steps[next].hidden = false;
      steps[next].scrollIntoView({ block: "nearest" });
      next += 1;
    }, Math.max(60, Math.min(700, 20000 / steps.length)));
  });
}
