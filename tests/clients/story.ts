// What a program in TypeScript does with the client, against the service at SERVICE_URL.
// The test puts this beside the sources of the client, so that the compiler checks its types, too.
import assert from "node:assert/strict";
import {
  applyPatch,
  DataLayerClient,
  DataLayerError,
  pages,
  SecondFactorRequiredError,
  ServiceUnreachableError,
  unwrap,
  type Tokens,
} from "./index.js";

const baseUrl = process.env["SERVICE_URL"] ?? "";
const kept: Tokens[] = [];
const client = new DataLayerClient({ baseUrl, onTokens: (tokens) => kept.push(tokens) });
const tokens = await client.logIn("ada@example.com", process.env["PASSWORD"] ?? "");

// The answer to the first attempt is lost; one project is made all the same.
const project = await unwrap(client.api.POST("/v1/projects", { body: { name: "Shop", tags: ["a"] } }));
for (const name of ["B", "C"]) {
  await unwrap(client.api.POST("/v1/projects", { body: { name } }));
}
const names: string[] = [];
const sizes: number[] = [];
for await (const page of pages((after) =>
  client.api.GET("/v1/projects", { params: { query: { after, limit: 2, order: "name", descending: false, status: ["draft", "active"] } } }),
)) {
  names.push(...page.projects.map((each) => each.name));
  sizes.push(page.projects.length);
}
assert.deepEqual([names, sizes], [["B", "C", "Shop"], [2, 1]]);

const path = { project_id: project.id };
const shown = await client.api.GET("/v1/projects/{project_id}", { params: { path } });
const etag = shown.response.headers.get("etag") ?? "";
const change = (name: string) =>
  unwrap(client.api.PATCH("/v1/projects/{project_id}", { params: { path, header: { "If-Match": etag } }, body: { name } }));
assert.equal((await change("Store")).name, "Store");
await assert.rejects(change("Kiosk"), (error) => {
  assert(error instanceof DataLayerError);
  assert.deepEqual([error.status, error.code, error.current?.["name"]], [412, "changed_meanwhile", "Store"]);
  return true;
});
await assert.rejects(unwrap(client.api.POST("/v1/projects", { body: { name: "x".repeat(10_000) } })), (error) => {
  assert(error instanceof DataLayerError);
  assert.deepEqual(Object.keys(error.fields), ["name"]);
  assert(error.requestId);
  return true;
});

// A POST without a key is sent once.
await assert.rejects(
  unwrap(client.api.POST("/v1/projects/{project_id}/archive", { params: { path } })),
  (error) => error instanceof DataLayerError && error.status === 502 && error.code === "http_502",
);

const started = await unwrap(
  client.api.POST("/v1/generations", { body: { project_id: project.id, request: { prompt: "a shop" }, models: [{ name: "m" }] } }),
);
const writer = { path: { generation_id: started.id }, header: { "Writer-Token": started.writer_token } };
const words = Array.from({ length: 20 }, (_, number) => `<p>${number} ü 🙂\u2028</p>\n`);
const write = async () => {
  for (const [index, text] of words.entries()) {
    await unwrap(
      client.api.POST("/v1/generations/{generation_id}/events", {
        params: writer,
        body: { variant: 0, sequence: index + 1, pieces: [{ type: "text", text }] },
      }),
    );
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  await unwrap(
    client.api.PUT("/v1/generations/{generation_id}/variants/{index}", {
      params: { ...writer, path: { ...writer.path, index: 0 } },
      body: { status: "completed" },
    }),
  );
};
const writing = write();
let code = "";
let ended = "";
const positions = new Set<string>();
for await (const event of client.follow(started.id)) {
  assert(!positions.has(event.position));
  positions.add(event.position);
  if (event.type === "code") code = event.code;
  if (event.type === "patch") code = applyPatch(code, event);
  if (event.type === "end") ended = event.status;
}
await writing;
assert.deepEqual([code, ended], [words.join(""), "completed"]);
for await (const page of pages((before: number | null) =>
  client.api.GET("/v1/projects/{project_id}/versions", { params: { path, query: { before } } }),
)) {
  assert.deepEqual(page.versions.map((each) => each.number), [1]);
}

/** The code that an authenticator app shows for a secret in base32 (RFC 6238). */
async function codeOf(secret: string): Promise<string> {
  const digits = [...secret].map((each) => "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567".indexOf(each).toString(2).padStart(5, "0")).join("");
  const bytes = Uint8Array.from(digits.match(/.{8}/g) ?? [], (each) => parseInt(each, 2));
  const key = await crypto.subtle.importKey("raw", bytes, { name: "HMAC", hash: "SHA-1" }, false, ["sign"]);
  const step = new DataView(new ArrayBuffer(8));
  step.setUint32(4, Math.floor(Date.now() / 30_000));
  const signed = new DataView(await crypto.subtle.sign("HMAC", key, step));
  return String((signed.getUint32(signed.getUint8(19) & 15) & 0x7fffffff) % 1_000_000).padStart(6, "0");
}

const password = process.env["PASSWORD"] ?? "";
const factors = "/v1/accounts/me/second-factors";
const app = await unwrap(client.api.POST(`${factors}/totp`, { body: { name: "Phone", password } }));
const added = await unwrap(
  client.api.POST(`${factors}/totp/{factor_id}/confirm`, {
    params: { path: { factor_id: app.id } },
    body: { code: await codeOf(app.secret) },
  }),
);
const careful = new DataLayerClient({ baseUrl });
const refused = await careful.logIn("ada@example.com", password).catch((error: unknown) => error);
assert(refused instanceof SecondFactorRequiredError);
assert.deepEqual([refused.challenge.methods, careful.tokens], [["totp", "recovery_code"], undefined]);
const { challenge } = refused.challenge;
await assert.rejects(careful.finishLogIn(challenge, { recovery_code: "wrong" }), DataLayerError);
await careful.finishLogIn(challenge, { recovery_code: added.recovery_codes[0] ?? "" });
await unwrap(careful.api.POST(`${factors}/{factor_id}/remove`, { params: { path: { factor_id: app.id } }, body: { password } }));

// Tokens of an earlier start, of which the first one has ended meanwhile.
const later = new DataLayerClient({ baseUrl, tokens: { ...tokens, expiresAt: Date.now() }, onTokens: (each) => kept.push(each) });
const found = await Promise.all([1, 2, 3].map(() => unwrap(later.api.GET("/v1/accounts/me"))));
assert.deepEqual(new Set(found.map((each) => each.email)), new Set(["ada@example.com"]));
assert.equal(kept.length, 2);
await later.logOut();
await assert.rejects(unwrap(later.api.GET("/v1/accounts/me")), (error) => error instanceof DataLayerError && error.status === 401);

const nowhere = new DataLayerClient({ baseUrl: "http://127.0.0.1:1", patience: 100 });
await assert.rejects(unwrap(nowhere.api.GET("/v1/accounts/me")), ServiceUnreachableError);
console.log("done");
