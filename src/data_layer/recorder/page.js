// Added to the page of Screenshot to Code: a small link to the saved projects, and the way back of a project into the
// page. Together with page.py it is the only place that knows the page: React keeps its tree on #root, and the state of
// a zustand store, with its actions, is the value of a hook of a component that uses the whole store. The settings, with
// the stack that an edit uses, are the value of a hook of React's own, whose queue has what changes it.
"use strict";
(() => {
  const PROJECTS = "/my-projects";
  const OPEN = /^#open-project=([0-9a-f-]{36})$/;
  const PATIENCE = 15000;
  const PAUSE = 2000;
  const PROJECT_ACTIONS = ["addCommit", "setHead", "resetCommits"];
  const APP_ACTIONS = ["setAppState"];
  const STACK = "generatedCodeConfig";

  const wanted = OPEN.exec(location.hash);
  if (wanted) history.replaceState(null, "", location.pathname + location.search);

  function ready(work) {
    if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", work);
    else work();
  }

  function addLink() {
    const link = document.createElement("a");
    link.href = PROJECTS;
    link.id = "my-projects-link";
    link.textContent = "Projects";
    link.title = "All your projects, kept on this server";
    link.style.cssText =
      "position:fixed;right:8px;bottom:8px;z-index:60;font:12px sans-serif;padding:2px 8px;border-radius:8px;" +
      "background:#fffc;color:#444;text-decoration:none;border:1px solid #ccc";
    document.body.append(link);
  }

  function say(text, code) {
    document.getElementById("my-projects-note")?.remove();
    const note = document.createElement("div");
    note.id = "my-projects-note";
    note.setAttribute("role", "alert");
    note.style.cssText =
      "position:fixed;left:50%;top:12px;transform:translateX(-50%);z-index:70;font:14px sans-serif;padding:10px 14px;" +
      "border-radius:8px;background:#fff;color:#222;border:1px solid #c90;max-width:40em;box-shadow:0 2px 12px #0003";
    const line = document.createElement("p");
    line.textContent = text;
    line.style.margin = "0 0 8px";
    note.append(line);
    const button = (label, work) => {
      const made = document.createElement("button");
      made.textContent = label;
      made.style.cssText = "margin-right:8px;padding:2px 8px;border:1px solid #999;border-radius:6px";
      made.addEventListener("click", work);
      note.append(made);
    };
    if (code) button("Copy the code", () => navigator.clipboard.writeText(code));
    button("Close", () => note.remove());
    document.body.append(note);
  }

  function* fibers() {
    const root = document.getElementById("root");
    const key = root && Object.keys(root).find((name) => name.startsWith("__reactContainer$"));
    const first = key && root[key];
    const stack = first ? [first.stateNode && first.stateNode.current ? first.stateNode.current : first] : [];
    for (let steps = 0; stack.length && steps < 100000; steps++) {
      const fiber = stack.pop();
      yield fiber;
      if (fiber.sibling) stack.push(fiber.sibling);
      if (fiber.child) stack.push(fiber.child);
    }
  }

  function* hooks(fiber) {
    let hook = fiber.memoizedState;
    for (let steps = 0; hook && typeof hook === "object" && "memoizedState" in hook && steps < 1000; steps++) {
      yield hook;
      hook = hook.next;
    }
  }

  const has = (value, names) =>
    value !== null && typeof value === "object" && names.every((name) => typeof value[name] === "function");

  function findStores() {
    let project = null, app = null, setSettings = null, importer = null;
    for (const fiber of fibers()) {
      for (const { memoizedState: value, queue } of hooks(fiber)) {
        if (!project && has(value, PROJECT_ACTIONS)) project = value;
        if (!app && has(value, APP_ACTIONS) && "appState" in value) app = value;
        if (!setSettings && has(queue, ["dispatch"]) && has(value, []) && STACK in value) setSettings = queue.dispatch;
      }
      const props = fiber.memoizedProps;
      if (!importer && props && typeof props.importFromCode === "function") importer = props.importFromCode;
      if (project && app && setSettings && importer) break;
    }
    return { project, app, setSettings, importer };
  }

  const call = (store, name, ...values) => {
    if (typeof store[name] === "function") store[name](...values);
  };

  // What the page repeats in each version stands once in what was read, and once in memory.
  function unpacked(tree) {
    const urls = new Map(tree.assets.map((asset) => [asset.id, asset.dataUrl]));
    const shown = (ids) => ids.map((id) => urls.get(id));
    const codes = new Map(tree.commits.flatMap((commit) => commit.variants.map(({ id, code }) => [id, code])));
    const turn = (id) =>
      codes.has(id)
        ? { role: "assistant", text: codes.get(id), imageAssetIds: [], videoAssetIds: [] }
        : { ...tree.asked[id] };
    const commits = tree.commits.map((commit) => ({
      ...commit,
      dateCreated: new Date(commit.dateCreated),
      inputs: commit.inputs && {
        ...commit.inputs, images: shown(commit.inputs.images), videos: shown(commit.inputs.videos),
      },
      variants: commit.variants.map(({ id, ...variant }) => ({ ...variant, history: variant.history.map(turn) })),
    }));
    return { ...tree, commits, referenceImages: shown(tree.referenceImages) };
  }

  function restore(tree, { project, app, setSettings }) {
    if (setSettings && tree.stack) setSettings((settings) => ({ ...settings, [STACK]: tree.stack }));
    call(project, "resetCommits");
    call(project, "resetHead");
    call(project, "resetPromptAssets");
    call(project, "resetExecutionConsoles");
    call(project, "setInputMode", tree.inputMode);
    call(project, "setInitialPrompt", tree.initialPrompt);
    call(project, "setReferenceImages", tree.referenceImages);
    call(project, "upsertPromptAssets", tree.assets);
    for (const commit of tree.commits) project.addCommit(commit);
    project.setHead(tree.head);
    app.setAppState("CODE_READY");
  }

  async function waitForStores() {
    const deadline = Date.now() + PATIENCE;
    let found = findStores();
    while (!(found.project && found.app) && Date.now() < deadline) {
      await new Promise((done) => setTimeout(done, 100));
      found = findStores();
    }
    return found;
  }

  async function read(id) {
    const answer = await fetch(PROJECTS + "/tree/" + id);
    if (!answer.ok) throw new Error(String(answer.status));
    return answer.json();
  }

  // Null when the person has begun something else meanwhile.
  async function readOnceThereIsSomething(id) {
    let tree = await read(id);
    if (tree.isRunning && !tree.commits.length) say("The first version is still being made. It is shown when it is done.");
    while (tree.isRunning && !tree.commits.length) {
      await new Promise((done) => setTimeout(done, PAUSE));
      const { app } = findStores();
      if (app && app.appState !== "INITIAL") return null;
      tree = await read(id);
    }
    if (tree.isRunning) say("A version is still being made. Open the project again to see it.");
    else document.getElementById("my-projects-note")?.remove();
    return tree;
  }

  async function open(id) {
    let tree;
    try {
      tree = await readOnceThereIsSomething(id);
    } catch {
      say("The project could not be read. Try again from the list of projects.");
      return;
    }
    if (tree === null) return;
    if (!tree.commits.length) {
      say("Nothing was made in this project yet.");
      return;
    }
    const found = await waitForStores();
    if (found.project && found.app) {
      try {
        restore(unpacked(tree), found);
        document.documentElement.dataset.openedProject = id;
        return;
      } catch (error) {
        console.error("my-projects", error);
      }
    }
    if (found.importer && tree.code) {
      found.importer(tree.code, tree.stack);
      document.documentElement.dataset.importedProject = id;
      say("This version of the page is not known here, so only the latest code was imported. Prompts, images and " +
        "earlier versions are still under Projects.", tree.code);
    } else {
      say("This version of the page is not known here. Copy the latest code and paste it into Import; prompts, images " +
        "and earlier versions are still under Projects.", tree.code);
    }
  }

  ready(() => {
    addLink();
    if (wanted) open(wanted[1]);
  });
})();
