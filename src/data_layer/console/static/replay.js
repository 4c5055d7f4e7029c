// A generation that runs is followed; one that has ended is played by its time line. Whatever comes is text.
"use strict";

const state = document.querySelector(".live-state");
if (state) {
  const codes = new Map();
  const status = state.querySelector(".live-status");
  const list = state.querySelector(".events");
  const kinds = new Map(Object.entries(JSON.parse(state.dataset.kinds)));
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
    heading.textContent = kinds.get(kind) ?? kind;
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

// How a variant grew: a slider over time shows its code, its page, and what had happened by then.
const replay = document.querySelector(".replay");
if (replay) {
  const find = (name) => document.getElementById(name);
  const [play, moment, speed, output, gap] = ["play", "moment", "speed", "state", "gap"].map(find);
  const code = replay.querySelector(".grown-code");
  const stage = replay.querySelector(".stage");
  const events = [...document.querySelectorAll(".events > li[data-at]")];
  const label = play.querySelector("span");
  const playLabel = label.textContent;
  const numbers = new Intl.NumberFormat(document.documentElement.lang, { maximumFractionDigits: 1 });
  const SHOWN = 8000;
  let states = [];
  let shown = -1;
  let timer = 0;

  const apply = (before, { start, end, text, length }) => {
    if (end === 0 && start === before.characters) return { ...before, code: before.code + text, characters: length };
    // Places are counted in characters, not in the units that strings of JavaScript have.
    const all = Array.from(before.code);
    return { code: all.slice(0, start).join("") + text + all.slice(all.length - end).join(""), characters: length };
  };

  // One page at a time is loaded; when it is there it takes the place of the one before.
  let wanted = null;
  let isLoading = false;
  const load = () => {
    if (isLoading || wanted === null) return;
    const at = wanted;
    wanted = null;
    isLoading = true;
    const former = stage.querySelector("iframe");
    const next = former.cloneNode();
    next.classList.add("coming");
    next.src = `${replay.dataset.page}?at=${at}`;
    let isOver = false;
    const swap = () => {
      if (isOver) return;
      isOver = true;
      former.remove();
      next.classList.remove("coming");
      setTimeout(() => { isLoading = false; load(); }, 250);
    };
    next.addEventListener("load", swap);
    setTimeout(swap, 4000);
    stage.append(next);
  };

  const show = () => {
    const at = Number(moment.value);
    let index = states.length - 1;
    while (index >= 0 && states[index].at > at) index -= 1;
    const state = index < 0 ? { code: "", characters: 0, focus: 0 } : states[index];
    const text = replay.dataset.state.replace("{seconds}", numbers.format(at / 1000)).replace("{characters}", numbers.format(state.characters));
    output.textContent = text;
    moment.setAttribute("aria-valuetext", text);
    for (const each of events) each.hidden = Number(each.dataset.at) > at;
    gap.hidden = !state.isGap;
    if (index === shown) return;
    shown = index;
    const from = Math.max(0, state.focus - SHOWN);
    code.textContent = (from ? "…" : "") + state.code.slice(from, state.focus + SHOWN / 4);
    code.scrollTop = code.scrollHeight;
    wanted = index < 0 ? 0 : state.at;
    load();
  };

  const pause = () => {
    clearInterval(timer);
    timer = 0;
    label.textContent = playLabel;
    play.setAttribute("aria-pressed", "false");
  };
  const run = () => {
    if (Number(moment.value) >= Number(moment.max)) moment.value = "0";
    let position = Number(moment.value);
    let before = performance.now();
    label.textContent = play.dataset.pause;
    play.setAttribute("aria-pressed", "true");
    show();
    timer = setInterval(() => {
      const now = performance.now();
      position += (now - before) * Number(speed.value);
      before = now;
      moment.value = String(position);
      show();
      if (position >= Number(moment.max)) pause();
    }, 100);
  };
  play.addEventListener("click", () => (timer ? pause() : run()));
  moment.addEventListener("input", () => { pause(); show(); });

  const begin = async () => {
    const answer = await fetch(replay.dataset.replay);
    if (!answer.ok) throw new Error(String(answer.status));
    const { steps, duration } = await answer.json();
    let state = { code: "", characters: 0 };
    states = steps.map((step) => {
      state = apply(state, step);
      return { ...state, at: step.at, isGap: step.is_gap, focus: state.code.length - (step.end ? step.end : 0) };
    });
    // Moments between two stops of the slider would never be reached at its end.
    moment.max = String(Math.ceil(duration / 100) * 100);
    moment.value = moment.max;
    shown = states.length - 1;
    const last = states[shown];
    code.textContent = last.code.slice(0, SHOWN);
    gap.textContent = replay.dataset.gap;
    const fast = [...speed.options].find((option) => duration / Number(option.value) <= 30000) || speed.options[speed.options.length - 1];
    if (duration > 30000) speed.value = fast.value;
    show();
  };
  replay.hidden = false;
  play.disabled = moment.disabled = true;
  begin().then(
    () => { play.disabled = moment.disabled = false; },
    () => { output.textContent = replay.dataset.failed; },
  );
}
