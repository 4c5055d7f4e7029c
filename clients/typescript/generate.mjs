// Writes src/api.ts, the types of the API, and src/creating.ts, which calls take an Idempotency-Key.
// Usage: node generate.mjs [docs/reference/openapi.json]
import { readFile, writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import openapiTS, { astToString } from "openapi-typescript";

const source = process.argv[2] ?? fileURLToPath(new URL("../../docs/reference/openapi.json", import.meta.url));
const description = JSON.parse(await readFile(source, "utf8"));
const heading = "// Written by `npm run generate` from the description of the API; changes here are lost.\n";

const creating = Object.entries(description.paths)
  .filter(([, operations]) => operations.post?.parameters?.some((each) => each.name === "Idempotency-Key"))
  .map(([path]) => `  ${JSON.stringify(path)},\n`);
// What has a default need not be sent, so the types of bodies do not ask for it.
const types = astToString(await openapiTS(description, { defaultNonNullable: false }));

await writeFile(new URL("src/api.ts", import.meta.url), heading + types);
await writeFile(
  new URL("src/creating.ts", import.meta.url),
  `${heading}/** The paths at which a POST creates something, once for each Idempotency-Key. */\n` +
    `export const CREATING: ReadonlySet<string> = new Set([\n${creating.join("")}]);\n`,
);
