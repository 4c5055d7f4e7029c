// oidc-provider, a certified OpenID Connect issuer, that tests steer: PUT /test takes {jwks, person, mode, idTokenHasEmail}.
// It prints the port that it listens on. Usage: node issuer.mjs MODULE
import { createServer } from "node:http";
import { pathToFileURL } from "node:url";

const { default: Provider } = await import(pathToFileURL(process.argv[2]));
const state = { jwks: null, person: { sub: "nobody" }, people: {}, mode: "up", idTokenHasEmail: false, calls: {} };
let answer = null;
let issuer = null;

function makeProvider() {
  const provider = new Provider(issuer, {
    jwks: state.jwks,
    clients: [
      {
        client_id: "data-layer",
        client_secret: "a secret: with +/% in it",
        redirect_uris: ["https://service.example/v1/oidc/oidc/callback"],
      },
    ],
    claims: { email: ["email", "email_verified"], profile: ["name", "given_name", "family_name", "picture"] },
    conformIdTokenClaims: !state.idTokenHasEmail,
    cookies: { keys: ["of the tests"] },
    features: { devInteractions: { enabled: false } },
    interactions: { url: (_, interaction) => `/interaction/${interaction.uid}` },
    findAccount: (_, id) => ({ accountId: id, claims: () => state.people[id] }),
    async loadExistingGrant(ctx) {
      const grant = new ctx.oidc.provider.Grant({
        clientId: ctx.oidc.client.clientId,
        accountId: ctx.oidc.session.accountId,
      });
      grant.addOIDCScope("openid email profile");
      await grant.save();
      return grant;
    },
  });
  answer = provider.callback();
  return provider;
}

let provider = null;

async function steer(request, response) {
  let body = "";
  for await (const piece of request) body += piece;
  const changes = body ? JSON.parse(body) : {};
  Object.assign(state, changes);
  state.people[state.person.sub] = state.person;
  if (changes.jwks || "idTokenHasEmail" in changes) provider = makeProvider();
  response.setHeader("content-type", "application/json");
  response.end(JSON.stringify(state.calls));
  state.calls = {};
}

const server = createServer(async (request, response) => {
  if (request.url === "/test") return steer(request, response);
  const path = request.url.split("?")[0];
  state.calls[path] = (state.calls[path] ?? 0) + 1;
  if (state.mode === "silent") return undefined;
  if (state.mode === "down") return response.writeHead(503).end("down");
  if (path.startsWith("/interaction/")) {
    const result = state.person.denies
      ? { error: "access_denied", error_description: "the person does not want to" }
      : { login: { accountId: state.person.sub } };
    return provider.interactionFinished(request, response, result);
  }
  return answer(request, response);
});
server.listen(0, "127.0.0.1", () => {
  issuer = `http://127.0.0.1:${server.address().port}`;
  console.log(issuer);
});
// The tests hold the other end: when they die, so does this.
process.stdin.resume().on("end", () => process.exit(0));
