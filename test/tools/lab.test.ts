/** npm run lab: its page in a real browser, and what it refuses. One lab and one device, from the first boot on. */

import { strict as assert } from "node:assert";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { readdirSync, readFileSync } from "node:fs";
import { request } from "node:http";
import { join } from "node:path";
import { checkout } from "../../hosts/node/native.js";
import { Browser, type Page } from "../support/browser.js";
import { newFolder, run } from "../support/command.js";

const SCRIPT = join(checkout(), "scripts", "lab.mjs");
const WIDE = { width: 1280, height: 900 };
const NARROW = { width: 400, height: 860 };

/** A lab as a process, with all that it leaves behind in a folder of its own. */
async function startLab(...args: readonly string[]): Promise<{ child: ChildProcess; port: number; scratch: string }> {
  const scratch = newFolder();
  const env = { ...process.env, TMPDIR: scratch };
  const child = spawn(process.execPath, [SCRIPT, "--port", "0", ...args], { env, stdio: ["ignore", "pipe", "pipe"] });
  let text = "";
  child.stderr!.setEncoding("utf8").on("data", (part: string) => {
    text += part;
  });
  const port = await new Promise<number>((resolve, reject) => {
    child.stdout!.setEncoding("utf8").on("data", (part: string) => {
      text += part;
      const found = /http:\/\/127\.0\.0\.1:(\d+)\//.exec(text);
      if (found !== null) {
        resolve(Number(found[1]));
      }
    });
    child.on("exit", (status) => reject(new Error(`the lab ended with ${status}: ${text}`)));
  });
  return { child, port, scratch };
}

/** The processes that a process has started, and those that they have. */
function descendants(of: number): number[] {
  const parents = new Map<number, number>();
  for (const name of readdirSync("/proc").filter((name) => /^\d+$/.test(name))) {
    try {
      const text = readFileSync(`/proc/${name}/stat`, "latin1");
      parents.set(Number(name), Number(text.slice(text.lastIndexOf(")") + 2).split(" ")[1]));
    } catch {
      // It has ended meanwhile.
    }
  }
  const below = (parent: number): number[] =>
    [...parents].filter(([, its]) => its === parent).flatMap(([child]) => [child, ...below(child)]);
  return below(of);
}

function isRunning(process_: number): boolean {
  try {
    const text = readFileSync(`/proc/${process_}/stat`, "latin1");
    return !/^[ZX]/.test(text.slice(text.lastIndexOf(")") + 2));
  } catch {
    return false;
  }
}

interface Answer {
  readonly status: number;
  readonly text: string;
}

function ask(
  port: number,
  path: string,
  options: { method?: string; body?: string; headers?: object },
): Promise<Answer> {
  const { method = "POST", body = "", headers = {} } = options;
  const own = { Origin: `http://127.0.0.1:${port}`, "Content-Type": "application/json", ...headers };
  return new Promise((resolve, reject) => {
    const sent = request({ host: "127.0.0.1", port, path, method, headers: own, agent: false }, (response) => {
      let text = "";
      response.setEncoding("utf8").on("data", (part: string) => {
        text += part;
      });
      response.on("end", () => resolve({ status: response.statusCode!, text }));
    });
    sent.on("error", reject);
    sent.end(body);
  });
}

describe("the lab", function () {
  this.timeout(120_000);

  let browser: Browser;
  let lab: Awaited<ReturnType<typeof startLab>>;
  let page: Page;
  const pages: Page[] = [];

  before(async () => {
    lab = await startLab();
    browser = await Browser.start();
    page = await browser.open(`http://127.0.0.1:${lab.port}/`, WIDE);
    pages.push(page);
  });
  after(async () => {
    await browser?.close();
    lab?.child.kill("SIGINT");
  });

  const text = (selector: string): Promise<string> =>
    page.evaluate(`document.querySelector(${JSON.stringify(selector)})?.textContent ?? ""`);
  const count = (selector: string): Promise<number> =>
    page.evaluate(`document.querySelectorAll(${JSON.stringify(selector)}).length`);

  const NEWEST = "Number(document.querySelector('#wakes > [data-wake]')?.dataset.wake ?? 0)";

  /** Clicks on what wakes the device, and waits until it is asleep again: the way back that the page shows. */
  async function wake(
    operation: "run" | "crts" | "sren",
    meanwhile: () => Promise<void> = async () => {},
  ): Promise<string> {
    const before = await page.evaluate<number>(NEWEST);
    await page.click(`[data-do*='"${operation}"']`);
    await page.until(`${NEWEST} === ${before + 1}`);
    await meanwhile();
    await page.until(
      `document.querySelector("#wakes > li").dataset.state !== "awake" && !document.querySelector("#reset").disabled`,
    );
    return text("#wakes > li:first-child .chip");
  }

  /** Loses all datagrams from now on, or none: a wake without an answer lasts until it is cut off. */
  async function lose(percent: 0 | 100): Promise<void> {
    const body = JSON.stringify({ action: "loss", percent });
    assert.equal((await ask(lab.port, "/action", { body })).status, 204);
  }

  const serial = (): Promise<string> => text("#status [data-name=serial] dd");
  const outcome = (): Promise<string> => text("#outcome");

  it("shows the first boot as a full handshake, with an arrow for each datagram", async () => {
    await page.until(`document.querySelector("#status")?.textContent.includes("not enrolled")`);
    assert.equal(await wake("run"), "full handshake");
    assert.match(await outcome(), /^crts: 2\.05, \d+ bytes\natt: [^\n]*\nsen: 2\.04, [^\n]*\nwake 1: full handshake, /);
    assert.ok((await count("#latest .datagram[data-kind=handshake][data-direction=out]")) >= 3);
    assert.ok((await count("#latest .datagram[data-kind=application][data-direction=in]")) >= 3);
    assert.equal(await count("#latest .datagram"), await count("#wakes > li:first-child .datagram"));
    assert.match(await text("#latest .figures"), /100%/);
    assert.match(await text("#latest .heap-rows"), /XS[1-9][\d,]+ of [1-9][\d,]+ BDTLS[1-9][\d,]+ of [1-9][\d,]+ B/);
    await page.until(`/^[0-9a-f]+$/.test(document.querySelector("#status [data-name=serial] dd")?.textContent)`);
  });

  it("comes back with no byte of handshake, and shows the context in its slot", async () => {
    assert.equal(await wake("crts"), "full handshake");
    assert.equal(await wake("crts"), "context");
    assert.match(await text("#wakes > li:first-child .figures"), /0 \+ 0 B/);
    assert.equal(await count("#wakes > li:first-child .datagram[data-kind=handshake]"), 0);
    await page.until(`document.querySelector("#slots > .slot[data-kind=context]")`);
    assert.deepEqual([await count("#slots > .slot"), await count("#slots > [data-content=empty]")], [4, 3]);
    assert.match(await text("#slots > .slot"), /^slot 0\d+ of 512 Bcontext/);
  });

  it("does by Enter what a click does, and says that nothing is due", async () => {
    await page.evaluate(`document.querySelector("[data-do*='run']").focus()`);
    await page.press("Enter", 13);
    await page.until(`/nothing is due\\nnext: renewal/.test(document.querySelector("#outcome").textContent)`);
    await page.until(`!document.querySelector("#reset").disabled`);
  });

  it("cuts the power at a datagram: the slot shows the context as used, and the next wake recovers", async () => {
    await page.click("[data-arm=cut]");
    await page.until(`document.querySelector("[data-arm=cut]").getAttribute("aria-pressed") === "true"`);
    assert.equal(await wake("crts"), "cut");
    assert.equal(await text("#device-text"), "power cut");
    assert.match(await outcome(), /^power cut after 1 datagram/);
    await page.until(`document.querySelector("#slots .chip[data-way=used]")`);
    assert.equal(await wake("crts"), "session id");
    assert.equal(await count("#slots .chip[data-way=used]"), 0);
  });

  it("cuts the power of a wake that waits, and refuses a second wake meanwhile", async () => {
    await lose(100);
    const cut = await wake("crts", async () => {
      await page.until(`document.querySelector("#wakes > li:first-child[data-state=awake] .datagram")`);
      const second = await ask(lab.port, "/action", { body: '{"action":"wake","operation":"run"}' });
      assert.equal(second.status, 409);
      assert.match(second.text, /one device does one wake at a time/);
      await page.click(`[data-do*='"cut"']`);
    });
    assert.equal(cut, "cut");
    await lose(0);
    const none = await ask(lab.port, "/action", { body: '{"action":"cut"}' });
    assert.deepEqual(none, { status: 409, text: "the device is asleep: there is no wake to cut off\n" });
    assert.equal(await wake("crts"), "session id");
  });

  it("comes back by the way that is chosen", async () => {
    await page.click("input[value=session]");
    await page.until(`document.querySelector("input[value=session]").checked`);
    assert.equal(await wake("crts"), "session id", await outcome());
    await page.click("input[value=context]");
    await page.until(`document.querySelector("input[value=context]").checked`);
    assert.equal(await wake("crts"), "session id");
    assert.equal(await wake("crts"), "context");
  });

  it("goes down the ladder where the server has forgotten: by session id, then by a full handshake", async () => {
    await page.click("[data-do*=forget]");
    await page.until(`/has forgotten [1-9]\\d* associations?,/.test(document.querySelector("#outcome").textContent)`);
    assert.equal(await wake("crts"), "session id");
    assert.match(await outcome(), /note: the restored association is of no use/);
    await page.click("[data-do*=restart]");
    await page.until(`/started anew/.test(document.querySelector("#outcome").textContent)`);
    assert.equal(await wake("crts"), "full handshake");
  });

  it("has the server follow a device that gets another port amid a wake", async () => {
    await page.click("[data-arm=move]");
    await page.until(`document.querySelector("[data-arm=move]").getAttribute("aria-pressed") === "true"`);
    await page.click("[data-do*=restart]");
    await page.until(`/started anew/.test(document.querySelector("#outcome").textContent)`);
    assert.equal(await wake("crts"), "full handshake");
    assert.match(await outcome(), /from another UDP port: the server followed/);
    assert.equal(
      await page.evaluate(`document.querySelector("[data-arm=move]").getAttribute("aria-pressed")`),
      "false",
    );
  });

  it("marks the datagrams that were lost", async () => {
    await page.click("[data-arm=lose]");
    await page.until(`document.querySelector("[data-arm=lose]").getAttribute("aria-pressed") === "true"`);
    await wake("crts");
    assert.equal(await count("#wakes > li:first-child .datagram[data-lost]"), 1);
    assert.match(
      await page.evaluate(`document.querySelector("#latest svg").getAttribute("aria-label")`),
      /1 of them lost/,
    );
    await page.evaluate(`document.querySelector("#loss").focus()`);
    await page.press("End", 35);
    await page.until(`document.querySelector("#loss-text").textContent === "60 %"`);
    await page.press("Home", 36);
    await page.until(`document.querySelector("#loss-text").textContent === "0 %"`);
  });

  it("renews: the serial number is another one, and no session of the old certificate is left", async () => {
    const old = await serial();
    await wake("sren");
    assert.match(await outcome(), /^sren: 2\.04/);
    await page.until(`document.querySelector("#status [data-name=serial] dd").textContent !== ${JSON.stringify(old)}`);
    await page.until(`document.querySelectorAll("#slots > [data-content=empty]").length === 4`);
    assert.equal(await wake("crts"), "full handshake");
  });

  it("shows the same in a second tab, at 400 pixels too, with nothing wider than the window", async () => {
    const second = await browser.open(`http://127.0.0.1:${lab.port}/`, NARROW);
    pages.push(second);
    const shown = `[document.querySelector("#status"), document.querySelector("#outcome"),
      ...document.querySelectorAll(".who")].map((element) => element.textContent).join("|")`;
    await second.until(`document.querySelector("#wakes > [data-wake]")`);
    assert.equal(await second.evaluate(shown), await page.evaluate(shown));
    for (const size of [NARROW, WIDE]) {
      for (const each of pages) {
        await each.resize(size);
        await each.until(`innerWidth === ${size.width}`);
        const [scroll, client] = await each.evaluate<number[]>(
          "[document.documentElement.scrollWidth, document.documentElement.clientWidth]",
        );
        assert.ok(scroll! <= client!, `${scroll} pixels at ${size.width}`);
      }
    }
    await wake("crts");
    await second.until(`${NEWEST} === ${await page.evaluate(NEWEST)}`);
    await second.until(`document.querySelector("#device").dataset.state === "asleep"`);
    assert.equal(await second.evaluate(shown), await page.evaluate(shown));
  });

  it("asks again before a device is reset", async () => {
    await page.click("#reset");
    assert.match(await text("#reset"), /Once more/);
    assert.doesNotMatch(await text("#status"), /not enrolled/);
    await page.click("#reset");
    await page.until(`/is as the factory left it/.test(document.querySelector("#outcome").textContent)`);
    await page.until(`document.querySelector("#status").textContent.includes("not enrolled")`);
    assert.equal(await count("#wakes > [data-wake]"), 0);
  });

  it("says a failure in the command line's words", async () => {
    await wake("sren");
    assert.match(await outcome(), /^torpor: no identity/);
    assert.ok(await count("#outcome.error"));
  });

  it("had no problem in the page: no exception, no error, nothing refused", () => {
    assert.deepEqual(
      pages.flatMap(({ problems }) => problems),
      [],
    );
  });

  it("takes no action from another origin, and answers to no other name", async () => {
    const body = '{"action":"reset"}';
    for (const Origin of ["http://example.com", `http://127.0.0.1:${lab.port + 1}`, "null", ""]) {
      assert.equal((await ask(lab.port, "/action", { body, headers: { Origin } })).status, 403, Origin);
    }
    for (const Host of ["example.com", `example.com:${lab.port}`, `127.0.0.1:${lab.port + 1}`]) {
      const Origin = `http://${Host}`;
      assert.equal((await ask(lab.port, "/action", { body, headers: { Host, Origin } })).status, 403, Host);
      assert.equal((await ask(lab.port, "/events", { method: "GET", headers: { Host } })).status, 403, Host);
    }
    const form = { "Content-Type": "text/plain" };
    assert.equal((await ask(lab.port, "/action", { body, headers: form })).status, 415);
  });

  it("answers a body that makes no sense with 400, one that is too long with 413, and goes on", async () => {
    const bodies = ["", "{", "null", "[]", '"wake"', "{}", '{"action":"xyzzy"}', '{"action":"wake"}'];
    bodies.push('{"action":"wake","operation":"--help"}', '{"action":"wake","operation":"run","more":1}');
    bodies.push(
      '{"action":"loss","percent":101}',
      '{"action":"loss","percent":"5"}',
      '{"action":"loss","percent":1.5}',
    );
    bodies.push('{"action":"arm","what":"toString"}', '{"action":"cut","now":true}', '{"action":"__proto__"}');
    bodies.push('{"action":"resume","way":null}', '{"action":["cut"]}');
    for (const body of bodies) {
      const { status, text } = await ask(lab.port, "/action", { body });
      assert.equal(status, 400, body);
      assert.match(text, /^[^\n]+\n$/);
    }
    assert.equal((await ask(lab.port, "/action", { body: "x".repeat(2000) })).status, 413);
    assert.equal((await ask(lab.port, "/action", { method: "GET" })).status, 405);
    for (const path of ["/xyzzy", "/../package.json", "/constructor", "/page/view.ts"]) {
      assert.equal((await ask(lab.port, path, { method: "GET" })).status, 404, path);
    }
    assert.equal((await ask(lab.port, "/", { method: "GET" })).status, 200);
  });

  it("listens on loopback alone", () => {
    const port = lab.port.toString(16).toUpperCase().padStart(4, "0");
    const listening = (name: string): string[] =>
      readFileSync(`/proc/net/${name}`, "latin1")
        .split("\n")
        .map((line) => line.trim().split(/\s+/))
        .filter(([, local = "", , state]) => local.endsWith(`:${port}`) && state === "0A")
        .map(([, local]) => local!);
    assert.deepEqual(listening("tcp"), [`0100007F:${port}`]);
    assert.deepEqual(listening("tcp6"), []);
  });

  it("says in one line that a port is in use, and that an option makes no sense", async () => {
    const used = await run(process.execPath, [SCRIPT, "--port", String(lab.port)]);
    assert.equal(used.status, 1);
    assert.equal(
      used.stderr,
      `torpor: 127.0.0.1:${lab.port} is in use: stop what listens there, or take another --port\n`,
    );
    const wrong = await run(process.execPath, [SCRIPT, "--port", "70000"]);
    assert.deepEqual([wrong.status, wrong.stderr.split("\n").length], [1, 2], wrong.stderr);
    assert.match((await run(process.execPath, [SCRIPT, "--help"])).stdout, /--state DIR/);
  });

  it("ends at Ctrl-C with all that it has started, in the middle of a wake, and leaves no file", async function () {
    // Less than the patience of the wake: it is ended, not waited for.
    this.timeout(45_000);
    await wake("run");
    await wake("crts");
    await lose(100);
    await page.click("[data-do*=crts]");
    await page.until(`document.querySelector("#wakes > li:first-child[data-state=awake] .datagram")`);
    const processes = descendants(lab.child.pid!);
    assert.ok(processes.length >= 2, `${processes}`);
    const ended = once(lab.child, "exit");
    lab.child.kill("SIGINT");
    assert.deepEqual(await ended, [0, null]);
    assert.deepEqual(processes.filter(isRunning), []);
    assert.deepEqual(readdirSync(lab.scratch), []);
    await page.until(`!document.querySelector("#lost").hidden`);
    assert.equal(await count("button:not(:disabled)"), 0);
  });
});
