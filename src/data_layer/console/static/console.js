// What makes the pages quicker to use; everything that reads works without it.
"use strict";

// A menu closes when something else is pressed, and with Escape.
document.addEventListener("click", (event) => {
  for (const menu of document.querySelectorAll("details.menu[open]")) {
    if (!menu.contains(event.target)) menu.open = false;
  }
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") {
    for (const menu of document.querySelectorAll("details.menu[open]")) {
      menu.open = false;
      menu.querySelector("summary").focus();
    }
  }
  const isTyping = /^(input|textarea|select)$/i.test(event.target.tagName);
  if (event.key === "/" && !isTyping && !event.ctrlKey && !event.metaKey) {
    const field = document.querySelector("input[type=search]");
    if (field) {
      event.preventDefault();
      field.focus();
      field.select();
    }
  }
});

// A choice in a filter counts at once; the button that is there without a script is hidden.
document.documentElement.classList.add("scripted");
document.addEventListener("change", (event) => {
  if (event.target.matches("[data-submit]")) event.target.form.requestSubmit();
});

// On a narrow screen the navigation scrolls: show where the person is.
document.querySelector(".navigation [aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });
