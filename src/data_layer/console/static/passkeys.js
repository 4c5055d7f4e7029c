// Passkeys (WebAuthn, level 3): the browser makes one, or answers with one, and the form sends what it said.
"use strict";

const decoded = (text) => Uint8Array.from(atob(text.replace(/-/g, "+").replace(/_/g, "/")), (one) => one.charCodeAt(0));
const encoded = (bytes) => {
  const text = btoa(String.fromCharCode(...new Uint8Array(bytes)));
  return text.replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
};
const withBytes = (options) => {
  const known = (each) => ({ ...each, id: decoded(each.id) });
  const changed = { ...options, challenge: decoded(options.challenge) };
  if (options.user) changed.user = known(options.user);
  for (const name of ["allowCredentials", "excludeCredentials"]) {
    if (options[name]) changed[name] = options[name].map(known);
  }
  return changed;
};

// Not toJSON(): password managers that take the place of the browser often lack it.
const answerOf = (credential) => {
  const response = {};
  for (const name of ["clientDataJSON", "attestationObject", "authenticatorData", "signature", "userHandle"]) {
    if (credential.response[name]) response[name] = encoded(credential.response[name]);
  }
  const { id, rawId, type } = credential;
  return JSON.stringify({ id, rawId: encoded(rawId), type, response, clientExtensionResults: {} });
};

const asked = async (button) => {
  if (!button.dataset.from) return { challenge: button.dataset.challenge, options: JSON.parse(button.dataset.options) };
  const isWantedBack = document.querySelector("[name=reactivate]:checked") !== null;
  const answer = await fetch(button.dataset.from + (isWantedBack ? "?reactivate=yes" : ""));
  if (!answer.ok) throw new Error(`status ${answer.status}`);
  return answer.json();
};

for (const button of document.querySelectorAll("[data-passkey]")) {
  const form = button.form;
  const note = form.querySelector(".passkey-note");
  const say = (text) => {
    note.textContent = text;
    note.hidden = text === "";
  };
  if (!window.PublicKeyCredential) {
    say(note.dataset.unsupported);
    continue;
  }
  say("");
  button.hidden = false;
  button.addEventListener("click", async () => {
    if (!form.reportValidity()) return;
    say("");
    button.disabled = true;
    try {
      const { challenge, options } = await asked(button);
      const publicKey = withBytes(options);
      const isNew = button.dataset.passkey === "create";
      const credential = await (isNew ? navigator.credentials.create({ publicKey }) : navigator.credentials.get({ publicKey }));
      form.elements.challenge.value = challenge;
      form.elements.answer.value = answerOf(credential);
      form.submit();
    } catch (error) {
      const texts = { NotAllowedError: "cancelled", InvalidStateError: "known", SecurityError: "address" };
      say(note.dataset[texts[error.name] ?? "failed"]);
    } finally {
      button.disabled = false;
    }
  });
}
