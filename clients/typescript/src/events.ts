import { DataLayerError, ServiceUnreachableError, errorOf, type Problem } from "./errors.js";
import type { Patience } from "./transport.js";

interface Common {
  variant: number;
  /** For `follow(…, { after })`. */
  position: string;
}

/** What a follower of a generation receives. */
export type FollowedEvent =
  /** The whole code of a variant: at the beginning, and when what came before cannot be continued. */
  | (Common & { type: "code"; sequence: number; status: string; code: string })
  /** What has become of the code since the last event of this variant; see `applyPatch`. */
  | (Common & { type: "patch"; sequence: number; start: number; end: number; text: string })
  /** Something that happened while a variant was made. */
  | (Common & { type: "event"; sequence: number; kind: string; payload: Record<string, unknown> })
  /** A variant has ended. Its code is the one that the events before it have given. */
  | (Common & { type: "end"; code_id: string; status: string; error_message: string | null });

const SILENCE_MS = 40_000;
const TYPES = new Set(["code", "patch", "event", "end"]);
const SURROGATES = /[\ud800-\udfff]/;

/** The code that follows from the one before. Patches count characters of Unicode, strings of JavaScript UTF-16. */
export function applyPatch(code: string, patch: { start: number; end: number; text: string }): string {
  if (!SURROGATES.test(code)) {
    return code.slice(0, patch.start) + patch.text + code.slice(code.length - patch.end);
  }
  const characters = Array.from(code);
  const end = characters.slice(characters.length - patch.end).join("");
  return characters.slice(0, patch.start).join("") + patch.text + end;
}

export async function* follow(
  url: URL,
  send: (request: Request) => Promise<Response>,
  patience: Patience,
  options: { after?: string; signal?: AbortSignal },
): AsyncGenerator<FollowedEvent> {
  let position = options.after;
  for (;;) {
    const silence = new AbortController();
    const signal = options.signal ? AbortSignal.any([options.signal, silence.signal]) : silence.signal;
    let timer = setTimeout(() => silence.abort(), SILENCE_MS);
    const heard = () => {
      clearTimeout(timer);
      timer = setTimeout(() => silence.abort(), SILENCE_MS);
    };
    let failure: unknown;
    try {
      const headers: Record<string, string> = { accept: "text/event-stream" };
      if (position !== undefined) {
        headers["last-event-id"] = position;
      }
      const response = await send(new Request(url, { headers, signal }));
      if (response.status === 204) {
        return; // The generation has ended, and nothing of it is missing.
      }
      if (!response.ok || response.body === null) {
        throw errorOf(response, await response.json().catch(() => undefined));
      }
      for await (const event of readEvents(response.body, heard)) {
        patience.renew();
        // Not `reconnect`, after which the stream ends, nor what is not known yet.
        if (TYPES.has(event.type)) {
          position = event.position;
          yield event;
        }
      }
    } catch (error) {
      if (options.signal?.aborted || (error instanceof DataLayerError && error.status < 500)) {
        throw error;
      }
      failure = error;
    } finally {
      clearTimeout(timer);
      silence.abort();
    }
    // At its end the stream ends, and so does that of a process that stops: the next answer says which it was.
    if (!(await patience.wait())) {
      throw failure instanceof DataLayerError
        ? failure
        : new ServiceUnreachableError(`the stream ${url.pathname} broke off`, { cause: failure });
    }
  }
}

/** The events in a stream of bytes (WHATWG HTML, 9.2). One that is not complete at the end is dropped. */
async function* readEvents(body: ReadableStream<Uint8Array>, heard: () => void): AsyncGenerator<FollowedEvent> {
  const decoder = new TextDecoder();
  const reader = body.getReader();
  let rest = "";
  let name = "message";
  let data: string[] = [];
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) {
        return;
      }
      heard();
      const lines = (rest + decoder.decode(value, { stream: true })).split(/\r?\n/);
      rest = lines.pop() ?? "";
      for (const line of lines) {
        if (line === "") {
          if (data.length > 0) {
            yield eventOf(name, data.join("\n"));
          }
          name = "message";
          data = [];
        } else if (line.startsWith("data:")) {
          data.push(line.slice(5).replace(/^ /, ""));
        } else if (line.startsWith("event:")) {
          name = line.slice(6).trim();
        }
      }
    }
  } finally {
    await reader.cancel().catch(() => undefined);
  }
}

function eventOf(name: string, data: string): FollowedEvent {
  if (name === "problem") {
    const problem = JSON.parse(data) as Problem;
    throw new DataLayerError(problem.status, problem);
  }
  return { type: name, ...(JSON.parse(data) as object) } as FollowedEvent;
}
