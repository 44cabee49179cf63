/**
 * Serves the lab's page on loopback: its files, what there is to show as server-sent events, and the actions.
 *
 *     const page = await serve(lab, 5680);
 *     … http://127.0.0.1:${page.port}/ …
 *     await page.close();
 *
 * Any page in the same browser can send requests to loopback. So a request must be addressed to loopback by name, which
 * a name that an attacker lets point here is not, and an action must come from this page.
 */

import { readFileSync } from "node:fs";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { checkout } from "../../hosts/node/native.js";
import { type Lab, RefusedError } from "./lab.js";
import type { Action, Armed, Resume } from "./page/view.js";

const HOST = "127.0.0.1";
const BODY_MAX = 1024;

/** Milliseconds between two events at least. */
const PACE = 50;

/** Milliseconds after which the page hears that the lab is still there, and sees the sessions age. */
const BEAT = 5000;

/** Percent; the page's slider ends at 60, with which a device still gets through. */
const LOSS_MAX = 100;

const page = (name: string): string => join(checkout(), "tools", "lab", "page", name);

/** Path, file and type. */
const FILES: Readonly<Record<string, readonly [string, string]>> = {
  "/": [page("index.html"), "text/html"],
  "/lab.css": [page("lab.css"), "text/css"],
  "/icon.svg": [page("icon.svg"), "image/svg+xml"],
  "/page.js": [join(checkout(), "build", "tools", "lab", "page", "page.js"), "text/javascript"],
};

const HEADERS = {
  "Cache-Control": "no-store",
  "Content-Security-Policy":
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; " +
    "form-action 'none'; frame-ancestors 'none'",
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cross-Origin-Resource-Policy": "same-origin",
  "Referrer-Policy": "no-referrer",
  "X-Content-Type-Options": "nosniff",
};

/** An answer other than 2xx. */
class HTTPError extends Error {
  readonly status: number;

  constructor(status: number, message: string) {
    super(message);
    this.status = status;
  }
}

const OPERATIONS = ["run", "crts", "sren"] as const;
const WAYS: readonly Resume[] = ["context", "session", "ticket", "none"];
const ARMED: readonly Armed[] = ["lose", "cut", "move"];
const PLAIN = ["cut", "forget", "restart", "reset"] as const;

/** @throws HTTPError where it is no action. */
export function parseAction(text: string): Action {
  let body: unknown;
  try {
    body = JSON.parse(text);
  } catch {
    throw new HTTPError(400, "the body is not JSON");
  }
  if (typeof body !== "object" || body === null || Array.isArray(body)) {
    throw new HTTPError(400, "the body is no object");
  }
  const { action, ...rest } = body as Record<string, unknown>;
  const [[name, value] = ["", undefined], ...more] = Object.entries(rest);
  const one = <T>(expected: string, all: readonly T[]): T => {
    const found = name === expected && more.length === 0 ? all.find((each) => each === value) : undefined;
    if (found === undefined) {
      throw new HTTPError(400, `"${action}" takes "${expected}": one of ${all.join(", ")}`);
    }
    return found;
  };
  switch (action) {
    case "wake":
      return { action, operation: one("operation", OPERATIONS) };
    case "resume":
      return { action, way: one("way", WAYS) };
    case "arm":
      return { action, what: one("what", ARMED) };
    case "loss":
      if (
        name !== "percent" ||
        more.length > 0 ||
        !Number.isInteger(value) ||
        !(Number(value) >= 0 && Number(value) <= LOSS_MAX)
      ) {
        throw new HTTPError(400, `"loss" takes "percent": a whole number from 0 to ${LOSS_MAX}`);
      }
      return { action, percent: Number(value) };
    default: {
      const plain = PLAIN.find((each) => each === action);
      if (plain === undefined || name !== "") {
        throw new HTTPError(400, `expected an action, one of wake, resume, arm, loss, ${PLAIN.join(", ")}`);
      }
      return { action: plain };
    }
  }
}

async function bodyOf(request: IncomingMessage): Promise<string> {
  const parts: Buffer[] = [];
  let length = 0;
  for await (const part of request as AsyncIterable<Buffer>) {
    length += part.length;
    if (length > BODY_MAX) {
      throw new HTTPError(413, `the body is longer than ${BODY_MAX} bytes`);
    }
    parts.push(part);
  }
  return Buffer.concat(parts).toString("utf8");
}

/** Sends the view at once, and again after each change, not more often than the pace. */
function stream(lab: Lab, request: IncomingMessage, response: ServerResponse): void {
  response.writeHead(200, { ...HEADERS, "Content-Type": "text/event-stream" });
  let last = 0;
  let timer: NodeJS.Timeout | undefined;
  const send = (): void => {
    timer = undefined;
    last = performance.now();
    // A page that does not read gets the next one.
    if (!response.writableNeedDrain) {
      response.write(`data: ${JSON.stringify(lab.view())}\n\n`);
    }
  };
  const unwatch = lab.watch(() => {
    timer ??= setTimeout(send, Math.max(0, last + PACE - performance.now()));
  });
  const beat = setInterval(send, BEAT);
  request.on("close", () => {
    unwatch();
    clearTimeout(timer);
    clearInterval(beat);
  });
  send();
}

async function answer(lab: Lab, port: number, request: IncomingMessage, response: ServerResponse): Promise<void> {
  const hosts = [`${HOST}:${port}`, `localhost:${port}`];
  if (!hosts.includes(request.headers.host ?? "")) {
    throw new HTTPError(403, `this is http://${hosts[0]}/ and answers to no other name`);
  }
  const path = request.url ?? "";
  if (path === "/action") {
    if (request.method !== "POST") {
      throw new HTTPError(405, "an action is a POST");
    }
    if (!hosts.some((host) => request.headers.origin === `http://${host}`)) {
      throw new HTTPError(403, "an action comes from the lab's own page");
    }
    if (request.headers["content-type"] !== "application/json") {
      throw new HTTPError(415, "an action is application/json");
    }
    lab.act(parseAction(await bodyOf(request)));
    response.writeHead(204, HEADERS).end();
    return;
  }
  if (request.method !== "GET" && request.method !== "HEAD") {
    throw new HTTPError(405, "there is nothing to change here");
  }
  if (path === "/events") {
    stream(lab, request, response);
    return;
  }
  const file = Object.hasOwn(FILES, path) ? FILES[path] : undefined;
  if (file === undefined) {
    throw new HTTPError(404, "there is no such page");
  }
  const [name, type] = file;
  response.writeHead(200, { ...HEADERS, "Content-Type": `${type}; charset=utf-8` }).end(readFileSync(name));
}

export interface Page {
  readonly port: number;
  close(): Promise<void>;
}

/** @throws Error where the port cannot be had. */
export async function serve(lab: Lab, port: number): Promise<Page> {
  const server = createServer((request, response) => {
    const { port } = server.address() as AddressInfo;
    answer(lab, port, request, response).catch((error: Error) => {
      const status = error instanceof HTTPError ? error.status : error instanceof RefusedError ? 409 : 500;
      if (response.headersSent) {
        response.destroy();
        return;
      }
      // What is left of a body that was refused is not read.
      const end = request.complete ? {} : { Connection: "close" };
      response.writeHead(status, { ...HEADERS, ...end, "Content-Type": "text/plain; charset=utf-8" });
      response.end(`${error.message}\n`);
    });
  });
  server.requestTimeout = 10_000;
  await new Promise<void>((resolve, reject) => {
    server.once("error", (error: NodeJS.ErrnoException) =>
      reject(
        new Error(
          error.code === "EADDRINUSE"
            ? `${HOST}:${port} is in use: stop what listens there, or take another --port`
            : `cannot listen on ${HOST}:${port}: ${error.message}`,
        ),
      ),
    );
    server.listen(port, HOST, resolve);
  });
  return {
    port: (server.address() as AddressInfo).port,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}
