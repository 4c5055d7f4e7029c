import { unwrap, type Result } from "./errors.js";

/**
 * All pages of a list, each asked for when it is needed:
 *
 * ```ts
 * for await (const page of pages((after) => client.api.GET("/v1/projects", { params: { query: { after } } }))) {
 *   console.log(page.projects);
 * }
 * ```
 *
 * Where a cursor is a number, say so: `(before: number | null) => …`.
 */
export async function* pages<Page extends { next: Cursor | null }, Cursor extends string | number = string>(
  ask: (cursor: Cursor | null) => Promise<Result<Page>>,
): AsyncGenerator<Page> {
  let cursor: Cursor | null = null;
  do {
    const page: Page = await unwrap(ask(cursor));
    yield page;
    cursor = page.next;
  } while (cursor !== null);
}
