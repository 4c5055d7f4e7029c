// A page that keeps its state as that of Screenshot to Code does, written from the facts: two zustand stores whose
// states a component uses as a whole, and an edit that knows nothing but codes.
"use strict";
const React = require("react");
const { createRoot } = require("react-dom/client");
const { create } = require("zustand");

const useProjectStore = create((set) => ({
  inputMode: "image", referenceImages: [], initialPrompt: "", assetsById: {}, commits: {}, head: null,
  latestCommitHash: null,
  setInputMode: (inputMode) => set({ inputMode }),
  setReferenceImages: (referenceImages) => set({ referenceImages }),
  setInitialPrompt: (initialPrompt) => set({ initialPrompt }),
  upsertPromptAssets: (assets) => set((state) => ({
    assetsById: { ...state.assetsById, ...Object.fromEntries(assets.map((asset) => [asset.id, asset])) },
  })),
  resetPromptAssets: () => set({ assetsById: {} }),
  addCommit: (commit) => set((state) => {
    if (commit.parentHash !== null && !(commit.parentHash in state.commits)) throw new Error("no such parent");
    const former = Object.entries(state.commits).map(([hash, each]) => [hash, {
      ...each, isCommitted: true, variants: each.variants.map((variant) => ({ ...variant, agentEvents: [] })),
    }]);
    return { commits: { ...Object.fromEntries(former), [commit.hash]: commit }, latestCommitHash: commit.hash };
  }),
  updateSelectedVariantIndex: (hash, selectedVariantIndex) => set((state) => {
    if (state.commits[hash].isCommitted) throw new Error("a committed version cannot be changed");
    return { commits: { ...state.commits, [hash]: { ...state.commits[hash], selectedVariantIndex } } };
  }),
  setHead: (head) => set({ head }),
  resetHead: () => set({ head: null }),
  resetCommits: () => set({ commits: {} }),
}));

const useAppStore = create((set) => ({
  appState: "INITIAL",
  setAppState: (appState) => set({ appState }),
}));

const isUnknown = new URLSearchParams(location.search).has("unknown");

function edit(project, settings) {
  const commit = project.commits[project.head];
  const variant = commit.variants[commit.selectedVariantIndex];
  const urls = (ids) => ids.map((id) => project.assetsById[id].dataUrl);
  const history = [...variant.history, { role: "user", text: "Edited here", imageAssetIds: [], videoAssetIds: [] }];
  const socket = new WebSocket(`ws://${location.host}/generate-code`);
  socket.onopen = () => socket.send(JSON.stringify({
    generationType: "update", inputMode: project.inputMode, prompt: { text: "Edited here", images: [], videos: [] },
    history: history.map((turn) => ({
      role: turn.role, text: turn.text, images: urls(turn.imageAssetIds), videos: urls(turn.videoAssetIds),
    })),
    fileState: { path: "index.html", content: variant.code },
    optionCodes: commit.variants.map((each) => each.code),
    ...settings,
  }));
}

function Start({ importFromCode }) {
  return React.createElement("p", { id: "start" }, typeof importFromCode);
}

function Whole() {
  const project = useProjectStore();
  const app = useAppStore();
  const [settings] = React.useState(() => JSON.parse(localStorage.getItem("setting")));
  window.pageState = { project, app };
  return React.createElement("button", { id: "edit", onClick: () => edit(project, settings) }, app.appState);
}

function App() {
  const imported = (code, stack) => { window.imported = { code, stack }; };
  return React.createElement("main", null,
    React.createElement(Start, { importFromCode: imported }), isUnknown ? null : React.createElement(Whole));
}

createRoot(document.getElementById("root")).render(React.createElement(App));
