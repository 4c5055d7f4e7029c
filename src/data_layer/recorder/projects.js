// The saved projects: everything here is a call of the API of the service; texts of people are set as text only.
"use strict";
const list = document.getElementById("list");
const line = document.getElementById("status");
const more = document.getElementById("more");
let following = null;

async function call(method, path, body) {
  const answer = await fetch(path, {
    method,
    headers: body === undefined ? {} : { "content-type": "application/json" },
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  if (!answer.ok) {
    const problem = await answer.json().catch(() => ({}));
    throw new Error(problem.detail || `The service answered ${answer.status}.`);
  }
  return answer.status === 204 ? null : answer.json();
}

function element(name, text, parent) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (parent) parent.append(made);
  return made;
}

function button(label, parent, work) {
  const made = element("button", label, parent);
  made.addEventListener("click", async () => {
    made.disabled = true;
    try {
      await work(made);
    } catch (error) {
      line.textContent = error.message;
    }
    made.disabled = false;
  });
  return made;
}

function showTree(generations, place) {
  const byVariant = new Map();
  for (const each of generations) for (const variant of each.variants) byVariant.set(variant.id, each);
  const children = new Map();
  for (const each of [...generations].sort((one, other) => one.number - other.number)) {
    const parent = each.variants.length ? byVariant.get(each.variants[0].parent_id) : undefined;
    const key = parent ? parent.id : null;
    children.set(key, [...(children.get(key) || []), each]);
  }
  const add = (key, where) => {
    const branch = element("ul", undefined, where);
    branch.className = "tree";
    for (const each of children.get(key) || []) {
      const item = element("li", undefined, branch);
      element("span", `Version ${each.number}: ${each.prompt || each.generation_type} (${each.status}) `, item);
      for (const variant of each.variants) {
        const link = element("a", `${variant.variant_index + 1}`, item);
        link.href = `/v1/variants/${variant.id}/preview`;
        link.target = "_blank";
        link.rel = "noopener";
        link.title = variant.error_message || variant.status;
        if (variant.status !== "completed") link.className = "dead";
        item.append(" ");
      }
      if (children.has(each.id)) add(each.id, item);
    }
  };
  add(null, place);
}

function show(project) {
  const item = element("li", undefined, list);
  item.dataset.project = project.id;
  const picture = element("img", undefined, item);
  picture.alt = "";
  picture.loading = "lazy";
  picture.src = `/v1/projects/${project.id}/thumbnail`;
  picture.addEventListener("error", () => picture.removeAttribute("src"));
  element("h2", project.name, item);
  const when = new Date(project.updated_at).toLocaleString();
  element("p", `${project.generation_count} versions, ${when}`, item).className = "note";
  const actions = element("p", undefined, item);
  button("Open", actions, () => location.assign(`/#open-project=${project.id}`)).className = "open";
  button("Versions", actions, async (pressed) => {
    const tree = await call("GET", `/v1/projects/${project.id}/tree?code=none`);
    showTree(tree.generations, item);
    pressed.remove();
  });
  button("Share", actions, async () => {
    const made = await call("POST", `/v1/projects/${project.id}/shares`, {});
    const shown = element("input", undefined, item);
    shown.readOnly = true;
    shown.value = new URL(made.url, location.href).href;
    shown.setAttribute("aria-label", "Link to share");
    shown.select();
  });
  button("Delete", actions, async () => {
    await call("DELETE", `/v1/projects/${project.id}`);
    item.replaceChildren();
    element("p", `${project.name} was deleted.`, item);
    button("Undo", item, async () => {
      await call("POST", `/v1/projects/${project.id}/undelete`);
      load();
    });
  });
}

async function load(words = "", after = null) {
  const query = new URLSearchParams({ limit: "24" });
  if (words) query.set("q", words);
  if (after) query.set("after", after);
  try {
    const page = await call("GET", `/v1/projects${words ? "/search" : ""}?${query}`);
    const found = words ? page.hits.map((hit) => hit.project) : page.projects;
    if (!after) list.replaceChildren();
    found.forEach(show);
    following = page.next;
    more.hidden = !following;
    line.textContent = list.children.length ? "" : words ? "Nothing was found." : "Nothing is saved yet.";
  } catch (error) {
    line.textContent = error.message;
  }
}

const form = document.getElementById("search");
form.addEventListener("submit", (event) => {
  event.preventDefault();
  load(form.elements.q.value.trim());
});
more.addEventListener("click", () => load(form.elements.q.value.trim(), following));

load();
