// The page of a project: copying, and the slider between two pages.
"use strict";

const say = (button) => {
  const label = button.querySelector("span");
  const before = label.textContent;
  label.textContent = button.dataset.done;
  setTimeout(() => { label.textContent = before; }, 2000);
};

for (const button of document.querySelectorAll("[data-copy]")) {
  button.hidden = false;
  button.addEventListener("click", async () => {
    const answer = await fetch(button.dataset.copy);
    if (!answer.ok) return;
    await navigator.clipboard.writeText(await answer.text());
    say(button);
    await fetch(button.dataset.counted, { method: "POST" });
  });
}
for (const button of document.querySelectorAll("[data-copy-value]")) {
  button.hidden = false;
  button.addEventListener("click", async () => {
    const field = document.getElementById(button.dataset.copyValue);
    field.select();
    await navigator.clipboard.writeText(field.value);
    say(button);
  });
}

const slider = document.getElementById("cut");
if (slider) {
  const pages = document.querySelector(".overlaid");
  slider.closest(".slider-row").hidden = false;
  pages.classList.add("on-top");
  const cut = () => pages.style.setProperty("--cut", `${slider.value}%`);
  slider.addEventListener("input", cut);
  cut();
}
