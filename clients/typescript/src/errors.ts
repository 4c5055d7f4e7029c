import type { components } from "./api.js";

export type Problem = components["schemas"]["Problem"];

/** The service answered with a failure (RFC 9457). */
export class DataLayerError extends Error {
  override readonly name = "DataLayerError";
  /** That of the error in the service, such as `budget_exceeded`; `http_502` and the like of a proxy. */
  readonly code: string;
  /** What the log of the service calls the request. */
  readonly requestId: string;
  /** What is wrong with values, by their paths. */
  readonly fields: Readonly<Record<string, string>>;
  /** What another change has stored meanwhile. */
  readonly current: Readonly<Record<string, unknown>> | null;

  constructor(
    readonly status: number,
    problem: Partial<Problem> | undefined,
    requestId = "",
  ) {
    super(problem?.detail ?? `the service answered with status ${status}`);
    this.code = problem?.code ?? `http_${status}`;
    this.requestId = problem?.request_id ?? requestId;
    this.fields = Object.fromEntries((problem?.fields ?? []).map((each) => [each.field, each.message]));
    this.current = problem?.current ?? null;
  }
}

export type SecondFactorNeeded = components["schemas"]["SecondFactorNeeded"];

/** The password is right, and no session has begun yet: go on with `finishLogIn`. */
export class SecondFactorRequiredError extends Error {
  override readonly name = "SecondFactorRequiredError";

  /** `passkey` of it holds the options for `navigator.credentials.get`. */
  constructor(readonly challenge: SecondFactorNeeded) {
    super("the password is right; now show a second factor with finishLogIn");
  }
}

/** The service did not answer. What changes something may have been done or not. */
export class ServiceUnreachableError extends Error {
  override readonly name = "ServiceUnreachableError";
}

/** What a call of `client.api` answers. */
export interface Result<Data> {
  data?: Data;
  error?: unknown;
  response: Response;
}

/** The data of an answer; a failure is thrown. Where there is none, such as after 204, it is undefined. */
export async function unwrap<Data>(answer: Promise<Result<Data>>): Promise<Data> {
  const { data, error, response } = await answer;
  if (!response.ok) {
    throw errorOf(response, error);
  }
  return data as Data;
}

export function errorOf(response: Response, content: unknown): DataLayerError {
  const problem = typeof content === "object" && content !== null ? (content as Partial<Problem>) : undefined;
  return new DataLayerError(response.status, problem, response.headers.get("x-request-id") ?? "");
}
