/**
 * A typed client of the data layer.
 *
 * ```ts
 * const client = new DataLayerClient({ baseUrl: "https://data.example.com" });
 * await client.logIn("ada@example.com", password);
 * const project = await unwrap(client.api.POST("/v1/projects", { body: { name: "Shop" } }));
 * ```
 */
export type { components, operations, paths } from "./api.js";
export { DataLayerClient, type Options, type SecondFactor, type Tokens } from "./client.js";
export {
  DataLayerError,
  SecondFactorRequiredError,
  ServiceUnreachableError,
  unwrap,
  type Problem,
  type Result,
  type SecondFactorNeeded,
} from "./errors.js";
export { applyPatch, type FollowedEvent } from "./events.js";
export { pages } from "./pages.js";
