import { ServiceUnreachableError } from "./errors.js";

const REPEATED_METHODS = new Set(["GET", "HEAD", "PUT", "DELETE"]);
const REPEATED_STATUSES = new Set([429, 502, 503, 504]);
const FIRST_PAUSE_MS = 200;
const LONGEST_PAUSE_MS = 5_000;

/** How long something is repeated, and the pauses in between: each twice the one before, with some chance. */
export class Patience {
  #until: number | undefined;
  #pause = FIRST_PAUSE_MS;

  constructor(private readonly milliseconds: number) {}

  /** Begin again: something has succeeded. */
  renew(): void {
    this.#until = undefined;
    this.#pause = FIRST_PAUSE_MS;
  }

  /** Wait before the next attempt; false: there is no time for it. */
  async wait(atLeast = 0): Promise<boolean> {
    const now = performance.now();
    this.#until ??= now + this.milliseconds;
    const pause = Math.max(this.#pause * (0.5 + Math.random() / 2), atLeast);
    if (now + pause > this.#until) {
      return false;
    }
    this.#pause = Math.min(2 * this.#pause, LONGEST_PAUSE_MS);
    await new Promise((resolve) => setTimeout(resolve, pause));
    return true;
  }
}

/**
 * Send a request, again and again where that does no more than sending it once: GET, PUT and DELETE, and a POST with
 * its Idempotency-Key. The last answer is returned, also one of a failure.
 */
export async function sendPatiently(
  request: Request,
  send: (request: Request) => Promise<Response>,
  patience: Patience,
): Promise<Response> {
  const mayBeRepeated = REPEATED_METHODS.has(request.method) || request.headers.has("idempotency-key");
  for (;;) {
    let response: Response | undefined;
    let failure: unknown;
    try {
      response = await send(request.clone());
      if (!REPEATED_STATUSES.has(response.status)) {
        return response;
      }
    } catch (error) {
      if (request.signal.aborted) {
        throw error;
      }
      failure = error;
    }
    const seconds = Number(response?.headers.get("retry-after") ?? 0);
    if (!mayBeRepeated || !(await patience.wait(1000 * (Number.isFinite(seconds) ? seconds : 0)))) {
      if (response !== undefined) {
        return response;
      }
      const { pathname } = new URL(request.url);
      throw new ServiceUnreachableError(`no answer to ${request.method} ${pathname}`, { cause: failure });
    }
    await response?.body?.cancel();
  }
}
