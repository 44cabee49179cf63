/**
 * A headless Chromium, driven by the DevTools protocol over a pipe: nothing listens, and it ends with the tests.
 *
 *     const browser = await Browser.start();
 *     const page = await browser.open("http://127.0.0.1:5680/", { width: 400, height: 800 });
 *     await page.until("document.title === 'Torpor lab'");
 *     await browser.close();
 */

import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Readable, Writable } from "node:stream";

/** Milliseconds between two looks at a condition, and after which it is given up. */
const LOOK = 40;
const PATIENCE = 45_000;

interface Message {
  readonly id?: number;
  readonly method?: string;
  readonly sessionId?: string;
  /** As the protocol has them, by method. */
  readonly params?: Record<string, unknown>;
  readonly result?: Record<string, unknown>;
  readonly error?: { readonly message: string };
}

export class Browser {
  readonly #child: ChildProcess;
  readonly #profile: string;
  readonly #waiting = new Map<
    number,
    { resolve: (result: Record<string, unknown>) => void; reject: (error: Error) => void }
  >();
  readonly #pages = new Map<string, Page>();
  #count = 0;

  private constructor(child: ChildProcess, profile: string) {
    this.#child = child;
    this.#profile = profile;
    let text = "";
    (child.stdio[4] as Readable).setEncoding("utf8").on("data", (part: string) => {
      const messages = (text + part).split("\0");
      text = messages.pop()!;
      for (const message of messages) {
        this.#receive(JSON.parse(message) as Message);
      }
    });
    child.on("exit", () => {
      for (const { reject } of this.#waiting.values()) {
        reject(new Error("the browser has ended"));
      }
    });
  }

  static async start(): Promise<Browser> {
    const profile = mkdtempSync(join(tmpdir(), "torpor-browser-"));
    const args = [
      "--headless",
      "--remote-debugging-pipe",
      `--user-data-dir=${profile}`,
      "--no-first-run",
      "--disable-gpu",
    ];
    args.push(
      "--disable-dev-shm-usage",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
    );
    if (process.getuid?.() === 0) {
      args.push("--no-sandbox");
    }
    const child = spawn("chromium", args, { stdio: ["ignore", "ignore", "ignore", "pipe", "pipe"] });
    await once(child, "spawn");
    return new Browser(child, profile);
  }

  /** A new tab of this size, with the page loaded. */
  async open(url: string, size: { width: number; height: number }): Promise<Page> {
    const { targetId } = await this.send("Target.createTarget", { url: "about:blank" });
    const { sessionId } = await this.send("Target.attachToTarget", { targetId, flatten: true });
    const page = new Page(this, sessionId as string);
    this.#pages.set(sessionId as string, page);
    for (const domain of ["Page", "Runtime", "Log"]) {
      await page.send(`${domain}.enable`);
    }
    await page.resize(size);
    await page.send("Page.navigate", { url });
    return page;
  }

  send(method: string, params: object = {}, sessionId?: string): Promise<Record<string, unknown>> {
    const id = ++this.#count;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject });
      (this.#child.stdio[3] as Writable).write(`${JSON.stringify({ id, method, params, sessionId })}\0`);
    });
  }

  async close(): Promise<void> {
    const ended = once(this.#child, "exit");
    this.send("Browser.close").catch(() => {});
    const timer = setTimeout(() => this.#child.kill("SIGKILL"), 5000);
    await ended;
    clearTimeout(timer);
    rmSync(this.#profile, { recursive: true, force: true, maxRetries: 5 });
  }

  #receive({ id, method, sessionId, params = {}, result = {}, error }: Message): void {
    if (id === undefined) {
      this.#pages.get(sessionId ?? "")?.note(method ?? "", params);
      return;
    }
    const waiting = this.#waiting.get(id);
    this.#waiting.delete(id);
    if (error === undefined) {
      waiting?.resolve(result);
    } else {
      waiting?.reject(new Error(error.message));
    }
  }
}

export class Page {
  /** What went wrong in the page: exceptions, errors on the console, requests that were refused. */
  readonly problems: string[] = [];
  readonly #browser: Browser;
  readonly #session: string;

  constructor(browser: Browser, session: string) {
    this.#browser = browser;
    this.#session = session;
  }

  send(method: string, params: object = {}): Promise<Record<string, unknown>> {
    return this.#browser.send(method, params, this.#session);
  }

  note(method: string, params: Record<string, unknown>): void {
    const entry = params.entry as { level?: string; text?: string } | undefined;
    if (
      method === "Runtime.exceptionThrown" ||
      (method === "Runtime.consoleAPICalled" && params.type === "error") ||
      (method === "Log.entryAdded" && (entry?.level === "error" || entry?.level === "warning"))
    ) {
      this.problems.push(JSON.stringify(params));
    }
  }

  async resize({ width, height }: { width: number; height: number }): Promise<void> {
    const mobile = false;
    await this.send("Emulation.setDeviceMetricsOverride", { width, height, deviceScaleFactor: 1, mobile });
  }

  /** The value of an expression, which may be a promise. */
  async evaluate<T>(expression: string): Promise<T> {
    const options = { expression, awaitPromise: true, returnByValue: true };
    const { result, exceptionDetails } = await this.send("Runtime.evaluate", options);
    if (exceptionDetails !== undefined) {
      throw new Error(`${expression}: ${JSON.stringify(exceptionDetails)}`);
    }
    return (result as { value: T }).value;
  }

  /** Waits until an expression is true. */
  async until(expression: string): Promise<void> {
    for (const end = Date.now() + PATIENCE; Date.now() < end; ) {
      if (await this.evaluate<boolean>(`Boolean(${expression})`)) {
        return;
      }
      await new Promise((resolve) => setTimeout(resolve, LOOK));
    }
    throw new Error(`never true: ${expression}; the page says: ${await this.evaluate("document.body.innerText")}`);
  }

  /** Clicks where the element is, as a mouse does: one that is covered or disabled is not hit. */
  async click(selector: string): Promise<void> {
    await this.until(`document.querySelector(${JSON.stringify(selector)})?.disabled === false`);
    const { x, y } = await this.evaluate<{ x: number; y: number }>(`(() => {
      const element = document.querySelector(${JSON.stringify(selector)});
      element.scrollIntoView({ block: "center", behavior: "instant" });
      const { left, top, width, height } = element.getBoundingClientRect();
      return { x: left + width / 2, y: top + height / 2 };
    })()`);
    for (const type of ["mousePressed", "mouseReleased"]) {
      await this.send("Input.dispatchMouseEvent", { type, x, y, button: "left", clickCount: 1 });
    }
  }

  async press(key: string, code: number): Promise<void> {
    const text = key === "Enter" ? "\r" : key === " " ? " " : undefined;
    await this.send("Input.dispatchKeyEvent", {
      type: text ? "keyDown" : "rawKeyDown",
      key,
      windowsVirtualKeyCode: code,
      text,
    });
    await this.send("Input.dispatchKeyEvent", { type: "keyUp", key, windowsVirtualKeyCode: code });
  }

  /** The whole page as PNG. */
  async screenshot(): Promise<Buffer> {
    const { data } = await this.send("Page.captureScreenshot", { format: "png", captureBeyondViewport: true });
    return Buffer.from(data as string, "base64");
  }
}
