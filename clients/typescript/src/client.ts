import createClient, { type Client, type Middleware } from "openapi-fetch";
import type { paths } from "./api.js";
import { CREATING } from "./creating.js";
import { errorOf, SecondFactorRequiredError, type SecondFactorNeeded } from "./errors.js";
import { follow, type FollowedEvent } from "./events.js";
import { Patience, sendPatiently } from "./transport.js";

/** What a login gave; both tokens are secrets. `expiresAt` is in milliseconds since 1970 by the clock of this machine. */
export interface Tokens {
  accessToken: string;
  refreshToken: string;
  expiresAt: number;
}

export interface Options {
  /** Where the service is. */
  baseUrl: string;
  /** A token that is sent as it is: of a session or an API key. */
  token?: string;
  /** Of an earlier `logIn`; they are renewed in time. */
  tokens?: Tokens;
  /** Called with each new pair of tokens, such as to keep it. */
  onTokens?: (tokens: Tokens) => void;
  /** For how many milliseconds a request is repeated that may be repeated, and a stream resumed. By default 30,000. */
  patience?: number;
  fetch?: (request: Request) => Promise<Response>;
}

/** One of: a code of an app, a recovery code, what a passkey has answered (its `toJSON()`). */
export type SecondFactor = { code: string } | { recovery_code: string } | { passkey: Record<string, unknown> };

const EARLY_MS = 30_000;

/** A client of the service. `api` has all its calls, with the types of their paths, bodies and answers. */
export class DataLayerClient {
  readonly api: Client<paths>;
  #tokens: Tokens | undefined;
  #renewing: Promise<void> | undefined;
  readonly #patience: number;
  readonly #send: (request: Request) => Promise<Response>;

  constructor(private readonly options: Options) {
    this.#tokens = options.tokens;
    this.#patience = options.patience ?? 30_000;
    this.#send = options.fetch ?? ((request) => fetch(request));
    this.api = createClient<paths>({
      baseUrl: options.baseUrl,
      fetch: (request) => this.fetch(request),
      querySerializer: { array: { style: "form", explode: true } },
    });
    this.api.use(onceForEachKey);
  }

  /** The tokens of the login, to go on with them later. */
  get tokens(): Tokens | undefined {
    return this.#tokens;
  }

  /**
   * Log in. From now on requests carry the tokens, which are renewed in time.
   *
   * Throws a `SecondFactorRequiredError` where a second factor is needed; go on with `finishLogIn`.
   */
  async logIn(email: string, password: string): Promise<Tokens> {
    const answer = await this.#ask<TokenAnswer | SecondFactorNeeded>("/v1/tokens", { email, password }, false);
    if ("challenge" in answer) {
      throw new SecondFactorRequiredError(answer);
    }
    return this.#keep(answer);
  }

  /**
   * Show a second factor for the `challenge` of a `SecondFactorRequiredError`; or a passkey alone for that of
   * `POST /v1/sessions/passkey`.
   */
  async finishLogIn(challenge: string, proof: SecondFactor): Promise<Tokens> {
    return this.#keep(await this.#ask("/v1/tokens/second-factor", { challenge, ...proof }, false));
  }

  /** End the session that the tokens belong to. */
  async logOut(): Promise<void> {
    await this.api.DELETE("/v1/sessions/current");
    this.#tokens = undefined;
  }

  /**
   * Follow a generation to its end. A connection that breaks or falls silent is made again where it was, so that
   * nothing is missed and nothing comes twice.
   */
  follow(generationId: string, options: { after?: string; signal?: AbortSignal } = {}): AsyncGenerator<FollowedEvent> {
    const url = new URL(`/v1/generations/${encodeURIComponent(generationId)}/events`, this.options.baseUrl);
    return follow(url, (request) => this.fetch(request), new Patience(this.#patience), options);
  }

  /** Send a request with the tokens, and repeat it if that is harmless; such as for what `api` does not have. */
  async fetch(request: Request): Promise<Response> {
    const token = await this.#token();
    const response = await this.#repeat(request, token);
    if (response.status !== 401 || this.#tokens === undefined || token === undefined) {
      return response;
    }
    // Who is refused has not been listened to, so anything may be sent again.
    await this.#renew(token);
    return this.#repeat(request, this.#tokens?.accessToken);
  }

  #repeat(request: Request, token: string | undefined): Promise<Response> {
    const sent = request.clone();
    if (token !== undefined) {
      sent.headers.set("authorization", `Bearer ${token}`);
    }
    return sendPatiently(sent, this.#send, new Patience(this.#patience));
  }

  async #token(): Promise<string | undefined> {
    if (this.#tokens === undefined) {
      return this.options.token;
    }
    if (this.#tokens.expiresAt - EARLY_MS < Date.now()) {
      await this.#renew(this.#tokens.accessToken);
    }
    return this.#tokens.accessToken;
  }

  /** Get a new pair, once for all requests that wait for it. */
  async #renew(refused: string): Promise<void> {
    if (this.#tokens?.accessToken !== refused) {
      return;
    }
    const refresh = { refresh_token: this.#tokens.refreshToken };
    this.#renewing ??= this.#ask("/v1/tokens/refresh", refresh, true)
      .then((answer) => void this.#keep(answer))
      .finally(() => (this.#renewing = undefined));
    await this.#renewing;
  }

  async #ask<Answer = TokenAnswer>(path: string, body: object, mayBeRepeated: boolean): Promise<Answer> {
    const headers: Record<string, string> = { "content-type": "application/json" };
    if (mayBeRepeated) {
      headers["idempotency-key"] = crypto.randomUUID(); // For a few seconds the service answers the same again.
    }
    const request = new Request(new URL(path, this.options.baseUrl), { method: "POST", headers, body: JSON.stringify(body) });
    const response = await sendPatiently(request, this.#send, new Patience(this.#patience));
    const content: unknown = await response.json().catch(() => undefined);
    if (!response.ok) {
      throw errorOf(response, content);
    }
    return content as Answer;
  }

  #keep(answer: TokenAnswer): Tokens {
    this.#tokens = {
      accessToken: answer.access_token,
      refreshToken: answer.refresh_token,
      expiresAt: Date.now() + 1000 * answer.expires_in,
    };
    this.options.onTokens?.(this.#tokens);
    return this.#tokens;
  }
}

interface TokenAnswer {
  access_token: string;
  refresh_token: string;
  expires_in: number;
}

/** A POST that creates something is carried out once, however often it is sent. */
const onceForEachKey: Middleware = {
  onRequest({ request, schemaPath }) {
    if (request.method === "POST" && CREATING.has(schemaPath) && !request.headers.has("idempotency-key")) {
      request.headers.set("idempotency-key", crypto.randomUUID());
    }
    return request;
  },
};
